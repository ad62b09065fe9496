"""Receives datagrams, has them answered, sends the answers: ICP and HTCP, on several addresses.

    service = await Service.start([("0.0.0.0", 3130)], answerer.answer)
    ...
    service.close()

Nothing that arrives and nothing that the answering does raises out of here; what could not be done is counted.

The door of asyncio-dgram, and how it is used (measured 2026-11: uvloop 0.23, asyncio-dgram 3.0, Python 3.11; CPU of the
service per query, no lookup; with 32 queries under way, and with one):

                                                            32 us      1 us
    recv() and send() per datagram                            6.4      14.5   send() finds no error by raising QueueEmpty
    recv(), and the socket's own sendto                       4.5
    the same, but recv() to wait only, then its queue         3.4       8.4
    the stream's transport handed to our protocol             3.3       4.4   this module
    no asyncio-dgram: add_reader, recvfrom, sendto            2.9       5.2   the floor
    the standard library's event loop: recv() and send()       27        37   256 KiB allocated for every datagram
      the same with transport.max_size = 16384                 14

So asyncio-dgram opens the endpoint, and wakes us up by the protocol's callback: no task to start, no queue to bound.  What waits
behind the datagram that it brings is received, answered and sent in batches (``batch``): 5 us a query instead of 9, with many
under way; a C program that only echoes them takes 3.8 (2026-11, on a slower day than above).  With fewer than two waiting it is
looked for seldom, so that a single query costs what it did.  Answers leave by the socket's own sendto or sendmmsg, which do not
block and do not queue: a reply that the kernel does not take is dropped and counted, since a late one is worth nothing.

In a flood of what gets no answer the kernel is told to drop it (``sieve``).  A bad packet per query then makes queries dearer by
-8 to +7 %; without, by 40 % (2026-11).

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

from . import sieve
from .batch import SLOTS, Batch

Reply = bytes | Coroutine[Any, Any, bytes | None] | None
Answer = Callable[[bytes, str, float], Reply]
AnswerAll = Callable[[list[bytes], list[str], float], Sequence[Reply]]
Send = Callable[[bytes, Any], int]
Bind = Callable[[str, int], socket.socket]

MAX_DATAGRAM = 16384  # bytes; Squid's SQUID_UDP_SO_RCVBUF
# bytes: a burst waits there, at 832 a query, however short (Linux).  Without CAP_NET_ADMIN net.core.rmem_max caps it: Debian's
# 212,992 hold 512 queries
RECEIVE_BUFFER = 4 << 20
_SO_RCVBUFFORCE = 33
MAX_PENDING = 1024  # answers still being found out; at 3 ms each that is 340,000 a second
# Datagrams that are answered singly after it was found that no more wait: to look in vain costs 2 us
PAUSE = 8
# Full batches in a row before the event loop's other work has its turn: 4 ms.  libuv calls at most LIBUV_READS times in one go,
# and these are answered singly, at twice the cost
MAX_FULL = 14
LIBUV_READS = 32
FLOOD_PER_S = 1000  # datagrams without an answer, from then on a flood; they cost 0.2 % of a CPU
SIEVE_S = 10.0  # so long what is nothing is dropped in the kernel; then it is seen whether the flood is over
COMPLAIN_EVERY_S = 60.0

_log = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """A UDP socket for a Service on an IP address.

    Raises:
        OSError: It is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if family == socket.AF_INET6:  # so that no source is seen as ::ffff:10.0.0.1
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


