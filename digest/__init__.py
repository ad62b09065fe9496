"""Squid's cache digests: read them, ask them, build them, unite them, fetch them.

    data = await fetch_digest("127.0.1.1", 3128)          # Fetched | NOT_MODIFIED | NOT_READY
    digest = parse_digest(data.body)                        # BadDigest unless every number agrees
    digest.mask.contains(store_key(b"http://example.com/"))
    pack_digest(build(keys, bits_per_entry=8))              # what a Squid with a cache_peer line fetches

Stands alone: needs the standard library and bitarray.
"""

from __future__ import annotations

from .bloom import Mask
from .fetch import DIGEST_PATH, NOT_MODIFIED, NOT_READY, Fetched, FetchError, Outcome, fetch_digest
from .key import GET, HEAD, KEY_BYTES, store_key, store_keys
from .merge import FILL_LIMIT, GeometryMismatch, build, build_union, digest_of, geometry_for, union
from .wire import (
    CONTROL_BYTES,
    MASK_LIMIT_BYTES,
    BadDigest,
    Digest,
    DigestError,
    Geometry,
    pack_control,
    pack_digest,
    parse_digest,
)

__all__ = [
    "CONTROL_BYTES",
    "DIGEST_PATH",
    "FILL_LIMIT",
    "GET",
    "HEAD",
    "KEY_BYTES",
    "MASK_LIMIT_BYTES",
    "NOT_MODIFIED",
    "NOT_READY",
    "BadDigest",
    "Digest",
    "DigestError",
    "FetchError",
    "Fetched",
    "Geometry",
    "GeometryMismatch",
    "Mask",
    "Outcome",
    "build",
    "build_union",
    "digest_of",
    "fetch_digest",
    "geometry_for",
    "pack_control",
    "pack_digest",
    "parse_digest",
    "store_key",
    "store_keys",
    "union",
]
