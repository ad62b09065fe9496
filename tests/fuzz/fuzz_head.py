"""Whatever arrives, however it is cut, a request's head is read, waits for more or is refused; what is sent on says the same."""

from __future__ import annotations

import random

from mutate import chance_of, cuts, mutate

from cachelb.errors import BadRequest
from cachelb.http.fields import request_fields
from cachelb.http.framing import CHUNKED, request_body
from cachelb.http.head import Limits, scan_request
from cachelb.http.rewrite import EditPolicy, request_edit

LIMITS = Limits(head_bytes=600, url_bytes=60, fields=9)
REQUESTS = [
    b"GET http://a.com/x?y HTTP/1.1\r\nHost: a.com\r\nAccept: */*\r\nProxy-Connection: keep-alive\r\n\r\n",
    b"\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close, x\r\n\r\nhey",
    b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nX-Forwarded-For: ::1\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    b"GET ws://a/ HTTP/1.1\r\nhost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\nMax-Forwards: 3\r\nVia: 1.1 b\r\n\r\n",
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
POLICY = EditPolicy("append", b"1.1 lb")


def make(chance: random.Random) -> bytes:
    return mutate(chance, REQUESTS, NASTY)


def outcome(data: bytes, seen: int = 0) -> str:
    try:
        return repr(scan_request(data, LIMITS, seen))
    except BadRequest as problem:
        # what is seen first depends on where one begins to look
        return "refused" if seen else f"refused {problem.reason.name}"


def check(data: bytes) -> str:
    whole = outcome(data)
    arrived = "None"
    seen = 0
    for end in cuts(chance_of(data), len(data)):
        arrived = outcome(data[:end], seen)
        assert arrived[:7] == outcome(data[:end])[:7]
        assert arrived[:7] == "refused" or arrived == outcome(data[:end])
        if arrived != "None":
            break
        seen = end
    assert arrived == whole or (arrived[:7] == whole[:7] == "refused")
    if whole == "None":
        return "more is needed"
    return check_sent_on(data) if whole.startswith("RequestHead") else whole


def check_sent_on(data: bytes) -> str:
    """What goes to the node has the framing that was judged, and nothing of this hop."""
    head = scan_request(data, LIMITS)
    assert head is not None
    assert b"\n" not in head.target
    try:
        fields = request_fields(head.block)
        length = request_body(head, fields)
    except BadRequest as problem:
        return f"refused by its fields {problem.reason.name}"
    edit = request_edit(fields, POLICY)
    sent = b"%b %b HTTP/1.1\r\nHost: a\r\n%b192.0.2.1%b\r\n" % (head.method, head.target, *edit)
    again = scan_request(sent, Limits())
    assert again is not None
    assert again.size == len(sent)
    other = request_fields(again.block)
    assert request_body(again, other) == length
    assert not other.connection_options
    assert other.forwarded_for.endswith(b"192.0.2.1")
    assert other.via.endswith(b"1.1 lb")
    return "chunked" if length == CHUNKED else "a body" if length else "no body"
