"""Cookies in heads: found, changed, taken out; everything else stays byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.http.cookies import (
    edit_answer,
    edit_request,
    request_cookies,
    set_cookie,
    split_prefix,
    split_suffix,
    with_prefix,
    with_suffix,
)

rows = pytest.mark.parametrize
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; s=two; b=3\r\nX-Cookie: s=9\r\n\r\n"


def without(name):
    return lambda key, value: None if key == name else value


def test_found():
    assert request_cookies(b"cookie: a=1;b = x=y ;c; =z\r\nCOOKIE:a=2\r\n") == [
        (b"a", b"1"),
        (b"b", b"x=y"),
        (b"", b"z"),
        (b"a", b"2"),
    ]
    assert request_cookies(b"Host: a\r\nX-Cookie: a=1\r\nCookies: b=1\r\n") == []


@rows(
    "line, left",
    [
        (b"Cookie: s=1", b""),
        (b"Cookie: s=1; s=2", b""),
        (b"Cookie: a=1; s=1; b=2", b"Cookie: a=1; b=2"),
        (b"Cookie: s=1; a=1", b"Cookie: a=1"),
        (b"cookie:a=1;s=1", b"cookie: a=1"),
        (b"Cookie: a=1; s", b"Cookie: a=1; s"),
        (b"Cookie: S=1", b"Cookie: S=1"),
        (b"Cookie:   a=1;;b", b"Cookie:   a=1;;b"),
        (b"Cookie:", b"Cookie:"),
    ],
)
def test_taken_out(line, left):
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\nX: s=1\r\n\r\n"
    wanted = head.replace(line + b"\r\n", left + b"\r\n" if left else b"")
    assert edit_request(head, without(b"s")) == wanted


def test_changed():
    assert edit_request(HEAD, lambda name, value: b"2" if name == b"s" else value) == HEAD.replace(b"s=two", b"s=2")


@rows(
    "line, edited",
    [
        (b"Set-Cookie: s=1; Path=/", b"Set-Cookie: s=N; Path=/"),
        (b"set-cookie:s=1", b"set-cookie:s=N"),
        (b"Set-Cookie: s = 1 ; Secure", b"Set-Cookie: s = N ; Secure"),
        (b"Set-Cookie: s=; Max-Age=0", b"Set-Cookie: s=N; Max-Age=0"),
        (b"Set-Cookie: t=1; s=1", b"Set-Cookie: t=1; s=1"),
        (b"Set-Cookie: s", b"Set-Cookie: s"),
        (b"X-Set-Cookie: s=1", b"X-Set-Cookie: s=1"),
    ],
)
def test_set_by_answers(line, edited):
    head = b"HTTP/1.1 200 OK\r\nA: b\r\n" + line + b"\r\nSet-Cookie: u=1\r\n"
    assert edit_answer(head, lambda name, value: b"N" if name == b"s" else None) == head.replace(line, edited)


def test_every_repeated_one_is_edited():
    head = b"HTTP/1.1 200 OK\r\nSet-Cookie: s=1\r\nSet-Cookie: s=2; Path=/x\r\n"
    assert edit_answer(head, lambda name, value: value + b"!") == head.replace(b"=1", b"=1!").replace(b"=2", b"=2!")


def test_a_line_of_our_own():
    assert set_cookie(b"A", b"v", "", "/", secure=False, http_only=False, same_site="") == b"Set-Cookie: A=v; Path=/\r\n"
    line = set_cookie(b"A", b"v", ".a.test", "/x", secure=True, http_only=True, same_site="None")
    assert line == b"Set-Cookie: A=v; Domain=.a.test; Path=/x; SameSite=None; Secure; HttpOnly\r\n"


VALUES = st.binary(max_size=30)
MARKS = st.text("abcXYZ012-_", min_size=1, max_size=43).map(str.encode)


@given(VALUES, MARKS)
def test_marks_come_back(value, mark):
    assert split_prefix(with_prefix(value, mark)) == (mark, value)
    assert split_suffix(with_suffix(value, mark)) == (mark, value)


def test_marks_stay_within_quotes():
    assert with_prefix(b'"v"', b"m") == b'"m~v"'
    assert with_suffix(b'"v"', b"m") == b'"v.m"'


@rows("value", [b"", b"v", b'"v"', b'"'])
def test_a_value_without_a_mark_stays(value):
    assert split_prefix(value) == (b"", value)
    assert split_suffix(value) == (b"", value)


LINES = st.lists(st.text("abs=;, \t~.\"", max_size=12).map(lambda text: b"Cookie:" + text.encode()), max_size=4)


@given(LINES)
def test_an_edit_that_changes_nothing_changes_nothing(lines):
    head = b"GET / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    assert edit_request(head, lambda name, value: value) == head


@given(LINES)
def test_nothing_of_a_name_is_left_and_all_others_are(lines):
    head = b"GET / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    left = edit_request(head, without(b"s"))
    wanted = [(name, value) for name, value in request_cookies(head) if name != b"s"]
    assert request_cookies(left) == wanted
    assert left.endswith(b"\r\n\r\n")
