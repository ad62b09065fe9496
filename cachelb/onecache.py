"""The farm as one cache, towards its peers: wiring of what the supervisor runs besides HTTP.

    workers (SEEN, PURGE) --+                    +-- ICP, HTCP: answered from the index, or by asking the owner
    nodes' store logs ------+--> index of keys --+
    nodes' digests ---------+    (state file)    +-- merged digest --> every worker serves it

Nothing is decided here; each part is a module of ``cachelb/cluster`` or ``icp``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachelb import control
from cachelb.cluster.forward import Forward
from cachelb.cluster.icpprobes import IcpProbes
from cachelb.cluster.index import Index
from cachelb.cluster.intake import Intake
from cachelb.cluster.keeper import Keeper, Legacy
from cachelb.cluster.merged import MergedDigest
from cachelb.cluster.nodedigests import NodeDigests
from cachelb.cluster.owners import Owners
from cachelb.cluster.purge import Purger
from cachelb.cluster.storelogs import StoreLogs
from cachelb.counters import PEERS
from cachelb.listen import cannot_listen
from cachelb.routing.guard import is_within
from cachelb.routing.rules import compile_rules
from icp import sieve
from icp.answer import Answerer
from icp.answer_htcp import HtcpAnswerer
from icp.service import Bind, Service, bind

if TYPE_CHECKING:
    from cachelb.config import Address, Config
    from cachelb.handover import Published
    from cachelb.snapshot import NodeView
    from cachelb.workers import Worker, Workers

log = logging.getLogger("cachelb.onecache")

SWEEP_S = 0.1  # between two slices of collecting what went stale, of 0.7 ms each (holdings.expire)
QUIET_SWEEP_S = 1.0  # the same while there is little: all of it is looked at in about a minute
LITTLE = 100_000  # records


class OneCache:
    """What the farm holds, and everyone who asks for it.

    workers: who serve the digest; given before ``serve``.
    """

    def __init__(
        self, config: Config, slots: Mapping[str, int], bind: Bind = bind, legacy: Legacy | None = None
    ) -> None:
        """Begin with what was saved.

        Args:
            slots: Of the configured nodes, by name.
            bind: Has or makes the UDP socket of an IP address and port.
            legacy: What the director before this one handed over.
        """
        self.config = config
        self.workers: Workers | None = None
        self._bind = bind
        self.keeper = Keeper(config.index, slots, legacy=legacy)
        self.index = Index(self.keeper.load(), time.time)
        self.intake = Intake(self.index)
        self.owners = Owners()
        self.purger = Purger(self.index, self.owners)
        self.forward = Forward(self.index, self.owners)
        self.icp_probes = IcpProbes(self.forward.client)
        self.node_digests = NodeDigests(self.index)
        self.store_logs = StoreLogs(self.index, self.node_digests.ask_now, bind)
        self.merged = MergedDigest(self.index, self._publish)
        self.icp = Answerer(self.index.holds, self._may_ask, holds_all=self.index.holds_all)
        self.htcp = HtcpAnswerer(self.index.holds, self.purger.clear, self._may_ask, may_clear=self._may_purge)
        self.services: dict[str, Service] = {}
        self._is_ready = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take over a configuration, except for where to listen."""
        self.config = config
        rules = compile_rules(config.rule)
        self.owners.configure(config.hash.algorithm, config.pool, rules)
        self.index.rules = rules
        self.merged.configure(config.digest)
        self.node_digests.configure(config.index.node_digests)
        self.keeper.configure(config.index)
        ask = self.forward.ask if config.icp.mode == "forward" else None
        self.icp.configure(self._may_ask, ask=ask, rate_per_s=config.icp.rate_per_s)
        self.htcp.configure(self._may_ask, self._may_purge, rate_per_s=config.icp.rate_per_s)

    # -- life

    async def start(self) -> None:
        """Listen where the configuration says.  Until ``serve``, peers are told to fetch nothing from us.

        Raises:
            CannotListenError: An address is not to be had.
        """
        listen = self.config.listen
        for address in listen.icp:
            with _listening(address):
                self.services[f"icp {address}"] = await Service.start(
                    [(address.host, address.port)], self.icp.answer, self.icp.answer_all, sieve.ICP, self._bind
                )
        for address in listen.htcp:
            with _listening(address):
                self.services[f"htcp {address}"] = await Service.start(
                    [(address.host, address.port)], self.htcp.answer, program=sieve.HTCP, bind=self._bind
                )
        for address in listen.store_log:
            with _listening(address):
                await self.store_logs.start([(address.host, address.port)])
        await self._listen_for_nodes()

    async def _listen_for_nodes(self) -> None:
        own = {node.name: [(place.host, place.port) for place in node.store_log] for node in self.config.node if node.store_log}
        try:
            await self.store_logs.listen(own)
        except OSError as exc:
            log.error("a node's store log cannot be listened for at %s: %s", exc.filename, exc.strerror)

    def reload(self, config: Config) -> None:
        """Take over a configuration while running."""
        self.configure(config)
        self._do(self._listen_for_nodes())

    def jobs(self) -> list[Callable[[], Awaitable[None]]]:
        """What runs for ever."""
        return [self._sweep, self.merged.run, self.keeper.run, self.node_digests.run, self.icp_probes.run]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S if self.index.holdings.records > LITTLE else QUIET_SWEEP_S)
            self.index.holdings.expire(int(time.time()))
            for answerer in (self.icp, self.htcp):
                if answerer.problem is not None:
                    log.critical("internal error: %r", answerer.problem, exc_info=answerer.problem)
                    answerer.problem = None

    async def stop(self) -> None:
        """Answer nobody any more, and save what is known.  The jobs must have ended."""
        for service in self.services.values():
            service.close()
        for task in self._tasks:
            task.cancel()
        self.intake.close()
        self.store_logs.close()
        self.forward.close()
        self.purger.close()
        self.merged.close()
        await self.keeper.close()

    # -- for the next director

    @property
    def sockets(self) -> list[socket.socket]:
        """Every UDP socket that peers and nodes send to."""
        services = (*self.services.values(), *self.store_logs.services)
        return [sock for service in services for sock in service.sockets]

    async def hand_over(self) -> Path | None:
        """Save what is known, for the next director, which hears the store logs from now on.  See ``Keeper.hand_over``."""
        for service in self.store_logs.services:
            service.pause()
        return await self.keeper.hand_over()

    async def take_back(self) -> None:
        """There is no next director."""
        self.keeper.take_back()
        for service in self.store_logs.services:
            await service.resume()

    def retire(self) -> None:
        """Another director answers, and hears what the nodes say."""
        for service in (*self.services.values(), *self.store_logs.services):
            service.pause()

    def _do(self, job: Any) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what changes

    def begin(self, workers: Workers, digest: Published | None = None) -> None:
        """These workers are about to start: they shall have a digest from the beginning.

        digest: What the director before this one served; its descriptor is closed.
        """
        self.workers = workers
        self.merged.publish_empty()
        if digest is not None:
            workers.publish_digest(digest)
            os.close(digest.fd)

    def serve(self, is_ready: bool) -> None:
        """Whether a peer may fetch from us what is no hit: not before the workers are ready, nor while they drain."""
        self._is_ready = is_ready
        self.icp.serving = self.htcp.serving = is_ready and bool(self.index.live)

    def place(self, views: Sequence[NodeView]) -> None:
        """These nodes from now on, in these states."""
        self.index.place(views)
        self.owners.place(views)
        for part in (self.forward, self.icp_probes, self.store_logs, self.merged, self.keeper):
            part.place(views)
        no_caches = {node.name for node in self.config.node if node.probe == "connect"}
        for asker in (self.purger, self.node_digests):  # by HTTP
            asker.place([view for view in views if view.name not in no_caches])
        self.serve(self._is_ready)

    def _publish(self, published: Published) -> None:
        if self.workers is not None:
            self.workers.publish_digest(published)

    def heard(self, worker: Worker, kind: bytes, payload: bytes) -> None:
        """A worker has said something that is not about itself."""
        if kind == control.SEEN:
            self.intake.take(payload)
        elif kind == control.PURGE:
            self._do(self._purge(worker, control.unpack_purge(payload)))

    async def _purge(self, worker: Worker, purge: control.Purge) -> None:
        asked = worker.writer
        purged = await self.purger.purge(purge.url, purge.fields)
        if worker.writer is asked:  # else the process that asked has died, and the next one counts from the start
            worker.send(control.PURGED, control.pack_purged(purged._replace(number=purge.number)))

    def _may_ask(self, source: str) -> bool:
        networks = self.config.icp.allow
        return is_within(source, self.config.access.allow if networks is None else networks)

    def _may_purge(self, source: str) -> bool:
        return is_within(source, self.config.access.purge)

    # -- for the operator

    def counters(self) -> dict[str, int]:
        """Every counter of ``counters.PEERS``."""
        found: dict[str, int] = {}
        sources = {
            "icp": (self.icp.counters(), *(s.counters() for name, s in self.services.items() if name.startswith("icp "))),
            "htcp": (self.htcp.counters(), *(s.counters() for name, s in self.services.items() if name.startswith("htcp "))),
            "forward": (self.forward.counters(),),
            "purge": (self.purger.counters(),),
            "store_log": (self.store_logs.counters(),),
            "index": ({"keys": self.index.holdings.count(), "overloads": self.intake.overloads},),
        }
        for prefix, groups in sources.items():
            for group in groups:
                for word, count in group.items():
                    name = f"{prefix}_{word}"
                    found[name] = found.get(name, 0) + count
        found["misrouted"] = self.index.misrouted
        return {counter.name: found.get(counter.name, 0) for counter in PEERS}

    def status(self) -> dict[str, Any]:
        """All that is known now, as plain values."""
        return {
            "icp": {"mode": self.config.icp.mode, "serving": self.icp.serving},
            "index": {"keys": self.index.holdings.count(), "keys_limit": self.index.holdings.keys_limit, **self.keeper.status()},
            "digest": self.merged.status(),
            "counters": self.counters(),
        }

    def nodes(self, slots: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        """What is known of each node's store, by its name."""
        digests = {about.pop("node"): about for about in self.node_digests.status()}
        feeds = self.store_logs.feeds
        return {
            name: {
                "keys": self.index.holdings.count(slot),
                "digest": digests.get(name, {}),
                "store_log": {"datagrams": feeds[name].datagrams, "restarts": feeds[name].log.restarts} if name in feeds else {},
            }
            for name, slot in slots.items()
        }


@contextlib.contextmanager
def _listening(address: Address) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise cannot_listen(address, exc, "u") from exc
