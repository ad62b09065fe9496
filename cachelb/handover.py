"""The farm's digest on its way from the supervisor to the workers: a file in memory, and what to say about it.

Each worker has a socket of its own for this (SOCK_SEQPACKET), for a descriptor cannot travel in the stream of ``control``.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One digest, whole: control block and mask.

    fd: a memfd that nobody writes to any more; whoever receives it owns a descriptor of their own.
    size_bytes: of the body.  modified_at, expires_at: wall clock, whole seconds; the next one is due then.
    """

    fd: int
    size_bytes: int
    modified_at: int
    expires_at: int
