"""Pools: who of it owns a key, who serves, and with which weight."""

from __future__ import annotations

from collections import Counter

from cachelb.config_policy import PoolConfig
from cachelb.routing.pool import Pool, Tables, make_pools
from cachelb.routing.ring import Member
from cachelb.routing.route import admission

KEYS = [b"http://a.example/%d" % i for i in range(2000)]


def pool(states: dict[str, str], name: str = "p", tables: Tables | None = None, **weights: float) -> Pool[str]:
    members = [Member(node, weights.get(node, 1.0)) for node in states]
    admits = [admission(state) for state in states.values()]  # type: ignore[arg-type]
    return Pool(name, "ring", tables or Tables(), members, list(states), admits)


def test_only_its_nodes_own_keys_each_by_its_weight():
    owners = Counter(pool({"a": "up", "c": "up"}, c=3.0).owners(key, 1)[0] for key in KEYS)
    assert set(owners) == {"a", "c"}
    assert 0.70 < owners["c"] / len(KEYS) < 0.80


def test_a_death_moves_only_the_dead_ones_keys():
    tables = Tables()
    before = {key: pool({"a": "up", "b": "up", "c": "up"}, tables=tables).owners(key, 1)[0] for key in KEYS}
    after = pool({"a": "up", "b": "dead", "c": "up"}, tables=tables)
    moved = [key for key in KEYS if after.owners(key, 1)[0] != before[key]]
    assert {before[key] for key in moved} == {"b"}


def test_a_table_is_kept_while_the_members_stay_and_pools_do_not_share_one():
    tables = Tables()
    first = pool({"a": "up", "b": "up"}, tables=tables).table()
    assert pool({"a": "dead", "b": "up"}, tables=tables).table() is first
    assert pool({"a": "up"}, "q", tables).table() is not first


def test_an_empty_pool_owns_nothing():
    empty = pool({})
    assert empty.owners(b"http://a/", 3) == ()
    assert empty.serving == ()


def test_a_draining_node_serves_only_where_there_is_no_other():
    assert pool({"a": "up", "b": "drain", "c": "dead"}).serving == (0,)
    assert pool({"a": "down", "b": "drain", "c": "dead"}).serving == (1,)
    assert pool({"a": "down", "c": "dead"}).serving == ()


def test_a_node_that_returns_slowly_is_lighter():
    members = [Member("a", 2.0), Member("b", 2.0), Member("c", 0.0)]
    returning = Pool("p", "ring", Tables(), members, "abc", [1.0, admission("up", 0.25), 1.0])
    assert returning.serving == (0, 1)
    assert returning.weights == [2.0, 2.0]
    assert returning.slow_weights == [2.0, 0.5]
    assert returning.slow_shares == [1.0, 0.25]


def test_all_pools_are_made_of_the_farms_nodes():
    members = [Member("a", 1.0), Member("b", 2.0), Member("c", 1.0)]
    configured = [PoolConfig(name="p", nodes=("c", "a", "gone"), weights={"a": 5.0})]
    pools = make_pools("ring", Tables(), configured, members, ["A", "B", "C"], [1.0, 0.0, -1.0])
    assert list(pools) == ["", "p"]
    assert pools[""].targets == ("A", "B", "C")
    assert (pools["p"].targets, pools["p"].members) == (("C", "A"), (Member("c", 1.0), Member("a", 5.0)))
    assert [pools["p"].targets[i] for i in pools["p"].serving] == ["A"]
