"""The templates of all groups: which node each client stays with, since when nobody has used that, and what is too old.

A template is one number in a dictionary: when it was used last (16ths of a second), the node that its client has left because
that died (see ``returns``), and its node.  A dictionary keeps the order of insertion; each use inserts anew, so the order is that
of idleness, and what is too old stands in front.  Each group has SHARDS dictionaries: one that has to grow needs its memory
twice while it does, which must not be that of a million.

1 million templates take 162 MiB at most (2026-11, ``tools/bench/affinity.py``).

Pure: time is a parameter, monotonic seconds.  Left out: who decides (``assign``), how it is kept over a restart (``saved``).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from cachelb.routing.template import Group

LIMIT = 1_000_000  # templates in all: 162 MiB; an ISP's director has as many clients within half an hour at most
BATCHES = 100  # what is too many goes in so many parts of a shard: 163 of a million at a time, in a millisecond
SHARDS: Final = 61  # a prime number: clients whose addresses have a regular distance are spread, too
NOBODY: Final = 0xFFF  # no slot: there are 2,048

_TICKS: Final = 16  # in a second
_SLOT_BITS: Final = 12
_NODES_BITS: Final = 2 * _SLOT_BITS
_NODES: Final = (1 << _NODES_BITS) - 1


class Template(NamedTuple):
    """Where a client goes.  slot: of its node; home: of the node that has died under it, or NOBODY; used: when, in seconds."""

    slot: int
    home: int
    used: float


class Shelf:
    """The templates of one group."""

    __slots__ = ("counts", "group", "shards", "size")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.shards: list[dict[int, int]] = [{} for _ in range(SHARDS)]
        self.counts: dict[int, int] = {}  # by slot
        self.size = 0

    def get(self, key: int) -> Template | None:
        """The template of a key."""
        value = self.shards[key % SHARDS].get(key)
        return None if value is None else _unpack(value)

    def put(self, key: int, slot: int, home: int, now: float) -> None:
        """Make or change a template; it is used now."""
        shard = self.shards[key % SHARDS]
        before = shard.pop(key, None)
        if before is None:
            self.size += 1
        else:
            self._uncount(before)
        shard[key] = int(now * _TICKS) << _NODES_BITS | home << _SLOT_BITS | slot
        self.counts[slot] = self.counts.get(slot, 0) + 1

    def use(self, key: int, now: float) -> None:
        """A template that exists is used now."""
        shard = self.shards[key % SHARDS]
        shard[key] = int(now * _TICKS) << _NODES_BITS | (shard.pop(key) & _NODES)

    def drop(self, key: int) -> bool:
        """Forget a template; False if there is none."""
        value = self.shards[key % SHARDS].pop(key, None)
        if value is None:
            return False
        self.size -= 1
        self._uncount(value)
        return True

    def _uncount(self, value: int) -> None:
        slot = value & NOBODY
        left = self.counts[slot] - 1
        if left:
            self.counts[slot] = left
        else:
            del self.counts[slot]

    def clear(self) -> int:
        """Forget all; how many there were."""
        size, self.size = self.size, 0
        self.shards = [{} for _ in range(SHARDS)]
        self.counts = {}
        return size

    def too_old(self, shard: int, now: float) -> list[int]:
        """Keys in a shard that nobody has used for the group's timeout."""
        oldest = int((now - self.group.timeout_s) * _TICKS)
        keys = []
        for key, value in self.shards[shard].items():
            if value >> _NODES_BITS > oldest:
                break
            keys.append(key)
        return keys

    def of_node(self, shard: int, slot: int) -> list[int]:
        """Keys in a shard whose templates have this node."""
        return [key for key, value in self.shards[shard].items() if value & NOBODY == slot]

    def idlest(self, shard: int, count: int) -> list[tuple[int, int]]:
        """When used last (ticks) and key of so many in a shard, the longest unused first."""
        return [(value >> _NODES_BITS, key) for key, value in islice(self.shards[shard].items(), count)]

    def items(self, shard: int) -> list[tuple[int, Template]]:
        """Keys and templates of a shard, the longest unused first."""
        return [(key, _unpack(value)) for key, value in self.shards[shard].items()]


class Templates:
    """The templates of all groups, by their names.

    shelves: by the group's name.  expired, evicted: how many went because they were too old, or too many.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.shelves: dict[str, Shelf] = {}
        self.size = 0
        self.expired = self.evicted = 0
        self._turn = 0  # the shard that was evicted from last

    def configure(self, groups: Iterable[Group]) -> list[str]:
        """Other groups: those that are gone go, and what belongs to other clients now; the names of what was emptied."""
        before, self.shelves, emptied = self.shelves, {}, []
        for group in groups:
            shelf = before.pop(group.name, None)
            if shelf is None:
                shelf = Shelf(group)
            elif not shelf.group.has_clients_of(group):
                self.size -= shelf.clear()
                emptied.append(group.name)
            shelf.group = group
            self.shelves[group.name] = shelf
        for name, shelf in before.items():
            self.size -= shelf.size
            emptied.append(name)
        return emptied

    def put(self, shelf: Shelf, key: int, slot: int, home: int, now: float) -> None:
        """As ``Shelf.put``; where that is one too many, some of the longest unused go."""
        before = shelf.size
        shelf.put(key, slot, home, now)
        self.size += shelf.size - before
        if self.size > self.limit:
            self._evict()

    def drop(self, shelf: Shelf, key: int) -> bool:
        """As ``Shelf.drop``."""
        found = shelf.drop(key)
        self.size -= found
        return found

    def _evict(self) -> None:
        """Forget the longest unused of a shard, of one after the other: to look at all at once would take 60 ms of a million."""
        count = max(1, self.limit // (BATCHES * SHARDS))
        shelves = list(self.shelves.values())
        for _ in range(SHARDS):
            self._turn = (self._turn + 1) % SHARDS
            idle = [(used, at, key) for at, shelf in enumerate(shelves) for used, key in shelf.idlest(self._turn, count)]
            for _, at, key in heapq.nsmallest(count, idle):
                self.evicted += self.drop(shelves[at], key)
            if idle:
                return

    def expire(self, shard: int, now: float) -> int:
        """Forget what is too old in one shard of each group; how many those were."""
        count = 0
        for shelf in self.shelves.values():
            for key in shelf.too_old(shard, now):
                count += self.drop(shelf, key)
        self.expired += count
        return count

    def flush(self, groups: Iterable[str], slot: int | None) -> Iterator[int]:
        """Forget the templates of a node, or with None all, of these groups: some at each step; how many those were."""
        for name in groups:
            for shard in range(SHARDS):
                shelf = self.shelves.get(name)
                if shelf is None:  # a reload has come between
                    break
                keys = list(shelf.shards[shard]) if slot is None else shelf.of_node(shard, slot)
                yield sum([self.drop(shelf, key) for key in keys])


def _unpack(value: int) -> Template:
    return Template(value & NOBODY, value >> _SLOT_BITS & NOBODY, (value >> _NODES_BITS) / _TICKS)
