"""Squid's cache digest as it travels: a control block of 128 bytes, then the mask.

    0  current version 5    4  capacity    12  deleted      20  bits per entry   22  zeros
    2  required version 3   8  count       16  mask bytes   21  hash functions       to 128

All numbers are signed and in network order.  A digest that somebody sent is not believed: every size must follow from
the others, and nothing is allocated from a number that it names.  ``count`` is what its maker says and may be anything
(a real Squid's was 132 in a digest for 82): it is carried along and used for nothing.

Errors of this package::

    DigestError
      BadDigest          these bytes are not a digest that we accept (also a ValueError)
      GeometryMismatch   (merge) masks of unequal geometry cannot be united
      FetchError         (fetch) no digest could be fetched

Left out: what the bits mean (``bloom``).

Source: Squid 5.7, PeerDigest.h StoreDigestCBlock; peer_digest.cc, peerDigestSetCBlock().
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .bloom import HASHES, Bytes, Mask

CONTROL_BYTES = 128
VERSION, REQUIRED_VERSION = 5, 3  # every Squid since 2.0
BITS_PER_ENTRY_MAX = 127  # Squid keeps it in a signed byte and asserts
_BITS_END = 2**31 - 8  # Squid computes the mask's size with signed 32-bit numbers and asserts
INT_MAX = 2**31 - 1
# A Squid with 100 million objects at its default of 5 bits sends 62.5 MB.
MASK_LIMIT_BYTES = 64 * 1024 * 1024
# What more than 65 % of ones is to a Squid: "useless", and it drops the digest (peer_digest.cc, 1032-1044).
USELESS_FILL = 0.65

_control = struct.Struct(f">hhiiiiBB{CONTROL_BYTES - 22}s")
_NOTHING = bytes(CONTROL_BYTES - 22)


class DigestError(Exception):
    """Anything that goes wrong in this package because of others."""


class BadDigest(DigestError, ValueError):
    """The bytes are not a digest that we accept; the text has the numbers."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The shape of a mask: digests can be united when theirs are equal.

    capacity: entries the mask is made for, at least 1.  bits_per_entry: 1 to 127.  Raises ValueError for others, and
    for a product that Squid cannot count.
    """

    capacity: int
    bits_per_entry: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits_per_entry <= BITS_PER_ENTRY_MAX:
            raise ValueError(f"{self.bits_per_entry} bits per entry, not 1 to {BITS_PER_ENTRY_MAX}")
        if self.capacity < 1 or self.capacity * self.bits_per_entry >= _BITS_END:
            raise ValueError(f"capacity {self.capacity} at {self.bits_per_entry} bits per entry")

    @property
    def mask_bytes(self) -> int:
        """The size of a mask; its bits are eight times as many, not ``capacity * bits_per_entry``."""
        return (self.capacity * self.bits_per_entry + 7) // 8

    def __str__(self) -> str:
        return f"capacity {self.capacity} at {self.bits_per_entry} bits per entry"


@dataclass(frozen=True, slots=True)
class Digest:
    """A mask with its geometry; ``count`` and ``deleted`` are what its maker says.

    The mask may still be added to; whoever publishes a digest stops doing so.
    """

    geometry: Geometry
    mask: Mask
    count: int = 0
    deleted: int = 0

    @classmethod
    def empty(cls, geometry: Geometry) -> Digest:
        """A digest of nothing."""
        return cls(geometry, Mask(geometry.mask_bytes))

    @property
    def is_useless(self) -> bool:
        """Whether so many bits are set that a Squid drops it."""
        return self.mask.fill > USELESS_FILL


def parse_digest(data: Bytes, limit_bytes: int = MASK_LIMIT_BYTES) -> Digest:
    """Read a whole digest; the mask is copied.

    Args:
        data: The body of an answer: control block and mask, nothing more.
        limit_bytes: The largest mask that is accepted.

    Raises:
        BadDigest: Cut short or too long, another version, sizes that disagree, a hash count other than 4, bytes set
            where there should be none, a mask above the limit.
    """
    if len(data) < CONTROL_BYTES:
        raise BadDigest(f"{len(data)} bytes are less than a control block of {CONTROL_BYTES}")
    (current, required, capacity, count, deleted, mask_bytes, bits_per_entry, hashes, rest) = _control.unpack_from(data)
    if (current, required) != (VERSION, REQUIRED_VERSION):
        raise BadDigest(f"version {current}/{required}, not {VERSION}/{REQUIRED_VERSION}")
    if hashes != HASHES:
        raise BadDigest(f"{hashes} hash functions, not {HASHES}")
    try:
        geometry = Geometry(capacity, bits_per_entry)
    except ValueError as problem:
        raise BadDigest(str(problem)) from None
    if mask_bytes != geometry.mask_bytes:
        raise BadDigest(f"{geometry} makes a mask of {geometry.mask_bytes} bytes, not {mask_bytes}")
    if mask_bytes > limit_bytes:
        raise BadDigest(f"a mask of {mask_bytes} bytes is above the limit of {limit_bytes}")
    if len(data) - CONTROL_BYTES != mask_bytes:
        raise BadDigest(f"{len(data) - CONTROL_BYTES} bytes follow the control block, which announces {mask_bytes}")
    if rest != _NOTHING:
        raise BadDigest("the reserved bytes of the control block are not zero")
    return Digest(geometry, Mask.from_bytes(memoryview(data)[CONTROL_BYTES:]), count, deleted)


def pack_control(digest: Digest) -> bytes:
    """Return the 128 bytes that stand before the mask: what a paced answer sends first (Squid's bug 5510)."""
    geometry = digest.geometry
    return _control.pack(
        VERSION,
        REQUIRED_VERSION,
        geometry.capacity,
        digest.count,
        digest.deleted,
        geometry.mask_bytes,
        geometry.bits_per_entry,
        HASHES,
        _NOTHING,
    )


def pack_digest(digest: Digest) -> bytes:
    """Return the digest as a Squid reads it; ``parse_digest`` gives it back."""
    return pack_control(digest) + digest.mask.to_bytes()
