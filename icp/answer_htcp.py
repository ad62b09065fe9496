"""What to answer to an HTCP datagram: TST from the index, CLR by asking others to forget (RFC 2756).

Same guards as for ICP.  HTCP has no DENIED: who may not ask gets silence, as Squid gives, and finds us dead after 10 s.
There is no MISS_NOFETCH either: while the farm cannot serve, TST is a miss.  Opcodes other than TST and CLR are counted and
get nothing, as from Squid.

Left out: sockets (``service``), who holds what and who is told to forget (given by the caller).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Any

from .errors import BadPacket, BadUrl, Fault
from .guard import Sources
from .htcp import (
    CLR_ABSENT,
    CLR_GONE,
    CLR_KEPT,
    TST_HIT,
    TST_MISS,
    Detail,
    HtcpOpcode,
    HtcpQuery,
    HtcpReply,
    pack_reply,
    parse_query,
)

Clear = Callable[[bytes], Coroutine[Any, Any, int | None]]

_NO_DETAIL = Detail()
_HEARD_OF = (b"GET", b"HEAD", b"PURGE")  # what a cache can hold; PURGE is what Squid says in a CLR


class HtcpOutcome(IntEnum):
    """What became of a datagram.  FAILED counts in addition: a miss because the lookup, or the purge, raised something."""

    HIT = 0
    MISS = 1
    CLEARED = 2  # CLR, and a node had it
    ABSENT = 3  # CLR, and no node had it
    KEPT = 4  # CLR, and some node may still have it
    REFUSED = 5
    LIMITED = 6
    BAD = 7
    FAILED = 8


class HtcpAnswerer:
    """Answers datagrams, for one service.

    serving, counts, faults, problem: as ``answer.Answerer`` has them.

    Args:
        holds: url -> bool | None, as for ICP.
        clear: Has a URL forgotten everywhere and returns how many nodes had it, or None if not all that may have it have
            confirmed; ends by itself.  None: no CLR here.
        allowed, rate_per_s, burst: Who may ask and how often.
        may_clear: Who may send CLR as well; default: nobody, for a forged one empties the caches.
        clear_rate_per_s: CLR of one source; each costs a packet to several nodes.
    """

    def __init__(
        self,
        holds: Callable[[bytes], bool | None],
        clear: Clear | None,
        allowed: Callable[[str], bool],
        *,
        may_clear: Callable[[str], bool] = lambda source: False,
        rate_per_s: float = 20_000,
        burst: int = 20_000,
        clear_rate_per_s: float = 1_000,
    ) -> None:
        self.serving = True
        self.counts = [0] * len(HtcpOutcome)
        self.faults = dict.fromkeys((fault.word for fault in Fault), 0)
        self.problem: Exception | None = None
        self._holds = holds
        self._clear = clear
        self._clear_rate_per_s = clear_rate_per_s
        self.configure(allowed, may_clear, rate_per_s=rate_per_s, burst=burst)

    def counters(self) -> dict[str, int]:
        """Every count by its word: outcomes, and faults as ``bad_<word>``."""
        outcomes = {outcome.name.lower(): self.counts[outcome] for outcome in HtcpOutcome}
        return outcomes | {f"bad_{word}": count for word, count in self.faults.items()}

    def configure(
        self,
        allowed: Callable[[str], bool],
        may_clear: Callable[[str], bool],
        *,
        rate_per_s: float = 20_000,
        burst: int = 20_000,
    ) -> None:
        """Others who may ask, and other limits from now on.  Arguments as above."""
        self._sources = Sources(allowed, rate_per_s, burst)
        self._clearers = Sources(may_clear, self._clear_rate_per_s, int(self._clear_rate_per_s) or 1)

    def answer(self, datagram: bytes, source: str, now: float) -> bytes | Coroutine[Any, Any, bytes | None] | None:
        """The datagram to send back, a coroutine that does the work and will give it, or None."""
        if not self._may(self._sources, source, now):
            return None
        try:
            query = parse_query(datagram)
        except BadPacket as problem:
            self.faults[problem.fault.word] += 1
            self.counts[HtcpOutcome.BAD] += 1
            return None
        if query.opcode is HtcpOpcode.TST:
            return self._tested(query)
        if self._clear is None or not self._may(self._clearers, source, now):
            self.counts[HtcpOutcome.REFUSED] += self._clear is None
            return None
        return self._cleared(query, self._clear)

    def _may(self, sources: Sources, source: str, now: float) -> bool:
        standing = sources.standing(source, now)
        if not standing:
            self.counts[HtcpOutcome.LIMITED if standing is None else HtcpOutcome.REFUSED] += 1
        return bool(standing)

    def _tested(self, query: HtcpQuery) -> bytes | None:
        try:
            is_hit = self.serving and query.what.method in _HEARD_OF and bool(self._holds(query.what.url))
        except BadUrl:
            is_hit = False
        except Exception as problem:
            self._failed(problem)
            is_hit = False
        self.counts[HtcpOutcome.HIT if is_hit else HtcpOutcome.MISS] += 1
        if not query.wants_reply:
            return None
        response = TST_HIT if is_hit else TST_MISS
        return pack_reply(HtcpReply(HtcpOpcode.TST, query.msg_id, response, _NO_DETAIL, minor=query.minor))

    async def _cleared(self, query: HtcpQuery, clear: Clear) -> bytes | None:
        try:
            found = await clear(query.what.url)
        except BadUrl:
            found = 0
        except Exception as problem:
            self._failed(problem)
            found = None
        if found is None:
            outcome, response = HtcpOutcome.KEPT, CLR_KEPT
        elif found:
            outcome, response = HtcpOutcome.CLEARED, CLR_GONE
        else:
            outcome, response = HtcpOutcome.ABSENT, CLR_ABSENT
        self.counts[outcome] += 1
        if not query.wants_reply:
            return None
        return pack_reply(HtcpReply(HtcpOpcode.CLR, query.msg_id, response, minor=query.minor))

    def _failed(self, problem: Exception) -> None:
        self.problem = problem
        self.counts[HtcpOutcome.FAILED] += 1
