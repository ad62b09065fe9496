"""Messages between the supervisor and a worker, over a Unix stream socket.

Each is a length (4 bytes, network order, of what follows), a kind (1 byte) and a payload::

    supervisor -> worker    SNAPSHOT  a packed Snapshot         worker -> supervisor    APPLIED  the epoch, in digits
                            LESSONS   what another one learned                          LESSONS  what this one learned
                            REOPEN    logs were rotated                                 DRAINED  exchanges cut, in digits
                            DRAIN     seconds, in digits                                SEEN     what nodes have stored
                            LEAVE     the same, patiently                               PURGE    a client wants a URL purged
                            PURGED    what became of a purge                            ASK      a client wants one of the
                            REPORT    a page of the cache manager                                manager's pages
                            SESSIONS  TLS sessions of nodes                             HOT      samples of exchanges
                                                                                        SESSIONS  TLS sessions of nodes
                            PING      are you there?                                    PONG     yes
                            FOUND     the nodes of clients                              FIND     whom does this client go to?
                            FORGET    templates have changed                            USED     templates that are in use
                            LOADS     what others have under way
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cachelb.routing.learned import Lesson

SNAPSHOT, LESSONS, REOPEN, DRAIN, APPLIED, DRAINED = b"S", b"L", b"R", b"D", b"A", b"X"
SEEN, PURGE, PURGED = b"H", b"P", b"Q"
HOT, ASK, REPORT = b"T", b"M", b"N"
LEAVE, PING, PONG = b"V", b"I", b"O"
LOADS = b"W"
SESSIONS = b"Z"
FIND, FOUND, USED, FORGET = b"f", b"g", b"u", b"k"

MESSAGE_BYTES = 16 << 20  # a Snapshot of 2,000 nodes has about 300 KiB

_HEAD = struct.Struct("!Ic")
_SEEN = struct.Struct("!HIH")
_NUMBER = struct.Struct("!QI")
_LOAD = struct.Struct("!HI")
_SAMPLE = struct.Struct("!HBIQH")
_FIND = struct.Struct("!IHBBBB")
_FOUND = struct.Struct("!IHH")
_USED = struct.Struct("!HBB")

NO_SLOT = 0xFFFF  # of a sample that no node has answered, of a client that has no node
HIT, BYPASSED, MARKED = 1, 2, 4  # flags of a sample; MARKED: the answer said whether it was a hit


class Seen(NamedTuple):
    """What an answer told about a node's store.

    slot: the node's, see ``counters``; url: canonical.
    expires: wall clock, whole seconds: it has the URL, fresh until then; 0: it does not have it.
    """

    slot: int
    expires: int
    url: bytes


class Purge(NamedTuple):
    """A client's PURGE.  number: the worker's, for the answer.  fields: its field lines that matter, each with CRLF."""

    number: int
    url: bytes
    fields: bytes


class Purged(NamedTuple):
    """What became of a purge: how many nodes were asked, have confirmed, and had the URL; problems: one sentence each."""

    number: int
    asked: int
    confirmed: int
    found: int
    problems: tuple[str, ...] = ()


class Sample(NamedTuple):
    """An exchange that a worker has looked at.  slot: of the node; weight: for how many it stands; size: bytes sent."""

    slot: int
    flags: int
    weight: int
    size: int
    url: bytes


class Ask(NamedTuple):
    """A client wants a page of the cache manager.  number: the worker's, for the answer."""

    number: int
    page: bytes


class Report(NamedTuple):
    """A page of the cache manager; no text: there is none of this name."""

    number: int
    text: bytes


class Find(NamedTuple):
    """A worker asks for a client's template.  number: the worker's, for the answer; address: the client's, 4 or 16 bytes.

    proposed: the slot that hashing has chosen, or NO_SLOT, for a client that has none.
    """

    number: int
    proposed: int
    group: str
    pool: str
    scheduler: str
    address: bytes


class Found(NamedTuple):
    """The answer: the slot, or NO_SLOT: no node is in service; home: the slot that the client will return to, or NO_SLOT."""

    number: int
    slot: int
    home: int


class Used(NamedTuple):
    """A template that is in use, and to which slot it leads; or one to forget: without an address all of the slot's, without
    either all of the group's.
    """

    slot: int
    group: str
    address: bytes


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


def pack_seen(seen: list[Seen]) -> bytes:
    """What a worker saw, as the payload of a message.  URLs have at most 65,535 bytes."""
    return b"".join([_SEEN.pack(slot, expires, len(url)) + url for slot, expires, url in seen])


