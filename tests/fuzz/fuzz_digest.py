"""Whatever bytes come as a digest, they are refused with BadDigest or say one thing, the same written back.

What is refused is refused by a slow reader too; what is united contains what its parts contained.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

from mutate import chance_of, kind, mutate

from digest import BadDigest, Digest, Geometry, GeometryMismatch, Mask, pack_digest, parse_digest, union

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


def make(chance: random.Random) -> bytes:
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


def slow(data: bytes) -> bool:
    """Whether this is a digest, said another way."""
    if len(data) < 128 or data[:4] != b"\0\5\0\3" or data[21] != 4 or any(data[22:128]):
        return False
    capacity, size = (int.from_bytes(data[at : at + 4], "big") for at in (4, 16))
    bits = data[20]
    if not 0 < capacity < 2**31 or not 0 < bits < 128 or capacity * bits >= 2**31 - 8:
        return False
    return size == len(data) - 128 <= LIMIT_BYTES and 8 * size - 8 < capacity * bits <= 8 * size


def check(data: bytes) -> str:
    said = slow(data)
    try:
        one = parse_digest(data, LIMIT_BYTES)
    except BadDigest as problem:
        assert not said, problem
        return f"refused {kind(problem)}"
    assert said
    assert pack_digest(one) == data
    mask = one.mask
    assert mask.size_bytes == len(data) - 128
    assert mask.ones == sum(byte.bit_count() for byte in data[128:])
    assert 0 <= mask.false_positives <= mask.fill <= 1
    check_contains(one, chance_of(data))
    return check_union(one, chance_of(data))


def check_contains(one: Digest, chance: random.Random) -> None:
    """A key is in it if four bits are set, counted by hand."""
    key = chance.randbytes(16)
    bits = [int.from_bytes(key[at : at + 4], "big") % (8 * one.mask.size_bytes) for at in (0, 4, 8, 12)]
    octets = pack_digest(one)[128:]
    expected = all(octets[bit // 8] >> bit % 8 & 1 for bit in bits)
    assert one.mask.contains(key) == expected
    assert one.mask.contains_many(key) == bytes([expected])


def check_union(one: Digest, chance: random.Random) -> str:
    geometry = chance.choice((one.geometry, one.geometry, Geometry(133, 5)))
    other = Digest(geometry, Mask.from_bytes(chance.randbytes(geometry.mask_bytes)))
    key = chance.randbytes(16)
    try:
        both = union({"one": one, "other": other})
    except GeometryMismatch:
        assert one.geometry != other.geometry
        return "taken"
    assert one.geometry == other.geometry
    assert parse_digest(pack_digest(both), LIMIT_BYTES) == both
    parts = zip(one.mask.to_bytes(), other.mask.to_bytes(), strict=True)
    assert both.mask.to_bytes() == bytes(mine | theirs for mine, theirs in parts)
    assert both.mask.contains(key) >= (one.mask.contains(key) or other.mask.contains(key))
    return "taken and united"
