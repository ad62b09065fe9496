"""Trials go round the holdings: all at the same time, a slice at a time, so that the event loop is never held up.

A round looks at every record, and each trial at those of its node; so a hundred trials together cost little more than one.
A trial joins wherever the round is and is over when it has come back there, twice if it looks before it judges.

Left out: what a trial decides (``trial``), and whose turn it is (``nodedigests``).
"""

from __future__ import annotations

import asyncio

from .holdings import BUCKETS, Holdings
from .trial import Trial

# Between slices of 0.5 ms, so that trials take a ninth of a core at most: one node's part of 5 million keys, a sixteenth, is
# tried within 10 s (2026-11).
PAUSE_S = 0.004


class Sweep:
    """Has trials made while ``run`` runs."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._trials: dict[int, tuple[Trial, asyncio.Future[None]]] = {}
        self._at = 0  # the bucket that is visited next
        self._wake = asyncio.Event()

    def has(self, slot: int) -> bool:
        """Whether a trial of this node's records is going on."""
        return slot in self._trials

    async def make(self, slot: int, trial: Trial) -> None:
        """Return when the trial is over, or was ended.  A node has one at a time."""
        entry = trial, asyncio.get_running_loop().create_future()
        self._trials[slot] = entry
        self._wake.set()
        try:
            await entry[1]
        finally:
            if self._trials.get(slot) is entry:
                del self._trials[slot]

    def end(self, slot: int) -> None:
        """Go no further with the node's records."""
        _, done = self._trials.pop(slot, (None, None))
        if done is not None and not done.done():
            done.set_result(None)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            while not self._trials:
                self._wake.clear()
                await self._wake.wait()
            self._step()
            await asyncio.sleep(PAUSE_S)

    def _step(self) -> None:
        # no trial may see a bucket twice in one round
        last = min(self._at + min(trial.left for trial, _ in self._trials.values()), BUCKETS)
        at = self._holdings.visit(self._at, {slot: trial.judge for slot, (trial, _) in self._trials.items()}, last)
        for slot, (trial, _) in list(self._trials.items()):
            trial.passed(at - self._at)
            if not trial.left:
                self.end(slot)
        self._at = at % BUCKETS
