"""The origins that requests go to around the farm: names, addresses, and the connections kept to each.

A name is resolved, its addresses are checked against the guard, and the result is connected to as it is: nothing is looked
up a second time.  Connections are kept per host and port, few each and bounded altogether.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING

from cachelb.errors import Reason
from cachelb.nodes.resolve import ResolveError, Resolver
from cachelb.nodes.watch import make_resolver
from cachelb.relay.upstream import Target
from cachelb.routing.guard import allowed_addresses

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.relay.engine import Engine
    from cachelb.relay.ways import Ways

KEPT_PER_ORIGIN = 16


class Origins:
    """Finds, guards and remembers origins for one relay."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.known: dict[tuple[bytes, int], Target] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.resolver: Resolver | None = None
        self._settings: object = None
        self.allow_private = False
        self.own: frozenset[tuple[str, int]] = frozenset()
        self.own_ports: frozenset[int] = frozenset()
        self.own_everywhere: frozenset[int] = frozenset()  # ports on which every address of this host is ours
        self.most_idle = 256

    def configure(self, config: Config) -> None:
        """Take over new settings; kept connections were allowed by the old ones, so they go."""
        self.forget()
        self.allow_private = config.bypass.allow_private
        self.most_idle = config.limits.idle_direct
        listeners = [*config.listen.http, *config.listen.admin]
        self.own = frozenset((address.host, address.port) for address in listeners)
        self.own_ports = frozenset(address.port for address in listeners)
        everywhere = [address.port for address in listeners if ipaddress.ip_address(address.host).is_unspecified]
        self.own_everywhere = frozenset(everywhere)
        if config.resolver != self._settings:
            if self.resolver is not None:
                self.resolver.close()
            self.resolver = make_resolver(config.resolver)
            self._settings = config.resolver

    def find(self, exchange: Ways, host: bytes, port: int) -> None:
        """Tell ``exchange`` its target, at once where the address is known, or end it."""
        known = self.known.get((host, port))
        if known is not None and known.idle:
            exchange.origin_found(known)
            return
        name = host.decode("latin-1")
        assert self.resolver is not None
        addresses = self.resolver.cached(name, self.engine.clock())
        if addresses is not None:
            self._found(exchange, host, port, addresses)
            return
        task = self.engine.loop.create_task(self._resolve(exchange, exchange.serial, host, port))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _resolve(self, exchange: Ways, serial: int, host: bytes, port: int) -> None:
        assert self.resolver is not None
        name = host.decode("latin-1")
        try:
            addresses = await self.resolver.resolve(name)
        except ResolveError as exc:
            if exchange.is_resolving(serial):
                exchange.fail(Reason.DNS_TIMEOUT if exc.kind == "timeout" else Reason.DNS_ERROR, f"{name}: {exc}")
            return
        except Exception as exc:
            exchange.client.crashed(exc)
            return
        if exchange.is_resolving(serial):
            try:
                self._found(exchange, host, port, addresses)
            except Exception as exc:
                exchange.client.crashed(exc)

    def _found(self, exchange: Ways, host: bytes, port: int, addresses: list[str]) -> None:
        good, why = allowed_addresses(addresses, allow_private=self.allow_private)
        if port in self.own_ports:
            mine = exchange.client.local_address()
            foreign = [a for a in good if a != mine and (a, port) not in self.own]
            if port in self.own_everywhere:
                foreign = [a for a in foreign if not is_of_this_host(a)]
            if len(foreign) < len(good):
                good, why = foreign, "it is the director itself"
        if not good:
            exchange.origin_denied(why)
            return
        target = self.known.get((host, port))
        if target is None:
            target = Target(good[0], good, port, hierarchy="HIER_DIRECT")
            target.idle_max = KEPT_PER_ORIGIN
            target.keep_s = self.engine.timeouts.node_keep_alive_s
            self.known[host, port] = target
        target.addresses = tuple(good)
        exchange.origin_found(target)

    def expire(self, now: float) -> None:
        """Close what has been idle for too long or is too much, forget origins that nobody uses."""
        total = 0
        for key, target in list(self.known.items()):
            target.expire(now)
            total += len(target.idle)
            if total > self.most_idle:
                total -= len(target.idle)
                target.close_idle()
            if not target.idle and not target.under_way():
                target.idle_max = 0
                del self.known[key]

    def close(self) -> None:
        """Close every kept connection and free the resolver."""
        self.forget()
        if self.resolver is not None:
            self.resolver.close()
            self.resolver = None
            self._settings = None

    def forget(self) -> None:
        """Close every kept connection and forget every origin."""
        for target in self.known.values():
            target.idle_max = 0
            target.close_idle()
        self.known.clear()


def is_of_this_host(address: str) -> bool:
    """Whether connecting to ``address`` leads back here: the kernel would then connect from that very address."""
    if ipaddress.ip_address(address).is_loopback:
        return True
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # sends nothing
            return bool(probe.getsockname()[0] == address)
    except OSError:
        return False  # no way there
