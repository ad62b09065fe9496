"""Which exchanges are sampled, and what they stand for."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from cachelb.control import BYPASSED, HIT, MARKED, NO_SLOT, Sample
from cachelb.relay.hot import LONG_BYTES, SAMPLES_MAX, SAMPLES_PER_TICK, HotSamples


def exchange(url: bytes = b"http://x/", size: int = 100, slot: int = 1, hit: bool | None = True, why: str = "get") -> Any:
    target = SimpleNamespace(slot=slot, is_node=slot >= 0)
    return SimpleNamespace(line=SimpleNamespace(key=url), bytes_out=size, target=target, hit=hit, why=why)


def make() -> tuple[HotSamples, list[Sample]]:
    samples, told = HotSamples(0), list[Sample]()
    samples.tell = told.extend
    return samples, told


def run(ticks: int, per_tick: int, urls: list[bytes]) -> tuple[list[Sample], int]:
    """What is told of so many requests that go round the urls, and how often the relay called ``take``."""
    samples, told = make()
    done = calls = 0
    for _ in range(ticks):
        for _ in range(per_tick):
            done += 1
            if done >= samples.at:
                calls += 1
                samples.take(exchange(urls[done % len(urls)]), done)
        samples.tick(done)
    return told, calls


def test_a_quiet_worker_looks_at_everything():
    told, _ = run(50, 5, [b"http://x/"])
    assert len(told) == 250
    assert {sample.weight for sample in told} == {1}


def test_a_busy_worker_looks_at_few_and_they_stand_for_all():
    told, calls = run(200, 4000, [b"http://x/%d" % i for i in range(64)])
    assert calls < 200 * SAMPLES_PER_TICK * 1.3 + 4000
    total = sum(sample.weight for sample in told)
    assert 0.95 < total / 800_000 < 1.05


def test_traffic_that_goes_round_is_sampled_evenly():
    urls = [b"http://x/%d" % i for i in range(50)]
    told, _ = run(400, 2000, urls)
    counts = Counter(sample.url for sample in told)
    assert len(counts) == 50
    assert max(counts.values()) < 1.4 * min(counts.values())


def test_after_a_rush_a_quiet_worker_looks_at_everything_again():
    samples, _ = make()
    samples.tick(100_000)
    samples.take(exchange(), 100_000)
    samples.tick(100_000)
    samples.tick(100_001)
    assert samples.at <= 100_002


def test_long_answers_stand_for_themselves():
    samples, told = make()
    samples.tick(100_000)
    samples.take(exchange(size=LONG_BYTES), 100_001)
    samples.tick(100_001)
    assert told[-1][2:4] == (1, LONG_BYTES)


def test_flags_say_what_became_of_it():
    samples, _ = make()
    for number, (hit, why, slot) in enumerate([(True, "get", 1), (False, "get", 1), (None, "get", 1), (None, "learned x", -1)]):
        samples.take(exchange(hit=hit, why=why, slot=slot), number + 1)
    assert [(s.flags, s.slot) for s in samples.samples] == [(HIT | MARKED, 1), (MARKED, 1), (0, 1), (BYPASSED, NO_SLOT)]


def test_what_is_kept_is_bounded():
    samples, _ = make()
    samples.take(exchange(b"http://x/" + b"y" * 5000), 1)
    samples.take(exchange(b""), 2)
    assert samples.samples == []
    for number in range(SAMPLES_MAX + 10):
        samples.take(exchange(), number + 3)
    assert len(samples.samples) == SAMPLES_MAX
    samples.tell = None
    samples.tick(300)
    assert samples.samples == []
