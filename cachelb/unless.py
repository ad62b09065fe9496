"""Waiting for something, unless something else comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def unless(event: asyncio.Event, job: Coroutine[Any, Any, None]) -> bool:
    """Wait for ``job``; False when ``event`` is set before that."""
    doing, ending = asyncio.ensure_future(job), asyncio.ensure_future(event.wait())
    await asyncio.wait({doing, ending}, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if not doing.done():
        doing.cancel()
        return False
    doing.result()
    return not event.is_set()
