"""TCP services as one relay has them: which listening socket is for what, who may call, and where a call goes.

A listening socket says itself, by its address, what it is for: so it stays what it is through reloads and upgrades.  A service
that a reload has taken out of the configuration goes on as it was until its sockets are closed, which takes an upgrade.

Left out: a call itself (``callers``).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from socket import SocketType
from typing import TYPE_CHECKING, Any, Final

from cachelb.config_values import parse_listen
from cachelb.errors import Reason
from cachelb.relay.attempts import TARGETS_MAX
from cachelb.relay.callers import Caller
from cachelb.relay.guests import Proxied, ends_of
from cachelb.relay.sessions import Session, Sessions, key_of
from cachelb.routing.guard import is_within
from cachelb.routing.pool import pool_by_name

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.config_policy import TcpConfig
    from cachelb.relay.engine import Engine
    from cachelb.relay.templates import Entry
    from cachelb.relay.upstream import Target
    from cachelb.routing.pool import Pool
    from cachelb.wire.client_hello import Hello
    from cachelb.wire.proxy_protocol import Ends

Targets = tuple["Target", ...]
Chosen = Callable[[Targets], None]
Receiver = Callable[[SocketType, tuple[Any, ...]], None]  # the address: of two parts, or of four (IPv6)

_ALGORITHM: Final = "ring"  # of schedulers that hash


class Service:
    """One service.

    settings: as configured; pools: by the name that a TLS client asks for, in lower case, or by ".suffix".
    checks_proxy: clients that are no trusted proxies must not speak the PROXY protocol.
    most: nodes asked for one connection.  On a port of a range it is one: what such a port means is between the client and its
        node (FTP), and another node may have it open for another client.
    """

    __slots__ = ("checks_proxy", "most", "pools", "settings")

    def __init__(self, settings: TcpConfig, checks_proxy: bool, most: int) -> None:
        self.settings = settings
        self.most = most
        self.pools = {name.lower(): pool for name, pool in settings.pools.items()}
        self.checks_proxy = checks_proxy or bool(settings.send_proxy)

    def pool_for(self, name: bytes) -> str:
        """The pool for a TLS client that asks for ``name``; b"": for none."""
        return pool_by_name(self.pools, name.decode("ascii"), self.settings.pool)


class Services:
    """All of one relay."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.sessions = Sessions()
        self.tell_sessions: Callable[[list[Session]], None] | None = None  # is told what was learned, for other workers
        self._by_place: dict[tuple[str, int], Service] = {}
        self._config: Config

    def configure(self, config: Config) -> None:
        """Take over services and trusted proxies."""
        self._config = config
        for settings in config.tcp:
            for listen in settings.listen:
                addresses = parse_listen(listen).addresses
                service = Service(settings, bool(config.listen.proxy_protocol), 1 if len(addresses) > 1 else TARGETS_MAX)
                for address in addresses:
                    self._by_place[address.host, address.port] = service

    def receiver(self, listener: socket.socket) -> Receiver | None:
        """Who takes what a listening socket accepts; None: the Door itself, for HTTP without any proxy before it."""
        host, port = listener.getsockname()[:2]
        service = self._by_place.get((host, port))
        if service is None and not self._config.listen.proxy_protocol:
            return None
        return partial(self._receive, service)

    def _receive(self, service: Service | None, sock: SocketType, address: tuple[Any, ...]) -> None:
        """Take a connection: a trusted proxy's has a header first."""
        ends = ends_of(sock, *address[:2])
        arrive = partial(self._arrive, service)
        door = self.engine.door
        if not is_within(ends.source, self._config.listen.proxy_protocol):
            arrive(sock, ends)
        elif door.is_full():
            door.turn_away(sock, ends.source, Reason.OVERLOADED, service is None)
        else:
            proxied = Proxied(self.engine, sock, ends, arrive)
            door.guests.add(proxied)
            proxied.resume()

    def _arrive(self, service: Service | None, sock: SocketType, ends: Ends) -> None:
        """It is known whose a connection is."""
        door = self.engine.door
        if service is None:
            door.admit(sock, ends.source, ends=ends)
            return
        self.engine.count("tcp_connections")
        reason = door.refusal(ends.source)
        if reason is not None:
            door.turn_away(sock, ends.source, reason, False)
            return
        caller = Caller(self.engine, sock, service, ends)
        door.enter(caller)
        caller.start(door.may_come(ends.source))

    # -- where to

    def choose(self, service: Service, ip: str, hello: Hello | None, done: Chosen) -> Targets | None:
        """Whom to connect to, in order; empty where no node of the pool is in service.  None: ``done`` is told, later.

        A TLS session that is known goes first, for it is worth something on one node only; then the client's affinity.
        """
        settings = service.settings
        name = hello.name if hello is not None else b""
        pool = self.engine.fleet.pools.get(service.pool_for(name))
        if pool is None:
            return ()  # of a service that is no longer configured, as its pool
        scheduler = settings.scheduler
        key = name if scheduler == "host" and name else ip.encode("ascii")
        if settings.tls == "session" and hello is not None:
            known = self._known(pool, hello)
            if known is not None:
                self.engine.count("tls_resumed")
                others = self.engine.steering.choose(pool, "lc", _ALGORITHM, key)
                return (known, *(target for target in others if target is not known))
        if settings.affinity:
            templates = self.engine.steering.templates
            if settings.affinity not in templates.groups:
                return ()  # likewise
            found = templates.known(settings.affinity, ip, pool)
            if found is None:
                found = templates.find(settings.affinity, ip, pool, scheduler, done, _ALGORITHM, key)
            return found
        return self.engine.steering.choose(pool, scheduler, _ALGORITHM, key)

    def hold(self, service: Service, ip: str) -> Entry | None:
        """A client of a service calls: its template does not expire before ``release``; None: it has no affinity."""
        group, templates = service.settings.affinity, self.engine.steering.templates
        return templates.hold(group, ip) if group in templates.groups else None

    def release(self, entry: Entry) -> None:
        """A call that was held for has ended."""
        self.engine.steering.templates.release(entry)

    def _known(self, pool: Pool[Target], hello: Hello) -> Target | None:
        for kind, value in (("ticket", hello.ticket), ("id", hello.session)):
            if value:
                slot = self.sessions.find(key_of(pool.name, kind, value), self.engine.now)
                for place in pool.serving:
                    if pool.targets[place].slot == slot:
                        return pool.targets[place]
        return None

    def learn(self, service: Service, hello: Hello, target: Target, session: bytes, ticket: bytes) -> None:
        """A node has begun a session, which this and the other workers remember."""
        pool = service.pool_for(hello.name)
        found = [(kind, value) for kind, value in (("id", session), ("ticket", ticket)) if value]
        learned = [Session(key_of(pool, kind, value), target.slot) for kind, value in found]
        self.take(learned)
        if learned and self.tell_sessions is not None:
            self.tell_sessions(learned)

    def take(self, sessions: list[Session]) -> None:
        """Take over what was learned here or by another worker."""
        for session in sessions:
            self.sessions.learn(session, self.engine.now)
