"""How busy the nodes are over all workers, for schedulers that ask for it.

Each worker knows its own requests under way as they are; of the others' it is told.  Their blocks are 0.2 s old at most, and
so is what is told: together less than half a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cachelb import control
from cachelb.counters import under_way

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.workers import Workers

TELL_S = 0.2
BUSY = frozenset(("lc", "wlc"))


def are_wanted(config: Config) -> bool:
    """Whether anything in a configuration chooses nodes by how busy they are."""
    rules = any(rule.scheduler in BUSY or (rule.affinity and not rule.scheduler) for rule in config.rule)
    return rules or any(service.scheduler in BUSY for service in config.tcp)


def elsewhere(blocks: list[memoryview], slots: Iterable[int]) -> list[dict[int, int]]:
    """For each worker, how many requests the others have under way, by slot; without those that are 0."""
    told: list[dict[int, int]] = [{} for _ in blocks]
    for slot in slots:
        own = [under_way(block, slot) for block in blocks]
        total = sum(own)
        for number, mine in enumerate(own):
            if total > mine:
                told[number][slot] = total - mine
    return told


async def tell(workers: Workers, config: Callable[[], Config], slots: Callable[[], Iterable[int]]) -> None:
    """Tell the workers for as long as the director runs; costs nothing where nobody asks."""
    while True:
        await asyncio.sleep(TELL_S)
        if len(workers.workers) > 1 and are_wanted(config()):
            for worker, loads in zip(workers.workers, elsewhere(workers.blocks, slots()), strict=True):
                worker.send(control.LOADS, control.pack_loads(loads))
