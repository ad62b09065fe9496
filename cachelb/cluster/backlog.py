"""Purges that a node has not confirmed: what it must still be told when it answers again.

By the node's name, for a node may leave the configuration and come back with what it had.

Left out: when they are repeated, and how (``purge``).
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

PER_NODE = 10_000  # URLs: who purges more while a node is dead had better empty it
IN_ALL_BYTES = 64 << 20  # of all nodes: 150,000 URLs of 100 bytes
KEPT_S = 86400.0  # a node that is dead for longer needs an operator's eye anyhow
OVERHEAD_BYTES = 320  # of one, beside URL and fields: dictionary entry, tuple, two bytes objects


class Purge(NamedTuple):
    """What is to be forgotten.  url: canonical; fields: the request's field lines that choose among variants."""

    url: bytes
    fields: bytes


class Backlog:
    """Remembers them, the oldest first.  dropped: forgotten unconfirmed, for there were too many or they were too old."""

    def __init__(self, per_node: int = PER_NODE, in_all_bytes: int = IN_ALL_BYTES, kept_s: float = KEPT_S) -> None:
        self.dropped = 0
        self._per_node = per_node
        self._in_all_bytes = in_all_bytes
        self._kept_s = kept_s
        self._bytes = 0
        self._waiting: dict[str, dict[Purge, float]] = {}  # node -> purge -> when it was added, in this order

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def count(self, node: str) -> int:
        """How many there are for `node`."""
        return len(self._waiting.get(node, ()))

    def add(self, node: str, purge: Purge, now: float) -> bool:
        """Remember `purge` for `node`; what is there already becomes the youngest.  Returns False if one had to be dropped.

        now: monotonic, as everywhere here.
        """
        self.done(node, purge)
        before = self.dropped
        waiting = self._waiting.setdefault(node, {})
        size = _bytes(purge)
        while waiting and (len(waiting) >= self._per_node or self._bytes + size > self._in_all_bytes):
            self._drop(node, next(iter(waiting)))
        if self._bytes + size <= self._in_all_bytes:
            waiting[purge] = now
            self._bytes += size
        else:  # other nodes have filled it
            self.dropped += 1
        if not waiting:
            del self._waiting[node]
        return self.dropped == before

    def oldest(self, node: str, count: int) -> list[Purge]:
        """Up to `count` for `node`; they stay until they are ``done``."""
        return list(islice(self._waiting.get(node, ()), count))

    def done(self, node: str, purge: Purge) -> bool:
        """`node` needs it no longer.  Returns whether it was there."""
        waiting = self._waiting.get(node)
        if waiting is None or waiting.pop(purge, None) is None:
            return False
        self._bytes -= _bytes(purge)
        if not waiting:
            del self._waiting[node]
        return True

    def expire(self, now: float) -> None:
        """Drop what is too old."""
        for node, waiting in list(self._waiting.items()):
            while waiting and next(iter(waiting.values())) <= now - self._kept_s:
                self._drop(node, next(iter(waiting)))
            if not waiting:
                del self._waiting[node]

    def _drop(self, node: str, purge: Purge) -> None:
        del self._waiting[node][purge]
        self._bytes -= _bytes(purge)
        self.dropped += 1


def _bytes(purge: Purge) -> int:
    return len(purge.url) + len(purge.fields) + OVERHEAD_BYTES
