"""What traffic says about nodes reaches health."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cachelb import passive
from cachelb.counters import BLOCK_BYTES, NODE_INDEX, node_offset
from cachelb.passive import Passive


class Supervisor:
    """What is told to its health, and whether its prober was woken."""

    def __init__(self, *down: str) -> None:
        self.farm = SimpleNamespace(slots={"a": 0, "b": 1}, watched=lambda: [name for name in "ab" if name not in down])
        self.health = SimpleNamespace(tick=lambda now: [], observe_passive=self.observe)
        self.prober = SimpleNamespace(wake=lambda: self.told.append("woken"))
        self.told: list[Any] = []
        self.logged: asyncio.Queue[list[str]] = asyncio.Queue()

    def observe(self, name: str, failures: int, answers: int, now: float) -> list[str]:
        self.told.append((name, failures, answers))
        return [f"changed {name}"]

    def log_changes(self, changes: list[str]) -> None:
        self.logged.put_nowait(changes)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passive, "PASSIVE_S", 0.001)


def watched(subject: Supervisor, **counts: int) -> list[str]:
    """What is logged when a worker has counted that for both nodes."""
    block = memoryview(bytearray(BLOCK_BYTES)).cast("Q")
    workers: Any = SimpleNamespace(blocks=[block])

    async def main() -> list[str]:
        async with asyncio.timeout(10.0):
            task = asyncio.create_task(Passive(subject, workers).watch())  # type: ignore[arg-type]
            assert await subject.logged.get() == []  # what was counted before is not news
            for slot in (0, 1):
                for name, count in counts.items():
                    block[node_offset(slot) + NODE_INDEX[name]] = count
            while not (changes := await subject.logged.get()):
                pass
            task.cancel()
            return changes

    return asyncio.run(main())


def test_what_is_new_is_told_once():
    subject = Supervisor()
    assert watched(subject, responses=7) == ["changed a", "changed b"]
    assert subject.told == [("a", 0, 7), ("b", 0, 7)]


def test_a_failure_has_the_node_probed_now():
    subject = Supervisor()
    watched(subject, connect_failures=1, resets=2)
    assert subject.told == [("a", 3, 0), "woken", ("b", 3, 0), "woken"]


def test_of_a_node_that_was_taken_down_nothing_is_told():
    subject = Supervisor("a")
    assert watched(subject, responses=1) == ["changed b"]
