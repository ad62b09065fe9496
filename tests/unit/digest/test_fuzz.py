"""The fuzz file of this package, for a moment: its invariant holds, and it does reach what it means to check."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

FUZZ = str(Path(__file__).parents[2] / "fuzz")


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FUZZ)
    sys.modules.pop("fuzz_digest", None)
    return importlib.import_module("fuzz_digest")


def test_the_invariant_holds_for_a_moment(fuzz: ModuleType):
    assert fuzz.main(0.5) > 100


def test_a_fair_part_of_what_it_makes_is_accepted_and_a_fair_part_refused(fuzz: ModuleType):
    read = [fuzz.read(fuzz.some_bytes(random.Random(seed))) for seed in range(1000)]
    assert 100 < sum(digest is not None for digest in read) < 900
