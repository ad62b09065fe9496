"""When to ask a node for its digest: soon after it makes a new one, often after a restart, rarely while it has none.

Pure: `now` is a monotonic time in seconds.  Nodes that were started together make their digests together, and a director
asks a thousand of them, so each node has a delay of its own, which follows from its name.
"""

from __future__ import annotations

from zlib import crc32

PERIOD_S = 3600.0  # Squid's default digest_rewrite_period, for nodes that do not say
PERIOD_MIN_S, PERIOD_MAX_S = 5.0, 86400.0
LITTLE_S = 1.0  # Squid writes its digest a moment after the time it gave
SPREAD_SHARE, SPREAD_MAX_S = 0.05, 60.0  # of the period: how far apart nodes are asked
START_NODE_S, START_MAX_S = 0.05, 30.0  # at the start: so long for each node, and for all of them together
LATE_S = 5.0  # a digest that is overdue; then twice as long, and so on
RETRY_S, RETRY_MAX_S = 60.0, 3600.0  # after an error, or while there is none; likewise
# A Squid builds its digest within seconds of its start, unless it has to find out first what is on a large disk.
HURRY_S, HURRY_STEP_S = 60.0, 1.0


class Schedule:
    """Of one node.  due: when to ask.  is_hurried: it is asked every second just now."""

    def __init__(self, name: str, now: float, nodes: int) -> None:
        self._phase = crc32(name.encode()) / 2**32
        self._wait = RETRY_S
        self._late = LATE_S
        self._hurry_until = 0.0
        self.due = now + self._phase * min(START_MAX_S, START_NODE_S * nodes)

    def is_hurried(self, now: float) -> bool:
        return now < self._hurry_until

    def hurry(self, now: float) -> None:
        """The node was restarted: ask now, and again soon."""
        self._hurry_until = now + HURRY_S
        self._wait = RETRY_S
        self.due = now

    def got(self, fresh_s: float, now: float) -> None:
        """A digest came; the next one is made in `fresh_s` seconds (0: not known)."""
        wait = min(max(fresh_s or PERIOD_S, PERIOD_MIN_S), PERIOD_MAX_S)
        self._hurry_until = 0.0
        self._wait, self._late = RETRY_S, LATE_S
        self.due = now + wait + LITTLE_S + self._phase * min(SPREAD_SHARE * wait, SPREAD_MAX_S)

    def same(self, now: float) -> None:
        """It still has the digest that should have been replaced by now."""
        self._hurry_until = 0.0
        self._wait = RETRY_S
        self.due = now + self._late
        self._late = min(2 * self._late, PERIOD_S)

    def failed(self, now: float) -> None:
        """No digest came, for whatever reason."""
        if self.is_hurried(now):
            self.due = now + HURRY_STEP_S
        else:
            self.due = now + self._wait * (1 + SPREAD_SHARE * self._phase)
            self._wait = min(2 * self._wait, RETRY_MAX_S)
