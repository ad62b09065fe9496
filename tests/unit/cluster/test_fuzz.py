"""The fuzz files of this area, for a moment each: their invariants hold and they do find something to check."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

FUZZ = str(Path(__file__).parents[2] / "fuzz")


@pytest.mark.parametrize(("name", "least"), [("fuzz_storelog", 100), ("fuzz_saved", 3)])
def test_the_invariant_holds_for_a_moment(name: str, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FUZZ)
    assert importlib.import_module(name).main(0.5) > least
    sys.modules.pop(name)
