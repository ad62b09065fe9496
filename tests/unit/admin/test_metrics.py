"""The text for Prometheus, read by a strict reader of its grammar.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (text-based format, version 0.0.4).
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from cachelb.admin.metrics import CONTENT_TYPE, render
from cachelb.counters import FARM, NODE, PEERS
from cachelb.errors import Reason

NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"({NAME})(?:{{({LABEL}(?:,{LABEL})*)?}})? (-?[0-9]+(?:\.[0-9]+)?)")
UGLY = "!#$%&'*+-.^_`|~0Az"  # every kind of character that the name of a node may have


def status_of(*names: str, state: str = "up") -> dict[str, Any]:
    """A status in which every counter has another value."""
    return {
        "farm": {counter.name: 1000 + i for i, counter in enumerate(FARM)},
        "onecache": {"counters": {counter.name: 2000 + i for i, counter in enumerate(PEERS)}},
        "nodes": [
            {
                "name": name,
                "state": state,
                "store": {"keys": 7 * n},
                "counters": {counter.name: 100 * n + i for i, counter in enumerate(NODE)},
            }
            for n, name in enumerate(names, 1)
        ],
    }


def read(text: str) -> tuple[dict[str, str], dict[tuple[str, str], float]]:
    """Types by name, and values by name and labels.  Fails on whatever Prometheus might not take."""
    types: dict[str, str] = {}
    values: dict[tuple[str, str], float] = {}
    helped: list[str] = []
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name, _, words = line[7:].partition(" ")
            assert re.fullmatch(NAME, name)
            assert name not in helped, "a second HELP"
            assert words
            assert "\\" not in words
            helped.append(name)
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert helped[-1] == name, "TYPE does not follow its HELP"
            assert kind in ("counter", "gauge")
            types[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert list(types)[-1] == match[1], "a sample outside of its group"
            assert (match[1], match[2] or "") not in values, "the same sample twice"
            values[match[1], match[2] or ""] = float(match[3])
    return types, values


def test_every_counter_is_there_once_with_its_own_value():
    types, values = read(render(status_of("cache1", "cache2")))
    for i, counter in enumerate(FARM):
        name = f"cachelb_{counter.name}" + ("_total" if counter.kind == "counter" else "")
        assert types[name] == counter.kind
        assert values[name, ""] == 1000 + i
    for i, counter in enumerate(NODE):
        name = f"cachelb_node_{counter.name}" + ("_total" if counter.kind == "counter" else "")
        assert types[name] == counter.kind
        assert [values[name, f'node="cache{n}"'] for n in (1, 2)] == [100 + i, 200 + i]
    for i, counter in enumerate(PEERS):
        name = f"cachelb_{counter.name}" + ("_total" if counter.kind == "counter" else "")
        assert (types[name], values[name, ""]) == (counter.kind, 2000 + i)
    assert [values["cachelb_node_keys", f'node="cache{n}"'] for n in (1, 2)] == [7, 14]
    assert len(types) == len(FARM) + len(PEERS) + len(NODE) + 2
    assert len(values) == len(FARM) + len(PEERS) + 2 * len(NODE) + 4


@pytest.mark.parametrize("name", [UGLY, *UGLY])
def test_every_name_that_a_node_may_have_is_a_right_label(name: str):
    _, values = read(render(status_of(name)))
    assert ("cachelb_node_up", f'node="{name}"') in values


@pytest.mark.parametrize(("state", "up"), [("up", 1), ("drain", 0), ("down", 0), ("dead", 0)])
def test_a_node_is_up_or_it_is_not(state: str, up: int):
    _, values = read(render(status_of("cache1", state=state)))
    assert values["cachelb_node_up", 'node="cache1"'] == up


def test_a_farm_without_nodes_is_right_too():
    types, values = read(render(status_of()))
    assert "cachelb_node_requests_total" in types
    assert len(values) == len(FARM) + len(PEERS)


def test_every_reason_can_be_watched():
    _, values = read(render(status_of()))
    assert {f"cachelb_ended_{reason.label}_total" for reason in Reason} <= {name for name, _ in values}


def test_counters_of_64_bits_are_written_in_full():
    status = status_of("cache1")
    status["farm"]["bytes_out"] = 2**64 - 1
    assert f"cachelb_bytes_out_total {2**64 - 1}\n" in render(status)


def test_the_content_type_names_the_format():
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
