"""Connections that are not, or not yet, an HTTP client's: callers of TCP services, and proxies that say first whose it is.

Left out: callers (``callers``), who may come in (``door``, ``services``).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from socket import SocketType
from typing import TYPE_CHECKING, Final

from cachelb.errors import Reason
from cachelb.relay.ends import End
from cachelb.wire.proxy_protocol import V2_BYTES, V2_REST_BYTES, BadProxyHeaderError, Ends, parse

if TYPE_CHECKING:
    from cachelb.relay.engine import Engine
    from cachelb.relay.upstream import Target

HEADER_BYTES: Final = V2_BYTES + V2_REST_BYTES  # no PROXY header that we take is longer

RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 s: close() sends RST

Arrive = Callable[[SocketType, Ends], None]


def ends_of(sock: SocketType, ip: str, port: int) -> Ends:
    """The ends of a connection that nobody has said anything about; ip, port: its peer's.  Raises OSError: it has gone."""
    here = sock.getsockname()
    return Ends(_plain(ip), port, _plain(here[0]), here[1])


def _plain(ip: str) -> str:
    return ip.removeprefix("::ffff:").partition("%")[0]


class Guest(End):
    """One of them.  deadline: when ``expired`` is called, on the engine's clock."""

    __slots__ = ("deadline", "engine", "ip")

    def __init__(self, engine: Engine, sock: SocketType, ip: str) -> None:
        super().__init__(engine.poller, sock)
        self.engine = engine
        self.ip = ip
        self.deadline = 0.0

    def expired(self) -> None:
        """The deadline has passed."""
        raise NotImplementedError

    def cut(self) -> None:
        """End the connection because the director stops."""
        raise NotImplementedError

    def hurry(self) -> None:
        """The director stops, and nothing has been promised to who has said nothing yet."""

    def nodes_died(self, died: set[Target]) -> None:
        """These nodes have just been declared dead."""

    def abort(self) -> None:
        """Close at once with a reset, so that what was cut cannot be taken for whole."""
        if not self.closed:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            except OSError:
                pass  # it has gone already
            self.close()

    def close(self) -> None:
        """Close and forget the connection."""
        if not self.closed:
            self.shut()
            self.engine.door.part(self)


class Proxied(Guest):
    """A connection of a trusted proxy, until that has said whose it is.

    No byte behind the header is read: whoever takes the connection over begins with a socket that is as it should be.
    """

    __slots__ = ("_arrive", "_ends", "_head")

    def __init__(self, engine: Engine, sock: SocketType, ends: Ends, arrive: Arrive) -> None:
        """ends: of the connection itself; arrive: is given the socket, and what the header says."""
        super().__init__(engine, sock, ends.source)
        self._ends = ends
        self._arrive = arrive
        self._head = b""
        self.deadline = engine.now + engine.timeouts.head_s

    def readable(self) -> None:
        try:
            self._read()
        except Exception as exc:  # ours: nothing else may suffer from it
            self.crashed(exc)

    def _read(self) -> None:
        try:
            data = self.sock.recv(HEADER_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(Reason.CLIENT_GONE)
            return
        try:
            header = parse(self._head + data)
        except BadProxyHeaderError as exc:
            self._end(Reason.BAD_PROXY_HEADER, str(exc))
            return
        if header is None:  # then all of it is the header's
            self._head += self.sock.recv(len(data))
            return
        self.sock.recv(header.size - len(self._head))
        self._hand_over(header.ends or self._ends)

    def _hand_over(self, ends: Ends) -> None:
        self.pause()
        self.closed = True  # the socket is another's now
        self.engine.door.part(self)
        self._arrive(self.sock, ends)

    def _end(self, reason: Reason, detail: str = "") -> None:
        engine = self.engine
        engine.farm[engine.ends[reason]] += 1
        if reason is not Reason.CLIENT_GONE:
            engine.reports.limited(f"proxy {self.ip} closed: {reason.value.text}" + (f": {detail}" if detail else ""))
        self.close()

    def expired(self) -> None:
        self._end(Reason.PROXY_HEADER_TIMEOUT)

    def hurry(self) -> None:
        self.close()

    def cut(self) -> None:
        self._end(Reason.SHUTDOWN)

    def broken(self) -> None:  # nothing is sent
        raise AssertionError("sent to a proxy that has not said its header")

    def crashed(self, exc: Exception) -> None:
        self.engine.crashed(exc)
        self.abort()
