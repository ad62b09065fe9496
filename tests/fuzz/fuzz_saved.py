"""A saved file that was changed is refused with BadState; one that a mistaken program sealed is refused or holds together.

python tests/fuzz/fuzz_saved.py [SECONDS [SEED]]
"""

from __future__ import annotations

import random
import sys
import tempfile
from hashlib import blake2b
from pathlib import Path

from mutate import mutate, run

from cachelb.cluster.holdings import BUCKETS, Holdings, Source, mask_of
from cachelb.cluster.saved import FILE_NAME, BadState, parse_state, save

NODES = {"cache1": 0, "cache2": 1, "cache3": 2}
HEADER = 64
KEYS = [number.to_bytes(16, "big") for number in range(40)]
NASTY = [
    b"\0",
    b"\xff",
    b"\xff" * 8,
    b"\xff\x0f",
    b"\x01\0",
    bytes(20),
    b"[]",
    b"[[0,",
    b'"cache1"',
    b"]",
    b"9" * 30,
    b"null",
    b"cachelb holdings",
]


def _image() -> bytes:
    holdings = Holdings()
    for number, key in enumerate(KEYS):
        holdings.add(key, number % 3, number, Source.SEEN)
    with tempfile.TemporaryDirectory() as directory:
        save(Path(directory), holdings, {node: name for name, node in NODES.items()}, 5)
        return (Path(directory) / FILE_NAME).read_bytes()


IMAGE = _image()
COUNTS_AT = HEADER + len(KEYS) * 20
NAMES_AT = COUNTS_AT + 4 * BUCKETS
HEAD, TABLE, NAMES = IMAGE[:COUNTS_AT], IMAGE[COUNTS_AT:NAMES_AT], IMAGE[NAMES_AT:]


def _sealed(data: bytes) -> bytes:
    """With lengths and checksum that fit."""
    header = bytearray(data[:HEADER].ljust(HEADER, b"\0"))
    body = data[HEADER:]
    names = max(0, len(body) - len(KEYS) * 20 - 4 * BUCKETS)
    header[32:36] = names.to_bytes(4, "little")
    header[44:64] = bytes(20)
    seal = blake2b(header + blake2b(body, digest_size=16).digest(), digest_size=16).digest()
    return bytes(header[:48]) + seal + body


def check(chance: random.Random) -> None:
    match chance.randrange(3):
        case 0:
            data = mutate(chance, [HEAD], NASTY) + TABLE + NAMES
        case 1:
            data = HEAD + TABLE + mutate(chance, [NAMES], NASTY)
        case _:
            at = chance.randrange(0, len(TABLE), 4)
            data = HEAD + TABLE[:at] + mutate(chance, [TABLE[at : at + 8]], NASTY) + TABLE[at + 8 :] + NAMES
    sealed = chance.random() < 0.7
    if sealed:
        data = _sealed(data)
    try:
        holdings = parse_state(data, NODES, keys_limit=chance.choice((39, *[1000] * 20)))
    except BadState:
        assert data != IMAGE
        return
    assert sealed or data == IMAGE, "a damaged file was loaded"
    live = mask_of(NODES.values())
    held = sum(holdings.holds(key, 0, live, 0) for key in KEYS)
    assert held <= holdings.count() <= holdings.keys_limit
    assert len(b"".join(holdings.keys(None, 0))) % 16 == 0
    holdings.expire(0, 1 << 40)
    holdings.add(KEYS[0], 2, 9, Source.STORE_LOG)
    assert holdings.holds(KEYS[0], 0, live, 0)


def main(seconds: float, seed: int = 0) -> int:
    return run(seconds, check, seed)


if __name__ == "__main__":
    print(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60, int(sys.argv[2]) if len(sys.argv) > 2 else 0), "files")
