"""Asks a node to forget a URL: HTTP's PURGE, which every Squid takes from whom its squid.conf allows it.

``PurgeLines`` has the connections to one node.  They are kept for the next PURGE: Squid 5.7 takes 0.25 ms for one on a kept
connection and 0.6 on a new one (2026-11).  Only an answer's head matters, but a connection is kept only if nothing can follow
the head.  PURGE is idempotent: what fails on a kept connection, which the node may just have closed, is sent again on a new one.

Left out: whom to ask, what the request says, what a status means (``cluster.purge``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from cachelb.errors import BadResponse, CachelbError
from cachelb.http.grammar import Limits
from cachelb.http.response import scan_response
from cachelb.nodes.probes import oserror_text

# Under way to one node, each on a connection of its own.  On loopback 4 are as fast as 64: 1,600 a second and node (2026-11);
# the others are for those whose disks are slow.
AT_ONCE = 32
TIMEOUT_S = 3.0  # for one, with waiting for its turn: a hung node must not keep those who purge
IDLE_S = 30.0  # below Squid's client_idle_pconn_timeout of 120 s
ADDRESSES_TRIED = 4  # of a node, as by the probes
LIMITS = Limits(head_bytes=16384)  # of answers; Squid's have 300 bytes


class NoAnswer(CachelbError):
    """The node did not say what became of it; the text tells why in a few words."""


class PurgeLines:
    """The connections for PURGE to the node at `addresses` (IP literals in the order to try) and `port`.

    first: what each of them begins with, a PROXY header.
    """

    def __init__(self, addresses: Sequence[str], port: int, first: bytes = b"") -> None:
        self.addresses = tuple(addresses)
        self.port = port
        self._first = first
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._idle: list[_Line] = []
        self._sweeping: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def ask(self, request: bytes, timeout_s: float = TIMEOUT_S) -> int:
        """Send `request` and return the answer's status.

        Raises:
            NoAnswer: There was none in time, or no connection, or it was not HTTP.
        """
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                return await self._exchange(request)
        except TimeoutError:
            raise NoAnswer(f"no answer within {timeout_s:g} s") from None
        except OSError as exc:
            raise NoAnswer(oserror_text(exc)) from exc

    def close(self) -> None:
        """Close what is idle; what is under way is closed when it is done."""
        self._is_closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        while self._idle:
            self._idle.pop().close()

    async def _exchange(self, request: bytes) -> int:
        if self._idle:
            try:
                return await self._on(self._idle.pop(), request)
            except NoAnswer:
                pass
        return await self._on(await self._connect(), request)

    async def _on(self, line: _Line, request: bytes) -> int:
        try:
            status = await line.ask(request)
        except BaseException:
            line.close()
            raise
        if line.is_fit and not self._is_closed:
            line.idle_since = asyncio.get_running_loop().time()
            self._idle.append(line)
            if self._sweeping is None:
                self._sweep()
        else:
            line.close()
        return status

    async def _connect(self) -> _Line:
        problem = OSError("it has no address")
        for address in self.addresses[:ADDRESSES_TRIED]:
            try:
                made = await asyncio.get_running_loop().create_connection(
                    lambda: _Line(self._lost, self._first), address, self.port
                )
                return made[1]
            except OSError as exc:
                problem = exc
        raise problem

    def _lost(self, line: _Line) -> None:
        if line in self._idle:
            self._idle.remove(line)

    def _sweep(self) -> None:
        """Close what has been idle for too long; again in a while if something is left."""
        loop = asyncio.get_running_loop()
        for line in [line for line in self._idle if line.idle_since <= loop.time() - IDLE_S]:
            self._idle.remove(line)
            line.close()
        self._sweeping = loop.call_later(IDLE_S / 2, self._sweep) if self._idle else None


class _Line(asyncio.Protocol):
    """One connection, for one request at a time.

    is_fit: the last answer leaves it usable.  idle_since: the loop's time.
    """

    def __init__(self, lost: Callable[[_Line], None], first: bytes) -> None:
        self._first = first
        self.is_fit = False
        self.idle_since = 0.0
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._data = b""

    async def ask(self, request: bytes) -> int:
        """The status of the answer to `request`.  Raises NoAnswer."""
        assert self._transport is not None
        self.is_fit = False
        self._data = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """At once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name
        if self._first:
            self._transport.write(self._first)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():  # said unasked, or behind an answer
            self.is_fit = False
            self.close()
            return
        self._data += data
        try:
            head = scan_response(self._data, LIMITS)
        except BadResponse as problem:
            self._answer.set_exception(NoAnswer(f"it answered what is not HTTP: {problem.detail}"))
            return
        if head is not None:
            self.is_fit = head.keep_alive and head.content_length == 0 and head.size == len(self._data)
            self._answer.set_result(head.status)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_fit = False
        self._lost(self)
        if self._answer is not None and not self._answer.done():
            text = oserror_text(exc) if isinstance(exc, OSError) else "connection closed without an answer"
            self._answer.set_exception(NoAnswer(text))
