"""What to answer to an ICP datagram, and whether to (RFC 2186; RFC 2187, section 5).

``reply`` is the rule for one query.  ``Answerer`` puts the guards around it, so that no peer can hurt us or others: who may
ask, how often, how often somebody is told that he may not; it counts every datagram under one ``Outcome``.  One query gets at
most one reply, which is never longer than the query and never a query itself, so nothing can be amplified or made to loop.

Left out: sockets (``service``), who holds what (`holds`, given by the caller).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Any, Final, NamedTuple

from .errors import BadPacket, BadUrl, Fault
from .guard import DeniedBudget, Sources
from .packet import MAX_URL, SRC_RTT, VERSION, Opcode, Query, header_fault, pack_reply, parse_query

Holds = Callable[[bytes], bool | None]
HoldsAll = Callable[[list[bytes]], list[bool | None]]
Ask = Callable[[bytes], Coroutine[Any, Any, bool | None]]
Rtt = Callable[[bytes], tuple[int, int] | None]
Answer = bytes | Coroutine[Any, Any, bytes] | None

# a scheme, and then nothing that is not printable: what Squid answers with ERR.  Whether host and port make sense is the
# lookup's to say (BadUrl)
_is_url: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*+:[!-~\x80-\xff]+").fullmatch


_QUERY: Final = Opcode.QUERY.value
_VERSION: Final = VERSION
_HIT_HEAD: Final = bytes((Opcode.HIT, VERSION))
_MISS_HEAD: Final = bytes((Opcode.MISS, VERSION))
_NO_NUMBER: Final = bytes(4)
_NO_OPTIONS: Final = bytes(12)  # options, their data, and the sender's address, which nobody fills in
_URL: Final = 24  # where it begins in a query, and how much longer a query is than its URL and NUL
_LONGEST: Final = _URL + MAX_URL + 1
_LENGTHS: Final = struct.pack(f">{_LONGEST + 1}H", *range(_LONGEST + 1))  # each length as a message has it


def _is_plain(datagram: bytes) -> bool:
    """Whether this is a sound query, but for what its URL says."""
    size = len(datagram)
    return (
        _URL < size <= _LONGEST
        and datagram[0] == _QUERY
        and datagram[1] == _VERSION
        and datagram[2] << 8 | datagram[3] == size
        and datagram[4:8] != _NO_NUMBER
        and datagram.find(0, _URL) == size - 1
    )


def _plain_reply(head: bytes, datagram: bytes) -> bytes:
    """The reply to a query that is plain.  head: opcode and version."""
    length = 2 * (len(datagram) - 4)
    return b"%b%b%b%b%b" % (head, _LENGTHS[length : length + 2], datagram[4:8], _NO_OPTIONS, datagram[_URL:])


class Outcome(IntEnum):
    """What became of a datagram.  FAILED counts in addition: a MISS because the lookup raised something."""

    HIT = 0
    MISS = 1
    MISS_NOFETCH = 2
    ERR = 3
    DENIED = 4
    REFUSED = 5  # silence: not allowed, and told so often enough
    LIMITED = 6  # silence: more than this source's share
    BAD = 7  # silence: see `faults` for the kinds; those that got an ERR count as ERR
    FAILED = 8


class Reply(NamedTuple):
    """A reply's opcode and, with true data only, (hops, milliseconds) to the origin."""

    opcode: Opcode
    rtt: tuple[int, int] | None = None


_HIT, _MISS, _ERR = Reply(Opcode.HIT), Reply(Opcode.MISS), Reply(Opcode.ERR)
_MISS_NOFETCH, _DENIED = Reply(Opcode.MISS_NOFETCH), Reply(Opcode.DENIED)
_OUTCOMES: Final = {
    Opcode.HIT: Outcome.HIT,
    Opcode.MISS: Outcome.MISS,
    Opcode.MISS_NOFETCH: Outcome.MISS_NOFETCH,
    Opcode.ERR: Outcome.ERR,
    Opcode.DENIED: Outcome.DENIED,
}


