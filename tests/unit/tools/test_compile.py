"""``python -m cachelb.tools.compile``: what it says where it cannot compile, and that it compiles once."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cachelb.tools import compile as tool

from cachelb import compiled


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    target = tmp_path / "built"
    monkeypatch.setattr(compiled, "folder", lambda: target)
    return target


@pytest.mark.parametrize(("options", "status"), [([], 1), (["--if-possible"], 0)])
def test_without_a_compiler_it_says_what_to_install(
    target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], status: int
):
    monkeypatch.setattr(tool.shutil, "which", lambda name: None)
    assert tool.main(options) == status
    assert "apt-get install gcc" in capsys.readouterr().err
    assert not target.exists()


def test_what_the_compiler_says_is_shown(
    target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(target: Path) -> None:
        raise subprocess.CalledProcessError(1, ["gcc"], "line\nx.c:1: error: no such thing\nmore\n")

    monkeypatch.setattr(tool, "lacking", lambda: "")
    monkeypatch.setattr(tool, "build", fail)
    assert tool.main([]) == 1
    assert "x.c:1: error: no such thing" in capsys.readouterr().err


def test_what_is_built_is_not_built_again(target: Path, monkeypatch: pytest.MonkeyPatch):
    target.mkdir()
    (target / compiled.MANIFEST).write_text(json.dumps(compiled.fingerprint()))
    monkeypatch.setattr(tool, "build", lambda target: pytest.fail("it is built"))
    assert tool.main([]) == 0
