"""Asks nodes whether they live, and feeds the answers to ``health``.

``probe`` sends one request on a connection of its own; any HTTP answer, whatever its status, means that the node lives.
``Prober`` does that for every node that ``Health.due`` names, and reports the changes of state.

Where a node speaks no HTTP, a connection that it takes means the same (``connect``).

Left out: when to probe and what follows from the results (``health``), what to do about them (the supervisor).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from cachelb.nodes.health import Change, Health

log = logging.getLogger("cachelb.nodes")

# TRACE with Max-Forwards: 0 is answered by the Squid itself (RFC 9110 section 9.3.8): no DNS, no cache, no parent, no
# hit or miss in its statistics.  Measured on Squid 5.7, 2026-11: 0.12 ms, 404 bytes.  HEAD of the digest or of an icon
# costs the same but counts as a hit, OPTIONS is a 501 of 3.4 KB, a manager page costs Squid half as much again, and a
# connection without a request is logged as an error.  Each probe is one line in the node's access.log; these two keep
# it out: "acl probe browser ^cachelb-probe", "access_log stdio:/var/log/squid/access.log !probe".
REQUEST = (
    b"TRACE http://probe.invalid/ HTTP/1.1\r\nHost: probe.invalid\r\nMax-Forwards: 0\r\n"
    b"User-Agent: cachelb-probe\r\nConnection: close\r\n\r\n"
)
STATUS_LINE_LIMIT_BYTES = 1024  # a status line with a reason phrase has some 30
ADDRESSES_PROBED = 4  # of one node, at once: it lives if one of them answers
PROBES_AT_ONCE = 512  # file descriptors; with 1,000 hung nodes the second half waits one timeout longer
PAUSE_S = 0.02  # probes that fall due within this time start together
IDLE_S = 1.0  # how long to sleep at most: a bound on what a missed wake-up could cost

UNREADABLE = "HTTP status 400"
DENIED = ("HTTP status 403", "HTTP status 407")

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?: |\r?\n)")
# errors that say something about this machine and nothing about the node
_OUR_TROUBLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class ProbeResult(NamedTuple):
    """ok: the node lives; detail: what it answered or what went wrong, in a few words; rtt_s: how long that took.

    ours: the probe could not be made or timed here, so that it says nothing about the node.
    """

    ok: bool
    detail: str
    rtt_s: float
    ours: bool = False


class Place(NamedTuple):
    """Where a node is probed: its address, or several, and a port.

    connect: that it takes a connection is enough.  first: what a connection begins with, a PROXY header.
    """

    addresses: str | Sequence[str]
    port: int
    connect: bool = False
    first: bytes = b""


async def probe(address: str, port: int, timeout_s: float, *, connect: bool = False, first: bytes = b"") -> ProbeResult:
    """Send one request to the HTTP port at `address` (an IP literal) and wait for a status line, `timeout_s` in all.

    connect: do no more than connect.  first: sent before the request.
    """
    started = time.monotonic()
    connected = False
    writer: asyncio.StreamWriter | None = None

    def result(ok: bool, detail: str, ours: bool = False) -> ProbeResult:
        return ProbeResult(ok, detail, time.monotonic() - started, ours)

    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(address, port, limit=STATUS_LINE_LIMIT_BYTES)
            if connect:
                return result(True, "connected")
            connected = True
            writer.write(first + REQUEST)
            ok, detail = _judge(await _first_line(reader))
            if first and detail == UNREADABLE:  # any client would be told the same
                return result(False, f"{detail}: its port expects no PROXY header (send_proxy)")
            return result(ok, detail)
    except TimeoutError:
        # This process was stopped or starved: the answer may have been there long ago.
        lag_s = time.monotonic() - started - timeout_s
        if lag_s > max(timeout_s / 2, 0.2):
            return result(False, f"the director itself was late by {lag_s:.1f} s", ours=True)
        return result(False, f"no answer within {timeout_s:g} s" if connected else f"no connection in {timeout_s:g} s")
    except OSError as exc:
        return result(False, oserror_text(exc), ours=exc.errno in _OUR_TROUBLE)
    finally:
        if writer is not None:
            writer.close()


async def _first_line(reader: asyncio.StreamReader) -> bytes:
    """The first bytes up to a line feed, the limit or the end."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as exc:
        return exc.partial
    except asyncio.LimitOverrunError:
        return await reader.read(STATUS_LINE_LIMIT_BYTES)


def _judge(line: bytes) -> tuple[bool, str]:
    if match := _STATUS_LINE.match(line):
        return True, f"HTTP status {match[1].decode()}"
    if not line:
        return False, "connection closed without an answer"
    return False, f"answered something that is not HTTP: {line[:40]!r}"


