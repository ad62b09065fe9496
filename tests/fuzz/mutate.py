"""A seeded mutator for the fuzz files beside it: cut, repeat, swap, splice, insert what is known to hurt."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence

EDGES = (0, 1, 2, 3, 4, 5, 127, 128, 255, 256, 8191, 8192, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)


def mutate(chance: random.Random, seeds: Sequence[bytes], nasty: Sequence[bytes]) -> bytes:
    """One of the seeds with up to four changes."""
    data = chance.choice(seeds)
    for _ in range(chance.randrange(5)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.randrange(12))
        match chance.randrange(8):
            case 0:
                data = data[:at] + data[end:]
            case 1:
                data = data[:at] + chance.choice(nasty) + data[at:]
            case 2:
                data = data[:at] + chance.choice(nasty) + data[end:]
            case 3:
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
            case 4:
                data = data[:end] + data[at:]
            case 5 if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
            case 6:
                other = chance.choice(seeds)
                data = data[:at] + other[chance.randrange(len(other) + 1) :]
            case _:
                data = shuffled(chance, data)
    return data


def shuffled(chance: random.Random, data: bytes) -> bytes:
    """One line moved, doubled or gone."""
    lines = data.split(b"\n")
    line = lines.pop(chance.randrange(len(lines)))
    for _ in range(chance.randrange(3)):
        lines.insert(chance.randrange(len(lines) + 1), line)
    return b"\n".join(lines)


def cuts(chance: random.Random, size: int) -> list[int]:
    """Where ``size`` bytes are cut: rising, the last is ``size``."""
    return sorted({chance.randrange(size + 1) for _ in range(chance.randrange(6))} | {size})


def chance_of(data: bytes) -> random.Random:
    """The chance that belongs to an input: what a check decides by it, it decides again when the input comes back."""
    return random.Random(zlib.crc32(data))


def kind(problem: Exception) -> str:
    """A refusal's sentence without the numbers and names that it was about."""
    return re.sub(r"b?'[^']*'?|b?\"[^\"]*\"?|[0-9]+", "_", str(problem))[:60].rstrip()
