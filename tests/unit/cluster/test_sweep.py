"""``Sweep``: trials go round the table together, whatever happens to it meanwhile."""

from __future__ import annotations

import asyncio
from hashlib import md5
from typing import Any

import pytest

from cachelb.cluster import sweep as module
from cachelb.cluster.holdings import Holdings, Source
from cachelb.cluster.sweep import Sweep
from cachelb.cluster.trial import Terms, Trial
from digest import Mask

NOW = 1_800_000_000
LATER = NOW + 10_000


def key(number: int) -> bytes:
    return md5(b"%d" % number, usedforsecurity=False).digest()


def trial_of(held: range, *, settles: bool = True) -> Trial:
    mask = Mask(16384)
    for number in held:
        mask.add(key(number))
    return Trial(mask, mask.false_positives, Terms(NOW + 3600, settles=settles))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0)


def running(holdings: Holdings, scenario: Any) -> Sweep:
    """Run ``scenario(sweep)`` while the sweep runs."""
    sweep = Sweep(holdings)

    async def main() -> None:
        task = asyncio.ensure_future(sweep.run())
        async with asyncio.timeout(20):
            await scenario(sweep)
        task.cancel()

    asyncio.run(main())
    return sweep


def filled(nodes: int, each: int) -> Holdings:
    holdings = Holdings()
    for node in range(nodes):
        for number in range(each):
            holdings.add(key(number), node, LATER, Source.SEEN)
        holdings.turn(node)
    return holdings


def test_each_node_is_tried_by_its_own_digest_at_the_same_time():
    holdings = filled(3, 200)
    trials = [trial_of(range(100)), trial_of(range(150)), trial_of(range(200))]

    async def scenario(sweep: Sweep) -> None:
        await asyncio.gather(*(sweep.make(slot, trial) for slot, trial in enumerate(trials)))
        assert not sweep.has(0)

    running(holdings, scenario)
    assert [holdings.count(node) for node in range(3)] == [100, 150, 200]
    assert [trial.confirmed for trial in trials] == [100, 150, 200]


def test_a_trial_that_joins_later_sees_every_record_once():
    holdings = filled(2, 300)
    late = trial_of(range(300))

    async def scenario(sweep: Sweep) -> None:
        first = asyncio.ensure_future(sweep.make(0, trial_of(range(300))))
        while not 0 < sweep._at < 200_000:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await sweep.make(1, late)
        await first

    running(holdings, scenario)
    assert late.confirmed == 300
    assert holdings.count() == 600


def test_what_is_recorded_during_a_trial_stays():
    holdings = filled(1, 200)

    async def scenario(sweep: Sweep) -> None:
        trial = asyncio.ensure_future(sweep.make(0, trial_of(range(0))))
        number = 1000
        while not trial.done():
            holdings.add(key(number), 0, LATER, Source.SEEN)
            number += 1
            await asyncio.sleep(0)
        assert holdings.count(0) == number - 1000 > 20

    running(holdings, scenario)
    assert not holdings.holders(key(1))


def test_a_trial_that_is_ended_goes_no_further():
    holdings = filled(1, 200)

    async def scenario(sweep: Sweep) -> None:
        trial = asyncio.ensure_future(sweep.make(0, trial_of(range(0))))
        await asyncio.sleep(0)
        assert sweep.has(0)
        sweep.end(0)
        sweep.end(0)
        await trial
        again = trial_of(range(200))
        await sweep.make(0, again)
        assert again.confirmed == 200

    running(holdings, scenario)
    assert holdings.count() == 200


def test_a_trial_that_was_cancelled_is_forgotten():
    async def scenario(sweep: Sweep) -> None:
        trial = asyncio.ensure_future(sweep.make(0, trial_of(range(0))))
        await asyncio.sleep(0)
        trial.cancel()
        await asyncio.gather(trial, return_exceptions=True)
        assert not sweep.has(0)
        holdings.forget_node(1)
        await sweep.make(1, trial_of(range(1)))  # of a node without records

    holdings = filled(2, 10)
    running(holdings, scenario)
    assert holdings.count(0) == 10
