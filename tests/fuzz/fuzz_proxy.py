"""A PROXY header is read as soon as it is whole and never before, or refused; what it says can be said again in both versions."""

from __future__ import annotations

import random
from ipaddress import ip_address

from mutate import kind, mutate

from cachelb.wire.proxy_protocol import (
    SIGNATURE,
    V1_BYTES,
    V2_BYTES,
    V2_REST_BYTES,
    BadProxyHeaderError,
    Ends,
    Header,
    is_header,
    parse,
)
from cachelb.wire.proxy_protocol import (
    make as make_header,
)

V4 = Ends("192.0.2.1", 56324, "198.51.100.7", 443)
V6 = Ends("2001:db8::1", 1, "2001:db8::2", 65535)
SEEDS = [make_header(version, ends) for version in ("v1", "v2") for ends in (V4, V6, None)]
SEEDS += [SIGNATURE + b"\x21\x11\0\x13" + bytes(12) + b"\x04\0\4abcd", b"PROXY UNKNOWN ffff:: 1 2\r\n", b"GET / HTTP/1.1\r\n\r\n"]
NASTY = [
    b"\r\n",
    b"\n",
    b" ",
    b"  ",
    b"65536",
    b"0",
    b"01",
    b"::",
    b"::1",
    b"1.2.3.4",
    b"PROXY ",
    b"TCP6",
    SIGNATURE,
    b"\0\x0c",
    b"\xff\xff",
]


def make(chance: random.Random) -> bytes:
    return mutate(chance, SEEDS, NASTY)


def read(data: bytes) -> Header | str | None:
    try:
        return parse(data)
    except BadProxyHeaderError as exc:
        return f"refused {kind(exc)}"


def check(data: bytes) -> str:
    found = read(data)
    outcomes = [read(data[:size]) for size in range(len(data) + 1)]
    first = next((size for size, outcome in enumerate(outcomes) if outcome is not None), -1)
    if found is None:
        assert first < 0
        assert len(data) < max(V1_BYTES, V2_BYTES + V2_REST_BYTES)
        return "more is needed"
    assert all(outcome == found for outcome in outcomes[first:])
    if isinstance(found, str):
        return found
    assert first == found.size
    if found.ends is None:
        return "the connection's own"
    assert is_header(data)
    assert str(ip_address(found.ends.source)) == found.ends.source
    for version in ("v1", "v2"):
        again = make_header(version, found.ends)
        assert parse(again) == Header(len(again), found.ends)
    return "version 2" if data.startswith(SIGNATURE) else "version 1"
