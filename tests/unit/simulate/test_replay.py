from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from loglines import START, native

from cachelb.routing.ring import Member
from cachelb.routing.table import make_table
from cachelb.simulate.policies import POLICIES, Node
from cachelb.simulate.replay import RECOVERED, STEPS, Case, Outcome, replay
from cachelb.simulate.store import BLOCK_BYTES
from cachelb.simulate.trace import Trace

THREE = (Node("cache1"), Node("cache2"), Node("cache3"))
ROOMY = 1 << 30


def zipf(count: int, urls: int) -> list[bytes]:
    chance = random.Random(3)
    numbers = chance.choices(range(urls), [1 / (n + 1) ** 0.8 for n in range(urls)], k=count)
    return [native(f"http://a.example/{n}", 100 + n, START + at) for at, n in enumerate(numbers)]


@pytest.mark.parametrize("policy", ["ring", "carp", "modulo"])
def test_with_room_for_all_every_url_is_a_miss_once(policy: str, traced: Callable[..., Trace]):
    trace = traced(zipf(5000, 500))
    found = replay(policy, Case(THREE, ROOMY), trace)
    assert found.hits == 5000 - trace.urls
    assert found.requests == sum(found.node_requests) == 5000
    assert found.sent == sum(found.node_sent)
    assert sum(found.node_urls) == sum(found.node_objects) == trace.urls
    assert found.duplicates == 0.0
    assert found.changed == []
    assert found.dip(0) is None
    assert len(found.steady) == len(found.ends) == STEPS
    assert sum(found.steady) * 50 == pytest.approx(found.hits)


def test_the_ring_has_the_owners_that_the_director_has(traced: Callable[..., Trace]):
    trace = traced(zipf(3000, 300))
    table = make_table("ring", [Member(node.name, node.weight) for node in THREE])
    found = replay("ring", Case(THREE, ROOMY), trace)
    assert found.node_urls == [sum(1 for url in trace.all_urls() if table.owner(url) == node) for node in range(3)]


def test_round_robin_stores_on_every_node(traced: Callable[..., Trace]):
    trace = traced(zipf(6000, 100))
    found = replay("round-robin", Case(THREE, ROOMY), trace)
    assert found.node_requests == [2000] * 3
    assert found.node_urls == found.node_objects
    assert found.duplicates > 0.9
    assert found.hits == 6000 - sum(found.node_objects)


def test_a_store_that_is_too_small_pushes_out(traced: Callable[..., Trace]):
    lines = [native(f"http://a.example/{n}", 100, START + n) for n in (0, 1, 2, 0, 1, 2)]
    case = Case((Node("one"),), 2 * BLOCK_BYTES, fill=1.0)
    assert replay("ring", case, traced(lines)).hits == 0
    assert replay("ring", Case((Node("one"),), 3 * BLOCK_BYTES, fill=1.0), traced(lines)).hits == 3


def test_capacities_follow_weight_fill_and_sample():
    case = Case(THREE, 1000, fill=0.9, sample=0.5)
    assert [case.capacity(Node("a", weight)) for weight in (1.0, 2.0)] == [450, 900]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_change_is_seen_against_the_farm_without_it(policy: str, traced: Callable[..., Trace]):
    trace = traced(zipf(20_000, 400))
    told: list[int] = []
    plain = replay(policy, Case(THREE, ROOMY), trace)
    found = replay(policy, Case(THREE, ROOMY, added=Node("cache4"), change=10_000), trace, told.append)
    assert (found.hits, found.node_requests, found.steady) == (plain.hits, plain.node_requests, plain.steady)
    assert found.changed[:50] == found.steady[:50]
    assert found.changed[50] < found.steady[50]
    assert told == [20_000 * step // STEPS for step in range(1, STEPS + 1)]
    dip = found.dip(10_000)
    assert dip is not None
    assert dip.recovered is (policy != "round-robin")  # whose new node has to learn everything, from a quarter of the requests
    assert dip.depth == max(old - new for old, new in zip(found.steady, found.changed, strict=True))
    assert 0 < dip.lost <= trace.urls


def test_the_ring_moves_a_quarter_and_modulo_three(traced: Callable[..., Trace]):
    trace = traced([native(f"http://a.example/{n % 2000}", 10, START + n) for n in range(8000)])
    case = Case(THREE, ROOMY, added=Node("cache4"), change=4000)
    ring, modulo = replay("ring", case, trace), replay("modulo", case, trace)
    assert 0.22 < ring.moved < 0.28
    assert 0.72 < modulo.moved < 0.78
    assert ring.dip(4000).lost == round(2000 * ring.moved)  # type: ignore[union-attr]
    assert 0.0 < ring.duplicates_changed < modulo.duplicates_changed


def test_a_change_within_a_step_begins_there(traced: Callable[..., Trace]):
    trace = traced([native("http://a.example/x", 10, START + n) for n in range(250)])
    found = replay("round-robin", Case((Node("a"),), ROOMY, added=Node("b"), change=3), trace)
    assert [round(100 * r) for r in found.steady[:4]] == [50, 100, 100, 100]
    assert sum(found.steady) - sum(found.changed) == pytest.approx(1 / 3)  # b's first is in the step of three
    assert found.dip(3).lost == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [1, 2, 7, 99, 101])
def test_short_logs_have_fewer_steps(count: int, traced: Callable[..., Trace]):
    trace = traced([native("http://a.example/x", 10, START + n) for n in range(count)])
    found = replay("ring", Case(THREE, ROOMY, added=Node("cache4"), change=count // 2), trace)
    assert found.ends[-1] == found.requests == count
    assert len(found.ends) == min(count, STEPS)


def outcome(steady: list[float], changed: list[float]) -> Outcome:
    return Outcome("ring", ends=[10 * (n + 1) for n in range(len(steady))], steady=steady, changed=changed)


def test_recovery_is_when_the_loss_stays_small():
    lasting = outcome([0.5] * 8, [0.5, 0.5, 0.2, 0.4, 0.495, 0.45, 0.5, 0.5])
    dip = lasting.dip(20)
    assert dip is not None
    assert (round(dip.depth, 3), dip.lost, dip.after, dip.recovered) == (0.3, 5, 40, True)  # 3 + 1 + 0.05 + 0.5 hits
    never = outcome([0.5] * 4, [0.5, 0.2, 0.2, 0.5 - 2 * RECOVERED])
    assert never.dip(10).recovered is False  # type: ignore[union-attr]
    assert never.dip(10).after == 30  # type: ignore[union-attr]


def test_skew_is_the_most_loaded_node_by_its_weight():
    found = Outcome("ring", weights=[1.0, 2.0, 0.0])
    assert found.skew([10, 20, 0]) == 1.0
    assert found.skew([20, 10, 0]) == 2.0
    assert found.skew([0, 0, 0]) == 1.0