def unpack_seen(payload: bytes) -> Iterator[Seen]:
    """Read what ``pack_seen`` wrote, one by one: there may be thousands."""
    at = 0
    while at < len(payload):
        slot, expires, size = _SEEN.unpack_from(payload, at)
        at += _SEEN.size
        yield Seen(slot, expires, payload[at : at + size])
        at += size


def pack_purge(purge: Purge) -> bytes:
    """A purge as the payload of a message."""
    return _NUMBER.pack(purge.number, len(purge.url)) + purge.url + purge.fields


def unpack_purge(payload: bytes) -> Purge:
    """Read what ``pack_purge`` wrote."""
    number, size = _NUMBER.unpack_from(payload)
    at = _NUMBER.size + size
    return Purge(number, payload[_NUMBER.size : at], payload[at:])


def pack_purged(purged: Purged) -> bytes:
    """What became of a purge, as the payload of a message."""
    return json.dumps(purged).encode()


def unpack_purged(payload: bytes) -> Purged:
    """Read what ``pack_purged`` wrote."""
    number, asked, confirmed, found, problems = json.loads(payload)
    return Purged(number, asked, confirmed, found, tuple(problems))


def pack_samples(samples: list[Sample]) -> bytes:
    """What a worker sampled, as the payload of a message."""
    return b"".join([_SAMPLE.pack(slot, flags, weight, size, len(url)) + url for slot, flags, weight, size, url in samples])


def unpack_samples(payload: bytes) -> list[Sample]:
    """Read what ``pack_samples`` wrote."""
    samples = []
    at = 0
    while at < len(payload):
        slot, flags, weight, sent, size = _SAMPLE.unpack_from(payload, at)
        at += _SAMPLE.size
        samples.append(Sample(slot, flags, weight, sent, payload[at : at + size]))
        at += size
    return samples


def pack_loads(loads: dict[int, int]) -> bytes:
    """Requests under way by the nodes' slots, as the payload of a message."""
    return b"".join([_LOAD.pack(slot, count) for slot, count in loads.items()])


def unpack_loads(payload: bytes) -> dict[int, int]:
    """Read what ``pack_loads`` wrote."""
    return dict(_LOAD.iter_unpack(payload))


def pack_ask(ask: Ask) -> bytes:
    """A question for a page as the payload of a message; a Report is packed likewise."""
    return _NUMBER.pack(ask.number, len(ask.page)) + ask.page


def unpack_ask(payload: bytes) -> Ask:
    """Read what ``pack_ask`` wrote."""
    return Ask(_NUMBER.unpack_from(payload)[0], payload[_NUMBER.size :])


def pack_report(report: Report) -> bytes:
    """A page as the payload of a message."""
    return _NUMBER.pack(report.number, len(report.text)) + report.text


def unpack_report(payload: bytes) -> Report:
    """Read what ``pack_report`` wrote."""
    return Report(_NUMBER.unpack_from(payload)[0], payload[_NUMBER.size :])


def pack_finds(finds: list[Find]) -> bytes:
    """Questions for templates, as the payload of a message.  Names have at most 255 bytes."""
    pieces: list[bytes] = []
    for number, proposed, group, pool, scheduler, address in finds:
        names = group.encode(), pool.encode(), scheduler.encode(), address
        pieces.append(_FIND.pack(number, proposed, *map(len, names)))
        pieces += names
    return b"".join(pieces)


def unpack_finds(payload: bytes) -> Iterator[Find]:
    """Read what ``pack_finds`` wrote, one by one."""
    at = 0
    while at < len(payload):
        number, proposed, *sizes = _FIND.unpack_from(payload, at)
        at += _FIND.size
        texts = []
        for size in sizes:
            texts.append(payload[at : at + size])
            at += size
        yield Find(number, proposed, texts[0].decode(), texts[1].decode(), texts[2].decode(), texts[3])


def pack_found(found: list[Found]) -> bytes:
    """The answers to a message of questions, as the payload of a message."""
    return b"".join([_FOUND.pack(*one) for one in found])


def unpack_found(payload: bytes) -> list[Found]:
    """Read what ``pack_found`` wrote."""
    return [Found(*one) for one in _FOUND.iter_unpack(payload)]


def pack_used(used: Iterable[Used]) -> bytes:
    """Templates in use, or to forget, as the payload of a message."""
    pieces: list[bytes] = []
    for slot, group, address in used:
        name = group.encode()
        pieces += (_USED.pack(slot, len(name), len(address)), name, address)
    return b"".join(pieces)


def unpack_used(payload: bytes) -> Iterator[Used]:
    """Read what ``pack_used`` wrote, one by one."""
    at = 0
    while at < len(payload):
        slot, name, size = _USED.unpack_from(payload, at)
        at += _USED.size
        group = payload[at : at + name].decode()
        at += name
        yield Used(slot, group, payload[at : at + size])
        at += size
