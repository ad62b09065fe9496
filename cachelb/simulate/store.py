"""The stores of a farm's nodes: least recently used objects go first, as Squid's ``cache_replacement_policy lru`` has it.

An object takes whole blocks of 4 KiB, as in Squid's ufs.  Of a store's size FILL is used: Squid begins to remove objects at
``cache_swap_low`` (90 %) and works harder up to ``cache_swap_high`` (95 %).

Left out: heap policies (GDSF, LFUDA), lifetimes, the memory cache in front of a disk.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cachelb.simulate.kinds import KIND_BITS, NO_HIT, NOT_STORED

BLOCK_BYTES = 4096
FILL = 0.92  # real Squids that each took in 50 objects/s were at 90 to 97 % (2026-11); with less to do they are nearer to 90
_KIND_MASK = (1 << KIND_BITS) - 1


class Limits(NamedTuple):
    """What is stored: objects from `smallest` to `largest` bytes."""

    smallest: int
    largest: int


SQUIDS = Limits(0, 4 << 20)  # its own defaults, minimum_object_size and maximum_object_size


class Stores:
    """What each node holds, and what it has been asked.

    Attributes:
        hits, hit_bytes: from any store.  requests, sent: per node, requests and bytes.  removed: objects pushed out.
    """

    def __init__(self, capacities: Sequence[int], limits: Limits) -> None:
        """Empty stores of so many bytes."""
        self.capacities = list(capacities)
        self.limits = limits
        self.hits = self.hit_bytes = self.removed = 0
        self.requests = [0] * len(capacities)
        self.sent = [0] * len(capacities)
        self._objects: list[OrderedDict[int, int]] = [OrderedDict() for _ in capacities]
        self._used = [0] * len(capacities)

    def serve(self, urls: Iterable[int], words: Iterable[int], nodes: Iterable[int]) -> None:
        """Requests one after the other; `nodes`: where each goes.  0.5 us each (2026-11)."""
        smallest, largest = self.limits
        objects, used, capacities = self._objects, self._used, self.capacities
        requests, sent = self.requests, self.sent
        hits = hit_bytes = 0
        for url, word, node in zip(urls, words, nodes, strict=False):
            requests[node] += 1
            size = word >> KIND_BITS
            sent[node] += size
            kind = word & _KIND_MASK
            store = objects[node]
            if url in store:
                if not kind & NO_HIT:
                    store.move_to_end(url)
                    hits += 1
                    hit_bytes += size
                    continue
                if not kind & NOT_STORED:
                    used[node] -= store.pop(url)
            if not kind & NOT_STORED and smallest <= size <= largest:
                room = size + BLOCK_BYTES - 1 & -BLOCK_BYTES
                store[url] = room
                total = used[node] + room
                used[node] = total if total <= capacities[node] else self._make_room(node, total)
        self.hits += hits
        self.hit_bytes += hit_bytes

    def _make_room(self, node: int, total: int) -> int:
        store, capacity = self._objects[node], self.capacities[node]
        while total > capacity:
            total -= store.popitem(last=False)[1]
            self.removed += 1
        return total

    def with_one_more(self, capacity: int) -> Stores:
        """A copy with another node, which is empty; counters begin at 0."""
        more = Stores([*self.capacities, capacity], self.limits)
        more._objects = [*(store.copy() for store in self._objects), OrderedDict()]
        more._used = [*self._used, 0]
        return more

    def held(self) -> list[int]:
        """Objects per node."""
        return [len(store) for store in self._objects]

    def used(self) -> list[int]:
        """Bytes per node."""
        return list(self._used)

    def duplicates(self) -> float:
        """The part of all stored bytes whose object is on more than one node."""
        total = sum(self._used)
        if len(self._objects) < 2 or not total:
            return 0.0
        holders = Counter(url for store in self._objects for url in store)
        shared = sum(room for store in self._objects for url, room in store.items() if holders[url] > 1)
        return shared / total
