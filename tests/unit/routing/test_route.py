"""Which nodes are tried, in which states, in which order."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.routing.ring import Member, Ring
from cachelb.routing.route import (
    ADMIT_ALL,
    ADMIT_LAST,
    ADMIT_NONE,
    NodeState,
    Route,
    admission,
    likely_holders,
    live_owners,
    pick,
)
from cachelb.routing.table import Table, make_table

UP, LAST, NONE = ADMIT_ALL, ADMIT_LAST, ADMIT_NONE
KEYS = [b"http://www.example.com/%d" % number for number in range(400)]
TABLES = {name: make_table(name, [Member(f"n{index}", 1) for index in range(6)]) for name in ("ring", "carp")}


@pytest.mark.parametrize(
    ("state", "share", "admits"),
    [
        ("up", 1.0, ADMIT_ALL),
        ("up", 0.25, 0.25),
        ("up", 7.0, ADMIT_ALL),
        ("drain", 1.0, ADMIT_LAST),
        ("down", 1.0, ADMIT_NONE),
        ("dead", 1.0, ADMIT_NONE),
    ],
)
def test_each_state_admits_what_the_table_says(state: NodeState, share: float, admits: float) -> None:
    assert admission(state, share) == admits


def test_a_node_at_the_very_start_of_its_return_is_alive_but_takes_no_key() -> None:
    admits = [admission("up", 0.0), UP]
    assert admits[0] > ADMIT_NONE
    assert pick([0, 1], admits, 0.001) == [1, 0]


@pytest.mark.parametrize(
    ("admits", "fraction", "tried"),
    [
        ([UP, UP, UP], 0.99, [2, 0, 1]),
        ([UP, UP, NONE], 0.0, [0, 1]),
        ([UP, NONE, 0.5], 0.49, [2, 0]),
        ([UP, NONE, 0.5], 0.5, [0, 2]),
        ([UP, UP, LAST], 0.0, [0, 1]),
        ([NONE, NONE, LAST], 0.0, [2]),
        ([LAST, NONE, LAST], 0.0, [2, 0]),
        ([LAST, 0.5, NONE], 0.9, [1]),
        ([NONE, NONE, NONE], 0.0, []),
    ],
)
def test_nodes_are_tried_in_failover_order_as_far_as_they_admit(admits: list[float], fraction: float, tried: list[int]) -> None:
    assert pick([2, 0, 1], admits, fraction) == tried


@pytest.mark.parametrize("name", TABLES)
def test_a_dead_node_moves_its_own_keys_only(name: str) -> None:
    table = TABLES[name]
    for key in KEYS:
        before = live_owners(table, key, [UP] * 6, 2)
        after = live_owners(table, key, [NONE, UP, UP, UP, UP, UP], 2)
        assert after[0] == (before[1] if before[0] == 0 else before[0])


def test_a_returning_node_takes_its_keys_back_little_by_little() -> None:
    table = TABLES["ring"]
    own = [key for key in KEYS if table.owner(key) == 0]
    taken: set[bytes] = set()
    counts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        admits = [admission("up", share), *[UP] * 5]
        now = {key for key in own if live_owners(table, key, admits, 1) == (0,)}
        assert taken <= now, "a key that came back stays"
        taken = now
        counts.append(len(now) / len(own))
    assert counts[0] == 0.0
    assert counts[-1] == 1.0
    assert counts == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.15)


@given(
    st.sampled_from(sorted(TABLES)),
    st.sampled_from(KEYS),
    st.lists(st.sampled_from([UP, UP, 0.5, LAST, NONE]), min_size=6, max_size=6),
    st.integers(1, 8),
)
def test_asking_for_a_few_gives_the_first_of_all(name: str, key: bytes, admits: list[float], count: int) -> None:
    table = TABLES[name]
    everyone = pick(table.owners(key, 6), admits, table.fraction(key))
    assert live_owners(table, key, admits, count) == tuple(everyone[:count])


def test_members_without_weight_do_not_keep_the_search_going() -> None:
    table: Table = make_table("ring", [Member("a", 1), Member("b", 0), Member("c", 0)])
    assert live_owners(table, b"k", [UP, UP, UP], 3) == (0,)
    assert live_owners(table, b"k", [NONE, UP, UP], 3) == ()


class CountingTable(Ring):
    """A ring that notes how many owners it was asked for."""

    asked: ClassVar[list[int]] = []

    def owners(self, key: bytes, count: int) -> list[int]:
        self.asked.append(count)
        return super().owners(key, count)


@pytest.mark.sources
@pytest.mark.parametrize(("dead", "asked"), [(0, [3]), (1, [3, 4]), (200, [3, 6, 18, 66, 200])])
def test_no_more_owners_are_asked_for_than_dead_nodes_require(dead: int, asked: list[int]) -> None:
    table = CountingTable([Member(f"n{index}", 1) for index in range(200)])
    admits = [UP] * 200
    for index in table.owners(KEYS[0], dead):
        admits[index] = NONE
    CountingTable.asked.clear()
    live_owners(table, KEYS[0], admits, 3)
    assert table.asked == asked


def test_a_route_is_two_words() -> None:
    assert Route((2, 0), "get") == ((2, 0), "get")


@given(
    st.sampled_from(KEYS),
    st.sampled_from(sorted(TABLES)),
    st.lists(st.sampled_from([UP, LAST, NONE, 0.5, 1e-9]), min_size=6, max_size=6),
    st.integers(1, 6),
)
def test_likely_holders_are_the_owner_and_then_all_that_are_alive(key: bytes, name: str, admits: list[float], count: int) -> None:
    table = TABLES[name]
    owner = live_owners(table, key, admits, 1)
    alive = [node for node in table.owners(key, 6) if admits[node] != NONE]
    others = [node for node in alive if node not in owner]
    assert list(likely_holders(table, key, admits, count)) == [*owner, *others][:count]


def test_a_node_that_drains_may_still_hold_what_it_owned() -> None:
    table, key = TABLES["ring"], KEYS[0]
    first, second, third, *_ = table.owners(key, 6)
    admits = [LAST if node == first else UP for node in range(6)]
    assert live_owners(table, key, admits, 3)[0] == second
    assert likely_holders(table, key, admits, 3) == (second, first, third)