class Service:
    """Serves until it is closed.

    received, sent: datagrams.  unsent: replies that the kernel did not take.  crashed: times that the answering raised.
    overloaded: answers given up because MAX_PENDING were being found out.  floods: times that the sieve was put in place.
    addresses: (host, port) of each socket.
    """

    def __init__(self, answer: Answer, answer_all: AnswerAll | None = None, program: bytes = b"") -> None:
        self.received = 0
        self.sent = 0
        self.unsent = 0
        self.crashed = 0
        self.overloaded = 0
        self.floods = 0
        self.addresses: list[tuple[str, int]] = []
        self._answer = answer
        self._answer_all = answer_all
        self._program = program
        self._sieve: asyncio.TimerHandle | None = None  # while it is in place
        self._silent = 0  # datagrams without an answer
        self._silent_since = 0.0
        self._sockets: list[socket.socket] = []
        self._streams: list[Any] = []  # of asyncio-dgram
        self._is_closed = False
        self._is_paused = False
        self._pending: set[asyncio.Task[None]] = set()
        self._quiet_until = 0.0

    @classmethod
    async def start(
        cls,
        addresses: Sequence[tuple[str, int]],
        answer: Answer,
        answer_all: AnswerAll | None = None,
        program: bytes = b"",
        bind: Bind = bind,
    ) -> Service:
        """Listen on all `addresses` (IP address, port; 0 = any).

        Args:
            answer: (datagram, sender's IP address, monotonic now) -> the datagram to send back, a coroutine that gives it and
                ends by itself, or None.
            answer_all: The same for many datagrams, where that is cheaper: as many answers, in the same order.
            program: Lets pass at least what may get an answer (``sieve``); used while a flood of all else comes in.
            bind: Makes the socket of an address.

        Raises:
            OSError: One of them cannot be had; then none is held.
        """
        service = cls(answer, answer_all, program)
        try:
            for host, port in addresses:
                await service._listen(bind(host, port))
        except BaseException:
            service.close()
            raise
        return service

    def close(self) -> None:
        """Stop at once; answers not yet found out are given up."""
        self._is_closed = True
        if self._sieve is not None:
            self._sieve.cancel()
        for task in self._pending:
            task.cancel()
        for stream in self._streams:
            stream.close()
        for sock in self._sockets:
            sock.close()

    def counters(self) -> dict[str, int]:
        """What this class counts, by name.  dropped: by the kernel, for want of room or as the sieve says; 0 once closed."""
        names = ("received", "sent", "unsent", "crashed", "overloaded", "floods")
        return {name: getattr(self, name) for name in names} | {"dropped": sum(map(sieve.dropped, self._sockets))}

    def pause(self) -> None:
        """Take no datagrams, so that they wait or go to another process with the same sockets; answers under way are sent."""
        self._is_paused = True
        if self._sieve is not None:
            self._sieve.cancel()
            self._remove_sieve()
        for stream in self._streams:
            stream.close()
        self._streams.clear()

    async def resume(self) -> None:
        """End a pause, if there is one."""
        if self._is_paused:
            self._is_paused = False
            for sock in self._sockets:
                await self._receive(sock)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """What it listens on."""
        return tuple(self._sockets)

    async def _listen(self, sock: socket.socket) -> None:
        self._sockets.append(sock)
        sieve.detach(sock)  # who had it before may have put one there
        await self._receive(sock)
        self.addresses.append(sock.getsockname()[:2])

    async def _receive(self, sock: socket.socket) -> None:
        # the stream has a descriptor of its own: closing ours must not pull it from under the event loop
        stream: Any = await asyncio_dgram.from_socket(sock.dup())
        with contextlib.suppress(AttributeError):  # uvloop has no such thing and does not need it
            stream._transport.max_size = MAX_DATAGRAM
        receiver = _Receiver(self, sock)
        stream._transport.set_protocol(receiver)
        self._streams.append(stream)
        while not stream._recvq.empty():  # they came while the endpoint was being made
            datagram, source = stream._recvq.get_nowait()
            if datagram is not None:
                receiver.datagram_received(datagram, source)

    def _find_out(self, answer: Coroutine[Any, Any, bytes | None], source: Any, send: Send) -> None:
        if len(self._pending) >= MAX_PENDING:
            self.overloaded += 1
            answer.close()
            return
        task = asyncio.get_running_loop().create_task(self._send_later(answer, source, send))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _send_later(self, answer: Coroutine[Any, Any, bytes | None], source: Any, send: Send) -> None:
        try:
            datagram = await answer
            if datagram is not None:
                send(datagram, source)
                self.sent += 1
        except OSError:
            self.unsent += 1
        except Exception:
            self.complain(asyncio.get_running_loop().time())

    def kept_silent(self, count: int, now: float) -> None:
        """So many datagrams got no answer."""
        if now >= self._silent_since + 1:
            self._silent, self._silent_since = 0, now
        self._silent += count
        if self._silent < FLOOD_PER_S or not self._program or self._sieve is not None or self._is_closed or self._is_paused:
            return
        self._silent = 0
        if all(sieve.attach(sock, self._program) for sock in self._sockets):
            self.floods += 1
            self._sieve = asyncio.get_running_loop().call_later(SIEVE_S, self._remove_sieve)
        else:  # not here
            self._remove_sieve()
            self._program = b""

    def _remove_sieve(self) -> None:
        self._sieve = None
        for sock in self._sockets:
            sieve.detach(sock)

    def complain(self, now: float) -> None:
        """Inside an except clause: count, and log at most once a minute."""
        self.crashed += 1
        if now >= self._quiet_until:
            self._quiet_until = now + COMPLAIN_EVERY_S
            _log.exception("a datagram could not be answered (%d so far)", self.crashed)


