"""Who comes in: accepting, the client networks that are allowed, and the limits on connections.

A client of a network that is not allowed still gets a connection, and on it one answer that says why.  One that is over a
limit gets that answer at once, without a request being read.  Callers of TCP services and proxies that tell of their clients
(``services``) come through the same door and count like everybody else.
"""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Iterable, Sequence
from functools import partial
from socket import SocketType
from typing import TYPE_CHECKING, Final

from cachelb.counters import FARM_INDEX
from cachelb.errors import Reason
from cachelb.listen import BACKLOG, is_transparent
from cachelb.relay import pages
from cachelb.relay.callers import Caller
from cachelb.relay.client import Client
from cachelb.relay.guests import Guest
from cachelb.relay.intercepted import Intercepted
from cachelb.relay.services import Services
from cachelb.routing.guard import is_within

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.config_base import Network
    from cachelb.relay.engine import Engine
    from cachelb.relay.services import Receiver
    from cachelb.relay.upstream import Target
    from cachelb.wire.proxy_protocol import Ends

ACCEPTS: Final = 64  # connections taken at one go, so that a burst does not keep answers waiting
KNOWN_MAX: Final = 10_000  # addresses whose permission is remembered
SPARE_FILES: Final = 512  # descriptors for pipes, kept connections and names, beyond the two of each client

