"""A register of templates that a test's relays ask, as the supervisor has it, and a clock that a test moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from cachelb import control
from cachelb.affinity.register import Register
from cachelb.affinity.templates import NOBODY
from cachelb.snapshot import Snapshot


class Clock:
    """Monotonic seconds, and what the test has added to them."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class FakeWorker:
    """Takes what the register says to one relay there."""

    def __init__(self, relay: Any) -> None:
        self.relay = relay
        self.heard: list[tuple[bytes, bytes]] = []  # by the relay
        self.block = memoryview(bytearray(relay.engine.block.nbytes)).cast("Q")  # what it has written lately

    def send(self, kind: bytes, payload: bytes) -> None:
        templates = self.relay.engine.steering.templates
        self.heard.append((kind, payload))
        if kind == control.FOUND:
            self.relay.loop.call_soon_threadsafe(lambda: templates.found(control.unpack_found(payload)))
        else:
            self.relay.loop.call_soon_threadsafe(lambda: templates.forget(list(control.unpack_used(payload))))


class FakeWorkers:
    """All of them."""

    def __init__(self) -> None:
        self.workers: list[FakeWorker] = []

    @property
    def blocks(self) -> list[memoryview]:
        return [worker.relay.engine.block for worker in self.workers]

    def tell(self, kind: bytes, payload: bytes) -> None:
        for worker in self.workers:
            worker.send(kind, payload)


class Office:
    """A register with the relays that ask it.  silent: it answers nothing."""

    def __init__(self, *farms: Any) -> None:
        self.clock = Clock()
        self.farms = farms
        self.workers = FakeWorkers()
        self.register = Register(farms[0].engine.config, self.clock)
        self.register.workers = self.workers  # type: ignore[assignment]
        self.silent = False
        self._lock = threading.RLock()  # relays are threads here
        for farm in farms:
            worker = FakeWorker(farm.relay)
            self.workers.workers.append(worker)
            templates = farm.engine.steering.templates
            templates.ask = self._listener(worker, control.FIND, control.pack_finds)
            templates.tell = self._listener(worker, control.USED, control.pack_used)
            farm.relay.call(lambda farm=farm: setattr(farm.engine, "clock", self.clock))
            self._intercept(farm)

    def _listener(self, worker: FakeWorker, kind: bytes, pack: Callable[[Any], bytes]) -> Callable[[Any], bool]:
        def listen(things: Any) -> bool:
            if not self.silent:
                with self._lock:
                    self.register.heard(worker, kind, pack(things))  # type: ignore[arg-type]
            return True

        return listen

    def _intercept(self, farm: Any) -> None:
        """What a relay is told, the register knows before."""
        apply = farm.engine.apply

        def both(blob: bytes) -> int:
            self.place(blob)
            return int(apply(blob))

        farm.engine.apply = both
        farm.apply()

    def place(self, blob: bytes) -> None:
        snapshot = Snapshot.unpack(blob)
        with self._lock:
            config = type(self.farms[0].engine.config).model_validate_json(snapshot.settings)
            self.register.configure(config)
            self.register.place(snapshot.nodes)

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass, and everything happen that it brings."""
        with self._lock:
            self.clock.ahead += seconds
        for farm in self.farms:
            ticks = farm.engine.ticker.ticks
            farm.wait_until(lambda farm=farm, ticks=ticks: farm.engine.ticker.ticks > ticks + 1)
        with self._lock:
            for shard in range(61):
                self.register.templates.expire(shard, self.clock())

    def node_of(self, ip: str, group: str = "shop") -> str | None:
        """The node of a client's template."""
        from cachelb.routing.template import packed

        with self._lock:
            shelf = self.register.templates.shelves[group]
            template = shelf.get(shelf.group.key(packed(ip)))
        return None if template is None else f"n{template.slot}"

    def home_of(self, ip: str, group: str = "shop") -> str | None:
        """Where a client will return to."""
        from cachelb.routing.template import packed

        with self._lock:
            shelf = self.register.templates.shelves[group]
            template = shelf.get(shelf.group.key(packed(ip)))
        return None if template is None or template.home == NOBODY else f"n{template.home}"

    def flush(self, ip: str, group: str = "shop") -> int:
        from cachelb.routing.template import packed

        with self._lock:
            return self.register.flush_client([group], packed(ip))
