"""Who may ask and how often, and how often somebody is told that he may not.

Tables that strangers can fill are bounded: source addresses of UDP are easily forged.

Left out: what is answered (``answer``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MAX_SOURCES: Final = 10_000  # about 1.5 MB; a farm has tens of peers, the rest are forgers
MAX_DENIED: Final = 4_096


class Sources:
    """Per source address: whether it may ask, and a token bucket.

    When the table is full the source first seen goes: one that is still there gets a full bucket again, no more.  The bucket
    is one number, the time at which it will be full again (the "virtual scheduling" of ATM's GCRA), not tokens and a date.

    Args:
        allowed: Asked once per address, then remembered.
        rate_per_s: Queries that a source may send in the long run; 0 = no limit.  A busy Squid sends as many as it has
            misses, a few thousand a second.
        burst: Queries that it may send at once.
    """

    def __init__(self, allowed: Callable[[str], bool], rate_per_s: float, burst: int, max_sources: int = MAX_SOURCES) -> None:
        self._allowed = allowed
        self._cost_s = 1 / rate_per_s if rate_per_s else 0.0
        self._depth_s = (burst - 0.5) * self._cost_s  # half a query for what sums of floats lose
        self._max = max_sources
        self._full_at: dict[str, float | None] = {}  # None: not allowed

    def __len__(self) -> int:
        return len(self._full_at)

    def standing(self, source: str, now: float) -> bool | None:
        """True: may ask now.  False: may not ask at all.  None: asked too much.  0.2 us (2026-11)."""
        try:
            full_at = self._full_at[source]
        except KeyError:
            full_at = self._meet(source)
        if full_at is None:
            return False
        if full_at <= now:
            full_at = now
        elif full_at - now > self._depth_s:
            return None
        self._full_at[source] = full_at + self._cost_s
        return True

    def _meet(self, source: str) -> float | None:
        if len(self._full_at) >= self._max:
            del self._full_at[next(iter(self._full_at))]
        full_at = self._full_at[source] = 0.0 if self._allowed(source) else None
        return full_at


class DeniedBudget:
    """How often a source may be told DENIED.

    A Squid removes a peer for good when, after more than 100 replies, more than 95 % were DENIED (neighbors.cc).  So it gets
    at most `budget` of them, and beyond that no more than 19 per true answer, nor `budget` in a row (it may have been
    restarted and have forgotten the answers); then silence.  (Squid itself is silent for an hour after about 144, too late
    for its peer.)  It is only dead to us then, and lives again when access is granted.

    Those who are denied are remembered for good, for a peer's count does not expire; when the table is full, strangers get
    silence at once.

    told: by source, DENIED in all, those since the last answer, answers.  Only for who is in it answers need to be counted.

    Args:
        budget: 95: of 101 replies that is 94 %.  0 = never say DENIED.
    """

    def __init__(self, budget: int = 95, max_sources: int = MAX_DENIED) -> None:
        self._budget = budget
        self._max = max_sources
        self.told: dict[str, list[int]] = {}

    def may_deny(self, source: str) -> bool:
        """Whether to send one more DENIED; it is counted as sent."""
        told = self.told.get(source)
        if told is None:
            if len(self.told) >= self._max or not self._budget:
                return False
            told = self.told[source] = [0, 0, 0]
        denied, in_a_row, answers = told
        if in_a_row >= self._budget or (denied >= self._budget and denied >= 19 * answers):
            return False
        told[0] += 1
        told[1] += 1
        return True

    def answered(self, source: str) -> None:
        """A true answer goes to `source`."""
        told = self.told.get(source)
        if told is not None:
            told[1] = 0
            told[2] += 1
