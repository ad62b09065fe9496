"""What happened, for those who watch: the last events in a ring, and listeners that are told of new ones.

A listener that does not read is not waited for: it misses what falls out of the ring, and is told that it did.  Every event is
logged elsewhere; here it is only shown.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

KEPT = 500
LISTENERS_MAX = 64
Level = Literal["info", "warning", "error"]


class Event(NamedTuple):
    """One event; the fields are those of ``model.Event``."""

    id: int
    at: float
    kind: str
    level: Level
    text: str
    node: str
    data: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self._asdict()


class Events:
    """The ring.

    Args:
        clock: wall clock, seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.last_id = 0
        self.listeners: set[asyncio.Event] = set()
        self._kept: deque[Event] = deque(maxlen=KEPT)

    def add(self, kind: str, text: str, level: Level = "info", node: str = "", **data: Any) -> Event:
        """Something has happened."""
        self.last_id += 1
        event = Event(self.last_id, round(self.clock(), 3), kind, level, text, node, data)
        self._kept.append(event)
        for listener in self.listeners:
            listener.set()
        return event

    def after(self, last_id: int) -> list[Event]:
        """The events that somebody who has seen `last_id` has not; one of kind ``gap`` first if some of these are gone.

        An id that was never given is one of a director before this one: all that is kept is new then.
        """
        if last_id > self.last_id:
            last_id = 0
        found = [event for event in self._kept if event.id > last_id]
        if found and last_id and found[0].id > last_id + 1:
            missed = found[0].id - last_id - 1
            text = f"{missed} events are no longer kept"
            found.insert(0, Event(found[0].id - 1, found[0].at, "gap", "warning", text, "", {"missed": missed}))
        return found
