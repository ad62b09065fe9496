"""All sockets that a director listens on: bound at its start, before it becomes another user, or taken over from the director
before it.

A listening socket with clients in its backlog must not be closed and bound anew, for the kernel resets them.  So the very
sockets go to the next director; which address each is for, it says itself.  Whoever needs one takes it by its address; one
that nobody has taken when all have started is for an address that is no longer configured, and is closed.

Left out: the way from one director to the next (``takeover``).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from cachelb.config_values import parse_listen
from cachelb.listen import (
    Address,
    CannotListenError,
    cannot_listen,
    open_listener,
    open_listeners,
    open_shared,
    open_unix,
)

if TYPE_CHECKING:
    from cachelb.config import Config

log = logging.getLogger("cachelb")

Place = tuple[str, int]  # IP address, port
BindUdp = Callable[[str, int], socket.socket]


def worker_places(config: Config) -> list[Address]:
    """Where workers listen: for HTTP, and for TCP services."""
    services: list[Address] = []
    for service in config.tcp:
        for listen in service.listen:
            services += parse_listen(listen).addresses
    return [*config.listen.http, *services]


class Sockets:
    """Those that nobody has taken yet."""

    def __init__(self, bind_udp: BindUdp, inherited: Iterable[socket.socket] = ()) -> None:
        """Begin with what was taken over, which may be nothing.

        Args:
            bind_udp: Makes what is missing.
        """
        self._bind_udp = bind_udp
        self._tcp: dict[Place, list[socket.socket]] = {}
        self._udp: dict[Place, socket.socket] = {}
        self._unix: dict[str, socket.socket] = {}  # by what the path is in the end
        for sock in inherited:
            if sock.family == socket.AF_UNIX:
                self._unix[os.path.realpath(sock.getsockname())] = sock
                continue
            host, port = sock.getsockname()[:2]
            if sock.type == socket.SOCK_DGRAM:
                self._udp[host, port] = sock
            else:
                self._tcp.setdefault((host, port), []).append(sock)

    def bind(self, config: Config, workers: int) -> None:
        """Have every socket that the configuration asks for.

        Raises:
            CannotListenError: One is not to be had; none is held.
        """
        listen = config.listen
        try:
            for address in worker_places(config):
                self._tcp[address.host, address.port] = self._http(address, workers)
            for address in config.intercept.listen:
                self._tcp[address.host, address.port] = self._http(address, workers, transparent=True)
            for address in listen.admin:
                if (address.host, address.port) not in self._tcp:
                    self._tcp[address.host, address.port] = [open_listener(address)]
            for address in (*listen.icp, *listen.htcp, *listen.store_log):
                self._bind_one(address)
        except CannotListenError:
            self.close()
            raise
        for node in config.node:
            for address in node.store_log:
                try:
                    self._bind_one(address)
                except CannotListenError:
                    pass  # who takes it tries again and tells: a node's own place stops nobody

    def _http(self, address: Address, count: int, *, transparent: bool = False) -> list[socket.socket]:
        had = self._tcp.get((address.host, address.port))
        if had is None:
            return open_listeners(address, count, transparent=transparent)
        try:  # as root for a low port, the first director had rights that this one does not have
            return [*had, *open_shared(address, count - len(had), transparent=transparent)]
        except OSError:
            return had

    def _bind_one(self, address: Address) -> None:
        place = address.host, address.port
        if place not in self._udp:
            try:
                self._udp[place] = self._bind_udp(*place)
            except OSError as exc:
                raise cannot_listen(address, exc, "u") from exc

    def bind_unix(self, path: str, mode: int) -> None:
        """Have the Unix socket ``path``, of this mode: as the user that the process is to stay, for its file is that user's.

        Raises:
            CannotListenError: It is not to be had.
        """
        place = os.path.realpath(path)
        if place in self._unix:
            if os.path.exists(place):
                return  # it has its mode from the director before, until that is no longer the director
            self._unix.pop(place).close()  # somebody has removed the file, so nobody can get to the socket any more
        self._unix[place] = open_unix(path, mode)

    # -- for who needs one

    def workers(self, addresses: Sequence[Address], workers: int) -> list[list[socket.socket]]:
        """For each worker its listening sockets.

        Every one is somebody's: what is left when each worker has one is everybody's; where there are too few, workers share.
        """
        spread: list[list[socket.socket]] = [[] for _ in range(workers)]
        for address in addresses:
            sockets = self._tcp.pop((address.host, address.port))
            for number, own in enumerate(spread):
                own.append(sockets[number] if number < len(sockets) else sockets[number % len(sockets)].dup())
                own += [sock if number == 0 else sock.dup() for sock in sockets[workers:]]
        return spread

    def admin(self, address: Address) -> socket.socket:
        """The listening socket of an admin address.

        Raises:
            CannotListenError: It was not bound, and is not to be had.
        """
        found = self._tcp.pop((address.host, address.port), None)
        return found[0] if found else open_listener(address)

    def unix(self, path: str, mode: int) -> socket.socket | None:
        """The director's listening Unix socket, of this mode; the files of others, which the one before had, are removed."""
        found = self._unix.pop(os.path.realpath(path), None)
        if found is not None:
            try:
                os.chmod(path, mode)
            except OSError as exc:
                log.error("%s: its mode cannot be %04o: %s", path, mode, exc.strerror)
        for place, sock in self._unix.items():
            sock.close()
            with contextlib.suppress(OSError):
                os.unlink(place)
        self._unix.clear()
        return found

    def udp(self, host: str, port: int) -> socket.socket:
        """A UDP socket: what was bound or taken over, else a new one.

        Raises:
            OSError: It is not to be had.
        """
        found = self._udp.pop((host, port), None)
        return self._bind_udp(host, port) if found is None else found

    def close(self) -> None:
        """Close what nobody has taken."""
        tcp = (sock for sockets in self._tcp.values() for sock in sockets)
        for sock in (*tcp, *self._udp.values(), *self._unix.values()):
            sock.close()
        for held in (self._tcp, self._udp, self._unix):
            held.clear()
