"""``scan_response``: what is read, what is refused, and that all readers agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cachelb.errors import BadResponse, Reason
from cachelb.http import response
from cachelb.http.head import Limits, ResponseHead, scan_response
from cachelb.http.responsehead import NAMES
from cachelb.http.usual_answer import response_head

LIMITS = Limits()
# As Debian's Squid 5.7 sends it, but for the lengths.
SQUID = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 00:51:50 GMT\r\n"
    b"Content-Type: text/html; charset=utf-8\r\nContent-Length: 1024\r\n"
    b"Last-Modified: Sat, 21 Nov 2026 00:51:45 GMT\r\nCache-Control: public, max-age=3600\r\nAge: 17\r\n"
    b"X-Cache: HIT from cache1\r\nX-Cache-Lookup: HIT from cache1:3128\r\nVia: 1.1 cache1 (squid/5.7)\r\n"
    b"Connection: keep-alive\r\n\r\n"
)


def read(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> ResponseHead:
    """The head of an answer with these field lines."""
    head = scan_response(b"\r\n".join([status, *lines, b"", b""]), LIMITS)
    assert head is not None
    return head


def refused(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bool:
    try:
        read(*lines, status=status)
    except BadResponse as problem:
        return problem.reason is Reason.BAD_RESPONSE
    return False


def feed(data: bytes) -> ResponseHead | None:
    """Scan byte by byte, as an engine does that tells what it has seen."""
    for end in range(1, len(data) + 1):
        head = scan_response(data[:end], LIMITS, end - 1)
        assert head is None or end == len(data)
    return head


def as_dict(head: ResponseHead | None) -> dict[str, Any] | None:
    return None if head is None else {name: getattr(head, name) for name in NAMES}


def test_a_squid_answer_is_read() -> None:
    head = scan_response(SQUID + b"body", LIMITS)
    assert as_dict(head) == {
        "status": 200,
        "minor": 1,
        "size": len(SQUID),
        "content_length": 1024,
        "chunked": False,
        "keep_alive": True,
        "upgrade": False,
        "uncacheable": b"",
        "storable": True,
        "hit": True,
        "squid_error": None,
        "content_type": b"text/html; charset=utf-8",
        "head": SQUID[:-2].replace(b"Connection: keep-alive\r\n", b""),
    }
    assert "status=200" in repr(head)


@pytest.mark.parametrize("cut", range(len(SQUID)))
def test_every_truncation_needs_more(cut: int) -> None:
    assert scan_response(SQUID[:cut], LIMITS) is None


def test_byte_by_byte_gives_the_same_with_and_without_the_hint() -> None:
    assert as_dict(feed(SQUID)) == as_dict(scan_response(SQUID, LIMITS))
    for bad in (b"A : b\r\n", b"A: b\x00", b"A: b\n", b" fold", b"A\r\n"):
        with pytest.raises(BadResponse):
            feed(b"HTTP/1.1 200 OK\r\nX: y\r\n" + bad + b"\r\n\r\n")
    with pytest.raises(BadResponse):
        feed(b"HTTP/1.1 20 OK\r\n")


@pytest.mark.parametrize(
    "lines",
    [
        (b"Connection: close", b"Content-Length: 5"),
        (b"Transfer-Encoding: chunked", b"X: y", b"Connection: keep-alive", b"Z: z"),
        (b"connection: Close", b"X: y", b"transfer-encoding: chunked"),
        (b"X-Connection: keep-alive", b"Connection: keep-alive"),
        (b"Cache-Control: no-store", b"Vary: *", b"Expires: 0"),
        (b"Vary: a, *",),
        (b"Cache-Status: o;hit, n;fwd=miss", b"Content-Type:  a/b"),
        (b"expires: Sat, 21 Nov 2026 00:51:45 GMT",),
        (b"x-odd: a", b"Te-st: b", b"Upgrade-Insecure: c", b"Keep-Alive-Not: d", b"Content-Lengthy: 3", b"_x: 1"),
    ],
)
@pytest.mark.parametrize("status", [b"HTTP/1.1 200 OK", b"HTTP/1.1 404 ", b"HTTP/1.0 302 Found"])
def test_all_readers_agree_where_the_usual_ones_answer(lines: tuple[bytes, ...], status: bytes) -> None:
    if status.startswith(b"HTTP/1.0"):
        lines = tuple(line for line in lines if not line.lower().startswith(b"transfer"))
    data = b"\r\n".join([status, *lines, b"", b"body"])
    carefully = as_dict(response._scan_slowly(data, LIMITS))
    assert as_dict(response._usual_head(data, LIMITS)) == carefully
    assert as_dict(response_head(data, LIMITS)) == carefully


def test_a_field_that_connection_names_is_removed_even_if_it_is_called_close() -> None:
    assert read(b"Connection: close", b"Close: x", b"A: b").head == b"HTTP/1.1 200 OK\r\nA: b\r\n"


@pytest.mark.parametrize("line", [b"Content-Type:", b"Content-Type: \t ", b"Content-Type: a/b ", b"content-type:a/b\t"])
def test_blanks_around_a_content_type_are_not_part_of_it(line: bytes) -> None:
    assert read(line).content_type == (b"a/b" if b"a/b" in line else b"-")


def test_hop_by_hop_fields_are_removed_and_others_stay_in_order() -> None:
    head = read(
        b"A: 1",
        b"Connection: X-Gone, close",
        b"x-gone: 2",
        b"B: 3",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: x",
        b"TE: trailers",
        b"Upgrade: h2c",
        b"Trailer: T",
        b"CONNECTION: c",
        b"C: 4",
        b"Proxy-Authenticate: Basic",
        b"Transfer-Encoding: CHUNKED",
        b"Via: 1.0 x",
    )
    assert head.head == (
        b"HTTP/1.1 200 OK\r\nA: 1\r\nB: 3\r\nTrailer: T\r\n" + b"Proxy-Authenticate: Basic\r\nVia: 1.0 x\r\n"
    )
    assert head.chunked
    assert not head.keep_alive


@pytest.mark.parametrize("change", [bytes.lower, bytes.upper, bytes.title, bytes.swapcase])
@pytest.mark.parametrize(
    "name", [b"Connection", b"Keep-Alive", b"Proxy-Connection", b"TE", b"Upgrade", b"Transfer-Encoding"]
)
def test_each_hop_by_hop_field_goes_in_any_spelling(name: bytes, change: Callable[[bytes], bytes]) -> None:
    assert read(b"A: b", change(name) + b": chunked", b"C: d").head == b"HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n"


def test_connection_cannot_take_away_fields_that_frame_or_guard() -> None:
    head = read(b"Connection: content-length, set-cookie, cache-control", b"Content-Length: 3", b"Set-Cookie: a=b")
    assert head.content_length == 3
    assert head.head == b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nSet-Cookie: a=b\r\n"


def test_the_status_line_is_written_anew() -> None:
    assert read(status=b"HTTP/1.0 200 Fine").head == b"HTTP/1.1 200 Fine\r\n"
    assert read(status=b"HTTP/1.1 200").head == b"HTTP/1.1 200 \r\n"
    assert read(status=b"HTTP/1.1 404 ").head == b"HTTP/1.1 404 \r\n"
    assert read(status=b"HTTP/1.7 200 OK").head == b"HTTP/1.1 200 OK\r\n"
    assert read(status=b"HTTP/1.1 999 \xc3\xa9").status == 999


@pytest.mark.parametrize(
    ("version", "option", "keep"),
    [
        (b"1.1", None, True),
        (b"1.1", b"close", False),
        (b"1.1", b"Close", False),
        (b"1.1", b"a, CLOSE", False),
        (b"1.1", b"keep-alive", True),
        (b"1.1", b"keep-alive, close", False),
        (b"1.0", None, False),
        (b"1.0", b"keep-alive", True),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"close", False),
        (b"1.0", b"x", False),
    ],
)
def test_keep_alive_follows_version_and_connection(version: bytes, option: bytes | None, keep: bool) -> None:
    lines = [b"Content-Length: 0"] + ([b"Connection: " + option] if option else [])
    assert read(*lines, status=b"HTTP/%b 200 OK" % version).keep_alive is keep


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 5", b"Content-Length: 5"),
        (b"Content-Length: 5", b"content-length: 6"),
        (b"Content-Length: 5, 5",),
        (b"Content-Length: +5",),
        (b"Content-Length: -1",),
        (b"Content-Length:",),
        (b"Content-Length: 0x5",),
        (b"Content-Length: 5 5",),
        (b"Content-Length: 9223372036854775808",),
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"CONTENT-LENGTH: 0"),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: chunked, chunked",),
        (b"Transfer-Encoding:",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding: chunked;x",),
        (b"Transfer-Encoding: ,chunked",),
        (b"Transfer-Encoding: xchunked",),
        (b"A : b",),
        (b" A: b",),
        (b"A: b", b" c"),
        (b"A: b\x00",),
        (b"A: b\nC: d",),
        (b"A: b\rC: d",),
        (b"A",),
        (b": b",),
    ],
)
def test_ambiguous_framing_and_bad_fields_are_refused(lines: tuple[bytes, ...]) -> None:
    assert refused(*lines)
    assert refused(b"X: y", *lines, b"Z: z")


def test_the_largest_length_is_read() -> None:
    assert read(b"Content-Length: 9223372036854775807").content_length == 2**63 - 1
    assert read(b"Content-Length: \t007 ").content_length == 7


def test_transfer_encoding_in_http_1_0_is_refused() -> None:
    assert refused(b"Transfer-Encoding: chunked", status=b"HTTP/1.0 200 OK")


@pytest.mark.parametrize(
    "status",
    [
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200\tOK",
        b"HTTP/2 200 OK",
        b"http/1.1 200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 2x0 OK",
        b" HTTP/1.1 200 OK",
        b"HTTP/1.1 200 O\x00K",
        b"",
        b"HTTP/1.10 200 OK",
    ],
)
def test_a_bad_status_line_is_refused(status: bytes) -> None:
    assert refused(status=status)
    assert refused(b"A: b", status=status)


@pytest.mark.parametrize(
    "start", [b"<", b"SSH-2.0", b"HTTP/2", b"HTTP/1.1  ", b"\r", b"HTTP/1.1 x", b"HTTP/1.1 200\n", b"HTTPS"]
)
def test_what_is_not_http_is_refused_at_once(start: bytes) -> None:
    with pytest.raises(BadResponse) as caught:
        scan_response(start, LIMITS)
    assert caught.value.reason is Reason.BAD_RESPONSE


def test_an_unfinished_head_with_a_bad_line_is_refused() -> None:
    for bad in (b"A : b\r\n", b"A: b\x00", b"A: b\n", b" fold", b"A\x01"):
        with pytest.raises(BadResponse):
            scan_response(b"HTTP/1.1 200 OK\r\nX: y\r\n" + bad, LIMITS)


@pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints"])
def test_an_interim_answer_with_a_body_length_is_refused(status: bytes) -> None:
    assert refused(b"Transfer-Encoding: chunked", status=b"HTTP/1.1 " + status)
    assert refused(b"Content-Length: 3", status=b"HTTP/1.1 " + status)
    head = read(b"Content-Length: 0", b"Link: x", status=b"HTTP/1.1 " + status)
    assert head.head == b"HTTP/1.1 " + status + b"\r\nLink: x\r\n"
    assert head.keep_alive


def test_a_204_with_a_body_length_has_none_and_ends_the_connection() -> None:
    for line in (b"Transfer-Encoding: chunked", b"Content-Length: 3"):
        head = read(line, b"A: b", status=b"HTTP/1.1 204 No Content")
        assert (head.chunked, head.content_length, head.keep_alive) == (False, -1, False)
        assert head.head == b"HTTP/1.1 204 No Content\r\nA: b\r\n"
    head = read(b"Content-Length: 0", status=b"HTTP/1.1 204 No Content")
    assert head.keep_alive
    assert head.head == b"HTTP/1.1 204 No Content\r\n"


def test_a_304_keeps_the_length_of_what_it_stands_for() -> None:
    head = read(b"Content-Length: 77", status=b"HTTP/1.1 304 Not Modified")
    assert head.content_length == 77
    assert b"Content-Length: 77\r\n" in head.head


def test_upgrade_is_kept_with_101_only() -> None:
    head = read(b"Connection: upgrade", b"Upgrade: websocket", status=b"HTTP/1.1 101 Switching Protocols")
    assert head.upgrade
    assert head.head == b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
    head = read(b"Connection: upgrade", b"Upgrade: websocket")
    assert not head.upgrade
    assert head.head == b"HTTP/1.1 200 OK\r\n"
    assert not read(status=b"HTTP/1.1 101 Switching Protocols").upgrade


@pytest.mark.parametrize("spelling", [b"X-Squid-Error", b"x-squid-error"])
def test_an_error_of_the_node_teaches_nothing_about_the_url(spelling: bytes) -> None:
    head = read(spelling + b": ERR_CONNECT_FAIL 111", b"Cache-Control: private", status=b"HTTP/1.1 404 Not Found")
    assert head.squid_error == b"ERR_CONNECT_FAIL 111"
    assert (head.uncacheable, head.storable) == (b"", False)


@pytest.mark.parametrize(("status", "learned"), [(200, True), (404, True), (206, False), (302, False), (500, False)])
def test_only_statuses_that_could_be_stored_teach(status: int, learned: bool) -> None:
    line = b"HTTP/1.1 %d X" % status
    assert read(b"Cache-Control: no-store", status=line).uncacheable == (b"no-store" if learned else b"")
    assert read(b"Cache-Control: max-age=9", status=line).storable is learned


def test_repeated_fields_are_read_as_one_list() -> None:
    assert read(b"Cache-Control: max-age=5", b"Cache-Control: private").uncacheable == b"private"
    assert read(b"Vary: Accept", b"Vary: *").uncacheable == b"vary-star"
    # an origin's own X-Cache comes first
    assert read(b"X-Cache: HIT from origin", b"X-Cache: MISS from cache1").hit is False


def test_content_type_is_a_dash_where_there_is_none() -> None:
    assert read().content_type == b"-"
    assert read(b"Content-Type: ").content_type == b"-"
    assert read(b"content-type:\ttext/css ").content_type == b"text/css"


def test_a_large_head_is_refused_complete_or_not() -> None:
    limits = Limits(head_bytes=len(SQUID))
    assert scan_response(SQUID, limits) is not None
    for data in (
        b"HTTP/1.1 200 OK\r\nX: y\r\n" + SQUID[17:],
        SQUID[:-2] + b"X: y",
        b"HTTP/1.1 200 " + b"x" * len(SQUID),
    ):
        with pytest.raises(BadResponse) as caught:
            scan_response(data, limits)
        assert caught.value.reason is Reason.RESPONSE_TOO_LARGE


@pytest.mark.parametrize("line", [b"a: b", b"Te: b", b"Accept-Language: en-US"])
def test_too_many_fields_are_refused_by_either_reader(line: bytes) -> None:
    limits = Limits(fields=8)
    for count, fits in ((8, True), (9, False)):
        data = b"HTTP/1.1 200 OK\r\n" + (line + b"\r\n") * count + b"\r\n"
        if fits:
            assert scan_response(data, limits) is not None
        else:
            with pytest.raises(BadResponse) as caught:
                scan_response(data, limits)
            assert caught.value.reason is Reason.RESPONSE_TOO_LARGE
