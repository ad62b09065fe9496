"""Messages between the supervisor and a worker, over a Unix stream socket.

Each is a length (4 bytes, network order, of what follows), a kind (1 byte) and a payload::

    supervisor -> worker    SNAPSHOT  a packed Snapshot         worker -> supervisor    APPLIED  the epoch, in digits
                            LESSONS   what another one learned                          LESSONS  what this one learned
                            REOPEN    logs were rotated                                 DRAINED  exchanges cut, in digits
                            DRAIN     seconds, in digits
"""

from __future__ import annotations

import asyncio
import json
import struct

from cachelb.routing.learned import Lesson

SNAPSHOT, LESSONS, REOPEN, DRAIN, APPLIED, DRAINED = b"S", b"L", b"R", b"D", b"A", b"X"

MESSAGE_BYTES = 16 << 20  # a Snapshot of 2,000 nodes has about 300 KiB

_HEAD = struct.Struct("!Ic")


def pack(kind: bytes, payload: bytes = b"") -> bytes:
    """One message as bytes."""
    assert len(payload) < MESSAGE_BYTES, f"{len(payload)} bytes for one message"  # the other side would take us for dead
    return _HEAD.pack(len(payload) + 1, kind) + payload


async def receive(reader: asyncio.StreamReader) -> tuple[bytes, bytes] | None:
    """The next message as kind and payload; None when the other side has gone."""
    try:
        length, kind = _HEAD.unpack(await reader.readexactly(_HEAD.size))
        if not 1 <= length <= MESSAGE_BYTES:
            return None
        return kind, await reader.readexactly(length - 1)
    except (asyncio.IncompleteReadError, OSError):
        return None


def pack_lessons(lessons: list[Lesson]) -> bytes:
    """What a worker learned, as the payload of a message."""
    return json.dumps([[x.kind, x.key.decode("latin-1"), x.why, x.expires_in_s] for x in lessons]).encode()


def unpack_lessons(payload: bytes) -> list[Lesson]:
    """Read what ``pack_lessons`` wrote."""
    return [Lesson(kind, key.encode("latin-1"), why, expires) for kind, key, why, expires in json.loads(payload)]
