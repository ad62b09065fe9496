"""Asks caches by ICP and HTCP: many queries under way on one socket, matched by number and by who answers.

    async with IcpClient() as client:
        answer = await client.query(("10.0.0.11", 3130), b"http://a/", timeout_s=0.003)

A reply counts only if it comes from the address and port that were asked and carries the number of that query; the numbers
are random, so that somebody who cannot see the queries cannot answer them.  No answer in time is None, not an exception: for
who asks it is a result like the others.  asyncio's own datagram endpoint, not asyncio-dgram: replies are taken in the
callback, there is nothing to wait for.  Times are perf_counter's: uvloop's own clock knows milliseconds only.

A Squid's socket holds about 256 queries (Debian's net.core.rmem_default); what comes faster is lost there.

Left out: repeats (UDP; ask again), whom to ask, reading replies (``packet``, ``htcp``).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

from . import htcp, packet
from .errors import BadPacket
from .htcp import HtcpOpcode, HtcpQuery, HtcpReply, Specifier
from .packet import Message

MAX_UNDER_WAY = 8192  # queries; more than a ring of that many numbers in Squid remembers
RECEIVE_BUFFER = 1 << 20  # bytes

Address = tuple[str, int]  # IP address, port
R = TypeVar("R", Message, HtcpReply)


class Answer(NamedTuple, Generic[R]):
    """A reply, and how long it took."""

    reply: R
    rtt_s: float


class _Waiting(NamedTuple, Generic[R]):
    address: Address
    answer: asyncio.Future[Answer[R] | None]
    sent_at: float


class _Client(asyncio.DatagramProtocol, Generic[R]):
    """One socket per address family, opened when first needed.

    stray: replies that nobody waits for (late ones, most likely), or from elsewhere.  bad: datagrams that are no replies.
    """

    def __init__(self, source: str = "") -> None:
        """source: the IP address to send from; "" = the system's choice."""
        self.stray = 0
        self.bad = 0
        self._source = source
        self._random = random.SystemRandom()
        self._waiting: dict[int, _Waiting[R]] = {}
        self._transports: dict[socket.AddressFamily, asyncio.DatagramTransport] = {}
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets; whoever still waits gets None."""
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_result(None)
        for transport in self._transports.values():
            transport.close()
        self._transports.clear()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """A reply, or whatever somebody sent to our port."""
        try:
            number, reply = self._read(data)
        except BadPacket:
            self.bad += 1
            return
        waiting = self._waiting.get(number)
        if waiting is None or addr[:2] != waiting.address or waiting.answer.done():
            self.stray += 1
            return
        waiting.answer.set_result(Answer(reply, time.perf_counter() - waiting.sent_at))

    def error_received(self, exc: Exception) -> None:
        """The system could not send; the time-out will tell who waits."""

    def _read(self, datagram: bytes) -> tuple[int, R]:
        raise NotImplementedError

    def _number(self, limit: int) -> int:
        """A number that no query under way has.  With 8192 of 2**31 in use, one try is enough nearly always."""
        number = self._random.randrange(1, limit)
        while number in self._waiting:
            number = self._random.randrange(1, limit)
        return number

    async def _ask(self, address: Address, number: int, datagram: bytes, timeout_s: float) -> Answer[R] | None:
        if len(self._waiting) >= MAX_UNDER_WAY:
            return None
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer[R] | None] = loop.create_future()
        self._waiting[number] = _Waiting(address, answer, time.perf_counter())
        try:
            transport = self._transports.get(_family(address)) or await self._open(_family(address))
            self._waiting[number] = _Waiting(address, answer, time.perf_counter())
            transport.sendto(datagram, address)
            timer = loop.call_later(timeout_s, _give_up, answer)
            try:
                return await answer
            finally:
                timer.cancel()
        finally:
            del self._waiting[number]

    async def _open(self, family: socket.AddressFamily) -> asyncio.DatagramTransport:
        async with self._opening:
            if family not in self._transports:
                sock = socket.socket(family, socket.SOCK_DGRAM)
                try:
                    sock.setblocking(False)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
                    sock.bind((self._source or ("::" if family == socket.AF_INET6 else "0.0.0.0"), 0))
                    made = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=sock)
                except BaseException:
                    sock.close()
                    raise
                self._transports[family] = made[0]
                with contextlib.suppress(AttributeError):  # see ``service``
                    made[0].max_size = 16384  # type: ignore[attr-defined]
            return self._transports[family]


class IcpClient(_Client[Message]):
    """Asks by ICP."""

    async def query(self, address: Address, url: bytes, timeout_s: float, *, flags: int = 0) -> Answer[Message] | None:
        """Ask one cache whether it holds `url`.

        Args:
            address: (IP address as the system writes it, port).
            url: As the cache stores it: Squid looks the bytes up as they are.
            flags: ``packet.SRC_RTT`` asks for the way to the origin.

        Returns:
            The reply, of any opcode, an ERR too (a DECHO means MISS); None when there was none in time, or too many
            queries are under way.

        Raises:
            ValueError: No packet can carry this URL.
            OSError: There is no socket to be had.
        """
        number = self._number(2**31)  # Squid's own numbers end there
        return await self._ask(address, number, packet.pack_query(number, url, flags), timeout_s)

    def _read(self, datagram: bytes) -> tuple[int, Message]:
        reply = packet.parse_reply(datagram)
        return reply.reqnum, reply


class HtcpClient(_Client[HtcpReply]):
    """Asks, and purges, by HTCP.  Arguments and failures as in ``IcpClient.query``."""

    async def test(
        self, address: Address, url: bytes, timeout_s: float, *, method: bytes = b"GET", headers: bytes = b""
    ) -> Answer[HtcpReply] | None:
        """TST: whether a request with these headers (lines with CRLF) would be a hit."""
        number = self._number(2**32)
        query = HtcpQuery(HtcpOpcode.TST, number, Specifier(method, url, b"1/1", headers))
        return await self._ask(address, number, htcp.pack_query(query), timeout_s)

    async def clear(self, address: Address, url: bytes, timeout_s: float, *, reason: int = 0) -> int | None:
        """CLR: have `url` forgotten.  Returns the response: CLR_GONE, CLR_KEPT (not everywhere), CLR_ABSENT; None: no answer."""
        number = self._number(2**32)
        query = HtcpQuery(HtcpOpcode.CLR, number, Specifier(b"GET", url), reason=reason)
        answer = await self._ask(address, number, htcp.pack_query(query), timeout_s)
        if answer is None or answer.reply.opcode is not HtcpOpcode.CLR or answer.reply.is_refusal:
            return None
        return answer.reply.response

    def _read(self, datagram: bytes) -> tuple[int, HtcpReply]:
        reply = htcp.parse_reply(datagram)
        return reply.msg_id, reply


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _give_up(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_result(None)