def reply(
    query: Query,
    holds: Holds,
    *,
    serving: bool = True,
    allowed: bool = True,
    may_deny: bool = True,
    rtt: Rtt | None = None,
) -> Reply | None:
    """The answer to one query, or None for silence.

    Args:
        holds: Whether the URL (raw bytes, as sent) is held and stays fresh long enough to be fetched; None: not known, which
            is a MISS.  It may raise BadUrl.
        serving: False while a MISS must not be fetched from us either: draining, or no node is alive.
        allowed: Whether the source may ask.
        may_deny: Whether one that may not ask is told so.
        rtt: What is known of the way to a URL's origin; asked for only where the query wants it.
    """
    if not allowed:
        return _DENIED if may_deny else None
    if query.is_echo:  # its sender takes us for a UDP echo port, whose echo it reads as MISS
        return _MISS
    if not serving:
        return _MISS_NOFETCH if _is_url(query.url) else _ERR
    try:
        is_held = holds(query.url)
    except BadUrl:
        return _ERR
    if not is_held and not _is_url(query.url):  # what is held is one
        return _ERR
    answer = _HIT if is_held else _MISS
    if rtt is not None and query.flags & SRC_RTT and (known := rtt(query.url)) is not None:
        return answer._replace(rtt=known)
    return answer


