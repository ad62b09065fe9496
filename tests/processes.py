"""Processes of tests: which this one has started, so that none is left behind, and the environment that a user would have."""

from __future__ import annotations

import os
from pathlib import Path


def children() -> set[int]:
    """Process ids of all children, ended ones that nobody has waited for among them."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= set(map(int, (task / "children").read_text().split()))
    return found


def users_environment() -> dict[str, str]:
    """The environment without what ``conftest`` says about compiled modules: where they are built, they are used."""
    return {name: value for name, value in os.environ.items() if (name, value) != ("CACHELB_COMPILED", "0")}
