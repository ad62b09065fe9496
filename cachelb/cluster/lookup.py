"""Whether live nodes hold keys: what every ICP query asks of the table (``holdings``), on its own so that it can be compiled.

0.35 us a key so, 0.76 as part of the table, which is not compiled (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .record import KEY_BYTES, RECORD, SLOT, TAG_AT, TAIL_AT

_SIZE: Final = 20
_EXPIRES: Final = 14
_TAG: Final = 18
_SLOT: Final = 4095
assert (RECORD.size, TAIL_AT, TAG_AT, SLOT, KEY_BYTES) == (_SIZE, _EXPIRES, _TAG, _SLOT, 16)  # what is Final is in the code


def held(buckets: tuple[bytearray, ...], bits: list[int], keys: Iterable[bytes], until: int, live: int) -> list[bool]:
    """For each of `keys`, whether a node in `live` (a ``mask_of``) holds it until after `until`, or for an unknown time.

    Args:
        buckets: of ``record``s.
        bits: of each slot's node, as in `live`.
    """
    found = []
    for key in keys:
        bucket = buckets[key[0] << 10 | key[1] << 2 | key[2] >> 6]
        rest = key[2:]
        at = bucket.find(rest)
        while at >= 0:
            if at % _SIZE == 0 and live & bits[(bucket[at + _TAG] | bucket[at + _TAG + 1] << 8) & _SLOT]:
                end = at + _EXPIRES
                expires = bucket[end] | bucket[end + 1] << 8 | bucket[end + 2] << 16 | bucket[end + 3] << 24
                if expires > until or not expires:
                    break
            at = bucket.find(rest, at + 1)
        found.append(at >= 0)
    return found
