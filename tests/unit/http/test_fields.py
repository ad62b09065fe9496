"""``request_fields``: what each field is taken to say, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.errors import BadRequest, Reason
from cachelb.http.fields import RequestFields, request_fields


def read(*lines: bytes) -> RequestFields:
    return request_fields(b"".join(line + b"\r\n" for line in lines))


def reason_of(*lines: bytes) -> Reason | None:
    try:
        read(*lines)
    except BadRequest as problem:
        return problem.reason
    return None


def test_no_fields_say_nothing() -> None:
    fields = request_fields(b"")
    assert (fields.content_length, fields.chunked, fields.host, fields.max_forwards) == (-1, False, None, -1)
    flags = [fields.close, fields.keep, fields.expect_continue, fields.authorization, fields.no_store]
    assert not any([*flags, fields.only_if_cached])
    assert not any([fields.via, fields.forwarded_for, fields.upgrade, fields.connection_options, fields.rest])
    assert "host=None" in repr(fields)


def test_values_are_stripped_and_names_have_no_case() -> None:
    fields = read(
        b"HOST:\t A.com:81 ", b"user-AGENT: x/1 ", b"Referer:http://b/", b"X-Other: y", b"authorization: Basic x"
    )
    assert (fields.host, fields.user_agent, fields.referer) == (b"a.com:81", b"x/1", b"http://b/")
    assert fields.authorization


@pytest.mark.parametrize("host", [b"", b"a", b"a.com:80", b"[::1]:80", b"A_b", b"127.0.0.1"])
def test_a_host_may_be_empty_or_an_authority(host: bytes) -> None:
    assert read(b"Host: " + host).host == host.lower()


@pytest.mark.parametrize(
    "host", [b"a b", b"a,b", b"u@a", b"a/b", b"a:b", b"a:99999", b"[::1", b"a?b", b"a#b", b"http://a", b"a\xff"]
)
def test_any_other_host_is_refused(host: bytes) -> None:
    assert reason_of(b"Host: " + host) is Reason.BAD_REQUEST


def test_a_repeated_host_is_refused_even_if_equal() -> None:
    assert reason_of(b"Host: a", b"X: y", b"host: a") is Reason.BAD_REQUEST
    assert reason_of(b"Host:", b"host: a") is Reason.BAD_REQUEST


def test_a_length_is_read() -> None:
    assert read(b"Content-Length: 0").content_length == 0
    assert read(b"Content-Length: 9223372036854775807").content_length == 2**63 - 1


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length:",),
        (b"Content-Length: +1",),
        (b"Content-Length: 1, 1",),
        (b"Content-Length: 1 1",),
        (b"Content-Length: 1", b"Content-Length: 1"),
        (b"Content-Length: 1", b"content-LENGTH: 2"),
        (b"Content-Length: 0x1",),
        (b"Content-Length: 9223372036854775808",),
        (b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 0"),
        (b"Transfer-Encoding:",),
        (b"Transfer-Encoding: gzip",),
        (b"Transfer-Encoding: chunked, gzip",),
        (b"Transfer-Encoding: chunked, chunked",),
        (b"Transfer-Encoding: chunked,",),
        (b"Transfer-Encoding: , chunked",),
        (b"Transfer-Encoding: chunked;a=b",),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked\xa0",),
        (b'Transfer-Encoding: "chunked"',),
        (b"Transfer-Encoding: xchunked",),
    ],
)
def test_an_ambiguous_length_is_refused(lines: tuple[bytes, ...]) -> None:
    assert reason_of(b"Host: a", *lines, b"X: y") is Reason.BAD_FRAMING


def test_chunked_is_read_and_other_codings_below_it_are_not_implemented() -> None:
    assert read(b"Transfer-Encoding:\t Chunked ").chunked
    assert reason_of(b"Transfer-Encoding: gzip, chunked") is Reason.NOT_IMPLEMENTED


@pytest.mark.parametrize(
    ("lines", "close", "keep"),
    [
        ((b"Connection: close",), True, False),
        ((b"Connection: Keep-Alive",), False, True),
        ((b"Connection: a, CLOSE ,b",), True, False),
        ((b"Proxy-Connection: keep-alive",), False, True),
        ((b"Proxy-Connection: close",), False, False),
        ((b"Connection: close", b"Proxy-Connection: Keep-Alive"), True, True),
        ((b"Proxy-Connection: keep-alive", b"Connection: x"), False, True),
        ((b"Connection: x", b"Connection: close"), True, False),
        ((b"Connection: closed, not-keep-alive",), False, False),
    ],
)
def test_connection_says_close_or_keep_alive(lines: tuple[bytes, ...], close: bool, keep: bool) -> None:
    fields = read(*lines)
    assert (fields.close, fields.keep) == (close, keep)


def test_connection_options_are_collected_from_all_lines() -> None:
    assert read(b"Connection: A, b", b"Connection: ,C").connection_options == {b"a", b"b", b"c"}


def test_upgrade_counts_only_if_connection_lists_it() -> None:
    assert read(b"Upgrade: websocket", b"Connection: Upgrade").upgrade == b"websocket"
    assert read(b"Connection: upgrade, x", b"Upgrade: a", b"Upgrade: b").upgrade == b"a, b"
    assert read(b"Upgrade: websocket").upgrade == b""
    assert read(b"Connection: upgrade").upgrade == b""


def test_the_only_expectation_is_100_continue() -> None:
    assert read(b"Expect: 100-Continue").expect_continue
    for lines in (
        (b"Expect: x",),
        (b"Expect:",),
        (b"Expect: 100-continue, x",),
        (b"Expect: 100-continue", b"Expect: x"),
    ):
        assert reason_of(*lines) is Reason.EXPECTATION_FAILED


@pytest.mark.parametrize(
    ("control", "no_store", "only_if_cached"),
    [
        (b"no-store", True, False),
        (b"max-age=0, No-Store", True, False),
        (b"only-if-cached", False, True),
        (b"no-store, only-if-cached", True, True),
        (b"no-store=1", True, False),
        (b"no-cache", False, False),
        (b'x="no-store"', False, False),
        (b"x-no-store", False, False),
        (b"", False, False),
    ],
)
def test_cache_control_directives_are_found(control: bytes, no_store: bool, only_if_cached: bool) -> None:
    fields = read(b"Cache-Control: " + control)
    assert (fields.no_store, fields.only_if_cached) == (no_store, only_if_cached)
    assert read(b"Cache-Control: x", b"cache-control: " + control).no_store is no_store


def test_max_forwards_is_digits_once() -> None:
    assert read(b"Max-Forwards: 0").max_forwards == 0
    assert read(b"Max-Forwards: 010").max_forwards == 10
    for lines in (
        (b"Max-Forwards: -1",),
        (b"Max-Forwards:",),
        (b"Max-Forwards: 1", b"Max-Forwards: 1"),
        (b"Max-Forwards: " + b"9" * 10,),
    ):
        assert reason_of(*lines) is Reason.BAD_REQUEST


def test_lists_over_several_lines_are_joined_in_order() -> None:
    fields = read(b"Via: 1.1 a", b"X-Forwarded-For: 1.2.3.4", b"Via: 1.0 b", b"X-Forwarded-For: ::1, ::2")
    assert fields.via == b"1.1 a, 1.0 b"
    assert fields.forwarded_for == b"1.2.3.4, ::1, ::2"


@given(st.binary(max_size=100))
def test_any_block_is_read_or_refused(block: bytes) -> None:
    try:
        first = request_fields(block)
    except BadRequest:
        return
    assert repr(request_fields(block)) == repr(first), "a pure function of the block"