_CLIENTS: Final = FARM_INDEX["clients"]
_INTERCEPTED: Final = FARM_INDEX["intercepted"]
# No descriptors or no memory: the connection stays in the backlog, and asking again at once would only burn the
# processor.
_OUT_OF: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Door:
    """The listening sockets of one relay and who came through them: HTTP clients, and guests (``guests``)."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clients: set[Client] = set()
        self.guests: set[Guest] = set()
        self.services = Services(engine)
        self.listeners: list[socket.socket] = []
        self.intercepting: set[socket.socket] = set()  # those to which the kernel brings what is meant for others
        self.intercepting_ports: set[int] = set()  # their own: who asks for these has not been intercepted
        self.resting = False  # out of descriptors: not accepting until the next tick
        self.most = 0  # clients at the same time
        self.burst = 1  # connections taken at one go just now
        self._most_per_client = 0
        self._per_client: dict[str, int] = {}
        self._receivers: dict[int, Receiver] = {}  # by descriptor: of listening sockets that are not simply for HTTP
        self._known: dict[str, bool] = {}
        self._purgers: dict[str, bool] = {}
        self._config: Config

    def configure(self, config: Config) -> None:
        """Take over limits and networks."""
        self._config = config
        self._most_per_client = config.limits.connections_per_client
        self._known.clear()
        self._purgers.clear()
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            self.most = config.limits.connections
        else:  # who is let in needs a second descriptor: clients that do nothing must not take them all
            self.most = min(config.limits.connections, (files - min(SPARE_FILES, files // 2)) // 2)
        self.services.configure(config)
        self._find_receivers()

    def open(self, listeners: Sequence[socket.socket]) -> None:
        """Begin to accept on ``listeners``, which are the Door's from now on."""
        self.listeners = list(listeners)
        for listener in self.listeners:
            listener.setblocking(False)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        self.intercepting = {listener for listener in self.listeners if is_transparent(listener)}
        self.intercepting_ports = {listener.getsockname()[1] for listener in self.intercepting}
        self._find_receivers()
        self.watch()

    def _find_receivers(self) -> None:
        self._receivers.clear()
        for listener in self.listeners:
            if listener in self.intercepting:
                continue  # what the kernel brings begins with no PROXY header
            receiver = self.services.receiver(listener)
            if receiver is not None:
                self._receivers[listener.fileno()] = receiver

    def watch(self) -> None:
        """Accept, or accept again after a rest."""
        self.resting = False
        for listener in self.listeners:
            self.engine.poller.add_reader(listener.fileno(), partial(self._accept, listener))

    def _rest(self) -> None:
        self.resting = True
        for listener in self.listeners:
            self.engine.poller.remove_reader(listener.fileno())

    def close(self) -> None:
        """Accept who is waiting, for they were promised a connection, then nobody more."""
        for listener in self.listeners:
            for _ in range(BACKLOG // ACCEPTS):
                self._take(listener, ACCEPTS)
                if self.burst == 1:
                    break  # nobody more is waiting: a service may listen on a thousand ports
        if not self.resting:
            self._rest()
        for listener in self.listeners:
            listener.close()
        self.listeners = []

    def _accept(self, listener: socket.socket) -> None:
        """Take as many as there were at a time lately: to find out that there are no more is a system call, too."""
        self._take(listener, self.burst)

    def _take(self, listener: socket.socket, most: int) -> None:
        engine = self.engine
        receiver = self._receivers.get(listener.fileno())
        for _ in range(most):
            try:
                # As socket.accept(), which looks up two enumerations and runs two constructors on the way: 2 us (2026-11).
                fd, address = listener._accept()  # type: ignore[attr-defined]
                sock = SocketType(_family(address), socket.SOCK_STREAM, 0, fileno=fd)
            except BlockingIOError:
                self.burst = 1
                return
            except OSError as exc:
                engine.reports.limited(f"cannot accept a connection: {exc}")
                if exc.errno in _OUT_OF and not self.resting:
                    self._rest()
                    return
                continue
            engine.farm[_CLIENTS] += 1
            try:
                if receiver is None:
                    self.admit(sock, address[0], bool(self.intercepting) and listener in self.intercepting)
                else:
                    sock.setblocking(False)
                    receiver(sock, address)
            except Exception as exc:  # ours: it must not keep others from coming in
                engine.crashed(exc)
                sock.close()
        self.burst = min(2 * most, ACCEPTS)

    def admit(self, sock: SocketType, ip: str, intercepted: bool = False, ends: Ends | None = None) -> None:
        """Let an HTTP client in, or tell it why not.  intercepted: the kernel has brought it here.  ends: see ``Client``."""
        sock.setblocking(False)
        if ip.startswith("::ffff:"):
            ip = ip[7:]
        count = self._per_client.get(ip, 0)
        if count >= self._most_per_client:
            self.turn_away(sock, ip, Reason.TOO_MANY_CONNECTIONS, True)
        elif self.is_full():
            self.turn_away(sock, ip, Reason.OVERLOADED, True)
        elif intercepted and sock.getsockname()[1] in self.intercepting_ports:
            self.turn_away(sock, ip, Reason.NOT_INTERCEPTED, True)
        else:
            make = Intercepted if intercepted else Client
            client = make(self.engine, sock, ip, not self.may_come(ip))
            client.told = ends
            self.engine.farm[_INTERCEPTED] += intercepted
            self._per_client[ip] = count + 1
            self.clients.add(client)
            client.resume()

    def enter(self, caller: Caller) -> None:
        """Let a caller of a TCP service in."""
        self._per_client[caller.ip] = self._per_client.get(caller.ip, 0) + 1
        self.guests.add(caller)

    def is_full(self) -> bool:
        """Whether nobody more can be served."""
        return len(self.clients) + len(self.guests) >= self.most

    def refusal(self, ip: str) -> Reason | None:
        """Which limit keeps a client out, if one does."""
        if self._per_client.get(ip, 0) >= self._most_per_client:
            return Reason.TOO_MANY_CONNECTIONS
        return Reason.OVERLOADED if self.is_full() else None

    def may_come(self, ip: str) -> bool:
        """Whether a client is of a network that is allowed."""
        return _is_in(ip, self._config.access.allow, self._known)

    def turn_away(self, sock: SocketType, ip: str, reason: Reason, speaks_http: bool) -> None:
        """Close a connection because of a limit, and say so if it is HTTP that is spoken there."""
        engine = self.engine
        engine.farm[engine.ends[reason]] += 1
        engine.reports.limited(f"client {ip} turned away: {reason.value.text}")
        if speaks_http:
            try:
                sock.send(pages.error_page(reason, "", b"", engine.reports.request_id(), engine.planner.via_name))
            except OSError:
                pass
        sock.close()

    def may_purge(self, ip: str) -> bool:
        """Whether a client may have URLs forgotten, by what is configured now."""
        return _is_in(ip, self._config.access.purge, self._purgers)

    def forget(self, client: Client) -> None:
        """A client connection is closed."""
        self.clients.discard(client)
        if client.pin is not None:
            client.pin.release()
        for entry in (client.held or {}).values():
            self.engine.steering.templates.release(entry)
        client.held = None
        self._leave(client.ip)

    def part(self, guest: Guest) -> None:
        """The same of a guest."""
        self.guests.discard(guest)
        if isinstance(guest, Caller):
            self._leave(guest.ip)
            if guest.held is not None:
                self.services.release(guest.held)
                guest.held = None
        self.engine.left()

    def _leave(self, ip: str) -> None:
        count = self._per_client.get(ip, 1) - 1
        if count:
            self._per_client[ip] = count
        else:
            self._per_client.pop(ip, None)

    # -- guests, as the engine has HTTP clients

    def sweep(self, now: float) -> None:
        """Tell guests whose time is over."""
        for guest in [guest for guest in self.guests if guest.deadline <= now]:
            try:
                guest.expired()
            except Exception as exc:
                guest.crashed(exc)

    def nodes_died(self, died: set[Target]) -> None:
        """Tell guests of nodes that have just been declared dead."""
        for guest in list(self.guests):
            try:
                guest.nodes_died(died)
            except Exception as exc:
                guest.crashed(exc)

    def hurry(self) -> None:
        """Let nobody stay who has not said anything."""
        for guest in list(self.guests):
            guest.hurry()

    def cut(self) -> int:
        """Cut everybody who is still here; how many."""
        clients, guests = list(self.clients), list(self.guests)
        for client in clients:
            client.cut()
        for guest in guests:
            guest.cut()
        return len(clients) + len(guests)

    def sizes(self) -> tuple[int, int]:
        """Connections: all, and those of guests."""
        return len(self.clients) + len(self.guests), len(self.guests)


def _family(address: tuple[object, ...]) -> int:
    """IPv6 addresses come with flow and scope, IPv4 ones without."""
    return socket.AF_INET if len(address) == 2 else socket.AF_INET6


def _is_in(ip: str, networks: Iterable[Network], known: dict[str, bool]) -> bool:
    """Whether an address is in one of the networks; ``known`` remembers."""
    found = known.get(ip)
    if found is None:
        found = is_within(ip, networks)
        if len(known) >= KNOWN_MAX:
            known.clear()
        known[ip] = found
    return found
