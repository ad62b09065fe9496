"""What the supervisor keeps for those who watch and steer: rates, history, hot URLs, events.

Once a second it looks at the counters; beside that it is told things.  Left out: who asks (``api``), what is decided.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cachelb import control
from cachelb.admin.events import Events
from cachelb.admin.history import History, NodeRows, Sample, in_flight
from cachelb.admin.hot import Hot
from cachelb.admin.squid import Manager
from cachelb.counters import FARM_INDEX, farm_values, node_values
from cachelb.errors import Reason
from cachelb.routing.learned import Learned

if TYPE_CHECKING:
    from cachelb.supervisor import Supervisor

TAKE_S = 1.0
LEARNED_URLS = 10_000  # 2 MB; workers remember five times as many
TELL_S = 5.0  # how often refusals and failures are told, in bulk

_ENDS = {reason: FARM_INDEX[f"ended_{reason.label}"] for reason in Reason}
_REFUSALS = {reason: at for reason, at in _ENDS.items() if reason.value.status and not reason.value.is_error}
_ERRORS = {reason: at for reason, at in _ENDS.items() if reason.value.is_error}


class Desk:
    """All of it, for one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.events = Events(time.time)
        self.history = History()
        self.hot = Hot()
        self.learned = Learned(max_urls=LEARNED_URLS)
        self.manager = Manager(supervisor)
        self.drains: dict[str, tuple[float, int]] = {}  # since when a node drains, and what was in flight then
        self._restarts: dict[int, int] = {}
        self._told: list[int] = []
        self._told_at = 0.0

    async def run(self) -> None:
        """For ever."""
        while True:
            self.take(time.monotonic())
            await asyncio.sleep(TAKE_S)

    def take(self, now: float) -> None:
        """Look at everything once."""
        supervisor = self.supervisor
        blocks = supervisor.workers.blocks if supervisor.workers is not None else []
        nodes = NodeRows(blocks, supervisor.farm.slots)
        farm = farm_values(blocks)
        self.history.take(Sample(now, time.time(), farm, nodes, supervisor.onecache.counters()))
        self.manager.take()
        self._watch_workers()
        if now - self._told_at >= TELL_S:
            if self._told:
                self._tell_in_bulk(farm)
            self._told, self._told_at = farm, now
        self.note_drains(now)

    def note_drains(self, now: float) -> None:
        """Remember what was in flight when a node began to drain, or was taken down."""
        farm = self.supervisor.farm
        blocks = self.supervisor.workers.blocks if self.supervisor.workers is not None else []
        leaving = [name for name, node in farm.nodes.items() if node.state != "up"]
        self.drains = {
            name: self.drains.get(name) or (now, in_flight(node_values(blocks, farm.slots[name]))) for name in leaving
        }

    def heard(self, kind: bytes, payload: bytes) -> None:
        """A worker has sampled exchanges, or has learned from answers."""
        now = time.monotonic()
        if kind == control.HOT:
            self.hot.add(control.unpack_samples(payload), now)
        else:
            for lesson in control.unpack_lessons(payload):
                self.learned.learn(lesson, now)

    def taught(self, key: bytes, segment: bytes) -> str | None:
        """What answers have taught the workers about a URL, as ``Learned.lookup`` has it; only the newest of it is known here."""
        now = time.monotonic()
        # one look-up in 64 says that nothing is, so that workers test it
        return self.learned.lookup(key, segment, now) or self.learned.lookup(key, segment, now)

    def _watch_workers(self) -> None:
        workers = self.supervisor.workers.workers if self.supervisor.workers is not None else []
        for worker in workers:
            before = self._restarts.get(worker.number, 0)
            if worker.restarts > before:
                text = f"worker {worker.number} ended ({worker.ended}): its connections are lost; restarting"
                self.events.add("worker", text, "error", number=worker.number, restarts=worker.restarts)
            self._restarts[worker.number] = worker.restarts

    def _tell_in_bulk(self, farm: list[int]) -> None:
        for kind, level, reasons in (("refusals", "info", _REFUSALS), ("errors", "warning", _ERRORS)):
            counts = {reason.label: farm[at] - self._told[at] for reason, at in reasons.items() if farm[at] > self._told[at]}
            if counts:
                said = ", ".join(f"{count} {label}" for label, count in sorted(counts.items(), key=lambda item: -item[1]))
                what = "requests were refused" if kind == "refusals" else "exchanges failed"
                text = f"{sum(counts.values())} {what} in {TELL_S:g} s: {said}"
                self.events.add(kind, text, "info" if level == "info" else "warning", counts=counts)
