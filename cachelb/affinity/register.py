"""The register of persistent client connections: the supervisor's answers to workers that ask where a client goes.

The templates of all groups are here and nowhere else, so two workers are never told different nodes.  A client whose node cannot
serve it any more is given another one when it asks for something next, not before: a death moves its own clients, and of these
only who comes back.  Workers that may remember what has changed are told.

What is answered fits the Snapshot that the workers were told last, see ``place``.

Left out: where templates are kept over a restart (``saved``), what the operator is shown (``listing``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from cachelb import control
from cachelb.affinity import journal
from cachelb.affinity.assign import Assigner
from cachelb.affinity.templates import NOBODY, SHARDS, Shelf, Template, Templates
from cachelb.control import NO_SLOT, Find, Found, Used
from cachelb.cookiekey import CookieKey
from cachelb.counters import AFFINITY, under_way
from cachelb.routing.template import group_of, is_home_again

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.snapshot import NodeView
    from cachelb.workers import Worker, Workers

log = logging.getLogger("cachelb.affinity")

SWEEP_S = 1.0  # for one look at all templates whether they are too old, a shard at a time
LOADS_S = 0.1  # how long what was read of the workers' counters is good: reading those of 1,000 nodes takes a millisecond


class Register:
    """Of one director.

    workers: given before any of them asks.  journal: is told every change while there is another director; see ``journal``.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.templates = Templates()
        self.assigner = Assigner()
        self.workers: Workers | None = None
        self.journal: Callable[[list[str]], None] | None = None
        self.created = self.moved = self.returned = self.flushed = 0
        self.changes = 0  # grows with whatever is worth saving
        self.cookie_key = CookieKey()  # of cookies, which keep clients with their nodes without any template
        self._config = config
        self._names: dict[int, str] = {}
        self._slots: dict[str, int] = {}
        self._loads: dict[int, int] = {}
        self._loads_at = -LOADS_S
        self.configure(config)

    # -- what changes

    def configure(self, config: Config) -> None:
        """Take over a configuration."""
        self._config = config
        self.cookie_key.configure(config)
        emptied = self.templates.configure(group_of(section) for section in config.affinity)
        if emptied:
            self.changes += 1
            log.info("the templates of %s are gone: its clients are others, or it is no longer configured", ", ".join(emptied))

    def place(self, views: Sequence[NodeView]) -> None:
        """The workers are about to be told of these nodes."""
        self._names = {view.slot: view.name for view in views}
        self._slots = {view.name: view.slot for view in views}
        if self._config.affinity:
            self.assigner.place(self._config.hash.algorithm, self._config.pool, views)

    # -- what workers say

    def heard(self, worker: Worker, kind: bytes, payload: bytes) -> None:
        """A worker asks where clients go, or tells which templates are in use."""
        if kind == control.USED:
            unknown = [used for used in control.unpack_used(payload) if not self.use(used)]
            if unknown:
                worker.send(control.FORGET, control.pack_used(unknown))
            return
        stale: list[Used] = []
        answers = [self.find(find, stale) for find in control.unpack_finds(payload)]
        worker.send(control.FOUND, control.pack_found(answers))
        if stale and self.workers is not None:
            message = control.pack_used(stale)
            for other in self.workers.workers:
                if other is not worker:
                    other.send(control.FORGET, message)

    def use(self, used: Used) -> bool:
        """A template is in use; False if it is not as the worker believes."""
        shelf = self.templates.shelves.get(used.group)
        if shelf is None:
            return False
        key = shelf.group.key(used.address)
        template = shelf.get(key)
        if template is None or template.slot != used.slot:
            return False
        shelf.use(key, self.clock())
        self._changed(shelf, key, template.slot, template.home)
        return True

    def find(self, find: Find, stale: list[Used]) -> Found:
        """Where a client goes; what other workers may know of it otherwise is added to ``stale``."""
        shelf = self.templates.shelves.get(find.group)
        if shelf is None or find.pool not in self.assigner.pools:
            return Found(find.number, NO_SLOT, NO_SLOT)  # it has another configuration
        now = self.clock()
        key = shelf.group.key(find.address)
        before = shelf.get(key)
        if before is not None and now - before.used >= shelf.group.timeout_s:
            before = None  # not swept up yet
            self.templates.expired += self.templates.drop(shelf, key)
        after = self._decide(shelf, key, before, find, now)
        if after is None:
            return Found(find.number, NO_SLOT, NO_SLOT)
        if before is not None and after[:2] != before[:2]:
            stale.append(Used(NO_SLOT, find.group, find.address))
        self.templates.put(shelf, key, after.slot, after.home, now)
        self._changed(shelf, key, after.slot, after.home)
        return Found(find.number, after.slot, NO_SLOT if after.home == NOBODY else after.home)

    def _changed(self, shelf: Shelf, key: int, slot: int, home: int) -> None:
        self.changes += 1
        if self.journal is not None and slot in self._names:
            address = shelf.group.address(key).hex()
            self.journal([shelf.group.name, address, self._names[slot], self._names.get(home, "")])

    def adopt(self, payload: bytes, overrule: bool) -> None:
        """Another director has said what becomes of templates (``journal``); overrule: it is the director, this one is not."""
        now, gone = self.clock(), []
        for name, address, node, home in journal.read(payload):
            shelf, slot = self.templates.shelves.get(name), self._slots.get(node)
            if shelf is None or (node and slot is None):
                continue
            if not address:
                self.changes += sum(self.templates.flush([name], slot))
                gone.append(Used(NO_SLOT if slot is None else slot, name, b""))
                continue
            key = shelf.group.key(address)
            known = shelf.get(key)
            if slot is None:
                self.templates.drop(shelf, key)
            elif known is not None and known.slot == slot:
                shelf.use(key, now)
                continue
            elif known is None or overrule:
                self.templates.put(shelf, key, slot, self._slots.get(home, NOBODY), now)
            else:
                continue
            self.changes += 1
            if known is not None:
                gone.append(Used(NO_SLOT, name, address))
        if gone and self.workers is not None:
            self.workers.tell(control.FORGET, control.pack_used(gone))

    def _decide(self, shelf: Shelf, key: int, before: Template | None, find: Find, now: float) -> Template | None:
        """The template that holds from now on; None: no node is in service."""
        group, assigner = shelf.group, self.assigner
        home = NOBODY
        if before is not None:
            if group.returns and before.home != NOBODY and is_home_again(key, assigner.admits(find.pool, before.home)):
                self.returned += 1
                return Template(before.home, NOBODY, now)
            keepers = assigner.keepers(find.pool, group.expires_on_drain)
            if before.slot in keepers:
                return before
            if group.returns and assigner.is_dead(before.slot):
                home = before.slot if before.home == NOBODY else before.home
        slot = assigner.choose(find.pool, find.scheduler, self._proposed(find), self._load, shelf.counts, now)
        if slot < 0:
            return None
        if before is None:
            self.created += 1
        else:
            self.moved += 1
        return Template(slot, NOBODY if home == slot else home, now)

    def _proposed(self, find: Find) -> int:
        return -1 if find.proposed == NO_SLOT else find.proposed

    def _load(self, slot: int) -> int:
        """Requests under way with a node, over all workers."""
        now = self.clock()
        if now - self._loads_at >= LOADS_S:
            self._loads.clear()
            self._loads_at = now
        load = self._loads.get(slot)
        if load is None:
            blocks = self.workers.blocks if self.workers is not None else []
            load = self._loads[slot] = sum([under_way(block, slot) for block in blocks])
        return load

    # -- what goes

    async def sweep(self) -> None:
        """For ever: let expire what nobody uses."""
        while True:
            for shard in range(SHARDS):
                await asyncio.sleep(SWEEP_S / SHARDS if self.templates.size else SWEEP_S)
                self.changes += self.templates.expire(shard, self.clock()) > 0

    def flush_client(self, groups: Sequence[str], address: bytes) -> int:
        """Forget the templates of a client (4 or 16 bytes) in these groups; how many there were."""
        gone = []
        for name in groups:
            shelf = self.templates.shelves[name]
            if self.templates.drop(shelf, shelf.group.key(address)):
                gone.append(Used(NO_SLOT, name, address))
        self._flushed(len(gone), gone)
        if self.journal is not None:
            for name in groups:
                self.journal([name, address.hex(), "", ""])
        return len(gone)

    async def flush(self, groups: Sequence[str], slot: int | None = None) -> int:
        """Forget all templates of these groups, or those of a node; how many there were."""
        total = 0
        self._tell_flushed(groups, slot)
        async for count in self._flush(groups, slot):
            total += count
        self._flushed(total, [])
        self._tell_flushed(groups, slot)  # again: some may have been asked for meanwhile
        if self.journal is not None and (slot is None or slot in self._names):
            for name in groups:
                self.journal([name, "", "" if slot is None else self._names[slot], ""])
        return total

    def _tell_flushed(self, groups: Sequence[str], slot: int | None) -> None:
        if self.workers is not None:
            gone = [Used(NO_SLOT if slot is None else slot, name, b"") for name in groups]
            self.workers.tell(control.FORGET, control.pack_used(gone))

    async def _flush(self, groups: Sequence[str], slot: int | None) -> AsyncIterator[int]:
        for count in self.templates.flush(groups, slot):
            yield count
            await asyncio.sleep(0)  # a million take a tenth of a second, for which no peer shall wait

    def _flushed(self, count: int, gone: list[Used]) -> None:
        self.flushed += count
        self.changes += 1
        if self.workers is not None and gone:
            self.workers.tell(control.FORGET, control.pack_used(gone))

    # -- for the operator

    def counters(self) -> dict[str, int]:
        """Every counter of ``counters.AFFINITY``."""
        templates = self.templates
        values = {
            "affinity_templates": templates.size,
            "affinity_created": self.created,
            "affinity_moved": self.moved,
            "affinity_returned": self.returned,
            "affinity_expired": templates.expired,
            "affinity_evicted": templates.evicted,
            "affinity_flushed": self.flushed,
        }
        return {counter.name: values[counter.name] for counter in AFFINITY}
