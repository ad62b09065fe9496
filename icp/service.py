"""Receives datagrams, has them answered, sends the answers: ICP and HTCP, on several addresses.

    service = await Service.start([("0.0.0.0", 3130)], answerer.answer)
    ...
    service.close()

Nothing that arrives and nothing that the answering does raises out of here; what could not be done is counted.

The door of asyncio-dgram, and how it is used (measured 2026-11: uvloop 0.23, asyncio-dgram 3.0, Python 3.11, CPU of the
service per query with 32 under way, no lookup):

    recv() and send() per datagram                          6.2-6.7 us
    recv(), and the socket's own sendto                     4.4-4.6 us   send() looks for an error by raising QueueEmpty
    as above, but recv() only to wait, then the queue       3.3-3.8 us   this module; recv() does the same
    no asyncio-dgram: add_reader, recvfrom, sendto          2.9 us       the floor
    the standard library's event loop: recv() and send()    27-31 us     it allocates 256 KiB for every datagram
      with transport.max_size = 16384                       13-15 us

uvloop reads up to 32 datagrams per wake-up into the stream's queue; the loop below empties that queue before it waits again,
so the queue never holds more.  The socket is ours: its sendto does not block and does not queue, and a reply that the kernel
does not take is dropped and counted, since a late reply is worth nothing.

Left out: what is answered (``answer``, ``answer_htcp``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import asyncio_dgram

Answer = Callable[[bytes, str, float], bytes | Coroutine[Any, Any, bytes | None] | None]

MAX_DATAGRAM = 16384  # bytes; Squid's SQUID_UDP_SO_RCVBUF
# bytes: a burst waits there, at 832 a query, however short (Linux).  Without CAP_NET_ADMIN net.core.rmem_max caps it: Debian's
# 212,992 hold 512 queries
RECEIVE_BUFFER = 4 << 20
_SO_RCVBUFFORCE = 33
MAX_PENDING = 1024  # answers still being found out; at 3 ms each that is 340,000 a second
COMPLAIN_EVERY_S = 60.0

_log = logging.getLogger(__name__)


class Service:
    """Serves until it is closed.

    received, sent: datagrams.  unsent: replies that the kernel did not take.  crashed: times that the answering raised.
    overloaded: answers given up because MAX_PENDING were being found out.  addresses: (host, port) of each socket.
    """

    def __init__(self, answer: Answer) -> None:
        self.received = 0
        self.sent = 0
        self.unsent = 0
        self.crashed = 0
        self.overloaded = 0
        self.addresses: list[tuple[str, int]] = []
        self._answer = answer
        self._sockets: list[socket.socket] = []
        self._readers: set[asyncio.Task[None]] = set()
        self._pending: set[asyncio.Task[None]] = set()
        self._quiet_until = 0.0

    @classmethod
    async def start(cls, addresses: Sequence[tuple[str, int]], answer: Answer) -> Service:
        """Listen on all `addresses` (IP address, port; 0 = any).

        Args:
            answer: (datagram, sender's IP address, monotonic now) -> the datagram to send back, a coroutine that gives it and
                ends by itself, or None.

        Raises:
            OSError: One of them cannot be had; then none is held.
        """
        service = cls(answer)
        try:
            for host, port in addresses:
                await service._listen(host, port)
        except BaseException:
            service.close()
            raise
        return service

    def close(self) -> None:
        """Stop at once; answers not yet found out are given up."""
        for task in (*self._readers, *self._pending):
            task.cancel()
        for sock in self._sockets:
            sock.close()

    def counters(self) -> dict[str, int]:
        """What this class counts, by name."""
        names = ("received", "sent", "unsent", "crashed", "overloaded")
        return {name: getattr(self, name) for name in names}

    async def _listen(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        self._sockets.append(sock)
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if family == socket.AF_INET6:  # so that no source is seen as ::ffff:10.0.0.1
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        # the stream has a descriptor of its own: closing ours must not pull it from under the event loop
        stream: Any = await asyncio_dgram.from_socket(sock.dup())
        with contextlib.suppress(AttributeError):  # uvloop has no such thing and does not need it
            stream._transport.max_size = MAX_DATAGRAM
        self.addresses.append(sock.getsockname()[:2])
        reader = asyncio.get_running_loop().create_task(self._read(stream, sock.sendto))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)

    async def _read(self, stream: Any, send: Callable[[bytes, Any], int]) -> None:
        queue = stream._recvq
        size, take = queue.qsize, queue.get_nowait
        clock = asyncio.get_running_loop().time
        try:
            while True:
                try:
                    datagram, source = await stream.recv()
                except OSError:  # an ICMP error about one of our replies
                    self.unsent += 1
                    continue
                now = clock()
                self._handle(datagram, source, now, send)
                for _ in range(size()):
                    datagram, source = take()
                    if datagram is not None:  # None: the transport was closed; recv() will say so
                        self._handle(datagram, source, now, send)
        except asyncio_dgram.TransportClosed:
            pass
        finally:
            stream.close()

    def _handle(self, datagram: bytes, source: Any, now: float, send: Callable[[bytes, Any], int]) -> None:
        self.received += 1
        try:
            answer = self._answer(datagram, source[0], now)
            if answer is None:
                return
            if isinstance(answer, bytes):
                send(answer, source)
                self.sent += 1
            else:
                self._find_out(answer, source, send)
        except OSError:  # full buffer, no route
            self.unsent += 1
        except Exception:
            self._complain(now)

    def _find_out(self, answer: Coroutine[Any, Any, bytes | None], source: Any, send: Callable[[bytes, Any], int]) -> None:
        if len(self._pending) >= MAX_PENDING:
            self.overloaded += 1
            answer.close()
            return
        task = asyncio.get_running_loop().create_task(self._send_later(answer, source, send))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _send_later(
        self, answer: Coroutine[Any, Any, bytes | None], source: Any, send: Callable[[bytes, Any], int]
    ) -> None:
        try:
            datagram = await answer
            if datagram is not None:
                send(datagram, source)
                self.sent += 1
        except OSError:
            self.unsent += 1
        except Exception:
            self._complain(asyncio.get_running_loop().time())

    def _complain(self, now: float) -> None:
        """Inside an except clause: count, and log at most once a minute."""
        self.crashed += 1
        if now >= self._quiet_until:
            self._quiet_until = now + COMPLAIN_EVERY_S
            _log.exception("a datagram could not be answered (%d so far)", self.crashed)
