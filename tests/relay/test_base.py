"""The boundary itself: four verbs, taken in their order."""

from __future__ import annotations

import inspect

import pytest

from cachelb.counters import BLOCK_BYTES
from cachelb.relay.base import Relay
from cachelb.relay.engine import Engine


@pytest.mark.sources
def test_the_engine_has_the_four_verbs_and_their_arguments():
    for verb in ("start", "apply", "counters", "drain"):
        wanted, had = (inspect.signature(getattr(kind, verb)) for kind in (Relay, Engine))
        assert list(wanted.parameters) == list(had.parameters), verb


def test_counters_are_the_whole_block(farm):
    block = farm.relay.call(lambda: farm.engine.counters())
    assert block.format == "Q"
    assert block.nbytes == BLOCK_BYTES


def test_a_second_drain_has_nothing_left_to_cut(farm):
    assert farm.drain(1.0) == 0
    assert farm.counter("clients_open") == 0
