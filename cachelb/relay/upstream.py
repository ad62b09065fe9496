"""Where requests go: nodes and origins, with the connections kept to each.

A Target owns a stack of idle Links (last in, first out, so that the oldest expire).  A Link is one connection and serves one
exchange at a time.  Nothing here retries: a Link tells its exchange what happened, and the exchange decides.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Final, Protocol

from cachelb.counters import NODE_INDEX, ROW_WIDTH
from cachelb.listen import set_transparent
from cachelb.relay.ends import End, Loop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy_extensions import i64

# The first read of an answer takes a head and 64 KiB of body: up to there one read and one send are cheaper than
# splicing. CPU of the worker for 64 KiB, 2026-11: 39 us with reads of 16 KiB and the rest spliced, 32 us so.
READ_BYTES: Final = 73728
_BIND_ADDRESS_NO_PORT: Final = 24  # IP_BIND_ADDRESS_NO_PORT

# What this process lacks: descriptors, memory, ports to connect from.  It says nothing about who was to be connected to.
SHORTAGES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))

REQUESTS: Final = NODE_INDEX["requests"]
RESPONSES: Final = NODE_INDEX["responses"]
ENDED: Final = NODE_INDEX["ended"]
HITS: Final = NODE_INDEX["hits"]
MISSES: Final = NODE_INDEX["misses"]
BYTES: Final = NODE_INDEX["bytes"]
CONNECTS: Final = NODE_INDEX["connects"]
CONNECT_FAILURES: Final = NODE_INDEX["connect_failures"]
RESETS: Final = NODE_INDEX["resets"]
STALE: Final = NODE_INDEX["stale"]
TIMEOUTS: Final = NODE_INDEX["timeouts"]
BAD_RESPONSES: Final = NODE_INDEX["bad_responses"]
ORIGIN_ERRORS: Final = NODE_INDEX["origin_errors"]
IDLE: Final = NODE_INDEX["idle"]


class Waiter(Protocol):
    """The exchange that a Link serves."""

    def link_ready(self, link: Link) -> None:
        """The connection is open."""

    def link_failed(self, error: OSError) -> None:
        """No connection could be opened."""

    def link_data(self, link: Link, data: bytes) -> None:
        """Bytes of the answer's head, and what came with them."""

    def link_readable(self, link: Link) -> None:
        """The body has more; the exchange's pump reads it."""

    def link_lost(self, link: Link) -> None:
        """The connection was closed before the answer's head was complete, or broke while sending."""

    def crashed(self, exc: Exception) -> None:
        """A bug of ours showed while the Link was served."""


class Tally:
    """What every request counts of a node, beside the list of all counters, to which it is added when that is told.

    Compiled, these are machine integers in one cache line, where those of a list are objects made anew: to count a request
    with its time takes a third, with 1,000 nodes half as long (2026-11: 90 ns instead of 295, 276 instead of 536).
    """

    __slots__ = ("bytes", "ended", "hits", "misses", "requests", "responses")

    def __init__(self) -> None:
        self.requests: i64 = 0
        self.responses: i64 = 0
        self.ended: i64 = 0
        self.hits: i64 = 0
        self.misses: i64 = 0
        self.bytes: i64 = 0


