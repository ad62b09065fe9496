"""Whatever arrives, however it is cut, ChunkScanner agrees with a slow reader of whole bodies or raises ChunkError."""

from __future__ import annotations

import random
import re

from mutate import chance_of, cuts, mutate

from cachelb.http.framing import ChunkError, ChunkScanner

BODIES = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b"a;x=y\r\n0123456789\r\n0001\r\nx\r\n0\r\nX: y\r\nZ:\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b'1;a="b\\";";c= d\r\nx\r\n0;last\r\n\r\n',
    b'1;a="b\\";"; c=d\r\nx\r\n0;last\r\n\r\n',
    b"2\r\n\r\n\r\n2\r\n0\r\r\n0\r\n\r\n",
]
NASTY = [
    b"\r",
    b"\n",
    b"\r\n",
    b"0\r\n\r\n",
    b"0",
    b"1\r\nx\r\n",
    b";",
    b"=",
    b'"',
    b"\\",
    b" ",
    b"\t",
    b"\x00",
    b"-",
    b"+",
    b"0x",
    b"f" * 16,
    b"7" + b"f" * 15,
    b"X: y\r\n",
    b"Content-Length: 1\r\n",
    b"\r\n\r\n",
    b"\xb2",
]
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
LINE = re.compile(rb"([0-9A-Fa-f]+)(?:;[\t ]*%b(?:=(?:%b|%b))?)*" % (TOKEN, TOKEN, QUOTED))
TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


def slow(data: bytes) -> tuple[str, int, bytes]:
    """(done, index after the body, payload), (more, 0, payload so far) or (bad, 0, b"").  Whole lines only."""
    at = 0
    payload = b""
    while True:
        line, found, _ = data[at:].partition(b"\r\n")
        match = LINE.fullmatch(line)
        if not found:
            return "more?", 0, payload
        if match is None or len(match[1]) > 16 or int(match[1], 16) >= 2**63:
            return "bad", 0, b""
        at += len(line) + 2
        size = int(match[1], 16)
        if size == 0:
            break
        payload += data[at : at + size]
        at += size
        if len(data) < at + 2:
            return "more?", 0, payload
        if data[at : at + 2] != b"\r\n":
            return "bad", 0, b""
        at += 2
    while True:
        line, found, _ = data[at:].partition(b"\r\n")
        if not found:
            return "more?", 0, payload
        at += len(line) + 2
        if not line:
            return "done", at, payload
        if TRAILER.fullmatch(line) is None or line.lower().startswith((b"content-length:", b"te:")):
            return "bad", 0, b""


def fast(data: bytes, ends: list[int], payload_wanted: bool) -> tuple[str, int, bytes]:
    scanner = ChunkScanner()
    payload = b""
    start = 0
    for end in ends:
        piece = data[start:end]
        try:
            if payload_wanted:
                payload += b"".join(scanner.payload(piece))
            else:
                scanner.scan(piece)
        except ChunkError:
            return "bad", 0, b""
        if scanner.done:
            return "done", start + scanner.end, payload
        assert scanner.end == len(piece)
        start = end
    return "more", 0, payload


def make(chance: random.Random) -> bytes:
    return mutate(chance, BODIES, NASTY)


def check(data: bytes) -> str:
    ends = cuts(chance_of(data), len(data))
    result = fast(data, ends, True)
    assert result == fast(data, [len(data)], True)
    assert result[:2] == fast(data, list(range(1, len(data) + 1)), False)[:2]
    expected = slow(data)
    if expected[0] == "more?":
        # the slow reader does not look into unfinished lines
        assert result[0] in ("more", "bad")
        assert result[0] == "bad" or result[2] == expected[2]
    else:
        assert result == expected
    return "refused" if result[0] == "bad" else result[0]
