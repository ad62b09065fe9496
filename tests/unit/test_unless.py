from __future__ import annotations

import asyncio

import pytest

from cachelb.unless import unless


async def _job(done: list[int]) -> None:
    await asyncio.sleep(0)
    done.append(1)


async def _forever() -> None:
    await asyncio.Event().wait()


async def _fails() -> None:
    raise ValueError("why")


def test_what_ends_in_time_is_waited_for():
    async def main() -> None:
        done: list[int] = []
        assert await unless(asyncio.Event(), _job(done))
        assert done == [1]

    asyncio.run(main())


def test_the_event_ends_the_waiting():
    async def main() -> None:
        event = asyncio.Event()
        asyncio.get_running_loop().call_soon(event.set)
        assert not await unless(event, _forever())

    asyncio.run(main())


def test_an_error_is_passed_on():
    with pytest.raises(ValueError, match="why"):
        asyncio.run(unless(asyncio.Event(), _fails()))
