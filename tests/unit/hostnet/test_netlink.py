from __future__ import annotations

import errno

import pytest
from netbed import Space
from pyroute2 import IPRoute

from cachelb.hostnet import netlink
from cachelb.hostnet.netlink import refusal
from cachelb.hostnet.steps import HostError, Step
from cachelb.hostnet.wanted import AddressEntry, Entry, RouteEntry, RuleEntry

ENTRIES: tuple[Entry, ...] = (
    AddressEntry("10.0.0.100", 32, "veth0"),
    AddressEntry("fd00::100", 128, "veth0"),
    RuleEntry(4, 3128, 0x2000, 0x2000, 3128),
    RouteEntry(4, 3128),
    RuleEntry(6, 3128, 0x2000, 0x2000, 3128),
    RouteEntry(6, 3128),
)


def test_what_is_added_is_found_as_ours_and_can_be_removed(space: Space):
    before = space.snapshot()
    with netlink.opened() as link:
        assert set(link.interfaces) == {"lo", "veth0", "veth1"}
        assert set(link.hardware) == {"veth0", "veth1"}
        for entry in ENTRIES:
            link.do(Step(True, entry))
            link.do(Step(True, entry))  # it is there: no error
        ours, _ = link.found({3128})
        assert set(ours) == set(ENTRIES)
        for entry in ENTRIES:
            link.do(Step(False, entry))
            link.do(Step(False, entry))
        assert link.found({3128})[0] == []
    assert space.snapshot() == before


def test_the_commands_do_what_the_steps_do(space: Space):
    with netlink.opened() as link:
        for entry in ENTRIES:
            space.run(*entry.added_by().split())
        ours, _ = link.found(set())  # the table is known by the rule
        assert set(ours) == set(ENTRIES)
        for entry in ENTRIES:
            space.run(*entry.removed_by().split())
        assert link.found({3128})[0] == []


def test_what_others_have_set_is_not_ours(space: Space):
    for command in (
        "ip addr add 10.0.0.100/24 dev veth1",
        "ip rule add priority 10 fwmark 1/1 lookup 100",
        "ip rule add priority 11 not fwmark 0x2000/0x2000 lookup 100",
        "ip rule add priority 12 iif veth0 fwmark 0x2000/0x2000 lookup 3128 protocol 203",  # selects less than ours
        "ip rule add priority 13 from 10.0.0.0/8 fwmark 0x2000/0x2000 lookup 3128 protocol 203",
        "ip route add local 10.9.0.0/16 dev lo table 3128 proto 203",
        "ip route add 10.8.0.0/16 dev veth1 table 99",
    ):
        space.run(*command.split())
    with netlink.opened() as link:
        ours, foreign = link.found({3128})
    assert ours == []
    others = [entry for entry, _ in foreign]
    assert AddressEntry("10.0.0.100", 24, "veth1") in others
    assert RuleEntry(4, 10, 1, 1, 100) in others
    assert RuleEntry(4, 11, 0x2000, 0, 100) in others  # what it does not mean is no mark of it
    assert {entry.priority for entry in others if isinstance(entry, RuleEntry)} >= {12, 13}
    assert [entry for entry in others if isinstance(entry, RouteEntry)] == [RouteEntry(4, 3128)]
    assert dict(foreign)[RuleEntry(4, 11, 0x2000, 0, 100)].startswith('"not fwmark')


def test_the_kernel_says_when_an_ipv6_address_can_be_used(space: Space):
    space.sysctl("net.ipv6.conf.veth0.accept_dad", "1")
    entry = AddressEntry("fd00::100", 128, "veth0")
    with IPRoute() as ip:
        ip.addr("add", index=ip.link_lookup(ifname="veth1")[0], address="fd00::9", prefixlen=64, family=10)
    with netlink.opened() as link:
        assert link.settled(entry) is False  # it is not there at all
        link.do(Step(True, entry))
        assert link.settled(entry) is None


def test_a_refusal_of_the_kernel_is_a_sentence(space: Space):
    space.sysctl("net.ipv6.conf.veth0.disable_ipv6", "1")
    with netlink.opened() as link, pytest.raises(HostError, match=r"IPv6 is off there \(sysctl net.ipv6.conf.veth0.disable_ipv6"):
        link.do(Step(True, AddressEntry("fd00::100", 128, "veth0")))


@pytest.mark.parametrize(
    ("entry", "code", "words"),
    [
        (ENTRIES[0], errno.EPERM, "CAP_NET_ADMIN is missing"),
        (ENTRIES[1], errno.EOPNOTSUPP, "IPv6 is off there"),
        (ENTRIES[2], errno.EAFNOSUPPORT, "no policy routing for IPv4 (CONFIG_IP_MULTIPLE_TABLES)"),
        (ENTRIES[3], errno.ENETDOWN, "the interface lo is down"),
        (ENTRIES[0], errno.ENOBUFS, "cannot add address 10.0.0.100/32 dev veth0: ENOBUFS"),
    ],
)
def test_each_refusal_names_its_cause(entry: Entry, code: int, words: str):
    assert words in refusal(entry, code, "add")
