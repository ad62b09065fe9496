"""CARP against what a real Squid selected (tests/vectors/carp), and against its published weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.routing.carp import Carp, peer_hash
from cachelb.routing.ring import Member

FARMS = json.loads((Path(__file__).parents[2] / "vectors/carp/squid.json").read_text())
FARM_NAMES = sorted(FARMS)


def members_of(farm: str) -> list[Member]:
    return [Member(peer["name"], peer["weight"]) for peer in FARMS[farm]["peers_in_conf_order"]]


def urls(count: int) -> list[bytes]:
    return [b"http://www.example.com/%d" % number for number in range(count)]


@pytest.mark.parametrize("farm", FARM_NAMES)
def test_every_owner_is_the_one_that_squid_selected(farm: str) -> None:
    members = members_of(farm)
    table = Carp.build(members)
    vectors = FARMS[farm]["vectors"]
    assert len(vectors) == 50
    for vector in vectors:
        assert members[table.owner(vector["url"].encode("latin-1"))].name == vector["selected"]


@pytest.mark.parametrize("farm", FARM_NAMES)
def test_every_hash_is_the_one_that_squid_logged(farm: str) -> None:
    rising = sorted(members_of(farm), key=lambda member: member.weight)
    table = Carp.build(members_of(farm))
    for vector in FARMS[farm]["vectors"]:
        combined = table.combined(vector["url"].encode("latin-1"))
        assert dict(zip([member.name for member in rising], combined, strict=True)) == vector["combined"]


@pytest.mark.parametrize("farm", FARM_NAMES)
def test_hashes_and_multipliers_of_peers_are_those_of_squids_table(farm: str) -> None:
    table = Carp.build(members_of(farm))
    names = [member.name for member in members_of(farm)]
    for row in FARMS[farm]["peer_table"]:
        assert peer_hash(row["name"].encode()) == int(row["hash"], 16)
        assert table.multipliers[names.index(row["name"])] == row["multiplier"]
        assert table.shares()[names.index(row["name"])] == row["load_factor"]


def test_bytes_above_127_count_as_negative() -> None:
    # Squid adds `char`; an unsigned reading would leave plain ASCII alone and go unseen.
    url = "http://127.0.0.10:8000/café"
    assert any(vector["url"] == url for vector in FARMS["equal"]["vectors"])
    assert peer_hash(b"\xff") != peer_hash(b"\xff" * 2)
    assert peer_hash(b"\xff") == _by_the_book(b"\xff")


def _by_the_book(name: bytes) -> int:
    """carp.cc line by line, with C's types spelled out."""
    value = 0
    for byte in name:
        rotated = ((value << 19) | (value >> 13)) & 0xFFFFFFFF
        value = (value + rotated + (byte - 256 if byte > 127 else byte)) & 0xFFFFFFFF
    value = (value + value * 0x62531965) & 0xFFFFFFFF
    return ((value << 21) | (value >> 11)) & 0xFFFFFFFF


@given(st.binary(max_size=64))
def test_the_hash_is_that_of_the_slow_twin(name: bytes) -> None:
    assert peer_hash(name) == _by_the_book(name)


@given(st.binary(max_size=40), st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_owners_is_complete_distinct_and_begins_with_the_owner(key: bytes, weights: list[int]) -> None:
    table = Carp.build([Member(f"n{index}", weight) for index, weight in enumerate(weights)])
    owners = table.owners(key, len(weights))
    assert sorted(owners) == [index for index, weight in enumerate(weights) if weight]
    assert table.owner(key) == (owners[0] if owners else -1)
    assert table.owners(key, 1) == owners[:1]


def test_equal_weights_follow_the_order_of_the_configuration() -> None:
    forward = Carp.build([Member(name, 1) for name in "abc"])
    backward = Carp.build([Member(name, 1) for name in "cba"])
    moved = sum(forward.owner(url) != 2 - backward.owner(url) for url in urls(300))
    assert moved > 50
    assert forward.digest() != backward.digest()


def test_unequal_weights_are_sorted_whatever_the_configuration_says() -> None:
    forward = Carp.build([Member("a", 1), Member("b", 2)])
    backward = Carp.build([Member("b", 2), Member("a", 1)])
    assert all(forward.owner(url) == 1 - backward.owner(url) for url in urls(300))
    assert forward.digest() == backward.digest()


def test_keys_are_spread_by_weight() -> None:
    table = Carp.build([Member("a", 1), Member("b", 2), Member("c", 3)])
    found = [0, 0, 0]
    for url in urls(2000):
        found[table.owner(url)] += 1
    assert [round(count / 2000, 1) for count in found] == [0.2, 0.3, 0.5]


def test_a_peer_below_a_thousandth_gets_nothing_and_spoils_nothing() -> None:
    table = Carp.build([Member("tiny", 1), Member("a", 5000), Member("b", 5000)])
    assert {table.owner(url) for url in urls(200)} == {1, 2}
    assert table.shares()[0] == 0.0


def test_more_than_a_thousand_equal_peers_are_all_used() -> None:
    table = Carp.build([Member(f"n{index}", 1) for index in range(1001)])
    assert min(table.multipliers) > 0


def test_members_without_weight_own_nothing() -> None:
    table = Carp.build([Member("a", 0)])
    assert table.owner(b"http://a/") == -1
    assert table.owners(b"http://a/", 3) == []
    assert Carp.build([]).owner(b"http://a/") == -1


def test_two_members_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        Carp.build([Member("a", 1), Member("a", 2)])


def test_the_fraction_and_the_place_depend_on_the_key_alone() -> None:
    one = Carp.build([Member("a", 1)])
    other = Carp.build([Member("b", 1), Member("c", 2)])
    assert one.fraction(b"k") == other.fraction(b"k") != one.fraction(b"l")
    assert one.place(b"k") == other.place(b"k") != one.place(b"l")
