"""What is read byte by byte of an answer is what the careful reader makes of it; whatever is not usual is left to that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.errors import BadResponse
from cachelb.http import response, usual_answer
from cachelb.http.grammar import HOP_BY_HOP, Limits
from cachelb.http.usual_answer import response_head

LIMITS = Limits()
HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 1024\r\n"
    b"Cache-Control: public, max-age=3600\r\nVary: Accept\r\nExpires: 0\r\nX-Cache: HIT from cache1\r\n"
    b"X-Cache-Lookup: HIT from cache1:3128\r\nCache-Status: c;hit\r\nConnection: keep-alive\r\nZ:\r\n\r\n"
)

names = st.sampled_from([*usual_answer._NAMES[1:], b"ETag", b"Via", b"a", b"content-lengths", b"x" * 40, b"Vory", b"", b"A "])
values = st.one_of(
    st.sampled_from(
        [
            *(b" close", b"close", b" keep-alive", b" Keep-Alive", b"  close", b" close ", b" chunked", b" Chunked"),
            *(b" 5", b"5 ", b" 007", b" 5,5", b" " + b"9" * 18, b" " + b"9" * 19),
            *(b"", b" ", b"\t a/b \t", b" HIT from c", b" *", b" private"),
        ]
    ),
    st.binary(max_size=12),
)
fields = st.lists(st.tuples(names, st.booleans(), values), max_size=7)


def test_whatever_is_judged_or_not_sent_on_is_looked_for() -> None:
    judged = set(b"content-length content-type cache-control vary expires x-cache cache-status x-squid-error".split())
    assert set(usual_answer._NAMES[1:]) == judged | HOP_BY_HOP | {b"close"}


def refused_or(data: bytes, limits: Limits = LIMITS) -> str:
    try:
        return repr(response._scan_slowly(data, limits))
    except BadResponse:
        return "refused"


@given(st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 404 \xff", b"HTTP/1.1 204 No", b"HTTP/1.2 200 ", b"HTTP/1.1 200"]), fields)
def test_what_is_read_at_all_is_read_like_the_careful_reader(first: bytes, lines: list[tuple[bytes, bool, bytes]]) -> None:
    data = first + b"".join(b"\r\n" + (name.title() if big else name) + b":" + value for name, big, value in lines)
    data += b"\r\n\r\nbody"
    head = response_head(data, LIMITS)
    assert head is None or repr(head) == refused_or(data)


@given(st.binary(max_size=40), st.integers(0, len(HEAD)), st.integers(0, 8))
def test_whatever_comes_between_it_is_read_alike_or_not_at_all(noise: bytes, at: int, gone: int) -> None:
    data = HEAD[:at] + noise + HEAD[at + gone :]
    head = response_head(data, LIMITS)
    assert head is None or repr(head) == refused_or(data)


def test_the_usual_head_is_read() -> None:
    head = response_head(HEAD + b"body", LIMITS)
    assert head is not None
    assert repr(head) == refused_or(HEAD)
    assert (head.status, head.content_length, head.hit, head.content_type) == (200, 1024, True, b"text/html; charset=utf-8")
    assert head.head == HEAD[:-2].replace(b"Connection: keep-alive\r\n", b"")


@pytest.mark.parametrize("cut", range(len(HEAD)))
def test_no_truncation_is_a_head(cut: int) -> None:
    assert response_head(HEAD[:cut], LIMITS) is None


@pytest.mark.parametrize("at", range(len(HEAD)))
@pytest.mark.parametrize("byte", [0, 10, 13, 31, 127])
def test_a_control_character_anywhere_is_not_usual(at: int, byte: int) -> None:
    if HEAD[at] != byte:
        assert response_head(HEAD[:at] + bytes((byte,)) + HEAD[at + 1 :], LIMITS) is None


def test_limits_hold_to_the_byte_and_to_the_field() -> None:
    count = HEAD.count(b"\n") - 2
    assert response_head(HEAD, Limits(head_bytes=len(HEAD), fields=count)) is not None
    assert response_head(HEAD + b"body", Limits(head_bytes=len(HEAD))) is not None
    assert response_head(HEAD + b"body", Limits(head_bytes=len(HEAD) - 1)) is None
    assert response_head(HEAD, Limits(fields=count - 1)) is None
    assert response_head(b"HTTP/1.1 200 \r\n\r\n", Limits(fields=0)) is not None


@pytest.mark.parametrize("name", usual_answer._NAMES[1:])
def test_a_repeated_field_of_meaning_is_not_usual(name: bytes) -> None:
    value = {b"connection": b"close", b"content-length": b"5", b"transfer-encoding": b"chunked"}.get(name, b"x")
    line = name + b": " + value + b"\r\n"
    rare = name in usual_answer._NAMES[usual_answer._CODING + 1 :]
    assert (response_head(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n", LIMITS) is None) == rare
    assert response_head(b"HTTP/1.1 200 OK\r\n" + line + b"A: b\r\n" + line + b"\r\n", LIMITS) is None


@pytest.mark.parametrize(
    "lines",
    [
        b"Connection: close\r\nA: b\r\nTransfer-Encoding: chunked",
        b"transfer-encoding: CHUNKED\r\nCONNECTION: Close\r\nA: b",
    ],
)
def test_both_lines_that_are_not_sent_on_are_left_out_in_either_order(lines: bytes) -> None:
    head = response_head(b"HTTP/1.1 200 OK\r\nX: y\r\n" + lines + b"\r\n\r\n", LIMITS)
    assert head is not None
    assert head.head == b"HTTP/1.1 200 OK\r\nX: y\r\nA: b\r\n"
    assert (head.chunked, head.keep_alive) == (True, False)
