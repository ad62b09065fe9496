"""The command line: exit codes, what goes to which stream, no tracebacks."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from cachelb import __version__
from cachelb.cli import main
from cachelb.errors import ConfigError, Problem

NODE = '[[node]]\nname = "cache1"\nhost = "10.0.0.11"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(NODE)
    return path


def test_check_prints_what_is_in_effect(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["check", "-c", str(file)]) == 0
    out, err = capsys.readouterr()
    assert tomllib.loads(out)["node"][0]["http_port"] == 3128
    assert out.splitlines()[-1].startswith("# OK: 1 node, 1 up; ring; ")
    assert err == ""


def test_a_token_is_long_and_another_each_time(capsys: pytest.CaptureFixture[str]):
    assert main(["token"]) == main(["token"]) == 0
    one, other = capsys.readouterr().out.split()
    assert one != other
    assert len(one) == len(other) >= 40


def test_check_prints_warnings_apart(file: Path, capsys: pytest.CaptureFixture[str]):
    file.write_text("[access]\npurge = ['0.0.0.0/0']\n" + NODE)
    assert main(["check", "-c", str(file)]) == 0
    assert capsys.readouterr().err.startswith("cachelb: warning: access.purge ")


def test_check_tells_all_problems_and_ends_with_1(file: Path, capsys: pytest.CaptureFixture[str]):
    file.write_text("[hash]\nkey = 1\nkee = 2\n")
    assert main(["check", "-c", str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith(f"cachelb: {file}:2 hash.key: ")
    assert lines[2] == f"cachelb: {file}:3 hash.kee: unknown key (did you mean key?)"
    assert lines[3] == "cachelb: 3 problems in the configuration"


@pytest.mark.parametrize("command", [["run"], ["check"], ["explain", "http://a/"]])
def test_a_missing_file_is_a_sentence(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*command, "-c", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"cachelb: {tmp_path}/none: there is no such file (say which with -c FILE)\n"


def test_explain_speaks_to_people_and_programs(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["explain", "http://a.example/", "-c", str(file)]) == 0
    assert "to cache1, its owner" in capsys.readouterr().out
    arguments = ["--method", "POST", "--header", "A: 1", "--header", "B: 2", "--client", "10.0.0.1", "--json"]
    assert main(["explain", "http://a.example/", "-c", str(file), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["why"], found["client"]) == ("method POST", "10.0.0.1")
    assert "A: 1\r\nB: 2\r\n" in found["sent"]


def test_a_question_that_cannot_be_asked_is_wrong_usage(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["explain", "http://a/", "-c", str(file), "--client", "x"]) == 2
    assert capsys.readouterr().err == "cachelb: 'x' is not the IP address of a client\n"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["fly"],
        ["run"],
        ["check", "-c"],
        ["explain", "-c", "x"],
        ["demo", "--nodes", "0"],
        ["demo", "--nodes", "x"],
        ["run", "--conf", "x"],
    ],
)
def test_wrong_usage_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: cachelb" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"cachelb {__version__}\n"


def test_run_hands_over_to_launch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    seen: list[Path] = []

    def run(path: Path) -> int:
        seen.append(path)
        if path.name == "bad":
            raise ConfigError([Problem("bad:1", "is bad")])
        if path.name == "stop":
            raise KeyboardInterrupt
        return 7

    fake = SimpleNamespace(run=run)
    monkeypatch.setitem(sys.modules, "cachelb.launch", fake)
    monkeypatch.setattr("cachelb.launch", fake, raising=False)
    assert main(["run", "-c", "some"]) == 7
    assert main(["run", "-c", "bad"]) == 1
    assert main(["run", "-c", "stop"]) == 130
    assert seen[0] == Path("some")
    assert capsys.readouterr().err == "cachelb: bad:1: is bad\n"


def test_demo_is_told_what_was_asked(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[bool, int]] = []
    monkeypatch.setattr("cachelb.demo.run", lambda once, nodes: seen.append((once, nodes)) or 0)
    assert main(["demo"]) == 0
    assert main(["demo", "--once", "--nodes", "4"]) == 0
    assert seen == [(False, 3), (True, 4)]


def test_a_reader_that_has_enough_is_no_traceback(file: Path):
    pipe = f"{sys.executable} -m cachelb check -c {file} | true"
    done = subprocess.run(["sh", "-c", pipe], capture_output=True, timeout=20, check=True)
    assert done.stderr == b""
