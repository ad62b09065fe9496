"""Who counts as one client, which nodes keep theirs, who returns when."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cachelb.config_policy import AffinityConfig
from cachelb.routing.pool import Pool, Tables
from cachelb.routing.ring import Member
from cachelb.routing.template import Group, group_of, is_home_again, keepers, packed


def test_a_section_is_a_group():
    section = AffinityConfig(name="shop", netmask_v4=24, timeout_s=60.0, expire_on_drain=True, after_death="return")
    assert group_of(section) == Group("shop", 24, 64, 60.0, True, True)
    assert group_of(AffinityConfig(name="x")) == Group("x")


@pytest.mark.parametrize(
    ("group", "same", "other", "network"),
    [
        (Group("g"), ("10.1.2.3", "::ffff:10.1.2.3"), "10.1.2.4", "10.1.2.3"),
        (Group("g", 24), ("10.1.2.3", "10.1.2.255"), "10.1.3.3", "10.1.2.0/24"),
        (Group("g", 0), ("10.1.2.3", "192.0.2.1"), "::1", "0.0.0.0/0"),
        (Group("g"), ("2001:db8::1", "2001:db8::ffff"), "2001:db8:0:1::1", "2001:db8::/64"),
        (Group("g", 32, 128), ("2001:db8::1", "2001:db8::1%eth0"), "2001:db8::2", "2001:db8::1"),
        (Group("g", 32, 0), ("::1", "fe80::1"), "0.0.0.0", "::/0"),
    ],
)
def test_clients_of_a_network_have_one_key(group: Group, same: Sequence[str], other: str, network: str):
    keys = {group.key(packed(ip)) for ip in same}
    assert len(keys) == 1
    (key,) = keys
    assert group.key(packed(other)) != key
    assert group.network(key) == network
    assert group.key(group.address(key)) == key


def test_what_is_no_address_is_refused():
    with pytest.raises(ValueError, match="appear to be"):
        packed("www.test")


def pool(admits: Sequence[float], weights: Sequence[float]) -> Pool[int]:
    members = [Member(f"n{i}", weight) for i, weight in enumerate(weights)]
    return Pool("p", "ring", Tables(), members, [10 + i for i in range(len(members))], admits)


def test_nodes_that_take_nothing_new_keep_their_clients_unless_they_may_not():
    subject = pool([1.0, -1.0, 0.0, 1.0, 0.3], [1.0, 1.0, 1.0, 0.0, 1.0])  # up, drain, dead, without weight, slow
    assert keepers(subject, int, False) == {10: 0, 11: 1, 13: 3, 14: 4}
    assert keepers(subject, int, True) == {10: 0, 14: 4}


def test_the_last_node_keeps_its_clients_though_it_drains():
    assert keepers(pool([0.0, -1.0], [1.0, 1.0]), int, True) == {11: 1}


def test_clients_return_as_the_node_takes_more_and_none_goes_away_again():
    keys = [Group("g").key(packed(f"10.0.{i % 250}.{i // 250}")) for i in range(2000)]
    before: set[int] = set()
    for share in (0.0, 0.05, 0.5, 1.0):
        home = {key for key in keys if is_home_again(key, share)}
        assert before <= home
        assert abs(len(home) / len(keys) - share) < 0.05
        before = home
