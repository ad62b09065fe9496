"""Addresses, policy rules and routes of the kernel, read and changed by pyroute2.

All of it is about the network namespace that this process is in.  A call takes about 1 ms; nothing is kept between calls.

Left out: nftables, of which pyroute2 cannot do all that is needed (``nft``).
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cachelb.hostnet.steps import Foreign, HostError, Step
from cachelb.hostnet.wanted import METRIC, PROTOCOL, AddressEntry, Entry, RouteEntry, RuleEntry

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_VERSIONS: Final = {socket.AF_INET: 4, socket.AF_INET6: 6}
_FOREVER: Final = 2**32 - 1
_TO_TABLE, _INVERTED = 1, 2  # FR_ACT_TO_TBL, FIB_RULE_INVERT
_LOCAL = 2  # RTN_LOCAL
_SCOPE_HOST = 254
_DADFAILED, _TENTATIVE = 0x08, 0x40  # IFA_F_
# what a rule of ours has; one with anything else selects less, and is not ours
_RULE_ATTRIBUTES: Final = frozenset(
    ("FRA_TABLE", "FRA_SUPPRESS_PREFIXLEN", "FRA_PROTOCOL", "FRA_PRIORITY", "FRA_FWMARK", "FRA_FWMASK")
)


@contextlib.contextmanager
def opened() -> Iterator[Netlink]:
    """A conversation with the kernel.

    Raises:
        HostError: It does not talk to us.
    """
    try:
        ip = IPRoute(strict_check=True)
    except (OSError, NetlinkError) as exc:
        raise HostError(f"the kernel cannot be asked about its network (netlink): {exc}") from exc
    with ip:
        yield Netlink(ip)


class Netlink:
    """One conversation."""

    def __init__(self, ip: Any) -> None:
        self._ip = ip
        links = list(ip.get_links())
        self.interfaces: dict[str, int] = {link.get_attr("IFLA_IFNAME"): link["index"] for link in links}
        self.hardware: dict[str, str] = {  # addresses of those that have some and use ARP (no IFF_NOARP, no loopback)
            link.get_attr("IFLA_IFNAME"): link.get_attr("IFLA_ADDRESS")
            for link in links
            if link["ifi_type"] == 1 and not link["flags"] & 0x80 and link["flags"] & 1
        }

    # -- reading

    def found(self, tables: set[int]) -> tuple[list[Entry], list[Foreign]]:
        """Ours, and what is like ours but is not; of routes, those in these tables and in those that rules of ours lead to."""
        ours: list[Entry] = []
        foreign: list[Foreign] = []
        self._addresses(ours, foreign)
        for version, family in _FAMILIES.items():
            with contextlib.suppress(NetlinkError):  # a kernel without that version, or without policy rules: there are none
                self._rules(version, family, ours, foreign)
        tables = tables | {entry.table for entry in ours if isinstance(entry, RuleEntry)}
        for version, family in _FAMILIES.items():
            for table in sorted(tables):
                with contextlib.suppress(NetlinkError):
                    self._routes(version, family, table, ours, foreign)
        return ours, foreign

    def _addresses(self, ours: list[Entry], foreign: list[Foreign]) -> None:
        names = {index: name for name, index in self.interfaces.items()}
        for message in self._ip.get_addr():
            host = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            entry = AddressEntry(host, message["prefixlen"], names.get(message["index"], f"if{message['index']}"))
            if message.get_attr("IFA_RT_PRIORITY") == METRIC:
                ours.append(entry)
            else:
                foreign.append(Foreign(entry, str(entry)))

    def _rules(self, version: int, family: int, ours: list[Entry], foreign: list[Foreign]) -> None:
        for message in self._ip.get_rules(family=family):
            attributes = dict(message["attrs"])
            mark, mask = attributes.get("FRA_FWMARK", 0), attributes.get("FRA_FWMASK", 0)
            inverted = message["flags"] & _INVERTED
            table = attributes.get("FRA_TABLE", message["table"])
            plain = not inverted and message["action"] == _TO_TABLE and set(attributes) <= _RULE_ATTRIBUTES
            plain = plain and not (message["src_len"] or message["dst_len"] or message["tos"])
            entry = RuleEntry(version, attributes.get("FRA_PRIORITY", 0), mark, 0 if inverted else mask, table)
            if plain and attributes.get("FRA_PROTOCOL") == PROTOCOL:
                ours.append(entry)
            else:
                words = f"fwmark {mark:#x}/{mask:#x} " if mask else ""
                foreign.append(Foreign(entry, f'"{"not " if inverted else ""}{words}lookup {table}"'))

    def _routes(self, version: int, family: int, table: int, ours: list[Entry], foreign: list[Foreign]) -> None:
        lo = self.interfaces.get("lo")
        for message in self._ip.get_routes(family=family, table=table):
            if (message.get_attr("RTA_TABLE") or message["table"]) != table:
                continue
            entry = RouteEntry(version, table)
            destination = message.get_attr("RTA_DST")
            to_us = message["type"] == _LOCAL and destination is None and message.get_attr("RTA_OIF") == lo
            if to_us and message["proto"] == PROTOCOL:
                ours.append(entry)
            else:
                foreign.append(Foreign(entry, f'"{destination or "default"}/{message["dst_len"]}"'))

    def settled(self, entry: AddressEntry) -> bool | None:
        """Whether an IPv6 address can be used: None, while the kernel still asks the network; False, when another host has it."""
        for message in self._ip.get_addr(family=socket.AF_INET6, index=self.interfaces[entry.interface]):
            if message.get_attr("IFA_ADDRESS") == entry.host:
                flags = message.get_attr("IFA_FLAGS") or message["flags"]
                return False if flags & _DADFAILED else None if flags & _TENTATIVE else True
        return False

    # -- changing

    def do(self, step: Step) -> None:
        """Do it.  What is there already when it is added, or is not when it is removed, is no error.

        Raises:
            HostError: The kernel refuses.
        """
        entry, command = step.entry, "add" if step.add else "del"
        try:
            if isinstance(entry, AddressEntry):
                self._change_address(command, entry)
            elif isinstance(entry, RuleEntry):
                self._ip.rule(
                    command,
                    family=_FAMILIES[entry.version],
                    priority=entry.priority,
                    fwmark=entry.mark,
                    fwmask=entry.mask,
                    table=entry.table,
                    protocol=PROTOCOL,
                )
            elif isinstance(entry, RouteEntry):
                self._ip.route(
                    command,
                    family=_FAMILIES[entry.version],
                    type="local",
                    dst="default",
                    oif=self.interfaces["lo"],
                    table=entry.table,
                    proto=PROTOCOL,
                    scope=_SCOPE_HOST if entry.version == 4 else 0,
                )
        except NetlinkError as exc:
            done = (errno.EEXIST,) if step.add else (errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV)
            if exc.code not in done:
                raise HostError(refusal(entry, exc.code, command)) from exc

    def _change_address(self, command: str, entry: AddressEntry) -> None:
        index = self.interfaces.get(entry.interface)
        if index is None:
            return  # it went with its interface
        more: dict[str, int] = {}
        if command == "add":
            more["IFA_RT_PRIORITY"] = METRIC
            if entry.version == 6:
                more |= {"preferred_lft": 0, "valid_lft": _FOREVER}
        family = _FAMILIES[entry.version]
        self._ip.addr(command, index=index, family=family, address=entry.host, prefixlen=entry.prefix, **more)


def refusal(entry: Entry, code: int, command: str) -> str:
    """Why the kernel does not do it, as a sentence."""
    what = f"{'add' if command == 'add' else 'remove'} {entry}"
    if code == errno.EPERM:
        return f"cannot {what}: CAP_NET_ADMIN is missing (start as root, or with AmbientCapabilities=CAP_NET_ADMIN)"
    if isinstance(entry, AddressEntry) and entry.version == 6 and code in (errno.EACCES, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        return f"cannot {what}: IPv6 is off there (sysctl net.ipv6.conf.{entry.interface}.disable_ipv6)"
    if isinstance(entry, RuleEntry | RouteEntry) and code in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        return f"cannot {what}: this kernel has no policy routing for IPv{entry.version} (CONFIG_IP_MULTIPLE_TABLES)"
    if isinstance(entry, RouteEntry) and code == errno.ENETDOWN:
        return f"cannot {what}: the interface lo is down (ip link set lo up)"
    return f"cannot {what}: {errno.errorcode.get(code, code)}"
