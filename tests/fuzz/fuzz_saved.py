"""A saved file that was changed is refused with BadState; one that a mistaken program sealed is refused or holds together.

With 1,024 buckets instead of 262,144: files of 5 KB are read a hundred times as often as those of 1 MB.
"""

from __future__ import annotations

import random
import struct
import tempfile
from hashlib import blake2b
from pathlib import Path

from mutate import EDGES, chance_of, kind, mutate

from cachelb.cluster import holdings as table
from cachelb.cluster import saved
from cachelb.cluster.holdings import Holdings, Source, mask_of
from cachelb.cluster.saved import FILE_NAME, parse_state, save
from cachelb.statefile import BadState

BUCKETS = 1024  # a multiple of the steps in which buckets are taken
table.BUCKETS = saved.BUCKETS = BUCKETS  # type: ignore[misc,attr-defined]
saved._COUNTS = struct.Struct(f"<{BUCKETS}I")
NODES = {"cache1": 0, "cache2": 1, "cache3": 2}
HEADER = 64
# the first 18 bits say which bucket: the first four here
KEYS = [bytes([0, 0, number % 4 << 6]) + number.to_bytes(13, "big") for number in range(40)]
NASTY = [
    *(b"\0", b"\xff", b"\xff" * 8, b"\xff\x0f", b"\x01\0", bytes(20), b"[]", b"[[0,", b'"cache1"', b"]", b"9" * 30, b"null"),
    *(b"cachelb holdings", b'[0,"cache2"],', b"[" * 3000, b"-1", b"1.0", b"true", b'"\\ud800"', b"4096", b"{}", b"NaN"),
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


def sealed(data: bytes) -> bytes:
    """With lengths and checksum that fit."""
    header = bytearray(data[:HEADER].ljust(HEADER, b"\0"))
    body = data[HEADER:]
    records = int.from_bytes(header[24:32], "little")
    names = len(body) - records * 20 - 4 * BUCKETS
    if not 0 <= names < 1 << 32:
        records, names = len(KEYS), max(0, len(body) - len(KEYS) * 20 - 4 * BUCKETS)
    header[24:32] = records.to_bytes(8, "little")
    header[32:36] = names.to_bytes(4, "little")
    header[44:64] = bytes(20)
    seal = blake2b(header + blake2b(body, digest_size=16).digest(), digest_size=16).digest()
    return bytes(header[:48]) + seal + body


def make(chance: random.Random) -> bytes:
    """The file with changes in one of its parts, two times of three sealed afterwards."""
    parts = [IMAGE[:HEADER], IMAGE[HEADER:COUNTS_AT], IMAGE[COUNTS_AT:NAMES_AT], IMAGE[NAMES_AT:]]
    which = chance.choice((0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4))
    if which < 4:
        parts[which] = mutate(chance, [parts[which]], NASTY)
    if which == 1:  # whole records, as many as their buckets say
        count = min(len(parts[1]) // 20, 1000)
        parts[0] = parts[0][:24] + count.to_bytes(8, "little") + parts[0][32:]
        parts[1] = parts[1][: count * 20]
        parts[2] = struct.pack(f"<{BUCKETS}I", count, *[0] * (BUCKETS - 1))
    elif which == 2:  # one bucket's count at an edge, often made good by its neighbour
        counts = [10] * 4 + [0] * (BUCKETS - 4)
        at, count = chance.randrange(6), chance.choice((*EDGES, 40, 11, 9))
        total = counts[at] + counts[at + 1]
        counts[at] = count
        if chance.randrange(2) and count <= total:
            counts[at + 1] = total - count
        parts[2] = struct.pack(f"<{BUCKETS}I", *counts)
    data = b"".join(parts)
    return sealed(data) if chance.randrange(4) else data


def check(data: bytes) -> str:
    limit = chance_of(data).choice((39, 1000, 1000, 1000))
    try:
        holdings = parse_state(data, NODES, keys_limit=limit)
    except BadState as problem:
        assert data != IMAGE
        return f"refused {kind(problem)}"
    assert data == sealed(data), "a damaged file was loaded"
    live = mask_of(NODES.values())
    held = sum(holdings.holds(key, 0, live, 0) for key in KEYS)
    assert held <= holdings.count() <= holdings.keys_limit == limit
    assert data != IMAGE or held == min(len(KEYS), limit)
    assert len(b"".join(holdings.keys(None, 0))) % 16 == 0
    holdings.expire(0, 1 << 10)
    holdings.add(KEYS[0], 2, 9, Source.STORE_LOG)
    assert holdings.holds(KEYS[0], 0, live, 0)
    return "loaded as it was saved" if data == IMAGE else "loaded, some of it"
