"""What a configuration asks of the host: addresses, policy rules, routes and one nftables table, as values.

Each thing knows the command by which an operator would add or remove it; ``ip`` of iproute2 4.17 (2018) and ``nft`` of 1.0
understand them.

Left out: what the host has (``netlink``, ``nft``), what to do about the difference (``steps``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from cachelb.config import Config

# By these what is ours is told from what is not, also by a later process. Of rules and routes it is their protocol, a number that
# Linux gives to nobody; of addresses the metric of their prefix's route: kernels before 5.18 have no protocol for addresses.
PROTOCOL: Final = 203
METRIC: Final = 20312
TABLE: Final = "cachelb"  # of nftables, family inet

Network = IPv4Network | IPv6Network


class AddressEntry(NamedTuple):
    """An address on an interface."""

    host: str
    prefix: int
    interface: str

    @property
    def version(self) -> int:
        """4 or 6."""
        return ip_address(self.host).version

    def __str__(self) -> str:
        return f"address {self.host}/{self.prefix} dev {self.interface}"

    def added_by(self) -> str:
        """The command that adds it.  Ours shall not be the one that this host speaks from: so IPv6's are deprecated at once."""
        last = " preferred_lft 0" if self.version == 6 else ""
        return f"{_ip(self.version)} addr add {self.host}/{self.prefix} dev {self.interface} metric {METRIC}{last}"

    def removed_by(self) -> str:
        """The command that removes it."""
        return f"{_ip(self.version)} addr del {self.host}/{self.prefix} dev {self.interface}"


class RuleEntry(NamedTuple):
    """A policy rule: packets with one of these bits in their mark are routed by this table."""

    version: int
    priority: int
    mark: int
    mask: int
    table: int

    def __str__(self) -> str:
        return f"IPv{self.version} rule {self.priority}: fwmark {self.mark:#x}/{self.mask:#x} lookup {self.table}"

    def _words(self) -> str:
        return f"priority {self.priority} fwmark {self.mark:#x}/{self.mask:#x} lookup {self.table} protocol {PROTOCOL}"

    def added_by(self) -> str:
        """The command that adds it."""
        return f"{_ip(self.version)} rule add {self._words()}"

    def removed_by(self) -> str:
        """The command that removes it."""
        return f"{_ip(self.version)} rule del {self._words()}"


class RouteEntry(NamedTuple):
    """The route by which everything is meant for this host."""

    version: int
    table: int

    def __str__(self) -> str:
        return f"IPv{self.version} route: local default dev lo table {self.table}"

    def added_by(self) -> str:
        """The command that adds it."""
        return f"{_ip(self.version)} route add local default dev lo table {self.table} proto {PROTOCOL}"

    def removed_by(self) -> str:
        """The command that removes it."""
        return f"{_ip(self.version)} route del local default dev lo table {self.table} proto {PROTOCOL}"


@dataclass(frozen=True)
class RulesetEntry:
    """Our nftables table.  digest: of its text, and in the comment by which it is known; text: "" when only that is known."""

    digest: str
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"nftables table inet {TABLE}"

    def script(self) -> str:
        """For ``nft -f -``: replaces what there is in one transaction."""
        # "add" first, for a table that is not there cannot be deleted; "destroy" is too new (nft 1.0.7)
        return f"add table inet {TABLE}\ndelete table inet {TABLE}\n{self.text}"

    def added_by(self) -> str:
        """The command that adds it."""
        return f"nft -f - <<'END'\n{self.script()}END"

    def removed_by(self) -> str:
        """The command that removes it."""
        return f"nft delete table inet {TABLE}"


Entry = AddressEntry | RuleEntry | RouteEntry | RulesetEntry


class Wanted(NamedTuple):
    """All that a configuration asks for, in the order in which it is set; and the places where nobody else's may be."""

    entries: tuple[Entry, ...]
    priority: int
    table: int
    mark: int

    @property
    def rules(self) -> bool:
        """Whether packets are to be brought to our sockets."""
        return any(isinstance(entry, RulesetEntry) for entry in self.entries)


