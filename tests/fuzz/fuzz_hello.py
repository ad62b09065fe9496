"""Whatever a TLS client or server says, and however it is cut, it is read or refused, the same each time, in bounded bytes."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

from mutate import chance_of, cuts, kind, mutate

from cachelb.wire.client_hello import HELLO_BYTES, Hello, HelloReader
from cachelb.wire.server_hello import SERVER_BYTES, SessionReader
from cachelb.wire.tls import BadTlsError

sys.path.append(str(Path(__file__).parents[1]))
from fakes_tls import extension, hello, hello_body, message, records, server_name, vector

SERVER = message(2, b"\3\3" + bytes(32) + vector(1, b"i" * 32) + b"\xc0\x2f\0")
TICKET = message(4, bytes(4) + vector(2, b"ticket"))
SEEDS = [
    hello(server_name(b"www.Example.org"), extension(35, b"ticket"), session=b"s" * 32),
    hello(server_name(b"a.b"), extension(43, b"\2\3\4"), extension(41, b"psk"), size=9),
    hello(),
    records(SERVER + message(11, b"c" * 60) + TICKET) + b"\x14\3\3\0\1\1",
    records(SERVER, 7) + records(TICKET, 7),
    b"\x15\3\1\0\2\2\x28",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 3 4\r\n",
]
NASTY = [
    b"\x16\3\1",
    b"\x14\3\3\0\1\1",
    b"\x17\3\3",
    b"\0",
    b"\xff\xff",
    b"\0\0",
    b"\0\0\0",
    b"\x40\0",
    b"\1\0\x40\0",
    server_name(b"x"),
]
NAMES = [b"a", b"A.b", b"a b", b"", b"x" * 256, b"\xff", b".", b"a.", b"b.example"]
HOST = re.compile(rb"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")


def make(chance: random.Random) -> bytes:
    """A hello put together from parts that are sound as a rule, or one with changes."""
    if chance.randrange(2):
        return mutate(chance, SEEDS, NASTY)
    parts = [server_name(*(chance.choice(NAMES) for _ in range(chance.choice((1, 1, 1, 2)))), kind=chance.choice((0, 0, 0, 1)))]
    parts += [
        extension(chance.choice((0, 35, 41, 43, 21)), chance.randbytes(chance.randrange(40))) for _ in range(chance.randrange(3))
    ]
    body = hello_body(*parts, session=bytes(chance.choice((0, 32, 32, 33))))
    return records(message(chance.choice((1,) * 9 + (2,)), body), chance.choice((1, 5, 100, 16384)))


def read(data: bytes, ends: list[int]) -> tuple[str, Hello | None, int]:
    """What comes of bytes that are cut so: how it ended, the hello, and how many bytes that took."""
    reader, at = HelloReader(), 0
    for end in ends:
        try:
            found = reader.feed(data[at:end])
        except BadTlsError as exc:
            return f"refused {kind(exc)}", None, end
        if found is not None:
            return "a name" if found.name else "no name", found, end
        at = end
    return "more is needed", None, at


def learned(data: bytes, ends: list[int]) -> tuple[bytes, bytes, bool]:
    reader, at = SessionReader(), 0
    for end in ends:
        reader.feed(data[at:end])
        at = end
    return reader.session, reader.ticket, reader.done


def check(data: bytes) -> str:
    ends = cuts(chance_of(data), len(data))
    bytewise = list(range(1, len(data) + 1))
    word, found, size = read(data, bytewise)
    for cut in (ends, [len(data)]):
        assert read(data, cut)[:2] == (word, found)
    if found is not None:
        assert size <= HELLO_BYTES
        assert not found.name or HOST.fullmatch(found.name)
        assert len(found.session) <= 32
        assert all(read(data[:end], [end])[1] is None for end in range(max(0, size - 20), size))
    session, ticket, done = learned(data, bytewise)
    assert learned(data, ends) == (session, ticket, done)
    assert len(data) < SERVER_BYTES
    if ticket:
        return "a ticket"
    return "a session" if session else word
