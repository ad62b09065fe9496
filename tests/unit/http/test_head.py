"""``scan_request``: what is read, what is refused, and when."""

from __future__ import annotations

import pytest

from cachelb.errors import BadRequest, Reason
from cachelb.http.head import Limits, scan_request

LIMITS = Limits()
FIELDS = b"Host: www.a.com\r\nAccept: */*;q=0.8\r\nCookie: a=b; c=\t\xff\r\nX-Empty:\r\n"
GOOD = b"GET http://www.a.com/x?y#z HTTP/1.1\r\n" + FIELDS + b"\r\n"


def reason_of(data: bytes, limits: Limits = LIMITS) -> Reason | None:
    """Why a head is refused; None if it is read or may still become valid."""
    try:
        scan_request(data, limits)
    except BadRequest as problem:
        return problem.reason
    return None


def test_a_good_head_is_read_whole() -> None:
    head = scan_request(GOOD, LIMITS)
    assert head is not None
    assert (head.method, head.target, head.minor) == (b"GET", b"http://www.a.com/x?y#z", 1)
    assert head.block == FIELDS
    assert head.size == len(GOOD)
    assert "www.a.com" in repr(head)


@pytest.mark.parametrize("cut", range(len(GOOD)))
def test_every_truncation_needs_more(cut: int) -> None:
    assert scan_request(GOOD[:cut], LIMITS) is None


@pytest.mark.parametrize("lead", [b"", b"\r\n", b"\r\n\r\n"])
def test_byte_by_byte_gives_the_same_with_and_without_the_hint(lead: bytes) -> None:
    data = lead + GOOD
    for cut in range(len(data)):
        for seen in range(max(0, cut - 8), cut + 1):
            assert scan_request(data[:cut], LIMITS, seen) is None
    for seen in range(len(data)):
        head = scan_request(data, LIMITS, seen)
        assert head is not None
        assert head.size == len(data)


def test_what_follows_a_head_is_left_alone() -> None:
    for tail in (b"\r\n", b"GET", b"\x00\n\r", GOOD):
        head = scan_request(GOOD + tail, LIMITS)
        assert head is not None
        assert head.size == len(GOOD)


def test_a_head_without_fields_is_read() -> None:
    head = scan_request(b"GET / HTTP/1.0\r\n\r\n", LIMITS)
    assert head is not None
    assert (head.minor, head.block, head.size) == (0, b"", 18)