def wanted(config: Config, nodes: Iterable[str] = ()) -> Wanted:
    """What the configuration asks for.

    Args:
        nodes: Addresses that nodes have by their names just now; those that are addresses in the configuration need not be given.
    """
    hostnet = config.hostnet
    entries: list[Entry] = [AddressEntry(*address) for address in hostnet.addresses]
    versions = _versions(config)
    for version in versions:
        entries.append(RuleEntry(version, hostnet.priority, hostnet.mark, hostnet.mark, hostnet.table))
        entries.append(RouteEntry(version, hostnet.table))
    if versions:
        entries.append(ruleset(config, nodes))
    return Wanted(tuple(entries), hostnet.priority, hostnet.table, hostnet.mark)


def is_asked_for(config: Config) -> bool:
    """Whether the configuration asks for anything at all."""
    return bool(config.hostnet.addresses) or bool(_versions(config))


def _versions(config: Config) -> list[int]:
    """The IP versions whose packets have to be brought here: those of intercepted clients, and of all whose address is used."""
    spoofs = config.intercept.spoof != "off"
    listeners = (*config.intercept.listen, *(config.listen.http if spoofs else ()))
    return sorted({ip_address(address.host).version for address in listeners})


def ruleset(config: Config, nodes: Iterable[str] = ()) -> RulesetEntry:
    """The nftables table that takes clients' connections to our listeners, and answers to our spoofed sockets."""
    intercept, mark = config.intercept, f"meta mark set meta mark or {config.hostnet.mark:#x} accept"
    hosts = {*nodes, *(node.host for node in config.node)}
    skipped = [*intercept.skip, *(ip_network(host) for host in hosts if _is_address(host))]
    clients = config.access.allow if intercept.clients is None else intercept.clients
    # ICMP errors are for the socket that their packet came from, too: without, no connection from a client's address would
    # ever learn that its packets are too large
    sets, rules = [], [f"meta l4proto {{ tcp, icmp, ipv6-icmp }} socket transparent 1 {mark}"]
    ports = ", ".join(map(str, sorted(set(intercept.ports))))
    rules.append(f"tcp dport != {{ {ports} }} return")
    rules.append('iif "lo" return')
    if intercept.interfaces:
        rules.append(f"iifname != {{ {', '.join(_quoted(name) for name in intercept.interfaces)} }} return")
    rules.append("fib daddr type { local, broadcast, multicast } return")
    for address in sorted(intercept.listen, key=lambda address: ip_address(address.host).version):
        version = ip_address(address.host).version
        family = "ip" if version == 4 else "ip6"
        sets += [_set(f"skip{version}", version, skipped), _set(f"clients{version}", version, clients)]
        rules += [f"{family} {which} @skip{version} return" for which in ("saddr", "daddr")]
        place = f":{address.port}" if ip_address(address.host).is_unspecified else str(address)
        rules.append(f"{family} saddr @clients{version} meta l4proto tcp tproxy {family} to {place} {mark}")
    chain = "type filter hook prerouting priority mangle; policy accept;"
    lines = [*sets, "\tchain intercept {", *(f"\t\t{line}" for line in (chain, *rules)), "\t}"]
    body = "\n".join(lines)
    digest = hashlib.sha256(body.encode()).hexdigest()[:16]
    return RulesetEntry(digest, f'table inet {TABLE} {{\n\tcomment "cachelb {digest}"\n{body}\n}}\n')


def _set(name: str, version: int, networks: Iterable[Network]) -> str:
    mine = [network for network in networks if network.version == version]
    kept = sorted(collapse_addresses(mine))  # type: ignore[type-var]  # one version: nft refuses those that overlap
    elements = ", ".join(str(network.network_address) if network.num_addresses == 1 else str(network) for network in kept)
    filled = f"elements = {{ {elements} }}; " if kept else ""
    return f"\tset {name} {{ type ipv{version}_addr; flags interval; {filled}}}"


def _quoted(name: str) -> str:
    return f'"{name}"'


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _ip(version: int) -> str:
    return "ip" if version == 4 else "ip -6"
