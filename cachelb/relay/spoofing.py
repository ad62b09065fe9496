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
        self.most_idle = 0
        self.pairs: dict[tuple[Target, str], Target] = {}
        self._is_set = False

    def configure(self, config: Config) -> None:
        """Take over the settings, of which only limits may change: rights and rules on the host are for the first ones."""
        self.most_idle = config.limits.idle_direct
        if not self._is_set:
            self._is_set = True
            self.nodes = config.intercept.spoof in ("nodes", "both")
            self.origins = config.intercept.spoof in ("origin", "both")

    def place(self, targets: Sequence[Target]) -> None:
        """These are the nodes from now on."""
        self.active = self.nodes or self.origins or any(target.send_proxy for target in targets)

    def target(self, target: Target, ip: str) -> Target:
        """``target`` for the client at ``ip`` alone; itself where it is for everybody, or cannot be connected to from there."""
        if target.client or not (self._is_spoofed(target) or target.send_proxy):
            return target
        own = self.pairs.get((target, ip))
        if own is None or own.port != target.port:
            addresses = self._addresses(target, ip)
            if not addresses:
                return target
            own = Target(target.name, addresses, target.port, target.slot, target.hierarchy)
            own.client = ip
            own.source = ip if self._is_spoofed(target) else ""
            own.send_proxy = target.send_proxy
            own.counts, own.tally = target.counts, target.tally
            own.keep_s = target.keep_s
            own.idle_max = 0
            if len(self.pairs) < PAIRS_MAX:
                own.idle_max = min(KEPT_PER_CLIENT, target.idle_max)
                self.pairs[target, ip] = own
        own.unused_since = self.engine.now
        return own

    def _is_spoofed(self, target: Target) -> bool:
        return self.nodes if target.is_node else self.origins

    def _addresses(self, target: Target, ip: str) -> tuple[str, ...]:
        return usable(target.addresses, ip) if self._is_spoofed(target) else target.addresses

    def expire(self, now: float) -> None:
        """Close what has been idle for too long, is too much, or leads to a node that is dead or has moved."""
        total = 0
        for pair, own in list(self.pairs.items()):
            target = pair[0]
            own.expire(now)
            is_gone = target.state == "dead" or not target.idle_max or self._addresses(target, own.client) != own.addresses
            total += len(own.idle)
            if is_gone or total > self.most_idle:
                total -= len(own.idle)
                own.close_idle()
            if is_gone or (not own.idle and own.unused_since + own.keep_s < now):
                own.idle_max = 0
                del self.pairs[pair]

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
