"""The rules of the house that a reader would otherwise have to check by eye.

Which modules are pure, who may import what, how large things may grow, and that everything has a test.  The tables at
the top are the rules; a new third-party package needs a line in DOORS, an exception needs a line in an excuse list, and
an excuse that is no longer needed fails the build, so that the lists only shrink.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Pure: values in, values out.  A name with a slash at its end is a whole folder.
PURE = (
    "cachelb/http/",
    "cachelb/routing/",
    "cachelb/wire/",
    "cachelb/accesslog.py",
    "cachelb/admin/history.py",
    "cachelb/admin/ledger.py",
    "cachelb/admin/model.py",
    "cachelb/admin/openapi.py",
    "cachelb/affinity/assign.py",
    "cachelb/affinity/listing.py",
    "cachelb/affinity/templates.py",
    "cachelb/cluster/backlog.py",
    "cachelb/cluster/holdings.py",
    "cachelb/cluster/index.py",
    "cachelb/cluster/lookup.py",
    "cachelb/cluster/owners.py",
    "cachelb/cluster/record.py",
    "cachelb/cluster/schedule.py",
    "cachelb/cluster/slots.py",
    "cachelb/cluster/trial.py",
    "cachelb/cluster/storelog.py",
    "cachelb/config.py",
    "cachelb/config_base.py",
    "cachelb/config_cover.py",
    "cachelb/config_hostnet.py",
    "cachelb/config_links.py",
    "cachelb/config_policy.py",
    "cachelb/config_rules.py",
    "cachelb/config_tcp.py",
    "cachelb/config_text.py",
    "cachelb/config_values.py",
    "cachelb/counters.py",
    "cachelb/errors.py",
    "cachelb/explain.py",
    "cachelb/explain_tcp.py",
    "cachelb/explain_text.py",
    "cachelb/explained.py",
    "cachelb/hostnet/steps.py",
    "cachelb/hostnet/wanted.py",
    "cachelb/snapshot.py",
    "cachelb/simulate/kinds.py",
    "cachelb/simulate/logline.py",
    "cachelb/simulate/plan.py",
    "cachelb/simulate/plan_report.py",
    "cachelb/simulate/policies.py",
    "cachelb/simulate/reader.py",
    "cachelb/simulate/replay.py",
    "cachelb/simulate/report.py",
    "cachelb/simulate/store.py",
    "cachelb/nodes/health.py",
    "cachelb/relay/memo.py",
    "cachelb/relay/pages.py",
    "cachelb/relay/plan.py",
    "digest/bloom.py",
    "digest/key.py",
    "digest/merge.py",
    "digest/wire.py",
    "icp/answer.py",
    "icp/answer_htcp.py",
    "icp/errors.py",
    "icp/guard.py",
    "icp/htcp.py",
    "icp/packet.py",
    "tools/stats/farm.py",
    "tools/stats/finding.py",
    "tools/stats/records.py",
    "tools/stats/screen.py",
    "tools/stats/table.py",
    "tools/stats/units.py",
    "tools/stats/verdict.py",
)
IMPURE_IMPORTS = {
    *("asyncio", "concurrent", "fcntl", "logging", "mmap", "multiprocessing", "os", "random", "secrets", "select"),
    *("selectors", "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time", "urllib"),
}

# One door per dependency: the only places that may import it.
DOORS = {
    "aiodns": ("cachelb/nodes/resolve.py",),
    "aiohttp": ("cachelb/admin/",),
    "asyncio_dgram": ("icp/service.py",),
    "bitarray": ("digest/bloom.py",),
    "matplotlib": ("cachelb/simulate/chart.py", "tools/bench/chart.py"),
    "mmh3": ("cachelb/routing/ring.py",),
    "pycares": ("cachelb/nodes/resolve.py",),  # aiodns shows its types and errors
    "prometheus_client": ("cachelb/admin/metrics.py",),
    "pydantic": (*(f"cachelb/config{part}.py" for part in ("", "_base", "_hostnet", "_policy")), "cachelb/admin/"),
    "pydantic_core": ("cachelb/config.py",),
    "pyroute2": ("cachelb/hostnet/",),
    "mypyc": ("tools/compile.py",),
    "re2": ("cachelb/routing/patterns.py",),
    "rich": ("tools/stats/",),
    "setuptools": ("tools/compile.py",),
    "textual": ("tools/stats/dialogs.py", "tools/stats/watch.py"),
    "zstandard": ("cachelb/simulate/source.py",),
    "shtab": ("cachelb/completion.py",),
    "uvloop": ("cachelb/launch.py", "cachelb/worker.py", "tools/bench/digest.py", "tools/bench/icp.py"),
}

# Wiring builds everything and is imported by nobody else.
WIRING = (
    *("cachelb/__main__.py", "cachelb/cli.py", "cachelb/launch.py", "cachelb/onecache.py", "cachelb/supervisor.py"),
    "cachelb/worker.py",
    "cachelb/demo/",
)
# Packages that must be usable without cachelb, and who in cachelb may use them.
INDEPENDENT = ("icp", "digest")
USERS_OF_INDEPENDENT = ("cachelb/cluster/", *WIRING)

MODULE_LINES = 400
FUNCTION_LINES = 50
LONG_MODULES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()  # "path:name"
UNTESTED: set[str] = set()


def listed(path: str, names: tuple[str, ...]) -> bool:
    return any(path == name or (name.endswith("/") and path.startswith(name)) for name in names)


def modules(*folders: str) -> list[str]:
    """Every Python file below `folders` (default: all that is shipped), as a path relative to the root."""
    folders = folders or ("cachelb", "tools", *INDEPENDENT)
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"), path)


def imports(path: str) -> Iterator[str]:
    """Absolute dotted names that the module imports anywhere; ``from a import b`` gives ``a.b``.

    What is only imported for the type checker does not count: it is not there at run time.
    """
    typing_only = {
        id(inner)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in node.body
        for inner in ast.walk(child)
    }
    package = path.split("/")[:-1]
    for node in ast.walk(tree(path)):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def file_of(name: str) -> str | None:
    """The file of one of our own modules that an imported dotted name means, or None for others' names.

    ``cachelb.tools`` is the folder ``tools``.
    """
    name = re.sub(r"^cachelb\.tools\b", "tools", name)
    for candidate in (name, name.rpartition(".")[0]):
        for path in (candidate.replace(".", "/") + ".py", candidate.replace(".", "/") + "/__init__.py"):
            if candidate and (ROOT / path).is_file():
                return path
    return None


def own_imports(path: str) -> set[str]:
    return {target for name in imports(path) if (target := file_of(name)) is not None}


def foreign_imports(path: str) -> set[str]:
    """Top-level names of other people's packages, the standard library included."""
    return {name.split(".")[0] for name in imports(path) if file_of(name) is None} - {"cachelb", *INDEPENDENT}