class Answerer:
    """Answers datagrams, for one service.  Not thread-safe; on no event loop either.

    serving: assign False while the farm cannot serve.  counts: one number per Outcome.  faults: one per Fault.
    problem: the last exception of a lookup, for the log; the reader sets it back to None.

    Args:
        holds: See ``reply``.  What it raises besides BadUrl is a bug of ours and no reason for the peer to declare us dead:
            answered with MISS.
        holds_all: The same for many URLs, where that is cheaper.  None: to be asked of `holds`.
        allowed: Whether a source's address may ask; called once per source, then remembered.
        ask: Instead of `holds`: a coroutine that finds out, from the owner for instance, and must end by itself.
        rtt: See ``reply``.
        rate_per_s, burst: What one source may ask, in queries (``guard.Sources``).
        denied_budget: How often a source is told DENIED before silence (``guard.DeniedBudget``).
    """

    def __init__(
        self,
        holds: Holds,
        allowed: Callable[[str], bool],
        *,
        holds_all: HoldsAll | None = None,
        ask: Ask | None = None,
        rtt: Rtt | None = None,
        rate_per_s: float = 20_000,
        burst: int = 20_000,
        denied_budget: int = 95,
    ) -> None:
        self.serving = True
        self.counts = [0] * len(Outcome)
        self.faults = dict.fromkeys((fault.word for fault in Fault), 0)
        self.problem: Exception | None = None
        self._holds = holds
        self._holds_all = holds_all or self._holds_each
        self._rtt = rtt
        self._denied = DeniedBudget(denied_budget)
        self.configure(allowed, ask=ask, rate_per_s=rate_per_s, burst=burst)

    def counters(self) -> dict[str, int]:
        """Every count by its word: outcomes, and faults as ``bad_<word>``."""
        outcomes = {outcome.name.lower(): self.counts[outcome] for outcome in Outcome}
        return outcomes | {f"bad_{word}": count for word, count in self.faults.items()}

    def configure(
        self, allowed: Callable[[str], bool], *, ask: Ask | None = None, rate_per_s: float = 20_000, burst: int = 20_000
    ) -> None:
        """Others who may ask, other ways to find out and other limits from now on.  Arguments as above."""
        self._ask = ask
        self._is_simple = ask is None and self._rtt is None
        self._sources = Sources(allowed, rate_per_s, burst)

    def answer(self, datagram: bytes, source: str, now: float) -> Answer:
        """The datagram to send back, a coroutine that will give it, or None.

        Args:
            datagram: Whatever arrived.
            source: The sender's IP address.
            now: Monotonic seconds; milliseconds are exact enough.
        """
        may_ask = self._sources.standing(source, now)
        if not may_ask:
            return self._turn_away(datagram, source, may_ask is None)
        if self._is_simple and self.serving and source not in self._denied.told:
            plain = self._plain(datagram)
            if plain is not None:
                return plain
        return self._slow(datagram, source)

    def _plain(self, datagram: bytes) -> bytes | None:
        """A sound query in normal times, in one go: 1.0 us instead of 2.0 (2026-11).  None: not that, see ``_slow``."""
        if not _is_plain(datagram):
            return None
        url = datagram[_URL:-1]
        try:
            is_held = self._holds(url)
        except Exception:  # _slow asks again and knows what to do
            return None
        if not is_held and not _is_url(url):
            return None
        self.counts[0 if is_held else 1] += 1
        return _plain_reply(_HIT_HEAD if is_held else _MISS_HEAD, datagram)

    def answer_all(self, datagrams: list[bytes], sources: list[str], now: float) -> list[Answer]:
        """What ``answer`` gives for each of them, in their order.

        Sound queries in normal times are looked up together: 0.5 us each, without the lookup, instead of 3 (2026-11).
        """
        told = self._denied.told
        is_simple = self._is_simple and self.serving
        answers: list[Answer] = []
        plain: list[int] = []  # places of sound queries
        urls: list[bytes] = []
        for place in range(len(datagrams)):
            datagram, source = datagrams[place], sources[place]
            may_ask = self._sources.standing(source, now)
            if not may_ask:
                answers.append(self._turn_away(datagram, source, may_ask is None))
            elif is_simple and (not told or source not in told) and _is_plain(datagram):
                plain.append(place)
                urls.append(datagram[_URL:-1])
                answers.append(None)
            else:
                answers.append(self._slow(datagram, source))
        if urls:
            self._answer_plain(plain, urls, datagrams, sources, answers)
        return answers

    def _answer_plain(
        self, places: list[int], urls: list[bytes], datagrams: list[bytes], sources: list[str], answers: list[Answer]
    ) -> None:
        """Look up these URLs, and put the answers in their places."""
        try:
            held = self._holds_all(urls)
        except Exception:  # as above
            held = [None] * len(urls)
        hits = misses = 0
        for number in range(len(urls)):
            place, is_held = places[number], held[number]
            datagram = datagrams[place]
            if is_held:
                hits += 1
                answers[place] = _plain_reply(_HIT_HEAD, datagram)
            elif is_held is not None and _is_url(urls[number]):
                misses += 1
                answers[place] = _plain_reply(_MISS_HEAD, datagram)
            else:
                answers[place] = self._slow(datagram, sources[place])
        self.counts[0] += hits
        self.counts[1] += misses

    def _holds_each(self, urls: list[bytes]) -> list[bool | None]:
        found: list[bool | None] = []
        for url in urls:
            try:
                found.append(self._holds(url))
            except Exception:  # as above
                found.append(None)
        return found

    def _slow(self, datagram: bytes, source: str) -> Answer:
        """What ``answer`` and ``answer_all`` leave; also their twin in tests."""
        fault = header_fault(datagram)
        if fault is not None:
            self._dropped(fault)
            return None
        try:
            query = parse_query(datagram)
        except BadPacket as problem:
            return self._bad(problem)
        if self._ask is not None and self.serving and not query.is_echo and _is_url(query.url):
            return self._asked(query, source, self._ask)
        return self._answered(query, source, self._holds)

    async def _asked(self, query: Query, source: str, ask: Ask) -> bytes:
        problem: Exception | None = None
        try:
            held = await ask(query.url)
        except Exception as raised:  # for _answered to tell BadUrl from bugs
            problem = raised

        def holds(url: bytes) -> bool | None:
            if problem is not None:
                raise problem
            return held

        return self._answered(query, source, holds)

    def _answered(self, query: Query, source: str, holds: Holds) -> bytes:
        """One of those who may ask gets a reply, whatever the lookup does."""
        try:
            answer = reply(query, holds, serving=self.serving, rtt=self._rtt)
        except Exception as problem:
            self.problem = problem
            self.counts[Outcome.FAILED] += 1
            answer = _MISS
        assert answer is not None  # silence is for those who are turned away
        self.counts[_OUTCOMES[answer.opcode]] += 1
        if answer is not _ERR:  # a Squid does not count ERR among the replies
            self._denied.answered(source)
        return pack_reply(answer.opcode, query.reqnum, query.url, answer.rtt)

    def _bad(self, problem: BadPacket) -> bytes | None:
        if not problem.fault.is_err_due:
            self._dropped(problem.fault)
            return None
        self.faults[problem.fault.word] += 1
        self.counts[Outcome.ERR] += 1
        return pack_reply(Opcode.ERR, problem.reqnum, b"")

    def _dropped(self, fault: Fault) -> None:
        self.faults[fault.word] += 1
        self.counts[Outcome.BAD] += 1

    def _turn_away(self, datagram: bytes, source: str, is_limited: bool) -> bytes | None:
        """Somebody who may not ask, or asks too much."""
        if is_limited:
            self.counts[Outcome.LIMITED] += 1
            return None
        fault = header_fault(datagram)
        if fault is not None:
            self._dropped(fault)
            return None
        try:
            query = parse_query(datagram)
        except BadPacket as problem:
            self._dropped(problem.fault)
            return None
        answer = reply(query, self._holds, allowed=False, may_deny=self._denied.may_deny(source))
        if answer is None:
            self.counts[Outcome.REFUSED] += 1
            return None
        self.counts[Outcome.DENIED] += 1
        return pack_reply(answer.opcode, query.reqnum, query.url)
