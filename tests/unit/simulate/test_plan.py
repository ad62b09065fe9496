from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loglines import native

from cachelb.config import parse
from cachelb.relay.plan import plan_settings
from cachelb.simulate.plan import AROUND, NOBODY, Load, Side, least, loads, made_up_urls, plan
from cachelb.simulate.policies import Node
from cachelb.simulate.trace import Trace

THREE = (Node("cache1"), Node("cache2"), Node("cache3"))
URLS = list(made_up_urls(5000))


def side(*nodes: Node, algorithm: str = "ring") -> Side:
    return Side("some", algorithm, nodes)


def test_a_node_that_comes_takes_its_share_from_all():
    found = plan(side(*THREE), side(*THREE, Node("cache4")), URLS)
    assert {new for _, new, _ in found.moves} == {"cache4"}
    assert {old for old, _, _ in found.moves} == {"cache1", "cache2", "cache3"}
    assert found.least == pytest.approx(0.25)
    assert 0.22 < found.moved.urls / 5000 < 0.28
    assert found.total == Load(5000, 0, 0)
    assert found.places == ["cache1", "cache2", "cache3", "cache4"]


def test_a_node_that_goes_gives_only_its_own():
    found = plan(side(*THREE), side(*THREE[:2]), URLS)
    assert {old for old, _, _ in found.moves} == {"cache3"}
    assert found.held("cache3", after=False).urls == found.moved.urls
    assert found.held("cache3", after=True).urls == 0
    assert sum(found.held(place, after=True).urls for place in found.places) == 5000


@pytest.mark.parametrize("state", ["down", "drain"])
def test_a_node_that_takes_nothing_more_gives_all(state: str):
    found = plan(side(*THREE), side(*THREE[:2], Node("cache3", 1.0, state)), URLS)  # type: ignore[arg-type]
    assert {old for old, _, _ in found.moves} == {"cache3"}
    assert found.least == pytest.approx(1 / 3)


def test_another_order_moves_nothing_on_the_ring_and_another_algorithm_much():
    assert plan(side(*THREE), side(*reversed(THREE)), URLS).moves == []
    assert plan(side(*THREE), side(*THREE, algorithm="carp"), URLS).moved.urls > 2500


def test_nobody_is_a_place():
    found = plan(side(*THREE), side(Node("cache1", 1.0, "down")), URLS)
    assert {new for _, new, _ in found.moves} == {NOBODY}
    assert found.places[-1] == NOBODY


def test_bypass_rules_move_urls_around_the_farm():
    table = '[[node]]\nname = "cache1"\nhost = "10.0.0.1"\n'
    policies = [plan_settings(parse(text + table, "c")).policy for text in ("", '[bypass]\nhosts = [".shop.example"]\n')]
    before, after = (Side("c", "ring", (Node("cache1"),), policy) for policy in policies)
    urls = [b"http://www.shop.example/1", b"http://a.example/", b"http://a.example:22/"]
    found = plan(before, after, urls, [5, 6, 7], [100, 200, 300])
    assert found.moves == [("cache1", AROUND, Load(1, 5, 100))]
    assert found.flows[AROUND, AROUND] == Load(1, 7, 300)
    assert found.total == Load(3, 18, 600)


def test_requests_and_bytes_are_those_of_the_log(traced: Callable[..., Trace]):
    trace = traced([native("http://a.example/1", 10), native("http://a.example/2", 20), native("http://a.example/1", 30)])
    requests, sent = loads(trace.chunks(), trace.urls)
    assert (list(requests), list(sent)) == ([2, 1], [40, 20])
    found = plan(side(Node("a")), side(Node("b")), trace.all_urls(), requests, sent)
    assert found.moves == [("a", "b", Load(2, 3, 60))]


@settings(deadline=None)
@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=5),
    changed=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]),
)
def test_changing_one_node_on_the_ring_moves_hardly_more_than_it_must(weights: list[float], changed: float):
    old = tuple(Node(f"n{n}", weight) for n, weight in enumerate(weights))
    new = (Node("n0", changed), *old[1:])
    found = plan(side(*old), side(*new), URLS)
    assert least(old, new) - 0.06 <= found.moved.urls / 5000 <= 1.1 * least(old, new) + 0.06


def test_made_up_urls_are_all_different():
    assert len(set(made_up_urls(2000))) == 2000
