from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cachelb
from cachelb import children

SHOW = "import sys, json, cachelb; print(cachelb.__file__); print(json.__file__)"


def test_what_is_installed_does_not_come_before_the_standard_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", ":/a::/b")
    monkeypatch.setattr(sys, "path", ["", "/lib", children.ROOT])
    assert children.environment()["PYTHONPATH"] == "/a:/b"
    monkeypatch.setattr(sys, "path", [children.ROOT, "/lib"])
    assert children.environment()["PYTHONPATH"] == f"{children.ROOT}:/a:/b"


@pytest.mark.parametrize("path", [None, "", "/nowhere"])
def test_what_lies_in_the_working_directory_is_not_run(
    path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("cachelb/__init__.py", "cachelb/worker.py", "json.py"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("raise SystemExit('from the working directory')")
    if path is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    environment = children.environment()

    def run(*arguments: str, env: dict[str, str] | None = environment) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    assert run("-c", SHOW).stdout.splitlines()[0] == cachelb.__file__
    assert str(tmp_path) not in run("-c", SHOW).stdout
    # without a descriptor to begin with
    assert "working directory" not in run("-m", "cachelb.worker").stderr
    assert "working directory" in run("-m", "cachelb.worker", env=None).stderr
