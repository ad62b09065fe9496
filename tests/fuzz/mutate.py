"""A seeded mutator for the fuzz files beside it: cut, repeat, swap, insert what is known to hurt."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence


def mutate(chance: random.Random, seeds: Sequence[bytes], nasty: Sequence[bytes]) -> bytes:
    """One of the seeds with up to four changes."""
    data = chance.choice(seeds)
    for _ in range(chance.randrange(5)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.randrange(12))
        match chance.randrange(5):
            case 0:
                data = data[:at] + data[end:]
            case 1:
                data = data[:at] + chance.choice(nasty) + data[at:]
            case 2:
                data = data[:at] + chance.choice(nasty) + data[end:]
            case 3:
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
            case _:
                data = data[:end] + data[at:]
    return data


def cuts(chance: random.Random, size: int) -> list[int]:
    """Where ``size`` bytes are cut: rising, the last is ``size``."""
    return sorted({chance.randrange(size + 1) for _ in range(chance.randrange(6))} | {size})


def run(seconds: float, once: Callable[[random.Random], None], seed: int = 0) -> int:
    """Call ``once`` until the time is over; return how often.  A failure names the seed that repeats it."""
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        try:
            once(random.Random(seed + count))
        except Exception as problem:
            raise AssertionError(f"seed {seed + count}: {problem!r}") from problem
        count += 1
    return count
