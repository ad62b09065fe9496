"""Whatever arrives, however it is cut, an answer's head is read, waits for more or is refused; what is sent on says the same."""

from __future__ import annotations

import random

from mutate import chance_of, cuts, mutate

from cachelb.errors import BadResponse
from cachelb.http import response
from cachelb.http.head import Limits, scan_response
from cachelb.http.usual_answer import response_head

LIMITS = Limits(head_bytes=600, url_bytes=60, fields=9)
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\nCache-Control: max-age=9\r\nX-Cache: HIT from c\r\n"
    b"Connection: keep-alive\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nServer: x\r\nVary: *\r\nConnection: close\r\n\r\n0\r\n\r\n",
    b"HTTP/1.0 404 Not Found\r\nExpires: 0\r\nX-Squid-Error: ERR_DNS_FAIL 0\r\nKeep-Alive: 5\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 204\r\nCache-Status: c;hit\r\ncache-control: private, no-store\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
]
NASTY = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\x00",
    b"\t",
    b" ",
    b":",
    b",",
    b'"',
    b"\\",
    b"\x0b",
    b"\x7f",
    b"\x85",
    b"\xff",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"Content-Length: 5\r\n",
    b"Content-Length: 6\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding: x\r\n",
    b"Host: b\r\n",
    b"Connection: content-length\r\n",
    b"Connection: close\r\n",
    b"Upgrade: y\r\n",
    b"A: b\r\n",
    b"a" * 70,
    b"Cache-Control: no-store\r\n",
    b"X-Cache: MISS\r\n",
    b"100",
    b"204",
    b"0",
    b"CONTENT-length",
    b"chunked",
]


def make(chance: random.Random) -> bytes:
    return mutate(chance, ANSWERS, NASTY)


def outcome(data: bytes, slowly: bool = False, seen: int = 0) -> str:
    try:
        return repr(response._scan_slowly(data, LIMITS) if slowly else scan_response(data, LIMITS, seen))
    except BadResponse:
        return "refused"


def check(data: bytes) -> str:
    whole = outcome(data)
    assert whole == outcome(data, slowly=True)
    for usual in (response_head(data, LIMITS), response._usual_head(data, LIMITS)):
        assert usual is None or repr(usual) == whole
    arrived = "None"
    seen = 0
    for end in cuts(chance_of(data), len(data)):
        arrived = outcome(data[:end], seen=seen)
        assert arrived == outcome(data[:end])
        if arrived != "None":
            break
        seen = end
    assert arrived == whole
    if not whole.startswith("ResponseHead"):
        return "more is needed" if whole == "None" else whole
    head = scan_response(data, LIMITS)
    assert head is not None
    again = scan_response(head.head + b"\r\n", Limits())
    assert again is not None
    assert again.head == head.head
    assert (again.status, again.content_length, again.chunked) == (head.status, head.content_length, False)
    return "chunked" if head.chunked else "a length" if head.content_length >= 0 else "until it closes"