def oserror_text(exc: OSError) -> str:
    """What went wrong, in a few words."""
    # asyncio wraps "Connect call failed" around the number, uvloop does not: say what the number means
    try:
        return errno_text(exc.errno)
    except (KeyError, TypeError):
        return str(exc) or type(exc).__name__


def errno_text(number: int | None) -> str:
    """``connection refused`` for ECONNREFUSED, and so on.  Raises KeyError for numbers that are none."""
    return _WORDS.get(number or 0) or errno.errorcode[number or 0]


_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.ETIMEDOUT: "connection timed out",
    errno.EMFILE: "the director has no free file descriptors",
    errno.ENFILE: "this machine has no free file descriptors",
    errno.EADDRNOTAVAIL: "this machine has no free local port or address",
}


async def probe_any(
    addresses: Sequence[str], port: int, timeout_s: float, *, connect: bool = False, first: bytes = b""
) -> ProbeResult:
    """Probe the first few of a node's addresses at once: the first that lives decides, else the first result does."""
    if not addresses:
        return ProbeResult(False, "its name has no address", 0.0)
    ask = partial(probe, port=port, timeout_s=timeout_s, connect=connect, first=first)
    if len(addresses) == 1:
        return await ask(addresses[0])
    tasks = [asyncio.ensure_future(ask(address)) for address in addresses[:ADDRESSES_PROBED]]
    earliest: ProbeResult | None = None
    try:
        for future in asyncio.as_completed(tasks):
            outcome = await future
            if outcome.ok:
                return outcome
            if earliest is None or earliest.ours:
                earliest = outcome
    finally:
        for task in tasks:
            task.cancel()
    assert earliest is not None
    return earliest


Targets = Callable[[], Mapping[str, Place | tuple[str | Sequence[str], int]]]


class Prober:
    """Keeps `health` informed.  All of it runs in one event loop.

    targets: tells the Place of every node by its name; asked in every round.
    on_change: called with what changed; not called for growing shares, which ``health.version`` shows.
    """

    def __init__(
        self,
        health: Health,
        targets: Targets,
        on_change: Callable[[list[Change]], None],
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.timeout_s = timeout_s
        self._health = health
        self._targets = targets
        self._on_change = on_change
        self._clock = clock
        self._woken = asyncio.Event()
        self._free = asyncio.Semaphore(PROBES_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._denying: set[str] = set()  # nodes that live, but deny us

    def wake(self) -> None:
        """Look again now what is due: nodes were added, or traffic made one suspect."""
        self._woken.set()

    async def run(self) -> None:
        """Probe until cancelled.  Raises what `on_change` or `targets` raised: that is a bug, not a dead node.

        May be called again then: nodes whose probes were given up are probed anew.
        """
        try:
            while True:
                self._woken.clear()
                self._round()
                await asyncio.sleep(PAUSE_S)
                now = self._clock()
                await self._sleep(min(self._health.next_due(now) - now, IDLE_S))
                for task in [task for task in self._tasks if task.done()]:
                    self._tasks.discard(task)
                    task.result()
        finally:
            for task in self._tasks:
                task.cancel()
            self._tasks.clear()

    def _round(self) -> None:
        now = self._clock()
        if changes := self._health.tick(now):
            self._on_change(changes)
        due = self._health.due(now)
        targets = self._targets() if due else {}
        for name in due:
            if name in targets:
                task = asyncio.ensure_future(self._probe(name, Place(*targets[name])))
                task.add_done_callback(partial(self._given_up, name))
                self._tasks.add(task)
            else:  # health and the targets are told of a reload one after the other
                self._health.skip_probe(name, now)

    def _given_up(self, name: str, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._health.skip_probe(name, self._clock())

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _probe(self, name: str, place: Place) -> None:
        addresses = (place.addresses,) if isinstance(place.addresses, str) else place.addresses
        async with self._free:
            outcome = await probe_any(addresses, place.port, self.timeout_s, connect=place.connect, first=place.first)
        now = self._clock()
        if outcome.ours:
            self._health.skip_probe(name, now)
            return
        changes = self._health.observe_probe(name, outcome.ok, _with_rtt(outcome), now)
        if changes:
            self._on_change(changes)
        self._tell_of_denial(name, outcome)
        self.wake()

    def _tell_of_denial(self, name: str, outcome: ProbeResult) -> None:
        """Once: where its clients are allowed by X-Forwarded-For such a node is of use, where not they get its 403."""
        if outcome.detail not in DENIED:
            self._denying.discard(name)
        elif name not in self._denying:
            self._denying.add(name)
            text = "node %s denies probes (%s) and may deny clients: its squid.conf needs http_access allow for the director"
            log.warning(text, name, outcome.detail)


def _with_rtt(outcome: ProbeResult) -> str:
    return f"{outcome.detail} in {outcome.rtt_s * 1000:.1f} ms" if outcome.ok else outcome.detail
