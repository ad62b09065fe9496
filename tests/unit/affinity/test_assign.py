"""Which node a client that has none is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from cachelb.affinity.assign import RECENT_S, Assigner
from cachelb.config_policy import PoolConfig
from cachelb.snapshot import NodeView


def assigner(*nodes: Any, pools: tuple[PoolConfig, ...] = ()) -> Assigner:
    """nodes: (weight, state, share) of each; its slot is ten times its number."""
    subject = Assigner()
    views = [NodeView(f"n{i}", 10 * i, ("127.0.0.1",), 3128, *node) for i, node in enumerate(nodes)]
    subject.place("ring", pools, views)
    return subject


UP = (1.0, "up", 1.0)


def choose(
    subject: Assigner,
    scheduler: str = "wlc",
    loads: Mapping[int, int] | None = None,
    templates: Mapping[int, int] | None = None,
    now: float = 0.0,
    proposed: int = -1,
    pool: str = "",
) -> int:
    return subject.choose(pool, scheduler, proposed, lambda slot: (loads or {}).get(slot, 0), templates or {}, now)


def spread(subject: Assigner, count: int, scheduler: str = "wlc", **more: Any) -> dict[int, int]:
    """Clients that come so slowly that nothing is under way, each with a template from then on."""
    templates: Counter[int] = Counter()
    for number in range(count):
        templates[choose(subject, scheduler, templates=templates, now=float(number), **more)] += 1
    return dict(templates)


def test_whoever_has_the_least_under_way_for_its_weight():
    subject = assigner(UP, (2.0, "up", 1.0), UP)
    assert choose(subject, loads={0: 5, 10: 9, 20: 5}) == 10
    assert choose(subject, "lc", loads={0: 5, 10: 9, 20: 4}) == 20


def test_what_was_given_out_just_now_counts_until_the_counters_have_it():
    subject = assigner(UP, UP)
    loads = {0: 2, 10: 0}
    assert [choose(subject, loads=loads) for _ in range(2)] == [10, 10]
    assert sorted(choose(subject, loads=loads) for _ in range(4)) == [0, 0, 10, 10]
    assert choose(subject, loads=loads, now=RECENT_S * 2) == 10


def test_on_an_idle_farm_clients_are_spread_by_weight():
    assert spread(assigner(UP, (3.0, "up", 1.0)), 400) == {0: 100, 10: 300}
    assert spread(assigner(UP, (3.0, "up", 1.0)), 400, "lc") == {0: 200, 10: 200}


def test_a_node_that_returns_slowly_is_not_flooded():
    subject = assigner(UP, UP, (1.0, "up", 0.05))
    loads = {0: 100, 10: 100, 20: 0}
    given = Counter(choose(subject, loads=loads, templates={0: 900, 10: 900}) for _ in range(60))
    assert given[20] <= 8


def test_in_turn_and_by_weight_in_turn():
    subject = assigner(UP, (3.0, "up", 1.0))
    assert Counter(choose(subject, "rr") for _ in range(40)) == {0: 20, 10: 20}
    assert Counter(choose(subject, "wrr") for _ in range(40)) == {0: 10, 10: 30}


def test_what_hashing_has_found_is_taken_if_it_serves():
    subject = assigner(UP, UP, (1.0, "dead", 0.0))
    assert [choose(subject, "url", proposed=slot) for slot in (0, 10)] == [0, 10]
    assert choose(subject, "url", proposed=20) in (0, 10)


@pytest.mark.parametrize("scheduler", ["wlc", "lc", "rr", "wrr", "url"])
def test_without_a_node_in_service_there_is_none(scheduler: str):
    assert choose(assigner((1.0, "dead", 0.0), (1.0, "down", 1.0)), scheduler) == -1
    assert choose(assigner((1.0, "drain", 1.0), (1.0, "down", 1.0)), scheduler) == 0  # the last one


def test_pools_have_their_own_nodes_and_weights():
    subject = assigner(UP, UP, UP, pools=(PoolConfig(name="p", nodes=("n1", "n2"), weights={"n2": 0.0}),))
    assert {choose(subject, pool="p", now=float(number)) for number in range(9)} == {10}
    assert subject.keepers("p", False) == {10: 0, 20: 1}
    assert subject.keepers("p", True) == {10: 0}
    assert [subject.admits("p", slot) for slot in (0, 10, 20)] == [0.0, 1.0, 0.0]


def test_dead_is_who_health_says_so_of():
    subject = assigner((1.0, "dead", 0.0), (1.0, "down", 1.0), UP)
    assert [subject.is_dead(slot) for slot in (0, 10, 20, 99)] == [True, False, False, False]
