"""What traffic itself says about the nodes: connects that failed, connections that broke, answers that came.

The workers count them; here the counts are looked at and told to health.  Left out: what health makes of it (``nodes.health``).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cachelb.counters import failures_and_answers

if TYPE_CHECKING:
    from cachelb.supervisor import Supervisor
    from cachelb.workers import Workers

PASSIVE_S = 0.2  # how often: the workers' own tick


class Passive:
    """Looks at the counters of one director's workers."""

    def __init__(self, supervisor: Supervisor, workers: Workers) -> None:
        self.supervisor = supervisor
        self.workers = workers
        self._last: dict[str, tuple[int, int]] = {}

    async def watch(self) -> None:
        """For as long as the director runs."""
        supervisor = self.supervisor
        while True:
            await asyncio.sleep(PASSIVE_S)
            now = time.monotonic()
            changes = list(supervisor.health.tick(now))
            watched = set(supervisor.farm.watched())
            blocks = self.workers.blocks
            for name, slot in supervisor.farm.slots.items():
                new = failures_and_answers(blocks, slot)
                old = self._last.get(name, new)
                self._last[name] = new
                if new != old and name in watched:
                    failures, answers = max(0, new[0] - old[0]), max(0, new[1] - old[1])
                    changes += supervisor.health.observe_passive(name, failures, answers, now)
                    if failures:
                        supervisor.prober.wake()
            supervisor.log_changes(changes)
