"""What workers saw goes into the index a slice at a time, so that no ICP answer waits until thousands are in.

    intake = Intake(index)
    intake.take(payload)      # of a SEEN message

A worker tells up to 4,096 sightings at once, five times a second: 12 ms of the event loop in one go (2026-11), where a peer's
patience ends after 5.  The first slice is taken in at once, which is all there is unless many objects are new.

Left out: what a sighting changes (``index``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from cachelb import control

if TYPE_CHECKING:
    from .index import Index

SLICE = 128  # sightings: 0.4 ms (2026-11)
# Messages that wait, in bytes: half a second's work.  What is seen is seen again; the index relies on it being no older than 2 s.
WAITING_BYTES = 16 << 20


class Intake:
    """All workers' sightings, in the order in which they came.

    overloads: messages that were dropped because too much waited.
    """

    def __init__(self, index: Index) -> None:
        self.overloads = 0
        self._index = index
        self._waiting: deque[tuple[Iterator[control.Seen], int]] = deque()
        self._bytes = 0
        self._next: asyncio.Handle | None = None

    def take(self, payload: bytes) -> None:
        """One SEEN message of a worker."""
        if self._bytes + len(payload) > WAITING_BYTES:
            self.overloads += 1
            return
        self._waiting.append((control.unpack_seen(payload), len(payload)))
        self._bytes += len(payload)
        if self._next is None:
            self._go_on()

    def close(self) -> None:
        """Take in no more."""
        self._waiting.clear()
        self._bytes = 0
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _go_on(self) -> None:
        """Take in one slice, and let others have their turn before the next."""
        self._next = None
        seen, size = self._waiting[0]
        some: list[control.Seen] = []
        try:
            some = list(islice(seen, SLICE))
            self._index.saw(some)
        finally:
            if len(some) < SLICE:
                self._waiting.popleft()
                self._bytes -= size
            if self._waiting:
                self._next = asyncio.get_running_loop().call_soon(self._go_on)
