"""What is read byte by byte of a field block is what the careful reader makes of it; whatever is not usual is left to that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.errors import BadRequest
from cachelb.http.fields import _KNOWN, _STAYING, request_fields
from cachelb.http.grammar import Limits
from cachelb.http.head import scan_request
from cachelb.http.usual_fields import _FORWARDED_FOR, _NAMES, _REFERER, usual_fields

BLOCK = (
    b"Host: www.a-b.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\n"
    b"Via: 1.1 child (squid/5.7)\r\nX-Forwarded-For: 10.0.0.12, ::1\r\nReferer: http://a/\r\nCookie: a=b; c=d\r\n"
    b"Cache-Control: max-age=259200\r\nProxy-Connection: Keep-Alive\r\nConnection: keep-alive\r\nZ:\r\n"
)
COUNT = BLOCK.count(b"\n")

names = st.sampled_from([*_NAMES[1:], b"Cookie", b"a", b"content-lengths", b"x" * 40, b"Vib", b"", b"A "])
values = st.one_of(
    st.sampled_from(
        [
            *(b" a.test", b"a.test \t", b" A.test", b" a.test:80", b" 127.0.0.1", b" [::1]", b" a..b", b"", b" "),
            *(b" close", b"keep-alive", b" Keep-Alive", b" close, te", b" 5", b" chunked"),
            *(b" max-age=0", b" No-Store", b" only-if-cached", b" 1.1 a, 1.0 b", b" x\ty"),
        ]
    ),
    st.binary(max_size=12),
)


def test_whatever_is_judged_is_looked_for() -> None:
    assert set(_NAMES[1:]) == set(_KNOWN)
    assert set(_NAMES[1 : _FORWARDED_FOR + 1]).isdisjoint(_STAYING)
    assert _STAYING.issuperset(_NAMES[_FORWARDED_FOR + 1 : _REFERER + 1])


def carefully(block: bytes) -> str:
    """What ``scan_request`` and ``request_fields`` say of a block."""
    head = scan_request(b"GET http://a/ HTTP/1.1\r\n" + block + b"\r\n", Limits())
    if head is None or head.block != block:
        return "not whole, or not one"
    return repr(request_fields(block))


def refused_or(block: bytes) -> str:
    try:
        return carefully(block)
    except BadRequest:
        return "refused"


def test_the_usual_block_is_read() -> None:
    fields = usual_fields(BLOCK, COUNT)
    assert fields is not None
    assert repr(fields) == carefully(BLOCK)
    assert (fields.host, fields.keep, fields.close, fields.referer) == (b"www.a-b.example.com", True, False, b"http://a/")
    assert b"Host" not in fields.rest
    assert b"Cookie: a=b; c=d\r\nCache-Control: max-age=259200\r\nZ:\r\n" in fields.rest


@given(st.lists(st.tuples(names, st.booleans(), values), max_size=7))
def test_what_is_read_at_all_is_read_like_the_careful_reader(lines: list[tuple[bytes, bool, bytes]]) -> None:
    block = b"".join((name.title() if big else name) + b":" + value + b"\r\n" for name, big, value in lines)
    fields = usual_fields(block, 256)
    assert fields is None or repr(fields) == refused_or(block)


@given(st.binary(max_size=40), st.integers(0, len(BLOCK)), st.integers(0, 8))
def test_whatever_comes_between_it_is_read_alike_or_not_at_all(noise: bytes, at: int, gone: int) -> None:
    block = BLOCK[:at] + noise + BLOCK[at + gone :]
    fields = usual_fields(block, 256)
    assert fields is None or repr(fields) == refused_or(block)


@pytest.mark.parametrize("cut", range(len(BLOCK)))
def test_a_truncation_is_a_block_only_at_the_end_of_a_line(cut: int) -> None:
    fields = usual_fields(BLOCK[:cut], 256)
    assert (fields is not None) == (cut == 0 or BLOCK[:cut].endswith(b"\r\n"))
    assert fields is None or repr(fields) == carefully(BLOCK[:cut])


@pytest.mark.parametrize("at", range(len(BLOCK)))
@pytest.mark.parametrize("byte", [0, 10, 13, 31, 127])
def test_a_control_character_anywhere_is_not_usual(at: int, byte: int) -> None:
    if BLOCK[at] != byte:
        assert usual_fields(BLOCK[:at] + bytes((byte,)) + BLOCK[at + 1 :], 256) is None


def test_the_number_of_lines_is_limited() -> None:
    assert usual_fields(BLOCK, COUNT) is not None
    assert usual_fields(BLOCK, COUNT - 1) is None


@pytest.mark.parametrize("name", _NAMES[1:])
def test_a_repeated_field_of_meaning_is_not_usual_nor_is_a_rare_one(name: bytes) -> None:
    value = {b"host": b"a", b"connection": b"close", b"proxy-connection": b"close"}.get(name, b"x")
    line = name + b": " + value + b"\r\n"
    assert (usual_fields(line, 9) is None) == (name in _NAMES[_REFERER + 1 :])
    assert usual_fields(line + b"A: b\r\n" + line, 9) is None


@pytest.mark.parametrize("value", [b"no-store", b"max-age=0, NO-STORE", b"only-if-cached", b"x, Only-If-Cached"])
def test_what_forbids_to_store_is_left_to_the_careful_reader(value: bytes) -> None:
    assert usual_fields(b"Cache-Control: " + value + b"\r\n", 9) is None