class _Receiver(asyncio.DatagramProtocol):
    """One socket's datagrams, answered as they come."""

    def __init__(self, service: Service, sock: socket.socket) -> None:
        self._service = service
        self._answer = service._answer
        self._answer_all = service._answer_all or self._answer_each
        self._send = sock.sendto
        self._batch = Batch.of(sock)
        self._clock = asyncio.get_running_loop().time
        self._pause = 0  # datagrams until it is looked again whether more wait
        self._full = 0  # batches in a row

    def datagram_received(self, data: bytes, addr: Any) -> None:
        service = self._service
        service.received += 1
        now = self._clock()
        try:
            answer = self._answer(data, addr[0], now)
            if isinstance(answer, bytes):
                self._send(answer, addr)
                service.sent += 1
            elif answer is None:
                service.kept_silent(1, now)
            else:
                service._find_out(answer, addr, self._send)
        except OSError:  # full buffer, no route
            service.unsent += 1
        except Exception:
            service.complain(now)
        if self._pause:
            self._pause -= 1
        elif self._batch is not None:
            try:
                self._drain(self._batch, now)
            except Exception:
                service.complain(now)

    def _drain(self, batch: Batch, now: float) -> None:
        """Answer what waits behind the datagram that woke us up."""
        datagrams = batch.receive()
        if not datagrams:
            self._pause = PAUSE
            return
        self._full = self._full + 1 if len(datagrams) == SLOTS else 0
        if self._full == MAX_FULL:
            self._full, self._pause = 0, LIBUV_READS
        service = self._service
        service.received += len(datagrams)
        hosts = batch.hosts()
        try:
            answers = self._answer_all(datagrams, hosts, now)
        except Exception:  # because of one of them
            answers = self._answer_each(datagrams, hosts, now)
        try:
            replies, sent = len(answers), batch.send(answers)  # type: ignore[arg-type]
        except TypeError:  # not all of them are bytes
            replies, sent = self._send_some(batch, answers, now)
        service.sent += sent
        service.unsent += replies - sent

    def _send_some(self, batch: Batch, answers: Sequence[Reply], now: float) -> tuple[int, int]:
        """Send what are bytes, have the rest found out.  Returns how many were bytes, and how many were sent."""
        service = self._service
        places = []
        silent = 0
        for place, answer in enumerate(answers):
            if isinstance(answer, bytes):
                places.append(place)
            elif answer is None:
                silent += 1
            else:
                service._find_out(answer, batch.address(place), self._send)
        if silent:
            service.kept_silent(silent, now)
        return len(places), batch.send([answers[place] for place in places], places)  # type: ignore[misc]

    def _answer_each(self, datagrams: list[bytes], hosts: list[str], now: float) -> list[Reply]:
        answers: list[Reply] = []
        for datagram, host in zip(datagrams, hosts, strict=True):
            try:
                answers.append(self._answer(datagram, host, now))
            except Exception:
                answers.append(None)
                self._service.complain(now)
        return answers

    def error_received(self, exc: Exception) -> None:
        self._service.unsent += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._service._is_closed and not self._service._is_paused:
            _log.error("the event loop closed a socket of ours: %s", exc)
