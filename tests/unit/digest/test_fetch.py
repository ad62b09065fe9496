"""Fetching a digest from a server on loopback that answers whatever the test says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from digest.fetch import (
    BODY_LIMIT_BYTES,
    HEAD_LIMIT_BYTES,
    NOT_MODIFIED,
    NOT_READY,
    Fetched,
    FetchError,
    Outcome,
    fetch_digest,
    parse_answer_head,
)
from digest.wire import DigestError, parse_digest

VECTORS = Path(__file__).parents[2] / "vectors" / "digest"
CAPTURED = (VECTORS / "digest-http-response-full.bin").read_bytes()
BODY = (VECTORS / "digest-node1-final.bin").read_bytes()
DATE = "Sat, 21 Nov 2026 00:51:45 GMT"


class Node:
    """Serves one connection: sends the parts, each when the one before has left, then closes or keeps silent."""

    def __init__(self, parts: Sequence[bytes], closes: bool = True) -> None:
        self._parts = parts
        self._closes = closes
        self.request = b""
        self.is_left = asyncio.Event()
        self.place = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.request = await reader.readuntil(b"\r\n\r\n")
            for part in self._parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            if self._closes:
                writer.write_eof()
            await reader.read()
        except OSError:
            pass  # the client aborts when it has what it wants
        finally:
            writer.close()
            self.is_left.set()

    async def fetch(self, **options: object) -> Fetched | Outcome:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            self.place = f"127.0.0.1:{port}"
            try:
                return await fetch_digest("127.0.0.1", port, **options)  # type: ignore[arg-type]
            finally:
                async with asyncio.timeout(5):
                    await self.is_left.wait()


def ask(*parts: bytes, closes: bool = True, **options: object) -> Fetched | Outcome:
    async def main() -> Fetched | Outcome:
        return await Node(parts, closes).fetch(**options)

    return asyncio.run(main())


def answer(status: str = "200 OK", *fields: str, body: bytes = b"") -> bytes:
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *fields, "")).encode() + body


def test_the_captured_answer_is_fetched():
    fetched = ask(CAPTURED)
    assert fetched == Fetched(BODY, DATE, 3600.0, age_s=5.0, period_s=3605.0)
    parse_digest(BODY)


def test_it_may_come_byte_by_byte_and_the_connection_may_stay_open():
    fetched = ask(*(CAPTURED[at : at + 1] for at in range(len(CAPTURED))), closes=False)
    assert isinstance(fetched, Fetched)
    assert fetched.body == BODY


def test_every_truncation_is_an_error():
    async def main() -> None:
        for cut in range(0, len(CAPTURED), 7):
            with pytest.raises(FetchError, match="closed after"):
                await Node([CAPTURED[:cut]]).fetch()

    asyncio.run(main())


def test_the_request_has_the_origin_form_and_says_close():
    async def main() -> None:
        node = Node([CAPTURED])
        await node.fetch()
        assert node.request == (
            b"GET /squid-internal-periodic/store_digest HTTP/1.1\r\nHost: %b\r\nAccept: application/cache-digest\r\n"
            b"Connection: close\r\n\r\n" % node.place.encode()
        )
        node = Node([CAPTURED])
        await node.fetch(path="/other", if_modified_since=DATE)
        assert node.request.startswith(b"GET /other HTTP/1.1\r\n")
        assert b"\r\nIf-Modified-Since: Sat, 21 Nov 2026 00:51:45 GMT\r\n" in node.request

    asyncio.run(main())


def test_it_may_begin_with_a_header_that_the_node_expects():
    async def main() -> None:
        node = Node([CAPTURED])
        await node.fetch(first=b"PROXY UNKNOWN\r\n")
        assert node.request.startswith(b"PROXY UNKNOWN\r\nGET /squid-internal-periodic/store_digest HTTP/1.1\r\n")

    asyncio.run(main())


def test_not_modified_is_an_answer_only_to_who_asked():
    assert ask(answer("304 Not Modified"), if_modified_since=DATE) is NOT_MODIFIED
    with pytest.raises(FetchError, match="answered 304"):
        ask(answer("304 Not Modified"))


def test_a_node_without_digest_is_not_ready():
    assert ask(answer("404 Not Found", "Content-Length: 5", body=b"hello")) is NOT_READY


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (answer("200 OK"), "without a Content-Length"),
        (answer("403 Forbidden", "Content-Length: 0"), "answered 403"),
        (answer("100 Continue"), "answered 100"),
        (answer("206 Partial Content", "Content-Length: 1", body=b"x"), "answered 206"),
        (answer("200 OK", "Content-Length: 10", body=b"only9byte"), "closed after 9 of 10 bytes"),
        (answer("200 OK", f"Content-Length: {BODY_LIMIT_BYTES + 1}"), "is above the limit of"),
        (answer("200 OK", "Content-Length: 5", "Content-Length: 5", body=b"hello"), "ambiguous length"),
        (answer("200 OK", "Content-Length: 5, 5", body=b"hello"), "Content-Length b'5, 5'"),
        (answer("200 OK", "Content-Length: +5", body=b"hello"), "Content-Length"),
        (answer("200 OK", "Content-Length: ", body=b"hello"), "Content-Length b''"),
        (answer("200 OK", "Content-Length: -1"), "Content-Length b'-1'"),
        (answer("200 OK", "Content-Length: 9" + "9" * 30), "Content-Length b'999"),
        (answer("200 OK", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), "ambiguous length"),
        (answer("200 OK", "Content-Length : 5", body=b"hello"), "malformed header field"),
        (answer("200 OK", "X: a\nContent-Length: 5", body=b"hello"), "malformed header field"),
        (answer("200 OK", "nonsense"), "malformed header field b'nonsense'"),
        (answer("200 OK", "X: \x1c", body=b"hello"), "malformed header field"),
        (b"ICY 200 OK\r\n\r\n", "not an HTTP answer: b'ICY 200 OK'"),
        (b"HTTP/1.0 304 \x1c\r\n\r\n", "not an HTTP answer"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "not an HTTP answer"),
        (b"\r\n\r\n", "not an HTTP answer: b''"),
        (b"x" * (HEAD_LIMIT_BYTES * 3), f"more than {HEAD_LIMIT_BYTES} bytes"),
        (b"", "closed after 0 bytes of the head"),
    ],
)
def test_unclear_answers_are_errors_that_name_the_place(reply: bytes, text: str):
    with pytest.raises(FetchError, match=text) as problem:
        ask(reply)
    assert str(problem.value).startswith("127.0.0.1:")
    assert isinstance(problem.value, DigestError)


def test_the_limit_is_the_callers():
    reply = answer("200 OK", "Content-Length: 10", body=b"0123456789")
    assert ask(reply, limit_bytes=10) == Fetched(b"0123456789", "", 0.0)
    with pytest.raises(FetchError, match="a digest of 10 bytes is above the limit of 9"):
        ask(reply, limit_bytes=9)


def test_a_large_body_arrives_whole():
    body = bytes(range(256)) * 8192
    fetched = ask(answer("200 OK", f"Content-Length: {len(body)}"), body)
    assert isinstance(fetched, Fetched)
    assert fetched.body == body


@pytest.mark.parametrize("parts", [(), (b"HTTP/1.1 200 OK\r\n",), (CAPTURED[:-1],)])
def test_a_node_that_stops_answering_is_left_in_time(parts: tuple[bytes, ...]):
    with pytest.raises(FetchError, match=r"no complete answer within 0\.05 s"):
        ask(*parts, closes=False, timeout_s=0.05)


def test_no_connection_is_an_error_of_ours():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        with pytest.raises(FetchError, match=rf"127\.0\.0\.1:{taken.getsockname()[1]}: .*refused|Connect call failed"):
            asyncio.run(fetch_digest("127.0.0.1", taken.getsockname()[1]))


def test_a_host_that_dns_cannot_hold_is_an_error_of_ours():
    with pytest.raises(FetchError):
        asyncio.run(fetch_digest("a" * 64 + ".test", 3128))


def test_an_ipv6_address_is_bracketed_in_the_host_field():
    with pytest.raises(FetchError, match=r"^\[::1\]:1: "):
        asyncio.run(fetch_digest("::1", 1))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("", 0.0)),
        ({"Date": DATE, "Expires": "Sat, 21 Nov 2026 00:52:45 GMT"}, ("", 60.0)),
        ({"Expires": DATE}, ("", 0.0)),
        ({"Date": DATE, "Expires": "0"}, ("", 0.0)),
        ({"Date": DATE, "Expires": "Sat, 21 Nov 2026 00:51:00"}, ("", 0.0)),
        ({"Date": DATE, "Expires": "Sat, 20 Nov 2026 00:51:45 GMT"}, ("", 0.0)),
        ({"Last-Modified": f"{DATE}  "}, (DATE, 0.0)),
        ({"LAST-MODIFIED": DATE}, (DATE, 0.0)),
        ({"Last-Modified": 'a"b'}, ("", 0.0)),
        ({"Last-Modified": "x" * 65}, ("", 0.0)),
    ],
)
def test_dates_are_used_when_they_are_some(fields: dict[str, str], expected: tuple[str, float]):
    head = parse_answer_head(answer("200 OK", *(f"{name}: {value}" for name, value in fields.items())))
    assert (head.last_modified, head.fresh_s) == expected
    assert (head.status, head.length) == (200, -1)


def test_age_and_period_follow_from_three_dates():
    dates = {"Date": "Sat, 21 Nov 2026 00:52:45 GMT", "Last-Modified": DATE, "Expires": "Sat, 21 Nov 2026 00:52:15 GMT"}
    head = parse_answer_head(answer("200 OK", *(f"{name}: {value}" for name, value in dates.items())))
    assert (head.fresh_s, head.age_s, head.period_s) == (0.0, 60.0, 30.0)


@given(st.binary(max_size=80))
@example(b"HTTP/1.1 200 OK\r\nDate: 1 Jan 1 1:1:1 -9999\r\nExpires: 31 Dec 9999 23:59:59 -2359\r\n\r\n")
@example(b"HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2026 00:00:00 GMT\r\nExpires: 99999999999999999999 Jan 1\r\n\r\n")
def test_any_head_is_read_or_refused(data: bytes):
    for head in (data, b"HTTP/1.1 200 OK\r\n" + data, b"HTTP/1.1 200 OK\r\nDate: " + data + b"\r\nExpires: " + data):
        try:
            parse_answer_head(head)
        except FetchError:
            pass
