"""``Intake``: sightings go into the index in slices, all of them, in their order, and the event loop's other work goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest

from cachelb import control
from cachelb.cluster import intake as module
from cachelb.cluster.intake import Intake
from cachelb.control import Seen


class Index:
    """Remembers what it is told, slice by slice."""

    def __init__(self) -> None:
        self.slices: list[list[Seen]] = []
        self.fails = False

    def saw(self, seen: Iterable[Seen]) -> None:
        if self.fails:
            raise RuntimeError("the index is broken")
        self.slices.append(list(seen))

    @property
    def all(self) -> list[Seen]:
        return [one for some in self.slices for one in some]


def sightings(count: int, slot: int = 0) -> list[Seen]:
    return [Seen(slot, 1000 + number, b"http://a.test/%d" % number) for number in range(count)]


def run(test: Callable[[Intake, Index], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        index = Index()
        await test(Intake(index), index)  # type: ignore[arg-type]

    asyncio.run(asyncio.wait_for(main(), 10))


def test_what_fits_a_slice_is_in_at_once():
    async def test(intake: Intake, index: Index) -> None:
        intake.take(control.pack_seen(sightings(module.SLICE - 1)))
        assert index.slices == [sightings(module.SLICE - 1)]
        intake.take(b"")
        assert index.all == sightings(module.SLICE - 1)

    run(test)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_others_get_their_turn_between_two_slices(more: int):
    async def test(intake: Intake, index: Index) -> None:
        first, second = sightings(4 * module.SLICE + more), sightings(module.SLICE + 1, slot=1)
        intake.take(control.pack_seen(first))
        intake.take(control.pack_seen(second))
        turns = 0
        while len(index.all) < len(first) + len(second):
            before = len(index.slices)
            await asyncio.sleep(0)
            turns += 1
            assert len(index.slices) <= before + 1
        assert turns >= 5
        assert index.all == first + second
        assert max(map(len, index.slices)) == module.SLICE
        intake.take(control.pack_seen(sightings(1, slot=2)))
        await asyncio.sleep(0)
        assert index.all[-1:] == sightings(1, slot=2)

    run(test)


def test_no_more_waits_than_the_limit_and_what_is_dropped_is_counted(monkeypatch: pytest.MonkeyPatch):
    async def test(intake: Intake, index: Index) -> None:
        some = sightings(3 * module.SLICE)
        payload = control.pack_seen(some)
        monkeypatch.setattr(module, "WAITING_BYTES", 2 * len(payload))
        for _ in range(3):
            intake.take(payload)
        assert intake.overloads == 1
        while len(index.all) < 2 * len(some):  # noqa: ASYNC110  slices follow each other in the event loop
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        intake.take(payload)  # there is room again
        assert intake.overloads == 1

    run(test)


def test_a_failure_loses_one_message_and_no_other():
    async def test(intake: Intake, index: Index) -> None:
        index.fails = True
        with pytest.raises(RuntimeError):
            intake.take(control.pack_seen(sightings(5)))
        index.fails = False
        intake.take(control.pack_seen(sightings(7)))
        assert index.all == sightings(7)

    run(test)


def test_when_it_is_closed_nothing_more_is_taken_in():
    async def test(intake: Intake, index: Index) -> None:
        intake.take(control.pack_seen(sightings(2 * module.SLICE)))
        intake.close()
        await asyncio.sleep(0)
        assert len(index.slices) == 1

    run(test)
