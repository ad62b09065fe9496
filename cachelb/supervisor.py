"""The director's main process: everything but the bytes of HTTP.

Wiring only: it starts the workers, asks health and names what they think, and publishes a new Snapshot whenever an answer
changes.  Signals: TERM drains and ends, INT ends at once, HUP reloads and reopens logs, USR1 reopens logs, USR2 lets a new
version take over.

Left out: what comes before the event loop (``launch``).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachelb import __version__, compiled, control
from cachelb.admin.api import AdminServer
from cachelb.admin.desk import Desk
from cachelb.admin.events import Level
from cachelb.admin.peers import Peers
from cachelb.affinity.keeper import Keeper as TemplateKeeper
from cachelb.affinity.register import Register
from cachelb.changes import difference, fixed_at_start
from cachelb.cluster.keeper import Legacy
from cachelb.config import Config, load
from cachelb.errors import ConfigError
from cachelb.eventlog import setup
from cachelb.farm import Farm, health_policy
from cachelb.loads import tell as tell_loads
from cachelb.nodes.health import Change, Health
from cachelb.nodes.probes import Prober
from cachelb.nodes.watch import NodeNames
from cachelb.notify import Notifier, watch
from cachelb.onecache import OneCache
from cachelb.overrides import Overrides
from cachelb.passive import Passive
from cachelb.pidfile import PidFile
from cachelb.snapshot import Snapshot
from cachelb.sockets import Sockets, worker_places
from cachelb.takeover import Predecessor
from cachelb.unless import unless
from cachelb.upgrades import Upgrades
from cachelb.workers import Worker, Workers, worker_count
from icp.service import bind

if TYPE_CHECKING:
    from cachelb.hostnet.host import Host

log = logging.getLogger("cachelb")

# Snapshots follow each other at this distance at the closest. With 1,000 nodes one costs 4 ms here and 10 ms in a worker; when
# all of them died at once, a Snapshot for each kept everybody busy for 11 s (2026-11).
PUBLISH_S = 0.05
AGAIN_S = 1.0  # between an internal error of a background job and its next start


class Supervisor:
    """One director, from start to end.

    before: the one that this one is about to replace; None: there is none, or it is replaced.
    """

    def __init__(self, path: Path, config: Config, sockets: Sockets | None = None, before: Predecessor | None = None) -> None:
        """sockets: bound for this configuration.  before: the director that runs, if there is one."""
        self.path = path
        self.file_config = self.began_with = config
        self.overrides = Overrides()
        if before is not None:
            self.overrides.adopt(before.offer.operator, config.node)
        self.config = config = self.overrides.applied(config)
        self.started_at = self.loaded_at = time.time()
        self.reloads = 0
        self.problems: list[str] = []  # why the last reload was refused
        self.epoch = 0
        self.farm = Farm()
        self.farm.configure(config)
        self.health = Health(health_policy(config), self.farm.watched(), time.monotonic())
        self.names = NodeNames(config.resolver, self._addresses_changed, partial(log.warning, "node %s: %s"))
        self.prober = Prober(self.health, self.farm.probe_targets, self.log_changes, config.health.timeout_s)
        self.sockets = Sockets(bind) if sockets is None else sockets
        self.before = before
        self.affinity = Register(config)
        self.template_keeper = TemplateKeeper(self.affinity, self.farm.slots)
        legacy = None
        if before is not None:
            self.health.adopt(before.offer.dead, time.monotonic())
            self.farm.adopt(before.offer.addresses)
            legacy = Legacy(before.ask(), before.offer.lock)
            self.template_keeper.load(legacy.directory)  # which the index's keeper removes
        self.onecache = OneCache(config, self.farm.slots, self.sockets.udp, legacy)
        self.template_keeper.follow(self.onecache.keeper)
        self.desk = Desk(self)
        self.peers, self.admin = Peers(self), AdminServer(self)
        self.upgrades = Upgrades(self)
        self.notifier = Notifier(os.environ, os.getpid())
        self.pid_file: PidFile | None = None
        self.host: Host | None = None  # what is set on it, if anything is
        self.workers: Workers | None = None
        self.ending = asyncio.Event()
        self.hurry = asyncio.Event()
        self._version = -1
        self._serves = True
        self._published_at = 0.0
        self._publishing: asyncio.TimerHandle | None = None
        self._hastened = False
        self.state = "starting"

    # -- life

    async def run(self) -> int:
        """Until a signal says otherwise; the exit status."""
        self._handle_signals()
        listeners = self.sockets.workers((*worker_places(self.config), *self.config.intercept.listen), worker_count(self.config))
        digest = None
        try:
            if self.before is None:
                await self._open_admin()
            else:
                digest = self.before.offer.published()
                self.onecache.serve(True)  # the one before us does: a peer may fetch
                self.onecache.place(self.farm.views(self.health.states()))
            await self.onecache.start()
            if await unless(self.ending, self.names.start(self.farm.names_to_resolve())):
                self.workers = Workers(listeners, self._snapshot().pack(), self._heard)
                self.affinity.workers = self.workers
                if self.before is not None:
                    await self.upgrades.follow(self.before)
                self.onecache.begin(self.workers, digest)
                await self._serve(self.workers)
        finally:
            self.template_keeper.close()
            await self.onecache.stop()
            await self.admin.stop()
            await self.names.stop()
            self.sockets.close()
        return 0

    async def _serve(self, workers: Workers) -> None:
        watchdog = partial(watch, self.notifier, workers.ping, self._is_well)
        loads = partial(tell_loads, workers, lambda: self.config, self.farm.slots.values)
        jobs: list[Callable[[], Awaitable[None]]] = [self.prober.run, Passive(self, workers).watch, self.desk.run, loads]
        jobs += [self.affinity.sweep, self.template_keeper.run, self.peers.watch, watchdog, workers.watch]
        jobs += [] if self.host is None else [partial(self.host.tend, self)]
        health = [asyncio.create_task(self._forever(job)) for job in jobs]
        onecache = [asyncio.create_task(self._forever(job)) for job in self.onecache.jobs()]
        workers.start()
        if await unless(self.ending, workers.ready()) and await self._begin():
            self.state = "running"
            self.onecache.serve(True)
            where = ", ".join(f"{address.host}:{address.port}" for address in self.began_with.listen.http)
            sizes = len(workers.workers), len(self.config.node)
            log.info("ready: cachelb %s, %d worker(s), %d node(s), listening on %s", __version__, *sizes, where)
            if not compiled.in_use:
                log.info("the sources run, uncompiled: %s", compiled.why_not)
            self.desk.events.add("start", f"cachelb {__version__} is ready, listening on {where}")
            self.notifier.say("READY=1", f"STATUS={self._in_short()}")
            await self.ending.wait()
        self.state = "draining"
        self.upgrades.give_up()
        is_followed = self.upgrades.successor is not None
        if is_followed or self.before is not None:  # others serve: finish what was begun here, with patience
            for task in onecache:
                task.cancel()
            self.onecache.retire()
            await self.admin.stop()
            wait_s = self.config.service.upgrade_drain_s if is_followed else self.config.timeouts.drain_s
            cut = await workers.drain(wait_s, self.hurry, patient=True)
        else:
            self.notifier.say("STOPPING=1", "STATUS=finishing what runs")
            self.onecache.serve(False)
            cut = await workers.drain(self.config.timeouts.drain_s, self.hurry)
        log.info("stopped: %s", f"{cut} client connections were cut" if cut else "every exchange was finished")
        await self.upgrades.settled()
        for task in (*health, *onecache):
            task.cancel()
        await asyncio.wait((*health, *onecache))

    async def _begin(self) -> bool:
        """Be the director from now on; False when that is not wanted any more."""
        if self.before is not None:
            if not await unless(self.ending, self.before.ready()):
                return False
            self.before = None
            await self._open_admin()
        self.sockets.close()
        if self.pid_file is not None:
            self.pid_file.write()
        if self.host is not None:
            await self.host.begin(self)
        return True

    async def _open_admin(self) -> None:
        began = self.began_with
        unix = self.sockets.unix(began.admin.socket, int(began.admin.socket_mode, 8))
        await self.admin.start(began.listen.admin, listener=self.sockets.admin, unix=unix)

    def _is_well(self, within_s: float) -> bool:
        """Whether a worker at least has answered in that time; while the end is being waited for, nobody is asked."""
        heard_s = asyncio.get_running_loop().time() - (self.workers.heard_at() if self.workers is not None else 0.0)
        return self.state == "draining" or (self.state == "running" and heard_s < within_s)

    def _in_short(self) -> str:
        states = [view.state for view in self.farm.views(self.health.states())]
        return f"{states.count('up')} of {len(states)} nodes up"

    async def _forever(self, job: Callable[[], Awaitable[None]]) -> None:
        """Do what does not end by itself, and do it again after an error of ours: health must not freeze."""
        while True:
            try:
                await job()
            except Exception as exc:
                log.critical("internal error: %r", exc, exc_info=exc)
            await asyncio.sleep(AGAIN_S)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self.stop_now)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        loop.add_signal_handler(signal.SIGUSR1, self.reopen_logs)
        loop.add_signal_handler(signal.SIGUSR2, self.upgrades.begin)

    def stop(self) -> None:
        """Finish what runs, then end.  A second time: end now.  After an upgrade, the first time takes patience away."""
        if self.upgrades.successor is not None and not self._hastened and self.workers is not None:
            self._hastened = True
            self.workers.hasten(self.config.timeouts.drain_s)
        elif self.ending.is_set():
            self.hurry.set()
        else:
            log.info("stopping: finishing exchanges for at most %g s", self.config.timeouts.drain_s)
            self.ending.set()

    def stop_now(self) -> None:
        """End at once."""
        self.hurry.set()
        self.ending.set()

    # -- what changes

    def _snapshot(self) -> Snapshot:
        self.epoch += 1
        views = self.farm.views(self.health.states())
        self._version = self.health.version
        self.onecache.place(views)
        self.affinity.place(views)
        has_urls = any(view.weight for view in views)  # else it serves pools alone
        self._tell_of_a_dead_farm(any(view.state in ("up", "drain") and (view.weight or not has_urls) for view in views))
        # Of nodes a relay reads the views; for a new configuration it would forget what it has learned.
        return Snapshot(self.epoch, self.file_config.model_dump_json(), views, self.affinity.cookie_key.secret)

    def _tell_of_a_dead_farm(self, serves: bool) -> None:
        if serves and not self._serves:
            log.info("the farm serves again")
            self.desk.events.add("farm", "the farm serves again")
        elif self._serves and not serves:
            direct = self.config.bypass.mode == "direct"
            text = f"no node is left: requests {'go straight to the origins' if direct else 'are answered with 503'}"
            log.error("%s", text)
            self.desk.events.add("farm", text, "error")
        self._serves = serves

    def wanted_epoch(self) -> int:
        """The epoch of the Snapshot in which all that is known now will be: a worker that has it is up to date."""
        behind = self.workers is not None and (self._publishing is not None or self.health.version != self._version)
        return self.epoch + behind

    def publish(self) -> None:
        """Send what is true now to all workers: at once, or soon when that was done just now."""
        if self._publishing is None:
            wait = self._published_at + PUBLISH_S - time.monotonic()
            if wait <= 0.0:
                self._publish()
            else:
                self._publishing = asyncio.get_running_loop().call_later(wait, self._publish)

    def _publish(self) -> None:
        if self._publishing is not None:
            self._publishing.cancel()
            self._publishing = None
        self._published_at = time.monotonic()
        if self.workers is not None:
            self.workers.apply(self._snapshot().pack())
            if self.state == "running":
                self.notifier.status(self._in_short())

    def log_changes(self, changes: list[Change]) -> None:
        """Tell of what health thinks otherwise now, and route by it."""
        for change in changes:
            log.log(logging.INFO if change.new == "up" else logging.WARNING, "%s", change)
            level: Level = "info" if change.new == "up" else "warning"
            self.desk.events.add("node", str(change), level, change.name, state=change.new, cause=change.cause)
        if self.health.version != self._version:  # shares that grow are no change worth a line
            self.publish()

    def _addresses_changed(self, name: str, addresses: list[str]) -> None:
        """A node's DNS name has other addresses now: no key moves, for the ring follows the name."""
        self.farm.addresses[name] = tuple(addresses)
        log.info("node %s is at %s", name, ", ".join(addresses))
        self.desk.events.add("node", f"node {name} is at {', '.join(addresses)}", node=name, addresses=addresses)
        self.prober.wake()
        self.publish()
        if self.host is not None:
            self.host.look_soon()

    def reload(self) -> str | None:
        """Read the configuration again; keep the old one if the new one cannot be used.

        Returns what has changed, in a few words; None if it was refused, and ``problems`` says why, or a new version has it.
        """
        if self.upgrades.pass_on(signal.SIGHUP):
            return None
        self.reopen_logs()
        self.notifier.reloading()
        try:
            return self._reconfigure(load(self.path))
        except ConfigError as exc:
            self.problems = [str(problem) for problem in exc.problems]
            for problem in self.problems:
                log.error("reload refused: %s", problem)
            text = f"the new configuration cannot be used: {self.problems[0]}"
            self.desk.events.add("reload_refused", text, "error", problems=self.problems[:20])
            return None
        finally:
            self.notifier.ready()

    def _reconfigure(self, config: Config) -> str:
        for what in fixed_at_start(self.began_with, config):
            log.warning("reload: a change of %s needs an upgrade or a restart; the old value stays in force", what)
        before, self.file_config = self.file_config, config
        self.problems, self.loaded_at = [], time.time()
        for name, text in self.overrides.reload(config.node):
            log.info("%s", text)
            self.desk.events.add("operator", text, node=name)
        setup(config.log.events, config.log.level)
        self.onecache.reload(config)
        self.reloads += 1
        self._take_over()
        changes = difference(before, config)
        log.info("reloaded: %s", changes)
        self.desk.events.add("reload", f"reloaded: {changes}", reloads=self.reloads)
        return changes

    def _take_over(self) -> None:
        """Put in force what the file and the operator say."""
        self.config = config = self.overrides.applied(self.file_config)
        self.farm.configure(config)
        self.affinity.configure(config)
        self.names.reload(config.resolver, self.farm.names_to_resolve())
        self.health.reload(health_policy(config), self.farm.watched(), time.monotonic())
        self.prober.timeout_s = config.health.timeout_s
        self.prober.wake()
        self._publish()

    def steer(self, name: str, **values: Any) -> None:
        """Set the state or the weight of a node over what the file says; without values, take back what was set.

        Raises:
            KeyError: There is no such node.
            ValueError: No node would have any weight; nothing has changed.
        """
        node = {node.name: node for node in self.file_config.node}[name]
        weights = {other.name: other.weight for other in self.config.node}
        weights[name] = values.get("weight", weights[name] if values else node.weight)
        if not any(weights.values()) and any(other.weight for other in self.file_config.node):
            raise ValueError("then no node would have any weight, and no URL an owner")
        if values:
            self.overrides.set(node, **values)
        else:
            self.overrides.reset(name)
        self._take_over()
        said = ", ".join(f"{key} {value}" for key, value in values.items()) or "as in the file"
        log.info("node %s: %s, by the operator", name, said)
        self.desk.events.add("operator", f"node {name}: {said}, by the operator", node=name, **values)

    def _heard(self, worker: Worker, kind: bytes, payload: bytes) -> None:
        """A worker has said something that is not about itself."""
        if kind in (control.HOT, control.LESSONS):
            self.desk.heard(kind, payload)
        elif kind == control.ASK:
            ask = control.unpack_ask(payload)
            text = self.desk.manager.page(ask.page.decode("latin-1"))
            worker.send(control.REPORT, control.pack_report(control.Report(ask.number, text.encode())))
        elif kind in (control.FIND, control.USED):
            self.affinity.heard(worker, kind, payload)
        else:
            self.onecache.heard(worker, kind, payload)

    def reopen_logs(self) -> None:
        """Logs were rotated."""
        self.upgrades.pass_on(signal.SIGUSR1)
        if self.workers is not None:
            self.workers.tell(control.REOPEN)
