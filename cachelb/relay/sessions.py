"""Which node a TLS session was begun with, for services that let clients go on with it there.

A session is known by a digest of its id or of its ticket, up to TLS 1.2 (``wire.server_hello``).  Workers tell each other through
the supervisor.  What is forgotten costs a client one whole handshake, no more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final, NamedTuple

SESSIONS_MAX: Final = 65_536  # of one worker: about 12 MiB; who was used longest ago is forgotten first
LIFE_S: Final = 1800.0  # without use: affinity's default; OpenSSL keeps a session for 300 s

_DIGEST_BYTES: Final = 16
_PACKED: Final = struct.Struct(f"!{_DIGEST_BYTES}sH")


class Session(NamedTuple):
    """Something learned.  key: the digest; slot: the node's."""

    key: bytes
    slot: int


def key_of(pool: str, kind: str, value: bytes) -> bytes:
    """The key of a session of a pool's nodes.  kind: "id" or "ticket"."""
    return blake2b(value, digest_size=_DIGEST_BYTES, person=kind.encode(), key=pool.encode()[:64]).digest()


class Sessions:
    """Those that one worker knows."""

    def __init__(self, most: int = SESSIONS_MAX) -> None:
        self._most = most
        self._known: dict[bytes, tuple[int, float]] = {}  # slot and end; who was used last is last

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: bytes, now: float) -> int:
        """The slot of the session's node; -1: it is not known, or not any more."""
        slot, end = self._known.pop(key, (-1, 0.0))
        if end <= now:
            return -1
        self._known[key] = slot, now + LIFE_S
        return slot

    def learn(self, session: Session, now: float) -> None:
        """Remember."""
        self._known.pop(session.key, None)
        self._known[session.key] = session.slot, now + LIFE_S
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]


def pack(sessions: list[Session]) -> bytes:
    """As the payload of a message between workers."""
    return b"".join([_PACKED.pack(*session) for session in sessions])


def unpack(payload: bytes) -> Iterator[Session]:
    """Read what ``pack`` wrote."""
    return (Session(*values) for values in _PACKED.iter_unpack(payload))