@pytest.mark.parametrize(("lead", "bad"), [(2, False), (4, False), (6, True)])
def test_at_most_two_empty_lines_are_skipped(lead: int, bad: bool) -> None:
    data = b"\r\n" * (lead // 2) + GOOD
    if bad:
        assert reason_of(data) is Reason.BAD_REQUEST
        assert reason_of(data[:lead]) is Reason.BAD_REQUEST
    else:
        head = scan_request(data, LIMITS)
        assert head is not None
        assert head.size == len(data)


@pytest.mark.parametrize("version", [b"1.1", b"1.2", b"1.9"])
def test_later_minor_versions_are_treated_as_1_1(version: bytes) -> None:
    head = scan_request(GOOD.replace(b"1.1", version), LIMITS)
    assert head is not None
    assert head.minor == 1


@pytest.mark.parametrize("line", [b"PRI * HTTP/2.0", b"GET / HTTP/2", b"GET / HTTP/3.0", b"GET / HTTP/0.9"])
def test_other_major_versions_are_refused_as_such(line: bytes) -> None:
    assert reason_of(line + b"\r\n\r\n") is Reason.BAD_VERSION
    assert reason_of(line + b"\r\n") is Reason.BAD_VERSION


BAD_LINES = [
    b"GET /",
    b"GET / http/1.1",
    b"GET / HTTP/1.10",
    b"GET / HTTP/1",
    b"GET / HTTP/1.1 ",
    b"GET  / HTTP/1.1",
    b"GET /  HTTP/1.1",
    b" GET / HTTP/1.1",
    b"GET\t/ HTTP/1.1",
    b"GET / x HTTP/1.1",
    b"GE(T / HTTP/1.1",
    b"GET / HTTPS/1.1",
    b"GET /\x00 HTTP/1.1",
    b"GET /\x7f HTTP/1.1",
    b"G\xc9T / HTTP/1.1",
    b"/ HTTP/1.1",
    b"GET HTTP/1.1",
    b"\x16\x03\x01\x02",
    b"GET /\rX HTTP/1.1",
    b"GET / HTTP/1.1\r",
]


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_request_line_is_refused_as_soon_as_it_ends(line: bytes) -> None:
    assert reason_of(line + b"\r\n") is Reason.BAD_REQUEST
    assert reason_of(line + b"\r\nHost: a\r\n\r\n") is Reason.BAD_REQUEST


@pytest.mark.parametrize(
    "start",
    [
        b"\x16\x03\x01",
        b"GET /\n",
        b"GET  ",
        b" ",
        b"\x00",
        b"{",
        b"GET / http",
        b"GET / X",
        b"GET /\x7f",
        b"\n",
        b"\rG",
    ],
)
def test_garbage_does_not_wait_for_the_end_of_the_line(start: bytes) -> None:
    assert reason_of(start) is Reason.BAD_REQUEST


BAD_FIELDS = [
    b"Host : a",
    b"Host\t: a",
    b" Host: a",
    b"\tHost: a",
    b": a",
    b"Host",
    b"Ho st: a",
    b"H\x00st: a",
    b"Host: a\x00",
    b"Host: a\nX: b",
    b"Host: a\rX: b",
    b"Host: a\r\rX: b",
    b"Host: a\x0b",
    b"Host: \x7f",
    b"H\xf6st: a",
    b"Host(: a",
    b"X: a\r\n folded",
    b"X: a\r\n\tfolded",
    b"X: a\r\n ",
    b"Host: a\r",
    b"\n",
]


@pytest.mark.parametrize("field", BAD_FIELDS)
def test_a_bad_field_is_refused_as_soon_as_its_line_ends(field: bytes) -> None:
    line = b"GET / HTTP/1.1\r\n"
    for before in (b"", b"A: b\r\n"):
        for after in (b"\r\n", b"\r\nB: c\r\n\r\n", b"\r\n\r\n"):
            data = line + before + field + after
            assert reason_of(data) is Reason.BAD_REQUEST
            with pytest.raises(BadRequest):
                scan_request(data, LIMITS, len(line + before))


def feed(data: bytes) -> None:
    """Scan byte by byte, as a relay does that tells what it has seen."""
    for end in range(1, len(data) + 1):
        assert scan_request(data[:end], LIMITS, end - 1) is None


def test_refusals_do_not_depend_on_what_was_seen_before() -> None:
    for field in BAD_FIELDS:
        data = b"GET / HTTP/1.1\r\nA: b\r\n" + field + b"\r\nB: c\r\n\r\n"
        with pytest.raises(BadRequest):
            feed(data)


def test_a_long_url_is_refused_before_it_ends() -> None:
    limits = Limits(url_bytes=10)
    assert reason_of(b"GET /123456789 HTTP/1.1\r\n\r\n", limits) is None
    assert reason_of(b"GET /123456789", limits) is None
    for data in (b"GET /1234567890", b"GET /1234567890 HTTP/1.1\r\n", b"GET /1234567890 HTTP/1.1\r\n\r\n"):
        assert reason_of(data, limits) is Reason.URL_TOO_LONG


def test_a_large_head_is_refused_before_it_ends() -> None:
    limits = Limits(head_bytes=len(GOOD))
    assert scan_request(GOOD, limits) is not None
    longer = GOOD[:-2] + b"X: y\r\n"
    assert reason_of(longer, limits) is Reason.HEAD_TOO_LARGE
    assert reason_of(longer + b"\r\n", limits) is Reason.HEAD_TOO_LARGE
    assert reason_of(b"M" * len(GOOD), limits) is Reason.HEAD_TOO_LARGE


@pytest.mark.parametrize("line", [b"a:\r\n", b"Accept-Language: en\r\n"])
def test_too_many_fields_are_refused_before_the_end(line: bytes) -> None:
    limits = Limits(fields=8)
    start = b"GET / HTTP/1.1\r\n"
    head = scan_request(start + line * 8 + b"\r\n", limits)
    assert head is not None
    assert head.block == line * 8
    assert reason_of(start + line * 9, limits) is Reason.TOO_MANY_FIELDS
    assert reason_of(start + line * 9 + b"\r\n", limits) is Reason.TOO_MANY_FIELDS


def test_every_control_byte_is_refused_everywhere() -> None:
    for byte in [*range(32), 127]:
        if byte != 9:
            assert reason_of(GOOD.replace(b"*/*", bytes([byte]))) is Reason.BAD_REQUEST
        assert reason_of(GOOD.replace(b"Accept", b"Acc%cept" % byte)) is Reason.BAD_REQUEST
        assert reason_of(GOOD.replace(b"x?y", b"x%cy" % byte)) is Reason.BAD_REQUEST


def test_a_full_head_without_end_costs_linear_time() -> None:
    # each of these would take hours if a pattern backtracked
    for data in (
        b"A" * 65000,
        b"GET " + b"/" * 32000,
        b"GET / HTTP/1.1\r\n" + b"a:" * 32000,
        b"GET / HTTP/1.1\r\n" + b"a" * 60000,
    ):
        assert scan_request(data, LIMITS) is None
