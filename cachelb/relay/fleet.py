"""The nodes of the Snapshot in force, as Targets with their connections.

A node is the same Target from one Snapshot to the next while its name stays, so its kept connections and counters stay
too. The table of owners is made anew only when names, weights, order or the algorithm change: a death moves keys
without it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cachelb.counters import NODE_INDEX, node_offset
from cachelb.relay.upstream import Target
from cachelb.routing.pool import Pool, Tables, make_pools
from cachelb.routing.ring import Member
from cachelb.routing.route import admission
from cachelb.routing.table import LatestTable, Table

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.snapshot import NodeView, Snapshot

# Copying takes 4 us a node: with 1,000 nodes, five times a second, 2 % of a core (2026-11).  So they take turns.
FEW, TURNS = 64, 5
IDLE_LEAST = 8  # connections that a worker may keep to a node, where that many are allowed at all
SPREAD = 3  # nodes offered for a request that is not hashed: as many as are tried (attempts.TARGETS_MAX)

_IDLE = NODE_INDEX["idle"]


class Fleet:
    """All nodes of one relay.

    Attributes:
        targets: in the order of the Snapshot; admits: for each, what ``routing.route`` reads; table: owners of keys.
        in_service: those that take requests which are not hashed.
        pools: by name, "" is all nodes; empty where nothing is configured that asks for one.
    """

    def __init__(self, block: memoryview) -> None:
        self.block = block
        self.targets: list[Target] = []
        self.admits: list[float] = []
        self.table: Table | None = None
        self.in_service: tuple[Target, ...] = ()
        self._by_name: dict[str, Target] = {}
        self._leaving: dict[int, Target] = {}  # by slot: removed, but with requests under way that are still counted
        self._latest = LatestTable()
        self._turn = 0
        self.pools: dict[str, Pool[Target]] = {}
        self._tables = Tables()

    def place(self, snapshot: Snapshot, config: Config) -> set[Target]:
        """Take over the nodes of ``snapshot``; return those that have just died.

        Raises:
            ValueError: They cannot make a table; nothing has changed.
        """
        members = [Member(view.name, view.weight) for view in snapshot.nodes]
        workers = config.relay.worker_count(len(os.sched_getaffinity(0)))
        # What a node sees must not grow with the director's cores; a worker without any would connect for every request.
        idle_max = max(config.limits.idle_per_node // workers, min(config.limits.idle_per_node, IDLE_LEAST))
        self.table = self._latest.renew(config.hash.algorithm, members)
        before = self._by_name
        self._by_name = {}
        died: set[Target] = set()
        for view in snapshot.nodes:
            target = self._target(before.get(view.name), view)
            if view.state == "dead" and target.state != "dead":
                died.add(target)
                died.add(before.get(view.name, target))
                target.close_idle()
            target.state = view.state
            target.idle_max = idle_max
            target.keep_s = config.timeouts.node_keep_alive_s
            self._by_name[view.name] = target
        for name, target in before.items():
            if self._by_name.get(name) is not target:
                target.close_idle()
                target.idle_max = 0  # what is still in use is closed when it is done, not kept
                target.state = "gone"
                self._leaving[target.slot] = target
        for target in self._by_name.values():
            self._leaving.pop(target.slot, None)
        self.targets = list(self._by_name.values())
        self.admits = [admission(view.state, view.share) for view in snapshot.nodes]
        weighted = [view.weight > 0 for view in snapshot.nodes]  # others are some pool's, and maybe no caches at all
        up = [self.targets[i] for i, admits in enumerate(self.admits) if admits > 0 and weighted[i]]
        last = [self.targets[i] for i, admits in enumerate(self.admits) if admits < 0 and weighted[i]]
        self.in_service = tuple(up or last)
        if config.rule or config.tcp:
            self.pools = make_pools(config.pool, config.hash.algorithm, self._tables, members, self.targets, self.admits)
        else:
            self.pools, self._tables = {}, Tables()
        return died

    def _target(self, known: Target | None, view: NodeView) -> Target:
        if known is None or known.slot != view.slot:
            target = _made(view)
            start = node_offset(view.slot)
            left = self._leaving.get(view.slot)
            if left is not None and left.name == view.name:
                target.counts, target.tally = left.counts, left.tally
            else:
                target.counts = list(self.block[start : start + len(target.counts)])  # a restarted worker counts on
            return target
        is_same = (known.port, known.send_proxy) == (view.port, view.send_proxy)
        if is_same and set(known.addresses) <= set(view.addresses):
            known.addresses = view.addresses
            return known
        # It has moved, or wants to be greeted otherwise.  Connections of before must not be kept, also those that are in use.
        moved = _made(view)
        moved.counts, moved.tally = known.counts, known.tally
        moved.state = known.state
        return moved

    def spread(self) -> tuple[Target, ...]:
        """Nodes for a request that is not hashed, in turn; empty where none is in service."""
        nodes = self.in_service
        if not nodes:
            return ()
        self._turn = (self._turn + 1) % len(nodes)
        return (nodes[self._turn :] + nodes[: self._turn])[:SPREAD]

    def expire(self, now: float) -> None:
        """Close connections that have been idle for too long."""
        for target in self.targets:
            target.expire(now)

    def write_counters(self, turn: int | None = None) -> None:
        """Copy the nodes' counters into the shared block; with a ``turn``, where there are many, of a fifth of them."""
        every = TURNS if turn is not None and len(self.targets) > FEW else 1
        for target in self.targets[(turn or 0) % every :: every]:
            self._write(target)
        for target in list(self._leaving.values()):
            self._write(target)
            if not target.under_way():
                del self._leaving[target.slot]

    def _write(self, target: Target) -> None:
        target.counts[_IDLE] = len(target.idle) + target.apart
        start = node_offset(target.slot)
        self.block[start : start + len(target.counts)] = target.as_block()

    def close(self) -> None:
        """Close every kept connection."""
        for target in self.targets:
            target.close_idle()


def _made(view: NodeView) -> Target:
    target = Target(view.name, view.addresses, view.port, view.slot)
    target.send_proxy = view.send_proxy
    return target
