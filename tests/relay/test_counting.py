"""What a relay counts beside how exchanges end: how long what took, hits and misses, why requests go around, samples."""

from __future__ import annotations

import pytest
from fakes import get, ok, post

from cachelb.control import BYPASSED, HIT, MARKED, NO_SLOT
from cachelb.counters import BUCKETS, CONNECT_TIME, FIRST_BYTE_TIME, TOTAL_TIME, node_values

rows = pytest.mark.parametrize


def timed(farm, node):
    """How many connects, first bytes and whole exchanges were timed, and how long they took in sum, microseconds."""
    values = node_values([farm.relay.call(lambda: farm.engine.counters())], node)
    starts = CONNECT_TIME, FIRST_BYTE_TIME, TOTAL_TIME
    return [sum(values[at : at + BUCKETS]) for at in starts], [values[at + BUCKETS] for at in starts]


def test_each_exchange_is_timed_once_and_each_connection_too(farm):
    farm.nodes[0].serve()
    client = farm.connect()
    for _ in range(3):
        client.send(get(farm.url(0)))
        assert client.read_answer().status == 200
    counts, sums = timed(farm, 0)
    assert counts == [1, 3, 3]
    assert 0 < sums[1] <= sums[2]
    assert timed(farm, 1) == ([0, 0, 0], [0, 0, 0])


def test_the_time_until_the_first_byte_is_the_nodes(farm):
    client = farm.connect()
    client.send(get(farm.url(0)))
    link = farm.nodes[0].accept()
    link.read_head()
    farm.relay.call(lambda: None)
    before = farm.engine.clock()
    while farm.engine.clock() < before + 0.05:
        farm.relay.call(lambda: None)
    link.send(ok(b"late"))
    assert client.read_answer().body == b"late"
    _, sums = timed(farm, 0)
    assert 50_000 <= sums[1] <= sums[2] < 20_000_000
    assert sums[0] < sums[1]


def test_hits_misses_and_what_says_neither_are_told_apart(farm):
    farm.nodes[0].serve(lambda head: ok(b"x", "X-Cache: HIT from n0") if b"/hit" in head else ok(b"x", "X-Cache: MISS from n0"))
    farm.nodes[1].serve(ok(b"x"))
    for path in ("hit", "hit", "miss"):
        assert farm.ask(farm.url(0, path=path)).status == 200
    assert farm.ask(farm.url(1)).status == 200
    zero, one = farm.node_counters(0), farm.node_counters(1)
    assert (zero["hits"], zero["misses"], one["hits"], one["misses"], one["responses"]) == (2, 1, 0, 0, 1)


@rows(
    ("method", "field", "why"),
    [
        ("POST", "Content-Length: 0", "method"),
        ("GET", "Authorization: Basic eDp5", "authorization"),
        ("GET", "Cache-Control: no-store", "no_store"),
        ("GET", "Cookie: a=1", "rule"),
    ],
)
def test_why_requests_go_around_the_farm_is_counted(make_farm, method, field, why):
    farm = make_farm(bypass={"headers": ["Cookie"]})
    farm.origin.serve()
    assert farm.ask(farm.origin_url(), field, method=method).status == 200
    found = {name: count for name, count in farm.counters().items() if name.startswith("bypassed") and count}
    assert found == {"bypassed": 1, f"bypassed_{why}": 1}


def test_a_farm_that_is_dead_is_a_reason_too(farm):
    farm.origin.serve()
    for node in range(3):
        farm.declare(node, "dead")
    assert farm.ask(farm.origin_url()).status == 200
    assert farm.counter("bypassed_farm_dead") == farm.counter("bypassed") == 1


def test_what_is_complete_is_sampled(farm):
    told = []
    farm.relay.call(lambda: setattr(farm.engine.hot, "tell", told.extend))
    farm.origin.serve()
    farm.nodes[0].serve(ok(b"x" * 100, "X-Cache: HIT from n0"))
    url, around = farm.url(0), farm.origin_url()
    assert farm.ask(url).status == 200
    client = farm.connect()
    client.send(post(around, b""))
    assert client.read_answer().status == 200
    farm.wait_until(lambda: len(told) == 2)
    assert [(s.url.decode(), s.slot, s.flags) for s in told] == [(url, 0, HIT | MARKED), (around, NO_SLOT, BYPASSED)]
    assert told[0].weight == 1
    assert told[0].size > 100


def test_ticks_that_come_late_are_counted(farm):
    before = farm.counter("loop_lag_total_us")
    with farm.held():
        end = farm.engine.clock() + 0.05
        while farm.engine.clock() < end:
            pass
    farm.wait_until(lambda: farm.counter("loop_lag_total_us") - before > 20_000)
