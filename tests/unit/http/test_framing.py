"""Body lengths, and where a chunked body ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.errors import BadRequest, Reason
from cachelb.http.fields import request_fields
from cachelb.http.framing import (
    CHUNK_LINE_BYTES,
    CHUNKED,
    EMPTY,
    EXCESS_BYTES,
    TRAILER_BYTES,
    UNTIL_CLOSE,
    ChunkError,
    ChunkScanner,
    is_chunked_body,
    request_body,
    response_body,
)
from cachelb.http.head import Limits, scan_request, scan_response

BODY = b'5\r\nhello\r\n0A;x=y;z="q"\r\n0123456789\r\n00\r\nX-Sum: 7\r\nY:\r\n\r\n'
PAYLOAD = b"hello0123456789"


def body_of(method: bytes, *lines: bytes, minor: int = 1) -> int:
    data = b"%b / HTTP/1.%d\r\n%b\r\n" % (method, minor, b"".join(line + b"\r\n" for line in lines))
    head = scan_request(data, Limits())
    assert head is not None
    return request_body(head, request_fields(head.block))


def reason_of(method: bytes, *lines: bytes, minor: int = 1) -> Reason | None:
    try:
        body_of(method, *lines, minor=minor)
    except BadRequest as problem:
        return problem.reason
    return None


def test_a_request_body_is_empty_unless_declared() -> None:
    assert body_of(b"POST", b"Host: a") == EMPTY
    assert body_of(b"POST", b"Host: a", b"Content-Length: 0") == EMPTY
    assert body_of(b"POST", b"Host: a", b"Content-Length: 7") == 7
    assert body_of(b"GET", b"Host: a", b"Content-Length: 7") == 7
    assert body_of(b"POST", b"Host: a", b"Transfer-Encoding: chunked") == CHUNKED
    assert body_of(b"POST", b"Content-Length: 7", minor=0) == 7


def test_only_http_1_1_needs_a_host() -> None:
    assert body_of(b"GET", minor=0) == EMPTY
    assert body_of(b"GET", b"Host:") == EMPTY
    assert reason_of(b"GET") is Reason.BAD_REQUEST


def test_chunked_in_http_1_0_is_refused() -> None:
    assert reason_of(b"POST", b"Host: a", b"Transfer-Encoding: chunked", minor=0) is Reason.BAD_FRAMING


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE"])
def test_methods_that_have_no_body_may_not_declare_one(method: bytes) -> None:
    assert body_of(method, b"Host: a", b"Content-Length: 0") == EMPTY
    for line in (b"Content-Length: 1", b"Transfer-Encoding: chunked"):
        assert reason_of(method, b"Host: a", line) is Reason.BAD_FRAMING


@pytest.mark.parametrize(
    ("method", "status", "line", "length"),
    [
        (b"GET", 200, b"Content-Length: 5", 5),
        (b"GET", 200, b"Content-Length: 0", 0),
        (b"GET", 200, b"Transfer-Encoding: chunked", CHUNKED),
        (b"GET", 200, b"X: y", UNTIL_CLOSE),
        (b"GET", 404, b"Content-Length: 5", 5),
        (b"HEAD", 200, b"Content-Length: 5", EMPTY),
        (b"HEAD", 200, b"Transfer-Encoding: chunked", EMPTY),
        (b"GET", 304, b"Content-Length: 5", EMPTY),
        (b"GET", 304, b"Transfer-Encoding: chunked", EMPTY),
        (b"GET", 204, b"X: y", EMPTY),
        (b"GET", 204, b"Content-Length: 5", EMPTY),
        (b"GET", 100, b"X: y", EMPTY),
        (b"GET", 101, b"X: y", EMPTY),
        (b"CONNECT", 200, b"Content-Length: 5", EMPTY),
        (b"CONNECT", 200, b"Transfer-Encoding: chunked", EMPTY),
        (b"CONNECT", 403, b"Content-Length: 5", 5),
        (b"GET", 205, b"X: y", UNTIL_CLOSE),
        (b"head", 200, b"Content-Length: 5", 5),
    ],
)
def test_the_length_of_an_answer_follows_method_status_and_head(
    method: bytes, status: int, line: bytes, length: int
) -> None:
    head = scan_response(b"HTTP/1.1 %d X\r\n%b\r\n\r\n" % (status, line), Limits())
    assert head is not None
    assert response_body(method, head) == length


def test_a_chunked_body_ends_where_it_ends() -> None:
    for tail in (b"", b"G", b"\r\n", BODY):
        scanner = ChunkScanner()
        assert scanner.scan(BODY + tail) == len(BODY)
        assert scanner.done
        assert scanner.end == len(BODY)
        assert scanner.payload_bytes == len(PAYLOAD)
        assert scanner.scan(tail) == 0, "nothing more is taken"


@pytest.mark.parametrize("cut", range(len(BODY)))
def test_a_body_cut_anywhere_is_taken_up_again(cut: int) -> None:
    scanner = ChunkScanner()
    assert scanner.scan(BODY[:cut]) == cut
    assert not scanner.done
    assert scanner.scan(b"xyz" + BODY[cut:] + b"more", 3) == 3 + len(BODY) - cut
    assert scanner.done


@given(st.lists(st.integers(1, 9), max_size=60))
def test_payload_is_the_same_however_the_body_arrives(steps: list[int]) -> None:
    scanner = ChunkScanner()
    payload = b""
    at = 0
    for step in [*steps, len(BODY)]:
        piece = memoryview(BODY)[at : at + step]
        payload += b"".join(scanner.payload(piece))
        assert scanner.end == len(piece)
        at += step
    assert payload == PAYLOAD
    assert scanner.done


def test_the_rest_of_a_chunk_may_be_moved_unseen() -> None:
    scanner = ChunkScanner()
    scanner.scan(b"100000\r\nabc")
    assert scanner.bytes_left_in_chunk == 0x100000 - 3
    scanner.skip(0x100000 - 3)
    assert scanner.bytes_left_in_chunk == 0
    assert scanner.scan(b"\r\n0\r\n\r\n") == 7
    assert scanner.done
    assert scanner.payload_bytes == 0x100000


BAD = [
    b"\r\n",
    b"x\r\n",
    b"-1\r\n",
    b"+1\r\n",
    b"0x1\r\n",
    b" 1\r\n",
    b"1 \r\n",
    b"1\t;a\r\n",
    b"1\n",
    b"1\r1",
    b"1;a\n",
    b"1;a\x00",
    b"1;a\rb",
    b"1;\r\n",
    b"1;a b\r\n",
    b"1;a=\r\n",
    b"1;a=b=c\r\n",
    b"1;a ;b\r\n",
    b"1;\xff =\t",
    b'1;a="b\r\n',
    b'1;a="b"c\r\n',
    b'1;a="b\\\r\n',
    b"12345678901234567\r\n",
    b"8000000000000000\r\n",
    b"ffffffffffffffff\r\n",
    b";a\r\n",
    b"1_0\r\n",
    b"\xb2\r\n",
    b"1\r\nab",
    b"1\r\na\n",
    b"1\r\na\r\r",
    b"1\r\na0\r\n",
    b"1\r\na\r\n\r\n",
    b"1\r\na\r\n x",
    b"1\r\na\r\n\n",
    b"0\r\n\n",
    b"0\r\n\rx",
    b"0\r\nX : y\r\n",
    b"0\r\n: y\r\n",
    b"0\r\nX\r\n",
    b"0\r\n X: y\r\n",
    b"0\r\nX: y\n",
    b"0\r\nX: \x00",
    b"0\r\nX: y\r\n folded\r\n",
    b"0\r\nContent-Length: 1\r\n",
    b"0\r\nTRANSFER-ENCODING: chunked\r\n",
    b"0\r\nHost: a\r\n",
]


@pytest.mark.parametrize("body", BAD)
def test_anything_else_is_refused_at_once_or_byte_by_byte(body: bytes) -> None:
    for after in (b"", b"\r\n\r\n", b"0\r\n\r\n"):
        with pytest.raises(ChunkError):
            ChunkScanner().scan(body + after)
    with pytest.raises(ChunkError):
        feed(body, 1)
    with pytest.raises(ChunkError):
        feed(body, 2)


def feed(body: bytes, step: int) -> ChunkScanner:
    scanner = ChunkScanner()
    for at in range(0, len(body), step):
        scanner.scan(body[at : at + step])
    return scanner


@pytest.mark.parametrize("step", [1, 100, 10000])
def test_a_size_line_is_bounded_however_it_arrives(step: int) -> None:
    fits = b"1;" + b"a" * (CHUNK_LINE_BYTES - 4) + b"\r\n"
    assert not feed(fits, step).done
    with pytest.raises(ChunkError):
        feed(fits.replace(b"\r", b"a\r"), step)
    with pytest.raises(ChunkError):
        feed(b"1;" + b"a" * CHUNK_LINE_BYTES, step)


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_extensions_are_names_with_values(step: int) -> None:
    body = b'1;a\r\nx\r\n1; a=b;\tc="d;e\\"\xe4";f=""\r\nx\r\n0;last\r\n\r\n'
    scanner = feed(body, step)
    assert scanner.done
    assert scanner.payload_bytes == 2


def test_extensions_of_a_whole_body_are_bounded() -> None:
    chunk = b"1;" + b"a" * 100 + b"\r\nx\r\n"
    with pytest.raises(ChunkError):
        ChunkScanner().scan(chunk * (EXCESS_BYTES // 80))
    signed = b"1000;signature=" + b"a" * 64 + b"\r\n" + b"x" * 4096 + b"\r\n"
    scanner = ChunkScanner()
    for _ in range(1000):
        scanner.scan(signed[:-2])
        scanner.scan(signed[-2:])
        break
    scanner = ChunkScanner()
    assert scanner.scan(signed * 1000) == len(signed) * 1000


@pytest.mark.parametrize("step", [7, 100000])
def test_the_trailer_section_is_bounded(step: int) -> None:
    line = b"X: " + b"y" * 95 + b"\r\n"
    count = TRAILER_BYTES // len(line)
    assert feed(b"0\r\n" + line * count + b"\r\n", step).done
    with pytest.raises(ChunkError):
        feed(b"0\r\n" + line * (count + 1) + b"\r\n", step)
    with pytest.raises(ChunkError):
        feed(b"0\r\nX: " + b"y" * CHUNK_LINE_BYTES + b"\r\n\r\n", step)
    with pytest.raises(ChunkError):
        ChunkScanner(trailer_bytes=5).scan(b"0\r\nX: yz\r\n")


def test_the_largest_chunk_is_counted() -> None:
    scanner = ChunkScanner()
    scanner.scan(b"7fffffffffffffff\r\nx")
    assert scanner.bytes_left_in_chunk == 2**63 - 2


@pytest.mark.parametrize(
    ("body", "whole"),
    [
        (b"5\r\nhello\r\n0\r\n\r\n", True),
        (b"0\r\n\r\n", True),
        (b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", False),
        (b"5\r\nhello\r\n0\r\n\r\n0\r\n\r\n", False),
        (b"a\r\nhello0\r\n\r\n", False),
        (b"5\nhello\r\n0\r\n\r\n", False),
        (b"", False),
    ],
)
def test_a_chunked_body_that_is_here_as_a_whole_is_known(body: bytes, whole: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    assert is_chunked_body(head + body, len(head), 100) is whole
