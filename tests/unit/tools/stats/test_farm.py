"""Answers become rows, whatever is missing in them."""

import copy
from typing import Any

import pytest
from cachelb.tools.stats.farm import Answers, read
from cachelb.tools.stats.records import as_csv, as_json
from cachelb.tools.stats.screen import Look, screen
from cachelb.tools.stats.verdict import judge
from fakes_stats import farm, node, series, status


def test_parts_of_the_requests_add_up_to_one():
    found = farm(node("a", rates={"requests_per_s": 30.0}), node("b", rates={"requests_per_s": 10.0}))
    assert [row.part for row in found.nodes] == [0.75, 0.25]


def test_without_rates_two_answers_make_them():
    bare = {"window_s": 0.0, "requests_per_s": 0.0}
    old = status(node("a", rates=bare), rates=bare)
    new = copy.deepcopy(old)
    new["now"] += 2.0
    new["nodes"][0]["counters"] |= {"requests": 1100, "hits": 860, "misses": 240, "bytes": 30_000, "resets": 5}
    new["farm"] |= {"requests": 3200, "bytes_out": 50_000}
    found = read(Answers(new, before=old))
    rates = found.nodes[0].now
    assert (rates.requests, rates.hit_ratio, rates.bytes, rates.errors) == (50.0, 0.6, 10_000.0, 1.0)
    assert (found.now.requests, found.now.bytes) == (100.0, 10_000.0)
    assert read(Answers(new)).nodes[0].now.requests is None


def test_lately_is_the_last_half_minute():
    found = farm(node("a"), history={"nodes": {"a": series(errors_per_s=[900.0] * 9 + [6.0] * 6, p50_ms=[None] * 15)}})
    assert (found.nodes[0].lately.errors, found.nodes[0].lately.p50_ms) == (6.0, 1.5)
    assert len(found.nodes[0].trend) == 6


BROKEN: list[Any] = [{}, {"nodes": None}, {"nodes": [None, 3, {}]}, {"nodes": [{"name": 3, "rates": [], "share": "x"}]}]


@pytest.mark.parametrize("broken", BROKEN)
def test_whatever_is_missing_something_is_shown(broken: dict[str, Any]):
    found = read(Answers(broken, history={"nodes": 3}, hot={"urls_by_requests": {}}))
    verdict = judge(found)
    assert screen(found, verdict, Look())
    assert as_json(found, verdict)
    assert as_csv(found, verdict)


def test_each_field_of_a_status_may_be_missing_or_null():
    whole = status()
    for name in whole:
        for changed in ({key: value for key, value in whole.items() if key != name}, whole | {name: None}):
            found = read(Answers(changed))
            assert screen(found, judge(found), Look())