class Target:
    """A node, or an origin (host and port) that is asked directly.

    Attributes:
        name: the node's name, or the origin's address for the log; hierarchy: Squid's word for how it was chosen.
        is_node: False for an origin; slot: the place of a node's counters.
        addresses: IP literals to try in order; port: where to connect.
        idle: kept connections, the oldest first; idle_max: how many are kept at most.
        client: whose requests alone it is for, by address; "": everybody's (spoofing.py).
        shared: of such a Target, the one for everybody; used_at: when it was last asked for, on the engine's clock.
        apart: idle connections that such Targets keep to the same node, as of a second ago.
        source: the address that it is connected to from; "": ours.  send_proxy: the version of the PROXY protocol it expects.
        counts: the counters of ``counters.NODE``, in that order, and the histograms; tally: what is added to them.
        elsewhere: requests under way with other workers, half a second old at most; kept up to date where a scheduler asks.
    """

    __slots__ = (
        "addresses", "apart", "client", "counts", "elsewhere", "hierarchy", "idle", "idle_max", "is_node", "keep_s", "name",
        "port", "send_proxy", "shared", "slot", "source", "state", "tally", "used_at",
    )  # fmt: skip

    def __init__(self, name: str, addresses: Sequence[str], port: int, slot: int = -1, hierarchy: str = "CARP") -> None:
        self.name = name
        self.addresses = tuple(addresses)
        self.port = port
        self.slot = slot
        self.is_node = slot >= 0
        self.hierarchy = hierarchy
        self.state = "up"
        self.idle: list[Link] = []
        self.idle_max = 256
        self.keep_s = 55.0
        self.counts = [0] * ROW_WIDTH
        self.tally = Tally()
        self.elsewhere = 0
        self.client = ""
        self.source = ""
        self.send_proxy = ""
        self.shared: Target | None = None
        self.used_at = 0.0
        self.apart = 0

    def everybodys(self) -> Target:
        """The Target that stands for the node or origin: whose state is kept up to date."""
        return self.shared or self

    def under_way(self) -> int:
        """Requests, and connections of TCP services, that have begun and not ended."""
        tally, counts = self.tally, self.counts
        return counts[REQUESTS] + tally.requests - counts[ENDED] - tally.ended

    def load(self) -> int:
        """As ``under_way``, over all workers."""
        return self.under_way() + self.elsewhere

    def as_block(self) -> memoryview:
        """The counters as they stand in a shared block."""
        values, tally = self.counts.copy(), self.tally
        values[REQUESTS] += tally.requests
        values[RESPONSES] += tally.responses
        values[ENDED] += tally.ended
        values[HITS] += tally.hits
        values[MISSES] += tally.misses
        values[BYTES] += tally.bytes
        return memoryview(array.array("Q", values))

    def keep(self, link: Link, now: float) -> None:
        """Keep an idle Link for a later exchange, or close it when there are enough."""
        if len(self.idle) >= self.idle_max or not self.idle_max:
            link.shut()
            return
        link.exchange = None
        link.deadline = now + self.keep_s
        if not link.reading:
            link.resume()
        self.idle.append(link)

    def expire(self, now: float) -> None:
        """Close what has been idle for too long."""
        idle = self.idle
        old = 0
        while old < len(idle) and idle[old].deadline <= now:
            idle[old].shut()
            old += 1
        if old:
            del idle[:old]

    def close_idle(self) -> None:
        """Close every idle Link: the node has gone, or its address has changed."""
        for link in self.idle:
            link.shut()
        self.idle.clear()


class Link(End):
    """One connection to a Target."""

    __slots__ = ("address", "answering", "deadline", "exchange", "inbuf", "opening", "port", "target", "used")

    def __init__(self, loop: Loop, sock: socket.socket, target: Target, address: str, port: int = 0) -> None:
        super().__init__(loop, sock)
        self.target = target
        self.address = address
        self.port = port or target.port
        self.exchange: Waiter | None = None
        self.inbuf = b""
        self.opening = True
        self.answering = False  # the head has been read: what comes is the pump's
        self.used = False  # it has served an exchange before, so it may be stale
        self.deadline = 0.0

    def connect(self) -> None:
        """Begin to connect; the exchange is told the outcome, never from within this call.

        Raises:
            OSError: The address cannot be connected to at all.
        """
        code = self.sock.connect_ex((self.address, self.port))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, f"connect to {self.address} port {self.port}")
        self.loop.add_writer(self.fd, self._connected)

    def _connected(self) -> None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code and not self._has_peer():
            return  # a call too many: see Poller
        self.loop.remove_writer(self.fd)
        exchange = self.exchange
        if exchange is None:
            self.shut()
            return
        if code:
            self.shut()
            try:
                exchange.link_failed(OSError(code, os.strerror(code)))
            except Exception as exc:
                exchange.crashed(exc)
            return
        self.opening = False
        self.resume()
        try:
            exchange.link_ready(self)
        except Exception as exc:
            exchange.crashed(exc)

    def _has_peer(self) -> bool:
        try:
            self.sock.getpeername()
        except OSError:
            return False
        return True

    def readable(self) -> None:
        exchange = self.exchange
        if exchange is None:
            # Idle: the node closes it, or says something nobody asked for.  Either way it is of no use any more.
            with contextlib.suppress(ValueError):
                self.target.idle.remove(self)
            self.shut()
            return
        try:
            if self.answering:
                exchange.link_readable(self)
                return
            try:
                data = self.sock.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                exchange.link_lost(self)
                return
            if self.inbuf:
                data = self.inbuf + data
            exchange.link_data(self, data)
        except Exception as exc:  # ours: nothing else may suffer from it
            exchange.crashed(exc)

    def is_quiet(self) -> bool:
        """Whether nothing has arrived, neither bytes nor an end."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def broken(self) -> None:
        if self.exchange is not None and not self.answering:
            self.exchange.link_lost(self)

    def crashed(self, exc: Exception) -> None:
        if self.exchange is not None:
            self.exchange.crashed(exc)


def _speak_from(sock: socket.socket, address: str) -> None:
    """Bind a socket to an address that is not this host's; its port is chosen when it connects, for both ends together."""
    set_transparent(sock)
    sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
    sock.bind((address, 0))


def open_link(loop: Loop, target: Target, address: str, port: int = 0) -> Link:
    """Make a Link to ``address`` and begin to connect.  port: where to; 0: the target's own.

    Raises:
        OSError: No socket can be made, or the address cannot be connected to at all.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target.source:
            _speak_from(sock, target.source)
        link = Link(loop, sock, target, address, port)
        link.connect()
    except OSError:
        sock.close()
        raise
    return link
