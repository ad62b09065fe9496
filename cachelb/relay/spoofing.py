"""Connections that belong to one client: those made from its own address, and those that begin with a PROXY header about it.

What is kept of them is used for that client's requests only.  So each pair of a target and a client has a Target of its own,
which shares the counters of the first.  A client whose address cannot be connected from, because it is a loopback address or of
another IP version than the target's, is served from the director's.

The answers to spoofed connections come back to this host because they are routed here, and to our socket because of the rules in
``hostnet``.  Left out: what the header says (``wire/proxy_protocol``), when it is sent (``attempts``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from cachelb.relay.upstream import Target

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.relay.engine import Engine

KEPT_PER_CLIENT: Final = 4  # to one target: a browser has 6 connections to a proxy, which are seldom busy at the same time
PAIRS_MAX: Final = 20_000  # of clients and targets, per worker: as many as clients; beyond, connections are not kept


class Spoofing:
    """Of one relay.  nodes, origins: whether connections to these are spoofed; active: any belong to one client."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.nodes = self.origins = self.active = False
        self.most_idle = 0  # connections kept, of all clients
        self.pairs: dict[tuple[Target, str], Target] = {}
        self._is_set = False

    def configure(self, config: Config) -> None:
        """Take over the settings, of which only limits may change: rights and rules on the host are for the first ones."""
        if not self._is_set:
            self._is_set = True
            self.nodes = config.intercept.spoof in ("nodes", "both")
            self.origins = config.intercept.spoof in ("origin", "both")

    def place(self, targets: Sequence[Target], most_origins: int) -> None:
        """These are the nodes from now on.  most_origins: connections kept to all origins."""
        self.active = self.nodes or self.origins or any(target.send_proxy for target in targets)
        apart = [target for target in targets if self.nodes or target.send_proxy]
        self.most_idle = most_origins + sum(target.idle_max for target in apart)

    def target(self, target: Target, ip: str) -> Target:
        """``target`` for the client at ``ip`` alone; itself where it is for everybody, or cannot be connected to from there."""
        if target.client or not (target.send_proxy or self._is_spoofed(target)):
            return target
        own = self.pairs.get((target, ip))
        if own is None or own.port != target.port:
            addresses = self._addresses(target, ip)
            if not addresses:
                return target
            own = Target(target.name, addresses, target.port, target.slot, target.hierarchy)
            own.shared = target
            own.client = ip
            own.source = ip if self._is_spoofed(target) else ""
            own.send_proxy = target.send_proxy
            own.counts, own.tally = target.counts, target.tally
            own.keep_s = target.keep_s
            own.idle_max = 0
            if len(self.pairs) < PAIRS_MAX:
                own.idle_max = min(KEPT_PER_CLIENT, target.idle_max)
                self.pairs[target, ip] = own
        own.used_at = self.engine.now
        return own

    def _is_spoofed(self, target: Target) -> bool:
        """Whether it sees the client's address; one that is told of it by a header does not need to."""
        return not target.send_proxy and (self.nodes if target.is_node else self.origins)

    def _addresses(self, target: Target, ip: str) -> tuple[str, ...]:
        return usable(target.addresses, ip) if self._is_spoofed(target) else target.addresses

    def expire(self, now: float) -> None:
        """Close what has been idle for too long, is too much, or leads to a node that is dead or has moved."""
        total = 0
        for target in self.engine.fleet.targets:
            target.apart = 0
        for pair, own in list(self.pairs.items()):
            target = pair[0]
            own.expire(now)
            is_gone = target.state == "dead" or not target.idle_max or self._addresses(target, own.client) != own.addresses
            if is_gone:
                own.close_idle()
            if is_gone or (not own.idle and own.used_at + own.keep_s < now):
                own.idle_max = 0
                del self.pairs[pair]
            total += len(own.idle)
            if target.is_node:
                target.apart += len(own.idle)
        if total > self.most_idle:
            self._trim(total - self.most_idle)

    def _trim(self, excess: int) -> None:
        """Close so many connections, of the clients that have not been heard of for the longest time."""
        for own in sorted(self.pairs.values(), key=_used_at):
            if excess <= 0:
                return
            excess -= len(own.idle)
            if own.is_node:
                own.everybodys().apart -= len(own.idle)
            own.close_idle()

    def close(self) -> None:
        """Close every kept connection."""
        for own in self.pairs.values():
            own.idle_max = 0
            own.close_idle()
        self.pairs.clear()


def usable(addresses: tuple[str, ...], ip: str) -> tuple[str, ...]:
    """Those of a target that can be connected to from ``ip``; none from a loopback address, which nobody could answer."""
    if ip.startswith("127.") or ip == "::1" or "%" in ip:
        return ()
    return tuple(address for address in addresses if (":" in address) == (":" in ip))


def _used_at(own: Target) -> float:
    return own.used_at
