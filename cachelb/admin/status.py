"""What the director knows now, as plain values: the documents of ``model`` that need no question.

Reads the supervisor and changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cachelb import __version__, compiled
from cachelb.admin.history import in_flight
from cachelb.counters import FARM, FARM_INDEX, NODE, NODE_INDEX, farm_values, node_values
from cachelb.overrides import FIELDS
from cachelb.routing.ring import Member
from cachelb.routing.table import LatestTable, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachelb.snapshot import NodeView
    from cachelb.supervisor import Supervisor


EXACT_NODES = 8


class Reader:
    """Reads one supervisor; remembers the tables that shares are taken from."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self._configured, self._live = LatestTable(), LatestTable()
        self._shares: tuple[object, list[float]] = (None, [])

    @property
    def blocks(self) -> list[memoryview]:
        """The workers' counters."""
        workers = self.supervisor.workers
        return workers.blocks if workers is not None else []

    def views(self) -> tuple[NodeView, ...]:
        """All nodes, as they are now."""
        return self.supervisor.farm.views(self.supervisor.health.states())

    def node_values(self) -> dict[str, list[int]]:
        """Counters and histograms of each node."""
        return {name: node_values(self.blocks, slot) for name, slot in self.supervisor.farm.slots.items()}

    def status(self) -> dict[str, Any]:
        """``model.Status``."""
        supervisor = self.supervisor
        now = time.time()
        farm = dict(zip((counter.name for counter in FARM), farm_values(self.blocks), strict=True))
        return {
            "version": __version__,
            "versions": versions(),
            "state": supervisor.state,
            "pid": os.getpid(),
            "compiled": compiled.why_not or "in use",
            "upgrade": {"tries": supervisor.upgrades.tries, "problem": supervisor.upgrades.problem},
            "started_at": round(supervisor.started_at, 3),
            "now": round(now, 3),
            "uptime_s": round(now - supervisor.started_at, 1),
            "epoch": supervisor.wanted_epoch(),
            "reloads": supervisor.reloads,
            "config": self.configuration(),
            "hash": self.hashing(),
            "listeners": self.listeners(),
            "workers": self.workers(),
            "farm": farm,
            "rates": supervisor.desk.history.rates(),
            "onecache": supervisor.onecache.status(),
            "affinity": supervisor.affinity.counters(),
            "nodes": self.nodes(),
            "peers": supervisor.peers.status(),
        }

    def configuration(self) -> dict[str, Any]:
        """``model.Configuration``."""
        supervisor = self.supervisor
        digest = hashlib.sha256(supervisor.file_config.model_dump_json().encode()).hexdigest()[:16]
        return {
            "path": str(supervisor.path),
            "digest": digest,
            "loaded_at": round(supervisor.loaded_at, 3),
            "problems": supervisor.problems,
        }

    def hashing(self) -> dict[str, Any]:
        """``model.Hashing``."""
        algorithm = self.supervisor.config.hash.algorithm
        members = [Member(view.name, view.weight) for view in self.views()]
        table = self._configured.renew(algorithm, members)
        return {"algorithm": algorithm, "table": table.digest() if table is not None else ""}

    def listeners(self) -> list[dict[str, str]]:
        """``model.Listener`` of each."""
        began_with = self.supervisor.began_with
        found = [
            {"kind": kind, "address": str(address)}
            for kind in ("http", "icp", "htcp", "store_log", "admin")
            for address in getattr(began_with.listen, kind)
        ]
        if began_with.admin.socket:
            found.append({"kind": "admin_socket", "address": began_with.admin.socket})
        return found

    def workers(self) -> list[dict[str, Any]]:
        """``model.Worker`` of each."""
        workers = self.supervisor.workers.workers if self.supervisor.workers is not None else []
        return [
            {
                "number": worker.number,
                "pid": worker.pid,
                "epoch": worker.epoch,
                "restarts": worker.restarts,
                "requests": worker.block[FARM_INDEX["requests"]],
                "clients_open": worker.block[FARM_INDEX["clients_open"]],
                "loop_lag_ms": worker.block[FARM_INDEX["loop_lag_us"]] / 1000,
            }
            for worker in workers
        ]

    def nodes(self) -> list[dict[str, Any]]:
        """``model.Node`` of each, in the order of the configuration."""
        supervisor = self.supervisor
        views = self.views()
        health, shares = supervisor.health.states(), self.key_shares(views)
        stores = supervisor.onecache.nodes(supervisor.farm.slots)
        file = {node.name: node for node in supervisor.file_config.node}
        blocks, now = self.blocks, time.monotonic()
        found = []
        for view, key_share in zip(views, shares, strict=True):
            known, values = health.get(view.name), node_values(blocks, view.slot)
            operator = supervisor.overrides.of(view.name)
            found.append(
                {
                    "name": view.name,
                    "host": supervisor.farm.nodes[view.name].host,
                    "addresses": list(view.addresses),
                    "port": view.port,
                    "icp_port": view.icp_port,
                    "icp": supervisor.onecache.icp_probes.told.get(view.name, ""),
                    "weight": view.weight,
                    "state": view.state,
                    "share": view.share,
                    "key_share": round(key_share, 4),
                    "pools": [pool.name for pool in supervisor.config.pool if view.name in pool.nodes],
                    "since_s": round(now - known.since, 1) if known else None,
                    "cause": known.cause if known else "",
                    "in_flight": in_flight(values),
                    "idle": values[NODE_INDEX["idle"]],
                    "rates": supervisor.desk.history.rates(view.name),
                    "operator": {field: operator.get(field) for field in FIELDS},
                    "file": {field: getattr(file[view.name], field) for field in FIELDS},
                    "drain": self._drain(view, key_share, in_flight(values), now),
                    "store": stores[view.name],
                    "counters": {counter.name: value for counter, value in zip(NODE, values, strict=False)},
                }
            )
        return found

    def node(self, name: str) -> dict[str, Any]:
        """``model.Node`` of one.  Raises KeyError."""
        return {node["name"]: node for node in self.nodes()}[name]

    def _drain(self, view: NodeView, key_share: float, flying: int, now: float) -> dict[str, Any] | None:
        supervisor = self.supervisor
        if supervisor.farm.nodes[view.name].state == "up":
            return None
        since, at_start = supervisor.desk.drains.get(view.name, (now, flying))
        workers = supervisor.workers.workers if supervisor.workers is not None else []
        epoch = supervisor.wanted_epoch()
        told = sum(worker.epoch >= epoch for worker in workers) / len(workers) if workers else 1.0
        moved = told if not key_share else 0.0  # the last node keeps its keys
        eta = drain_eta(now - since, at_start, flying)
        return {
            "for_s": round(now - since, 1),
            "in_flight": flying,
            "in_flight_at_start": at_start,
            "keys_moved": round(moved, 4),
            "eta_s": eta,
            "done": moved == 1.0 and not flying,
        }

    def key_shares(self, views: Sequence[NodeView]) -> list[float]:
        """The part of all keys that each node owns now: of a table of those that take keys, as the ring has it.

        A node that returns slowly has its part times its share; what it leaves to others is not given to them here.
        """
        algorithm = self.supervisor.config.hash.algorithm
        taking = [view for view in views if view.state == "up" and view.weight] or [
            view for view in views if view.state == "drain" and view.weight
        ]
        key = (algorithm, tuple((view.name, view.weight, view.share) for view in taking), len(views))
        if key != self._shares[0]:
            weights = [view.weight for view in taking]
            table = self._live.renew(algorithm, [Member(view.name, view.weight) for view in taking])
            owned = dict(zip((view.name for view in taking), owned_parts(table, weights), strict=True))
            self._shares = key, [owned.get(view.name, 0.0) * view.share for view in views]
        return self._shares[1]


def owned_parts(table: Table | None, weights: Sequence[float]) -> list[float]:
    """The part of all keys that each member owns: exactly for few; for many what their weights give them.

    To be exact takes 3 ms a member (2026-11), for which nobody who asks by ICP should wait; the ring gives each its part to a few
    hundredths of it.
    """
    if table is not None and len(weights) <= EXACT_NODES:
        return table.shares()
    return [weight / sum(weights) for weight in weights]


def drain_eta(for_s: float, at_start: int, flying: int) -> float | None:
    """Seconds until nothing is in flight, if it goes on as it went; None where that cannot be said."""
    if not flying:
        return 0.0
    if flying >= at_start or for_s <= 0:
        return None
    return round(for_s * flying / (at_start - flying), 1)


@cache
def versions() -> dict[str, str]:
    """Of Python and of what matters beside it."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("uvloop", "aiohttp", "mmh3", "bitarray")}}
