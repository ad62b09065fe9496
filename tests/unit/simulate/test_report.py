from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from loglines import START, native

from cachelb.simulate.policies import POLICIES, Node
from cachelb.simulate.replay import Case, replay
from cachelb.simulate.report import Found, Read, amount, as_dict, duration, table, text
from cachelb.simulate.store import Limits
from cachelb.simulate.trace import Trace

READ = Read(
    ("access.log",), 8010, 8000, 2000, 80_000, 3, ("bad one",), {"tunnels (CONNECT)": 7}, START, START + 7999, damages=("x ends",)
)


FOURTH = Node("cache4")


@pytest.fixture
def found(traced: Callable[..., Trace]) -> Callable[..., Found]:
    """``found(added)``: two rounds over 2,000 URLs, the change between them."""

    def make(added: Node | None = FOURTH) -> Found:
        trace = traced([native(f"http://a.example/{n % 2000}", 10, START + n) for n in range(8000)])
        case = Case((Node("cache1"), Node("cache2", 2.0), Node("cache3", 1.0, "down")), 10 << 30, added=added, change=4000)
        outcomes = tuple(replay(policy, case, trace) for policy in POLICIES)
        return Found(READ, case, outcomes, tuple(trace.second(end - 1) for end in outcomes[0].ends), START + 4000)

    return make


def test_people_get_tables(found: Callable[..., Found]):
    shown = text(found())
    assert "access.log: 8,010 lines, 2026-11-21 04:21:17 to 2026-11-21 06:34:36" in shown
    assert "8,000 requests of 2,000 URLs, 78.1 KB" in shown
    assert "left out: 7 tunnels (CONNECT)" in shown
    assert "3 lines could not be read, the first:\n    bad one" in shown
    assert "x ends" in shown
    assert "3 nodes of 10 GB for a weight of 1: cache1, cache2 (weight 2), cache3 (down)" in shown
    assert "objects up to 4 MB" in shown
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line.startswith(POLICIES)}
    assert set(rows) == set(POLICIES)
    assert "+ cache4" in shown
    assert "no log has lifetimes" in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_programs_get_plain_values(found: Callable[..., Found]):
    given = found()
    values = json.loads(json.dumps(as_dict(given)))
    assert values["log"]["bad_lines"] == 3
    assert values["farm"]["nodes"][1] == {"name": "cache2", "weight": 2.0, "state": "up"}
    assert values["change"]["request"] == 4000
    ring = values["policies"][0]
    assert ring["hit_ratio"] == ring["hits"] / 8000 == 0.75
    assert ring["dip"]["depth"] > 0.1
    assert ring["dip"]["seconds_until_recovered"] in range(1900, 2100)
    assert len(ring["steady"]) == len(values["moments"]) == 100
    assert sum(node["requests"] for node in ring["nodes"]) == 8000


def test_without_a_change_there_is_none(found: Callable[..., Found]):
    given = found(None)
    assert "moves" not in text(given)
    values = as_dict(given)
    assert values["change"] is None
    assert values["policies"][0]["dip"] is None


def test_a_sample_and_limits_are_told(found: Callable[..., Found]):
    given = found()
    read = Read(("a",), 1, 1, 1, 1, 0, (), {}, 0, 0, sample=0.1)
    case = Case(given.case.nodes, 1 << 30, Limits(1024, 2048))
    shown = text(Found(read, case, given.outcomes, given.moments))
    assert "a sample: 0.1 of the URLs" in shown
    assert "objects from 1 KB to 2 KB" in shown


def test_many_nodes_are_not_all_named(found: Callable[..., Found]):
    given = found()
    case = Case(tuple(Node(f"n{n}") for n in range(20)), 1 << 30)
    assert "n7 and 12 more" in text(Found(READ, case, given.outcomes, given.moments))


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1023, "0.999 KB"), (4 << 20, "4 MB"), (10 << 30, "10 GB"), (5 << 50, "5.12e+03 TB")],
)
def test_amounts_are_squids(size: int, words: str):
    assert amount(size) == words


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s"), (600, "10 min"), (7200, "2 h"), (864_000, "10 days")])
def test_durations_have_a_unit_that_suits(seconds: int, words: str):
    assert duration(seconds) == words


def test_tables_have_straight_columns():
    assert table([("a", "bb", "c"), ("aaa", "b", "")]) == "a    bb  c\naaa   b\n"
