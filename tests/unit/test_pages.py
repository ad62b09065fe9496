"""What README.md and docs/ name exists: options, metrics, endpoints, reasons, commands, links, others' configurations."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from cachelb.tools import digestq, icpq, reference
from cachelb.tools.stats import cli as stats

from cachelb.admin import openapi
from cachelb.admin.squid import Manager
from cachelb.cli import main, parser
from cachelb.config import FIELDS
from cachelb.errors import Reason

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDE, RUNBOOK, README = DOCS / "guide.md", DOCS / "runbook.md", ROOT / "README.md"
PAGES = (GUIDE, RUNBOOK, README)
ALL_PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")])
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def fenced(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def section(path: Path, heading: str) -> str:
    return path.read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_readme_is_about_one_screen():
    assert len(README.read_text("utf-8").splitlines()) <= 90


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#:]*)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert not target or (page.parent / target).exists(), target


def test_the_links_to_sections_do_too():
    for page in ALL_PAGES:
        for target, anchor in re.findall(r"\]\(([^)#:]+)#([^)]+)\)", page.read_text("utf-8")):
            headings = re.findall(r"^#+ (.*)$", (page.parent / target).read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@each_page
def test_every_option_exists(page: Path):
    text = page.read_text("utf-8")
    wrong = [(name, key) for name, key in re.findall(r"`\[(\w+)\] (\w+)", text) if key not in FIELDS.get(name, ())]
    assert wrong == []
    assert [name for name in re.findall(r"`\[(\w+)\]`", text) if name not in FIELDS] == []


def test_every_metric_exists():
    names = {row.name for row in reference.metrics()}
    labels = {row.name: row.labels for row in reference.metrics()}
    found = re.findall(r"\b(cachelb_[a-z_]+)(?:\{(\w+)\})?", RUNBOOK.read_text("utf-8"))
    assert len(found) > 25
    assert [name for name, _ in found if name not in names] == []
    assert [name for name, label in found if label and label not in labels[name]] == []


@each_page
def test_every_endpoint_exists(page: Path):
    known = [re.sub(r"\{\w+\}", r"[^/]+", path) for path in openapi.document()["paths"]]
    found = re.findall(r"(/api/v1/[\w/]+|/metrics)\b", page.read_text("utf-8"))
    assert [path for path in found if not any(re.fullmatch(pattern, path) for pattern in known)] == []
    assert page is README or found


def test_reports_of_the_director_exist():
    pages = Manager(None).pages  # type: ignore[arg-type]
    names = re.findall(r"squidclient -h 127\.0\.0\.1 -p 3128 mgr:(\w+)", RUNBOOK.read_text("utf-8"))
    assert len(names) >= 2
    assert [name for name in names if name not in pages] == []


@pytest.mark.parametrize("heading", ["502, 503, 504", "Clients are refused"])
def test_reasons_have_the_status_that_is_shown(heading: str):
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", section(RUNBOOK, heading), re.MULTILINE)
    known = {reason.label: str(reason.value.status) for reason in Reason}
    assert len(rows) >= 6
    assert [(status, label) for status, label in rows if known.get(label) != status] == []


def commands(page: Path) -> list[list[str]]:
    """Our own command lines: in code blocks, and between backquotes in the text."""
    text = page.read_text("utf-8")
    lines = re.findall(r"^(?:    )?(?:\.venv/bin/)?(cachelb(?:-\w+)? .*|cachelb-stats)$", text, re.MULTILINE)
    lines += re.findall(r"`(cachelb(?:-\w+)? [^`]+|cachelb-stats)`", text)
    return [shlex.split(line, comments=True) for line in lines]


OPTIONS = {
    "cachelb": lambda arguments: parser().parse_args(arguments),
    "cachelb-stats": stats._options,
    "cachelb-icpq": icpq._options,
    "cachelb-digestq": digestq._options,
}


def exit_code(parse: Callable[[list[str]], object], arguments: list[str]) -> object:
    try:
        parse(arguments)
    except SystemExit as exc:
        return exc.code
    return 0


@each_page
def test_commands_are_understood(page: Path):
    assert len(commands(page)) >= 4
    for program, *arguments in commands(page):
        if program == "cachelb" and len(arguments) == 1:  # a command that is only mentioned: its --help must be there
            arguments.append("--help")
        with contextlib.redirect_stdout(io.StringIO()):
            code = exit_code(OPTIONS[program], arguments)
        assert code == 0, (program, arguments)


def test_a_command_that_is_unknown_is_noticed():
    with contextlib.redirect_stderr(io.StringIO()):
        assert exit_code(OPTIONS["cachelb"], ["explian", "http://a.example/"]) == 2
        assert exit_code(OPTIONS["cachelb-stats"], ["--wtach"]) != 0


TOML = [(page.name, text) for page in (GUIDE, README) for text in fenced(page, "toml")]


@pytest.mark.parametrize(("name", "text"), TOML, ids=[f"{name}-{i}" for i, (name, _) in enumerate(TOML)])
def test_check_accepts_what_is_shown(name: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "cachelb.toml").write_text(text)
    assert main(["check", "-c", str(tmp_path / "cachelb.toml")]) == 0
    assert "# OK" in capsys.readouterr().out


# The same nodes with the same weights on both sides.

ADDRESSES = {"cache1": "10.0.0.11", "cache2": "10.0.0.12", "cache3": "10.0.0.13"}


def nodes_of(heading: str) -> dict[str, tuple[str, float]]:
    (text,) = re.findall(r"^```toml\n(.*?)^```", section(GUIDE, heading), re.DOTALL | re.MULTILINE)
    return {node["name"]: (node["host"], node["weight"]) for node in tomllib.loads(text)["node"]}


@pytest.mark.parametrize(
    ("heading", "pattern", "scale"),
    [
        (
            "From a Squid with CARP parents",
            r"^cache_peer (?P<host>\S+) parent 3128 .* weight=(?P<weight>\d+) name=(?P<name>\w+)",
            1,
        ),
        ("From HAProxy", r"^    server (?P<name>\w+) (?P<host>[\d.]+):3128 weight (?P<weight>\d+)", 10),
        ("From nginx", r"^    server (?P<host>[\d.]+):3128 weight=(?P<weight>\d+)", 1),
    ],
)
def test_both_sides_have_the_same_nodes(heading: str, pattern: str, scale: int):
    names = {host: name for name, host in ADDRESSES.items()}
    theirs = {
        found.groupdict().get("name") or names[found["host"]]: (found["host"], int(found["weight"]) / scale)
        for found in re.finditer(pattern, section(GUIDE, heading), re.MULTILINE)
    }
    assert len(theirs) == 3
    assert list(nodes_of(heading).items()) == list(theirs.items())


@pytest.mark.skipif(shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None, reason="no haproxy")
def test_haproxy_accepts_its_side(tmp_path: Path):
    (text,) = fenced(GUIDE, "haproxy")
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")

    def check(shown: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "haproxy.cfg").write_text(shown)
        command = [str(program), "-c", "-f", str(tmp_path / "haproxy.cfg")]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    done = check(text)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"WARNING|ALERT", done.stderr), done.stderr
    assert check(text.replace("hash-type", "hash-typo")).returncode != 0


@pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None, reason="no nginx")
def test_nginx_accepts_its_side(tmp_path: Path):
    (text,) = fenced(GUIDE, "nginx")
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)

    def check(shown: str) -> subprocess.CompletedProcess[str]:
        shown = shown.replace("listen 3128", f"listen unix:{tmp_path}/s")  # it opens what it listens on
        (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{places}{shown}}}\n")
        command = [str(program), "-t", "-e", f"{tmp_path}/error.log", "-c", f"{tmp_path}/nginx.conf"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    done = check(text)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr
    assert check(text.replace("consistent", "consistant")).returncode != 0


@pytest.mark.skipif(shutil.which("node") is None, reason="no JavaScript")
def test_the_pac_file_does_what_it_says():
    (text,) = fenced(GUIDE, "javascript")
    browser = (
        'function isPlainHostName(h) { return !h.includes("."); }\n'
        'function shExpMatch(s, p) { return new RegExp("^" + p.replaceAll(".", "\\\\.").replaceAll("*", ".*") + "$").test(s); }\n'
    )
    asked = 'for (const h of ["intranet", "a.example.org", "127.0.0.1", "www.example.com"]) console.log(FindProxyForURL("", h));'
    done = subprocess.run(["node", "-e", browser + text + asked], capture_output=True, text=True, timeout=30, check=True)
    proxies = "PROXY director.example.org:3128; PROXY director2.example.org:3128"
    assert done.stdout.splitlines() == ["DIRECT", "DIRECT", "DIRECT", proxies]
