from __future__ import annotations

import pytest

from cachelb.config import Config, parse
from cachelb.hostnet.wanted import AddressEntry, RouteEntry, RuleEntry, RulesetEntry, ruleset, wanted

NODE = '[[node]]\nname = "a"\nhost = "10.0.0.11"\n'


def config_of(sections: str) -> Config:
    return parse(sections + NODE, "test")


def text_of(sections: str, nodes: tuple[str, ...] = ()) -> str:
    return ruleset(config_of(sections), nodes).text


def test_nothing_is_asked_for_by_default():
    assert wanted(config_of("")).entries == ()
    assert not wanted(config_of("")).rules


def test_an_address_alone_needs_no_rules():
    want = wanted(config_of('[hostnet]\naddresses = "10.0.0.100/24 dev eth0"\n'))
    assert want.entries == (AddressEntry("10.0.0.100", 24, "eth0"),)
    assert not want.rules


def test_each_ip_version_that_is_listened_on_has_its_rule_and_its_route():
    want = wanted(config_of('[hostnet]\npriority = 5\ntable = 6\nmark = 0x10\n[intercept]\nlisten = "[::1]:3129"\n'))
    assert want.entries[:2] == (RuleEntry(6, 5, 0x10, 0x10, 6), RouteEntry(6, 6))
    assert isinstance(want.entries[2], RulesetEntry)
    both = wanted(config_of('[intercept]\nlisten = ["127.0.0.1:3129", "[::1]:3129"]\n'))
    assert [getattr(entry, "version", 0) for entry in both.entries] == [4, 4, 6, 6, 0]


def test_the_table_takes_the_clients_of_the_configuration_to_the_listener():
    text = text_of(
        '[intercept]\nlisten = "127.0.0.1:3129"\nports = [8080, 80]\ninterfaces = ["eth1"]\n'
        'clients = ["10.1.0.0/16", "10.1.2.0/24", "fd00::/8"]\nskip = ["192.0.2.0/24"]\n',
        nodes=("10.0.0.12", "fd00::12"),
    )
    assert "set clients4 { type ipv4_addr; flags interval; elements = { 10.1.0.0/16 }; }" in text  # nft refuses overlaps
    assert "set skip4 { type ipv4_addr; flags interval; elements = { 10.0.0.11, 10.0.0.12, 192.0.2.0/24 }; }" in text
    assert "tcp dport != { 80, 8080 } return" in text
    assert 'iifname != { "eth1" } return' in text
    assert "tproxy ip to 127.0.0.1:3129 meta mark set meta mark or 0x2000 accept" in text
    assert "ip6" not in text


def test_the_clients_are_those_that_may_come_in_where_nothing_else_is_said():
    text = text_of('[access]\nallow = ["10.5.0.0/16", "::1"]\n[intercept]\nlisten = ["0.0.0.0:3129", "[::]:3129"]\n')
    assert "set clients4 { type ipv4_addr; flags interval; elements = { 10.5.0.0/16 }; }" in text
    assert "set clients6 { type ipv6_addr; flags interval; elements = { ::1 }; }" in text
    assert "tproxy ip to :3129 " in text
    assert "tproxy ip6 to :3129 " in text


def test_a_table_is_known_by_its_content():
    one = ruleset(config_of('[intercept]\nlisten = "127.0.0.1:3129"\n'))
    other = ruleset(config_of('[intercept]\nlisten = "127.0.0.1:3130"\n'))
    assert one.digest in one.text
    assert one != other
    assert one == RulesetEntry(one.digest)


@pytest.mark.parametrize(
    ("entry", "added", "removed"),
    [
        (
            AddressEntry("10.0.0.100", 32, "eth0"),
            "ip addr add 10.0.0.100/32 dev eth0 metric 20312",
            "ip addr del 10.0.0.100/32 dev eth0",
        ),
        (
            AddressEntry("fd00::100", 128, "eth0"),
            "ip -6 addr add fd00::100/128 dev eth0 metric 20312 preferred_lft 0",
            "ip -6 addr del fd00::100/128 dev eth0",
        ),
        (
            RuleEntry(4, 5, 0x10, 0x10, 6),
            "ip rule add priority 5 fwmark 0x10/0x10 lookup 6 protocol 203",
            "ip rule del priority 5 fwmark 0x10/0x10 lookup 6 protocol 203",
        ),
        (
            RouteEntry(6, 7),
            "ip -6 route add local default dev lo table 7 proto 203",
            "ip -6 route del local default dev lo table 7 proto 203",
        ),
    ],
)
def test_the_commands_are_those_of_an_operator(entry: AddressEntry | RuleEntry | RouteEntry, added: str, removed: str):
    assert (entry.added_by(), entry.removed_by()) == (added, removed)
