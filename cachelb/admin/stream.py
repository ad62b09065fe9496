"""Events as they happen: server-sent events (the HTML standard, section 9.2) for browsers and for curl -N."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from aiohttp import web

from cachelb.admin.events import LISTENERS_MAX, Event, Events
from cachelb.admin.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable

ALIVE_S = 15.0  # between signs of life: below what proxies wait for
STALLED_S = 30.0  # a listener that takes nothing for so long is let go


class Streams:
    """All that listen."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self._ending = False

    def close(self) -> None:
        """End all streams."""
        self._ending = True
        for listener in self.events.listeners:
            listener.set()

    async def serve(self, request: web.Request, last_id: int) -> web.StreamResponse:
        """Tell one listener what happens after ``last_id``, until it goes.

        Raises:
            ProblemError: There are too many already.
        """
        listeners = self.events.listeners
        if len(listeners) >= LISTENERS_MAX:
            raise ProblemError(503, f"{LISTENERS_MAX} listeners are there already")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        news = asyncio.Event()
        listeners.add(news)
        try:
            await response.prepare(request)
            await response.write(b"retry: 2000\n\n")
            while not self._ending:
                news.clear()
                found = self.events.after(last_id)
                last_id = self.events.last_id
                async with asyncio.timeout(STALLED_S):
                    await response.write(pack(found) if found else b": alive\n\n")
                try:
                    async with asyncio.timeout(ALIVE_S):
                        await news.wait()
                except TimeoutError:
                    pass
        except (ConnectionError, TimeoutError):
            pass  # it has gone, or sleeps
        finally:
            listeners.discard(news)
        return response


def pack(events: Iterable[Event]) -> bytes:
    """Events in the form of the standard: JSON has no line breaks, so each is one line of data."""
    return b"".join(f"id: {e.id}\nevent: {e.kind}\ndata: {json.dumps(e.as_dict())}\n\n".encode() for e in events)
