"""The fuzz files of this package, for a moment: their invariants hold, and they reach what they mean to check."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

FUZZ = str(Path(__file__).parents[2] / "fuzz")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    def loader(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(FUZZ)
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return loader


@pytest.mark.parametrize("name", ["fuzz_icp", "fuzz_htcp"])
def test_the_invariant_holds_for_a_moment(load: Callable[[str], ModuleType], name: str):
    assert load(name).main(0.5) > 100


def test_a_fair_part_of_what_is_made_is_read_and_a_fair_part_refused(load: Callable[[str], ModuleType]):
    icp, htcp = load("fuzz_icp"), load("fuzz_htcp")
    assert 100 < sum(icp.slow(icp.some_bytes(random.Random(seed))) for seed in range(1000)) < 900
    assert 100 < sum(htcp.read(htcp.some_bytes(random.Random(seed))) for seed in range(1000)) < 900
