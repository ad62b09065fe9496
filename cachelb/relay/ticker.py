"""The clock of one relay, coarse on purpose: each tick sets ``Engine.now`` and looks for deadlines that have passed.

A pass over 20,000 connections costs about 1 ms; a timer object per request would cost more than that every second.
"""

from __future__ import annotations

import array
import asyncio
import time
from typing import TYPE_CHECKING

from cachelb.counters import END_INDEX, FARM_INDEX
from cachelb.errors import Reason

if TYPE_CHECKING:
    from cachelb.relay.engine import Engine

TICK_S = 0.2  # no Final: tests shorten it, also where this is compiled


class Ticker:
    """Does what has to be done now and then.  wall_offset: of the wall clock from the engine's, a tick old at most."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._timer: asyncio.TimerHandle | None = None
        self.ticks = 0
        self.wall_offset = time.time() - engine.clock()

    def start(self) -> None:
        """Tick now, and from now on."""
        engine = self.engine
        late = engine.clock() - engine.now - TICK_S
        engine.now = now = engine.clock()
        self.wall_offset = time.time() - now
        engine.farm[FARM_INDEX["loop_lag_us"]] = lag = max(0, int(late * 1e6)) if self.ticks else 0
        engine.farm[FARM_INDEX["loop_lag_total_us"]] += lag
        self.ticks += 1
        try:
            self._tick(now)
        except Exception as exc:
            engine.crashed(exc)
        self._timer = engine.loop.call_later(TICK_S, self.start)

    def stop(self) -> None:
        """Tick no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self, now: float) -> None:
        engine = self.engine
        for client in [client for client in engine.clients if client.deadline <= now]:
            try:
                client.expired()
            except Exception as exc:
                client.crashed(exc)
        engine.door.sweep(now)
        if engine.door.resting:
            engine.door.watch()
        engine.sightings.flush()
        engine.steering.templates.tick(now)
        engine.hot.tick(engine.farm[END_INDEX[Reason.DONE]])
        if self.ticks % 5 == 0:
            engine.fleet.expire(now)
            engine.origins.expire(now)
            engine.spoofing.expire(now)
        if self.ticks % 50 == 0:
            engine.learned.expire(now)
        self.write_counters(self.ticks)
        engine.reports.tick(now)

    def write_counters(self, turn: int | None = None) -> None:
        """Copy all counters into the shared block; with a ``turn``, of many nodes a part (see ``Fleet.write_counters``)."""
        engine, farm = self.engine, self.engine.farm
        farm[FARM_INDEX["clients_open"]], farm[FARM_INDEX["tcp_open"]] = engine.door.sizes()
        farm[FARM_INDEX["learned_urls"]], farm[FARM_INDEX["learned_segments"]] = engine.learned.sizes()
        engine.block[: len(farm)] = memoryview(array.array("Q", farm))
        engine.fleet.write_counters(turn)
