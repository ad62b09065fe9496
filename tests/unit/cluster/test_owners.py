"""``Owners`` says in slots what the relay's own fleet and route say in places."""

from __future__ import annotations

import pytest
from fakes import get
from hypothesis import given
from hypothesis import strategies as st

from cachelb.cluster.owners import Owners
from cachelb.config import Config
from cachelb.counters import BLOCK_BYTES
from cachelb.http.head import Limits, scan_request
from cachelb.relay.fleet import Fleet
from cachelb.relay.plan import Planner, plan_settings
from cachelb.routing.pool import Tables, make_pools
from cachelb.routing.ring import Member
from cachelb.routing.route import NodeState, live_owners
from cachelb.routing.rules import compile_rules
from cachelb.snapshot import NodeView, Snapshot

URLS = [b"http://a.com/%d" % number for number in range(50)]


def view(name: str, slot: int, state: NodeState = "up", share: float = 1.0, weight: float = 1.0) -> NodeView:
    return NodeView(name, slot, ("127.0.0.1",), 3128, weight, state, share)


def farm(*states: NodeState) -> list[NodeView]:
    """Nodes whose slots are not their places."""
    return [view(f"cache{number}", 7 - number, state) for number, state in enumerate(states)]


@given(
    st.lists(
        st.tuples(st.sampled_from(["up", "drain", "down", "dead"]), st.floats(0, 1), st.sampled_from([0, 1, 2])), max_size=8
    ),
    st.sampled_from(["ring", "carp"]),
    st.integers(1, 4),
)
def test_they_are_the_nodes_that_the_relay_tries(nodes, algorithm: str, count: int):
    views = [view(f"cache{number}", 100 - number, *node) for number, node in enumerate(nodes)]
    fleet = Fleet(memoryview(bytearray(BLOCK_BYTES)).cast("Q"))
    fleet.place(Snapshot(1, "", tuple(views)), Config.model_validate({"hash": {"algorithm": algorithm}}))
    owners = Owners(algorithm)
    owners.place(views)
    for url in URLS[:10]:
        tried = live_owners(fleet.table, url, fleet.admits, count) if fleet.table else ()
        assert owners.owners(url, count) == tuple(fleet.targets[at].slot for at in tried)


def test_before_there_are_nodes_there_is_no_owner():
    owners = Owners()
    assert owners.owners(URLS[0], 3) == owners.may_have(URLS[0], 3) == ()
    owners.place(farm("up"))
    owners.place([])
    assert owners.owners(URLS[0], 3) == owners.may_have(URLS[0], 3) == ()


def test_who_may_have_it_are_the_owners_of_quiet_times_and_those_of_now():
    owners = Owners()
    owners.place(farm("up", "up", "up", "up", "up"))
    before = [owners.owners(url, 3) for url in URLS]
    assert [owners.may_have(url, 3) for url in URLS] == before
    owners.place(farm("dead", "down", "drain", "up", "dead"))
    assert {owners.owners(url, 3) for url in URLS} == {(4,)}
    assert [set(owners.may_have(url, 3)) for url in URLS] == [{*slots, 4} for slots in before]


def test_another_algorithm_has_other_owners_and_no_new_nodes():
    owners = Owners()
    owners.place(farm("up", "up", "up"))
    ring = [owners.owners(url, 1) for url in URLS]
    owners.configure("carp")
    carp = [owners.owners(url, 1) for url in URLS]
    assert carp != ring
    owners.configure("ring")
    assert [owners.owners(url, 1) for url in URLS] == ring


def test_nodes_that_make_no_table_change_nothing():
    owners = Owners()
    owners.place(farm("up", "dead"))
    with pytest.raises(ValueError, match="same name"):
        owners.place([view("a", 1), view("a", 2)])
    with pytest.raises(ValueError, match="unknown algorithm"):
        owners.configure("maglev")
    assert {owners.owners(url, 2) for url in URLS} == {(7,)}
    owners.place(farm("dead", "up"))
    assert {owners.owners(url, 2) for url in URLS} == {(6,)}


def test_a_change_of_states_makes_no_new_table():
    owners = Owners()
    owners.place(farm("up", "up"))
    table = owners._pools[""].table()
    owners.place(farm("up", "dead"))
    assert owners._pools[""].table() is table


RULES = {
    "pool": ({"name": "two", "nodes": ["cache0", "cache2"], "weights": {"cache2": 3.0}}, {"name": "one", "nodes": ["cache1"]}),
    "rule": (
        {"host": "refused.test", "refuse": True},
        {"host": "around.test", "bypass": True},
        {"host": "turns.test", "pool": "two", "scheduler": "rr"},
        {"host": "both.test", "header": "Cookie", "pool": "one"},
        {"host": "both.test", "pool": "two"},
        {"host": "m?.test", "key_host": "m.test", "pool": "two", "scheduler": "carp"},
        {"host": "host.test", "scheduler": "host"},
    ),
}


@pytest.fixture
def ruled() -> tuple[Owners, Planner[int]]:
    """Owners and the relay's planner for the same rules and nodes, of which one is dead."""
    config = Config.model_validate(RULES)
    views = farm("up", "up", "dead", "up")
    fleet = Fleet(memoryview(bytearray(BLOCK_BYTES)).cast("Q"))
    fleet.place(Snapshot(1, "", tuple(views)), config)
    owners = Owners()
    owners.configure("ring", config.pool, compile_rules(config.rule))
    owners.place(views)
    slots = {name: {i: pool.targets[i].slot for i in range(len(pool.targets))} for name, pool in fleet.pools.items()}
    assert slots["two"] == {0: 7, 1: 5}
    targets = [target.slot for target in fleet.targets]
    pools = make_pools(config.pool, "ring", Tables(), [Member(v.name, v.weight) for v in views], targets, fleet.admits)
    return owners, Planner(plan_settings(config), fleet.table, targets, fleet.admits, pools)


@pytest.mark.parametrize("host", ["any.test", "both.test", "m1.test", "m2.test", "m.test", "host.test"])
def test_rules_send_keys_where_the_relay_sends_them(ruled: tuple[Owners, Planner[int]], host: str):
    owners, planner = ruled
    for number in range(30):
        data = get(f"http://{host}/{number}")
        head = scan_request(data, Limits())
        assert head is not None
        line = planner.plan_line(head, None)
        targets = line.targets
        if host == "both.test":  # the line leaves two rules; without fields it is the second
            targets = planner.pools["two"].owners(line.key, 3)
        assert owners.owners(line.key, 3) == targets
        assert set(targets) <= set(owners.may_have(line.key, 3))


def test_what_no_key_decides_has_no_owner_but_may_be_with_all_of_the_pool(ruled: tuple[Owners, Planner[int]]):
    owners, _ = ruled
    assert owners.owners(b"http://turns.test/", 3) == ()
    assert set(owners.may_have(b"http://turns.test/", 1)) == {7, 5}
    for host in (b"refused", b"around"):
        assert owners.owners(b"http://%b.test/" % host, 3) == owners.may_have(b"http://%b.test/" % host, 3) == ()


def test_who_may_have_it_are_all_whom_some_rule_sends_it_to(ruled: tuple[Owners, Planner[int]]):
    owners, _ = ruled
    assert set(owners.may_have(b"http://both.test/", 2)) == {6, 7, 5}
    assert set(owners.may_have(b"http://m.test/", 2)) == {7, 5}


def test_what_is_no_url_has_the_owners_of_the_whole_farm(ruled: tuple[Owners, Planner[int]]):
    owners, _ = ruled
    assert len(owners.owners(b"no url", 2)) == 2
