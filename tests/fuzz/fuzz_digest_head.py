"""Whatever comes as the head of a digest's answer, it is refused with FetchError or says what Python's http.client reads."""

from __future__ import annotations

import http.client
import io
import random
from email.utils import parsedate_to_datetime
from pathlib import Path

from mutate import kind, mutate

from digest import FetchError
from digest.fetch import parse_answer_head

VECTORS = Path(__file__).parents[1] / "vectors" / "digest"
HEADS = [
    b"HTTP/1.1 200 Cache Digest OK\r\nContent-Length: 180\r\nDate: Sat, 21 Nov 2026 00:51:50 GMT\r\n"
    b"Last-Modified: Sat, 21 Nov 2026 00:51:45 GMT\r\nExpires: Sat, 21 Nov 2026 01:51:50 GMT\r\n\r\n",
    b"HTTP/1.0 304 Not Modified\r\n\r\n",
    b"HTTP/1.1 404\r\nContent-Length: 0\r\nX: y\r\n\r\n",
    (VECTORS / "digest-http-response-full.bin").read_bytes().partition(b"\r\n\r\n")[0] + b"\r\n\r\n",
]
DATES = [
    *(b"Sat, 21 Nov 2026 00:51:50 GMT", b"Sat, 21 Nov 2026 00:51:50", b"21 Nov 2026 00:51:50 +0100", b"0", b"-1", b""),
    *(b"Sat, 21 Nov 9999 23:59:59 -2359", b"Thu, 01 Jan 1970 00:00:00 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"x" * 65),
    *(b"Fri, 31 Dec 9999 23:59:59 GMT", b"Mon, 01 Jan 0001 00:00:00 +0100", b"Sat, 21 Nov 2026 25:61:61 GMT"),
]
NASTY = [
    *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b":", b",", b"-", b"+", b"\xff", b"9" * 20, b"GMT", b"-0000"),
    *(b"Content-Length: 7\r\n", b"content-length: 180\r\n", b"Transfer-Encoding: chunked\r\n", b"Expires: 0\r\n"),
]


def make(chance: random.Random) -> bytes:
    if chance.randrange(3):
        return mutate(chance, HEADS, NASTY)
    names = (b"Date", b"Expires", b"Last-Modified", b"expires", b"DATE")
    lines = [b"%b: %b\r\n" % (chance.choice(names), chance.choice(DATES)) for _ in range(chance.randrange(5))]
    lines.append(b"Content-Length: %d\r\n" % chance.randrange(1 << chance.randrange(70)))
    chance.shuffle(lines)
    return b"HTTP/1.1 %d OK\r\n" % chance.randrange(99, 1001) + b"".join(lines) + b"\r\n"


class _Socket:
    """What http.client wants: something with a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def check(data: bytes) -> str:
    try:
        head = parse_answer_head(data)
    except FetchError as problem:
        return f"refused {kind(problem)}"
    assert 100 <= head.status <= 999
    assert head.fresh_s >= 0
    assert not {"\r", "\n", "\0"} & set(head.last_modified)
    if head.status < 200 or b"\r\n\r\n" in data.removesuffix(b"\r\n\r\n"):
        return "taken, of no interest"  # http.client reads on behind a 100
    theirs = http.client.HTTPResponse(_Socket(data.removesuffix(b"\r\n\r\n") + b"\r\n\r\n"))  # type: ignore[arg-type]
    theirs.begin()
    length = theirs.getheader("Content-Length")
    assert theirs.status == head.status
    assert head.length == (-1 if length is None else int(length))
    assert theirs.headers.get_all("Transfer-Encoding") is None
    modified = (theirs.headers.get_all("Last-Modified") or [""])[-1].strip(" \t")
    assert head.last_modified in (modified, "")
    if not head.fresh_s:
        return "taken"
    start, end = (parsedate_to_datetime(theirs.headers.get_all(name)[-1]) for name in ("Date", "Expires"))
    assert (end - start).total_seconds() == head.fresh_s
    return "taken, fresh"
