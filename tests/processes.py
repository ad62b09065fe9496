"""Processes of tests: which this one has started, so that none is left behind, and the environment that a user would have."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import cachelb


def children() -> set[int]:
    """Process ids of all children, ended ones that nobody has waited for among them."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= set(map(int, (task / "children").read_text().split()))
    return found


def users_environment() -> dict[str, str]:
    """The environment without what ``conftest`` says about compiled modules: where they are built, they are used."""
    return {name: value for name, value in os.environ.items() if (name, value) != ("CACHELB_COMPILED", "0")}


def python_of_nobody() -> list[str]:
    """A Python that nobody may run with all that a director needs: this one, or the system's of the same version."""
    tried = [sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"]
    for python in tried:
        try:
            words = [python, "-c", "import uvloop, aiohttp, cachelb"]
            done = subprocess.run(words, user="nobody", env=nobodys_environment(), capture_output=True)
        except OSError:
            continue
        if done.returncode == 0:
            return [python]
    pytest.skip("nobody may run no Python that has what a director needs")


def open_to_nobody(directory: Path) -> None:
    """Let everybody in, through the directories above, as far as they are pytest's."""
    for folder in (directory, *directory.parents):
        if folder == Path(tempfile.gettempdir()):
            return
        folder.chmod(0o755)


def nobodys_environment() -> dict[str, str]:
    root = Path(cachelb.__file__).parent.parent
    paths = [str(root), *(path for path in sys.path if path.endswith("site-packages"))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
