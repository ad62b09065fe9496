"""One digest out of many: by uniting masks of equal geometry, or by building one from keys.

Digests that Squids made can rarely be united: each node sizes its mask by what it holds at the moment, and the union of
N masks at Squid's 5 bits per entry is too full to be worth anything.  So a cluster builds masks of one geometry from
keys, one for each node, and unites those: ``build_union``.

Left out: where keys come from, and when to build.  A build is one long computation: run it in another process, or feed
``Mask.add_many`` in slices.  In a thread it makes an event loop wait 5 ms, at times 10, whenever that wants to run (the
interpreter's switch interval; 0.7 and 1.6 ms with ``sys.setswitchinterval(0.0005)``; 2026-11).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

from .bloom import HASHES, Bytes, Mask
from .key import KEY_BYTES
from .wire import INT_MAX, Digest, DigestError, Geometry

FILL_LIMIT = 0.5  # at 50 % one in 16 questions is answered wrongly; Squid gives up at 65 %
# The fill aimed at, a little lower: the fill of a small mask varies by chance.
_FILL_AIM = 0.48
_BITS_PER_KEY = HASHES / -math.log(1 - _FILL_AIM)
# Room for as many keys at least, so that chance does not fill a tiny mask and the first arrivals do not outgrow it.
_CAPACITY_MIN = 1000
# Masks of single parts are made, counted and united as long as they have fewer bytes altogether: 0.1 s of CPU (2026-11).
PARTS_LIMIT_BYTES = 256 * 1024 * 1024

_Name = TypeVar("_Name")


class GeometryMismatch(DigestError):
    """Two digests cannot be united.  ``first`` and ``second``: their names; ``geometries``: theirs, in that order."""

    def __init__(self, first: str, one: Geometry, second: str, other: Geometry) -> None:
        super().__init__(f"{second} has {other}, but {first} has {one}")
        self.first = first
        self.second = second
        self.geometries = (one, other)


def union(digests: Mapping[str, Digest]) -> Digest:
    """Return a new digest that contains what any of the named digests contains.

    Its count is the sum of theirs: a key in two of them counts twice.

    Raises:
        GeometryMismatch: Their geometries differ; names the first one and the first that differs from it.
        ValueError: There are none.
    """
    if not digests:
        raise ValueError("a union of no digests")
    (first, start), *others = digests.items()
    for name, digest in others:
        if digest.geometry != start.geometry:
            raise GeometryMismatch(first, start.geometry, name, digest.geometry)
    mask = start.mask.copy()
    for _, digest in others:
        mask.unite(digest.mask)
    count = sum(max(0, digest.count) for digest in digests.values())
    deleted = sum(max(0, digest.deleted) for digest in digests.values())
    return Digest(start.geometry, mask, min(INT_MAX, count), min(INT_MAX, deleted))


def geometry_for(count: int, bits_per_entry: int) -> Geometry:
    """Return a geometry in which ``count`` keys set less than half of the bits.

    The capacity is ``count`` where that is enough (from 7 bits per entry on), else more.

    Raises:
        ValueError: So many bits per entry, or altogether, that no Squid could read it.
    """
    wanted = max(count, _CAPACITY_MIN)
    # max(): bits_per_entry itself is judged by Geometry
    return Geometry(max(wanted, math.ceil(wanted * _BITS_PER_KEY / max(1, bits_per_entry))), bits_per_entry)


def digest_of(keys: Bytes, geometry: Geometry) -> Digest:
    """Return a digest of the given geometry with all keys of a buffer (16 bytes each), however full that makes it."""
    digest = Digest(geometry, Mask(geometry.mask_bytes), count=_count(keys))
    digest.mask.add_many(keys)
    return digest


def build(keys: Bytes, bits_per_entry: int) -> Digest:
    """Return a digest of all keys of a buffer (16 bytes each), less than half full.

    5 million keys at 8 bits: 1.1 s of CPU, 20 MB beside the keys (2026-11).

    Raises:
        ValueError: The buffer's length is not a multiple of 16, or as ``geometry_for``.
    """
    return build_union({"": keys}, bits_per_entry)[0]


def build_union(parts: Mapping[_Name, Bytes], bits_per_entry: int) -> tuple[Digest, dict[_Name, float]]:
    """Return a digest of the keys of several buffers, less than half full, and how full each buffer alone makes a mask.

    Two masks are in memory at a time, however many buffers there are.  If their masks would have more than
    ``PARTS_LIMIT_BYTES`` together, all keys go straight into one, which is bit for bit the same, and no part's fill is told.
    The count is the sum of all: a key in two buffers counts twice.

    Raises:
        ValueError: As ``build``.
    """
    geometry = geometry_for(sum(map(_count, parts.values())), bits_per_entry)
    while True:
        digest, fills = _united(parts, geometry)
        if digest.mask.fill < FILL_LIMIT:
            return digest, fills
        # only keys that somebody chose come here: MD5 does not
        geometry = Geometry(geometry.capacity + geometry.capacity // 8 + 1, bits_per_entry)


def _united(parts: Mapping[_Name, Bytes], geometry: Geometry) -> tuple[Digest, dict[_Name, float]]:
    digest = Digest(geometry, Mask(geometry.mask_bytes), sum(map(_count, parts.values())))
    fills = {}
    if len(parts) * geometry.mask_bytes > PARTS_LIMIT_BYTES:
        for keys in parts.values():
            digest.mask.add_many(keys)
    else:
        for name, keys in parts.items():
            mask = digest_of(keys, geometry).mask
            fills[name] = mask.fill
            digest.mask.unite(mask)
    return digest, fills


def _count(keys: Bytes) -> int:
    return len(memoryview(keys).cast("B")) // KEY_BYTES
