"""Whatever bytes come as a digest or as its answer's head, they are refused or say one thing, the same written back.

python tests/fuzz/fuzz_digest.py [SECONDS [SEED]]
"""

from __future__ import annotations

import random
import struct
import sys
from pathlib import Path

from mutate import mutate, run

from digest import BadDigest, Digest, FetchError, GeometryMismatch, pack_digest, parse_digest, union
from digest.fetch import parse_answer_head

VECTORS = Path(__file__).parents[1] / "vectors" / "digest"
DIGESTS = [path.read_bytes() for path in sorted(VECTORS.glob("digest-node*.bin"))]
LIMIT_BYTES = 100
# where the control block's numbers stand, and how they are written
FIELDS = [(0, "h"), (2, "h"), (4, "i"), (8, "i"), (12, "i"), (16, "i"), (20, "B"), (21, "B"), (22, "B"), (127, "B")]
EDGES = {
    "h": [-(2**15), -1, 0, 1, 2, 3, 4, 5, 6, 2**15 - 1],
    "i": [-(2**31), -1, 0, 1, 81, 82, 84, 133, 160, 161, 2**24, 2**31 - 9, 2**31 - 1],
    "B": [0, 1, 4, 5, 127, 128, 255],
}
HEADS = [
    b"HTTP/1.1 200 Cache Digest OK\r\nContent-Length: 180\r\nDate: Sat, 21 Nov 2026 00:51:50 GMT\r\n"
    b"Last-Modified: Sat, 21 Nov 2026 00:51:45 GMT\r\nExpires: Sat, 21 Nov 2026 01:51:50 GMT\r\n\r\n",
    b"HTTP/1.0 304 Not Modified\r\n\r\n",
    b"HTTP/1.1 404\r\nContent-Length: 0\r\nX: y\r\n\r\n",
]
NASTY = [
    *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b":", b",", b"-", b"+", b"\xff", b"9" * 20, b"GMT", b"-0000"),
    *(b"Content-Length: 7\r\n", b"content-length: 180\r\n", b"Transfer-Encoding: chunked\r\n", b"Expires: 0\r\n"),
]


def some_bytes(chance: random.Random) -> bytes:
    """A digest with some of its numbers at their edges, or changed anywhere; often of a size that fits them."""
    if chance.randrange(3) == 0:
        return mutate(chance, DIGESTS, [bytes(7), b"\xff" * 3])
    data = bytearray(chance.choice(DIGESTS))
    for _ in range(chance.randrange(4)):
        at, layout = chance.choice(FIELDS)
        struct.pack_into(f">{layout}", data, at, chance.choice(EDGES[layout]))
    if chance.randrange(2):
        capacity, bits = struct.unpack_from(">i", data, 4)[0], data[20]
        size = (capacity * bits + 7) // 8
        if 0 <= size <= 2 * LIMIT_BYTES:
            struct.pack_into(">i", data, 16, size)
            data[128:] = chance.randbytes(size)
    return bytes(data)


def read(data: bytes) -> Digest | None:
    try:
        digest = parse_digest(data, LIMIT_BYTES)
    except BadDigest:
        return None
    assert pack_digest(digest) == data, data
    assert 0 < digest.mask.size_bytes <= LIMIT_BYTES, data
    assert 0 <= digest.mask.false_positives <= digest.mask.fill <= 1, data
    return digest


def check_digest(chance: random.Random) -> None:
    one, other = read(some_bytes(chance)), read(some_bytes(chance))
    if one is None or other is None:
        return
    key = chance.randbytes(16)
    try:
        both = union({"one": one, "other": other})
    except GeometryMismatch:
        assert one.geometry != other.geometry, (one, other)
        return
    assert one.geometry == other.geometry, (one, other)
    assert parse_digest(pack_digest(both), LIMIT_BYTES) == both, both
    assert both.mask.ones >= max(one.mask.ones, other.mask.ones), both
    assert both.mask.contains(key) >= (one.mask.contains(key) or other.mask.contains(key)), key
    assert both.mask.contains_many(key) == bytes([both.mask.contains(key)]), key


def check_head(chance: random.Random) -> None:
    data = mutate(chance, HEADS, NASTY)
    try:
        head = parse_answer_head(data)
    except FetchError:
        return
    assert 100 <= head.status <= 999, data
    assert head.length == -1 or str(head.length).encode() in data, data
    assert head.fresh_s >= 0, data
    assert not {"\r", "\n", "\0"} & set(head.last_modified), data


def main(seconds: float, seed: int = 0) -> int:
    return run(seconds / 2, check_digest, seed) + run(seconds / 2, check_head, seed)


if __name__ == "__main__":
    print(
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 60, int(sys.argv[2]) if len(sys.argv) > 2 else 0), "digests and heads"
    )