def functions(path: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_every_name_in_the_tables_exists():
    missing = [name for name in (*PURE, *WIRING) if not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize("path", [path for path in modules() if listed(path, PURE)])
def test_pure_modules_read_no_clock_socket_or_file(path: str):
    assert foreign_imports(path) & IMPURE_IMPORTS == set()
    calls = {
        node.func.id for node in ast.walk(tree(path)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert calls & {"open", "print", "input"} == set()


@pytest.mark.parametrize("path", [path for path in modules() if listed(path, PURE)])
def test_pure_modules_import_only_pure_ones(path: str):
    packages = {target for target in own_imports(path) if target.endswith("__init__.py")}
    assert {target for target in own_imports(path) - packages if not listed(target, PURE)} == set()


def test_each_dependency_has_one_door():
    wrong = [
        f"{path} imports {name}"
        for path in modules()
        for name in foreign_imports(path) - set(sys.stdlib_module_names)
        if not listed(path, DOORS.get(name, ()))
    ]
    assert wrong == []


def test_nobody_imports_the_wiring():
    wrong = [
        f"{path} imports {target}"
        for path in modules()
        for target in own_imports(path)
        if listed(target, WIRING) and not listed(path, WIRING)
    ]
    assert wrong == []


def test_icp_and_digest_stand_alone():
    wrong = []
    for package in INDEPENDENT:
        for path in modules(package):
            wrong += [
                f"{path} imports {name}"
                for name in imports(path)
                if name.split(".")[0] in {"cachelb", *INDEPENDENT} - {package}
            ]
    for path in modules("cachelb"):
        if not listed(path, USERS_OF_INDEPENDENT):
            wrong += [f"{path} imports {name}" for name in imports(path) if name.split(".")[0] in INDEPENDENT]
    assert wrong == []


def test_the_stats_client_knows_the_director_by_its_api_alone():
    wrong = [
        f"{path} imports {target}"
        for path in modules("tools/stats")
        for target in own_imports(path)
        if not target.startswith("tools/stats/")
    ]
    assert modules("tools/stats")
    assert wrong == []


def test_no_module_is_longer_than_the_limit():
    long = {path for path in modules() if len((ROOT / path).read_text("utf-8").splitlines()) > MODULE_LINES}
    assert long == LONG_MODULES


def test_no_function_is_longer_than_the_limit():
    long = {f"{path}:{name}" for path in modules() for name, lines in functions(path) if lines > FUNCTION_LINES}
    assert long == LONG_FUNCTIONS


def test_every_module_has_its_own_test():
    untested = set()
    for path in modules():
        folder, _, name = path.removeprefix("cachelb/").rpartition("/")
        if name in ("__init__.py", "__main__.py"):
            continue
        places = (ROOT / "tests/unit" / folder, ROOT / "tests/relay", ROOT / "tests/squid")
        if not any((place / f"test_{name}").is_file() for place in places):
            untested.add(path)
    assert untested == UNTESTED


def test_every_module_says_what_it_is_for():
    silent = [path for path in modules() if tree(path).body and not ast.get_docstring(tree(path))]
    assert silent == []


def test_the_lock_names_every_dependency_and_no_host():
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    assert "://" not in lock
    assert "index-url" not in lock
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {re.match(r"[A-Za-z0-9-]+", line).group().lower() for line in wanted} - locked == set()  # type: ignore[union-attr]


def test_the_reader_of_imports_sees_all_kinds_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "cachelb/http").mkdir(parents=True)
    for name in ("__init__", "http/__init__", "http/url", "errors"):
        (tmp_path / f"cachelb/{name}.py").write_text("")
    (tmp_path / "cachelb/http/x.py").write_text(
        "import os.path\nfrom . import url\nfrom ..errors import Reason\nfrom .url import Url\n"
        "def f():\n    import mmh3\nif TYPE_CHECKING:\n    import socket\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    tree.cache_clear()
    try:
        assert own_imports("cachelb/http/x.py") == {"cachelb/http/url.py", "cachelb/errors.py"}
        assert foreign_imports("cachelb/http/x.py") == {"os", "mmh3"}
    finally:
        tree.cache_clear()
