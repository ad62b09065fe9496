"""The Python relay: one event loop, raw sockets, every HTTP byte of one worker process.

Outside, four verbs (see ``base.Relay``): ``start``, ``apply``, ``counters``, ``drain``.  Inside, it owns what client
connections share: the plans' memos, the nodes and origins with their kept connections, the pipes, the counters and the
clock.

Left out: the coarse clock that sets ``now`` (ticker.py).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cachelb.config import Config
from cachelb.counters import BLOCK_BYTES, END_INDEX, FARM, FARM_INDEX
from cachelb.errors import Reason
from cachelb.listen import host_names
from cachelb.relay.door import Door
from cachelb.relay.fleet import Fleet
from cachelb.relay.hot import HotSamples
from cachelb.relay.interception import Interception
from cachelb.relay.internal import Internal
from cachelb.relay.origins import Origins
from cachelb.relay.pipes import Pipes
from cachelb.relay.plan import Planner, PlanSettings, plan_settings
from cachelb.relay.plans import Plans
from cachelb.relay.poller import Poller
from cachelb.relay.reports import Reports
from cachelb.relay.sightings import Sightings
from cachelb.relay.spoofing import Spoofing
from cachelb.relay.steer import Steering
from cachelb.relay.ticker import Ticker
from cachelb.relay.timeouts import Timeouts
from cachelb.relay.upstream import Target
from cachelb.routing.learned import Learned, Lesson
from cachelb.snapshot import BadSnapshot, Snapshot

if TYPE_CHECKING:
    from cachelb.control import Purge, Purged, Seen
    from cachelb.handover import Published
    from cachelb.http.response import ResponseHead
    from cachelb.relay.access import AccessLog
    from cachelb.relay.answer import Answer
    from cachelb.relay.client import Client
    from cachelb.relay.exchange import Exchange
    from cachelb.relay.ways import Ways

log = logging.getLogger("cachelb.relay")


class Engine:
    """One worker's relay."""

    _ender: asyncio.TimerHandle  # of a drain

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        block: memoryview | None = None,
        teach: Callable[[list[Lesson]], None] | None = None,
    ) -> None:
        """Make a relay that serves nothing yet.

        Args:
            block: BLOCK_BYTES of shared memory for the counters; private memory if there is none.
            teach: is told what this worker learned, for the others.
        """
        self.loop = loop
        self.poller = Poller(loop)
        self.block = (block if block is not None else memoryview(bytearray(BLOCK_BYTES))).cast("Q")
        self.teach = teach
        self.clock = time.monotonic
        self.now = self.clock()
        self.farm = list(self.block[: len(FARM)])  # a worker that is restarted counts on
        self.ends = END_INDEX
        self.pipes, self.small_pipes = Pipes(), Pipes(most=1024, size=65536)
        self.plans = Plans()
        self.learned = Learned()
        self.learning = True
        self.door = Door(self)
        self.clients: set[Client] = self.door.clients
        self.fleet = Fleet(self.block)
        self.draining = self.closing = False  # answers are their connection's last; connections without a request are closed
        self.epoch = -1
        self.config: Config
        self.planner: Planner[Target]
        self.tails: list[bytes] = []
        self.via_line = b""
        self.access_log: AccessLog | None = None
        self.reports = Reports(self)
        self.origins = Origins(self)
        self.internal = Internal(self)
        self.steering = Steering(self)
        self.interception, self.spoofing = Interception(self), Spoofing(self)
        self.ask_purge: Callable[[Purge], bool] | None = None  # tells the supervisor; False: that cannot be done now
        self.tell_seen: Callable[[list[Seen]], None] | None = None  # is told what answers say about the nodes' stores
        self.sightings = Sightings(self)
        self.hot = HotSamples(self.farm[END_INDEX[Reason.DONE]])
        self._settings = ""
        self._plan_settings: PlanSettings
        self.ticker = Ticker(self)
        self._over = asyncio.Event()  # while draining: the last client has gone, or time is up

    # -- the four verbs

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Begin to accept on ``listeners``; ``drain`` closes them.  A Snapshot must have been applied."""
        self.door.open(listeners)
        self.ticker.start()

    def apply(self, blob: bytes) -> int:
        """Route later requests by the Snapshot in ``blob``; return its epoch.

        Raises:
            BadSnapshot: It cannot be read; the one in force stays.
        """
        snapshot = Snapshot.unpack(blob)
        changed = snapshot.settings != self._settings
        try:
            config = Config.model_validate_json(snapshot.settings) if changed else self.config
            died = self.fleet.place(snapshot, config)
        except ValueError as exc:  # what pydantic raises, too
            raise BadSnapshot(f"snapshot {snapshot.epoch}: {exc}") from exc
        if changed:
            self._configure(config)
            self._settings = snapshot.settings
        self.steering.templates.configure(config)
        self.steering.cookies.configure(config, snapshot.secret)
        fleet = self.fleet
        self.spoofing.place(fleet.targets, config.limits.idle_direct)
        self.planner = Planner(self._plan_settings, fleet.table, fleet.targets, fleet.admits, fleet.pools)
        self.plans.renew(self.planner)
        self.epoch = snapshot.epoch
        if died:
            self._move_on(died)
        return self.epoch

    def counters(self) -> memoryview:
        """The live block, in the order of ``cachelb.counters``."""
        self.ticker.write_counters()
        return self.block

    async def drain(self, deadline_s: float, *, patient: bool = False) -> int:
        """Stop accepting, let exchanges finish; return how many were cut."""
        self.door.close()
        self.draining = True
        for client in self.clients:
            client.announce_end()
        self._ender = self.loop.call_later(deadline_s, self._over.set)
        if not patient:
            self._close_idle()
        if self.clients or self.door.guests:
            await self._over.wait()
        self._ender.cancel()
        self._close_idle()
        cut = self.door.cut()
        self._close()
        return cut

    def hasten(self, deadline_s: float) -> None:
        """End a patient ``drain`` as one that is not, within ``deadline_s`` from now."""
        self._ender.cancel()
        self._ender = self.loop.call_later(deadline_s, self._over.set)
        self._close_idle()

    def _close_idle(self) -> None:
        self.closing = True
        for client in list(self.clients):
            if client.is_idle():
                client.readable()  # a request that is here already is answered
            if client.is_idle():
                client.close()
        self.door.hurry()

    # -- for the farm

    def publish_digest(self, published: Published) -> None:
        """Serve this digest of the farm from now on; its descriptor is closed.

        Raises:
            OSError, ValueError: It cannot be mapped; the one before stays.
        """
        self.internal.publish(published)

    def purged(self, purged: Purged) -> None:
        """What became of a purge that ``ask_purge`` was given."""
        self.internal.purged(purged)

    # -- configuration

    def _configure(self, config: Config) -> None:
        limits, bypass = config.limits, config.bypass
        self.config = config
        self.timeouts = Timeouts(**config.timeouts.model_dump())
        self.plans.configure(limits)
        self._plan_settings = plan_settings(config, host_names())
        self.via_line = f"Via: 1.1 {config.relay.via} (cachelb)\r\n".encode("latin-1")
        coding = b"Transfer-Encoding: chunked\r\n"
        self.tails = [
            self.via_line + extra + end + b"\r\n"
            for end in (b"", b"Connection: keep-alive\r\n", b"Connection: close\r\n")
            for extra in (b"", coding)
        ]
        self.learning = bypass.learn and bypass.mode != "off"
        self.learned = Learned(ttl_s=bypass.learn_ttl_s)
        self.door.configure(config)
        self.origins.configure(config)
        self.interception.configure(config)
        self.spoofing.configure(config)
        self.reports.configure(config)

    def _move_on(self, died: set[Target]) -> None:
        """Take exchanges that wait for a node that has just died to its successor at once."""
        self.door.nodes_died(died)
        for client in list(self.clients):
            if client.closed:
                continue  # with one before
            exchange = client.exchange
            if exchange.waits_for() in died:
                try:
                    exchange.target_died(self._instead(exchange))
                except Exception as exc:
                    client.crashed(exc)

    def _instead(self, exchange: Exchange) -> tuple[Target, ...] | None:
        if exchange.rule is not None:
            return None if exchange.rule.action.affinity else self.steering.targets(exchange, exchange.rule)
        return self.planner.line_owners(exchange.line)

    def take_loads(self, loads: dict[int, int]) -> None:
        """How many requests other workers have under way, by the nodes' slots; 0 for a node that is not among them."""
        for target in self.fleet.targets:
            target.elsewhere = loads.get(target.slot, 0)

    def forget(self, client: Client) -> None:
        """A client connection is closed."""
        self.door.forget(client)
        self.left()

    def left(self) -> None:
        """Somebody has gone."""
        if self.draining and not self.clients and not self.door.guests:
            self._over.set()

    # -- requests

    def spread(self) -> tuple[Target, ...]:
        """Nodes for a request that is not hashed, in turn."""
        return self.fleet.spread()

    def find_origin(self, exchange: Ways, host: bytes, port: int) -> None:
        """Find out where ``host`` is and whether it may be asked; the exchange is told."""
        self.origins.find(exchange, host, port)

    def observe(self, exchange: Answer, head: ResponseHead) -> None:
        """Learn from an answer what the next request for its URL, or for its neighbours, should do."""
        line = exchange.line
        if not self.learning or not line.segment or line.method not in (b"GET", b"HEAD"):
            return
        fields = exchange.block.fields
        if fields.authorization or fields.no_store:
            return
        lessons = self.learned.observe(line.key, line.segment, head.uncacheable, head.storable, self.now)
        if lessons and self.teach is not None:
            self.teach(lessons)

    def learn(self, lessons: list[Lesson]) -> None:
        """Take over what another worker learned."""
        for lesson in lessons:
            self.learned.learn(lesson, self.now)

    # -- counting and reporting

    def count(self, name: str, amount: int = 1) -> None:
        """Add to one of the farm's counters."""
        self.farm[FARM_INDEX[name]] += amount

    def report(self, exchange: Exchange, reason: Reason, detail: str) -> None:
        """Tell the operator of an exchange that ended badly."""
        self.reports.ended(exchange, reason, detail)

    def crashed(self, exc: Exception) -> None:
        """An error of ours: it is logged whole, and ends one connection only."""
        log.error("internal error: %r", exc, exc_info=exc)

    def _close(self) -> None:
        self.ticker.stop()
        self.sightings.flush()
        self.fleet.close()
        self.origins.close()
        self.spoofing.close()
        self.internal.close()
        self.pipes.close()
        self.small_pipes.close()
        self.poller.close()
        self.reports.close()
        self.ticker.write_counters()
