"""Whatever arrives, and however it is cut, a head is read, needs more or is refused, and what is sent on says the same.

python tests/fuzz/fuzz_head.py [SECONDS [SEED]]
"""

from __future__ import annotations

import random
import sys

from mutate import cuts, mutate, run

from cachelb.errors import BadRequest, BadResponse
from cachelb.http import response
from cachelb.http.fields import request_fields
from cachelb.http.framing import request_body
from cachelb.http.head import Limits, RequestHead, ResponseHead, scan_request, scan_response
from cachelb.http.rewrite import EditPolicy, request_edit

LIMITS = Limits(head_bytes=600, url_bytes=60, fields=9)
REQUESTS = [
    b"GET http://a.com/x?y HTTP/1.1\r\nHost: a.com\r\nAccept: */*\r\nProxy-Connection: keep-alive\r\n\r\n",
    b"\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close, x\r\n\r\nhey",
    b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nX-Forwarded-For: ::1\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    b"GET ws://a/ HTTP/1.1\r\nhost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\nMax-Forwards: 3\r\nVia: 1.1 b\r\n\r\n",
]
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
POLICY = EditPolicy("append", b"1.1 lb")


def as_text(head: RequestHead | ResponseHead | None) -> str:
    return repr(head)


def request_outcome(data: bytes, seen: int = 0) -> str:
    try:
        return as_text(scan_request(data, LIMITS, seen))
    except BadRequest as problem:
        return f"refused {problem.reason.name if not seen else ''}"[:7]


def check_request(chance: random.Random) -> None:
    data = mutate(chance, REQUESTS, NASTY)
    whole = request_outcome(data)
    arrived = "None"
    seen = 0
    for end in cuts(chance, len(data)):
        arrived = request_outcome(data[:end], seen)
        assert arrived == request_outcome(data[:end]), (data[:end], seen)
        if arrived != "None":
            break
        seen = end
    assert arrived == whole, (data, arrived, whole)
    if whole.startswith("RequestHead"):
        check_sent_on(data)


def check_sent_on(data: bytes) -> None:
    """What goes to the node has the framing that was judged, and nothing of this hop."""
    head = scan_request(data, LIMITS)
    assert head is not None
    assert b"\n" not in head.target
    try:
        fields = request_fields(head.block)
        length = request_body(head, fields)
    except BadRequest:
        return
    edit = request_edit(head.block, fields, POLICY)
    sent = b"%b %b HTTP/1.1\r\nHost: a\r\n%b192.0.2.1%b\r\n" % (head.method, head.target, *edit)
    again = scan_request(sent, Limits())
    assert again is not None, sent
    assert again.size == len(sent), sent
    other = request_fields(again.block)
    assert request_body(again, other) == length, sent
    assert not other.connection_options, sent
    assert other.forwarded_for.endswith(b"192.0.2.1"), sent
    assert other.via.endswith(b"1.1 lb"), sent


def answer_outcome(data: bytes, slowly: bool = False, seen: int = 0) -> str:
    try:
        return as_text(response._scan_slowly(data, LIMITS) if slowly else scan_response(data, LIMITS, seen))
    except BadResponse:
        return "refused"


def check_answer(chance: random.Random) -> None:
    data = mutate(chance, ANSWERS, NASTY)
    whole = answer_outcome(data)
    assert whole == answer_outcome(data, slowly=True), data
    arrived = "None"
    seen = 0
    for end in cuts(chance, len(data)):
        arrived = answer_outcome(data[:end], seen=seen)
        assert arrived == answer_outcome(data[:end]), (data[:end], seen)
        if arrived != "None":
            break
        seen = end
    assert arrived == whole, (data, arrived, whole)
    if whole.startswith("ResponseHead"):
        head = scan_response(data, LIMITS)
        assert head is not None
        again = scan_response(head.head + b"\r\n", Limits())
        assert again is not None, head
        assert again.head == head.head, head
        assert (again.status, again.content_length, again.chunked) == (head.status, head.content_length, False), head


def main(seconds: float, seed: int = 0) -> int:
    return run(seconds / 2, check_request, seed) + run(seconds / 2, check_answer, seed)


if __name__ == "__main__":
    print(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60, int(sys.argv[2]) if len(sys.argv) > 2 else 0), "heads")
