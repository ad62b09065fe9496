"""``freshness``: how long Squid takes an answer for fresh.  What a real Squid says is in tests/squid/test_freshness.py."""

from __future__ import annotations

import email.utils
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.http import freshness
from cachelb.http.freshness import (
    VARY_MARKER_S,
    Heuristic,
    fresh_until,
    held_until,
    parse_date,
    served_at,
    stored_until,
)
from cachelb.http.grammar import split_list

NOW = 1795234877
FOREVER = (1 << 32) - 1


def date(offset_s: int = 0) -> str:
    return email.utils.formatdate(NOW + offset_s, usegmt=True)


def head(*fields: str, dated: bool = True, status: int = 200) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *([f"Date: {date()}"] if dated else []), *fields, ""]
    return "\r\n".join(lines).encode("latin-1")


@pytest.mark.parametrize(
    ("fields", "lifetime"),
    [
        (("Cache-Control: max-age=600",), 600),
        (("cache-control:max-age=600",), 600),
        (("CACHE-CONTROL: \t max-age=600 \t",), 600),
        (("X-Cache-Control: max-age=5", "Cache-Control: max-age=600", "X: Cache-Control: max-age=5"), 600),
        (("Content-Type: text/multipart/x-mixed-replace", "Cache-Control: max-age=600"), 600),
        (("Cache-Control: max-age=5, s-maxage=600", f"Expires: {date(40)}"), 600),
        (("Cache-Control: max-age=5", "Cache-Control: s-maxage=600"), 600),
        (("Cache-Control: max-age=600", f"Expires: {date(40)}"), 600),
        ((f"Expires: {date(600)}",), 600),
        ((f"Expires: {date(600)}", f"Expires: {date(7)}"), 600),
        (("Expires: 0",), 0),
        ((f"Last-Modified: {date(-1000)}",), 200),
        ((f"Last-Modified: {date(-10_000_000)}",), 259200),
        ((f"Last-Modified: {date(50)}",), 0),
        ((), 0),
        (("Cache-Control: max-age=600", "Age: 100"), 500),
        (("Cache-Control: max-age=600", "Age: 10", "Age: 100"), 590),
        (("Cache-Control: max-age=600", "Age: 700"), -100),
        (("Cache-Control: max-age=600", "Age: soon"), 600),
        (("Cache-Control: max-age=600", "Age: -5"), 600),
        ((f"Last-Modified: {date(-1100)}", "Age: 100"), 100),
        (("Cache-Control: no-cache, max-age=600",), 0),
        (('Cache-Control: no-cache="", max-age=600',), 0),
        (("Cache-Control: no-cache=a, max-age=600",), 600),
        (("Pragma: no-cache", f"Expires: {date(600)}"), 0),
        (("Pragma: no-cache", "Cache-Control: max-age=600"), 600),
        (("Cache-Control: max-age=x, max-age=600",), 600),
        (("Cache-Control: max-age=600, max-age=5",), 600),
        (('Cache-Control: max-age="600"', f"Expires: {date(40)}"), 40),
        (("Cache-Control: max-age= 600",), 600),
        (("Cache-Control: max-age= 0", f"Expires: {date(40)}"), 40),
        (("Cache-Control: max-age", f"Expires: {date(40)}"), 40),
        (("Cache-Control: Max-Age=600", f"Expires: {date(40)}"), 40),
        (("Cache-Control: max-age=-600", f"Expires: {date(40)}"), 40),
        (("Cache-Control: max-age=4294967295", f"Expires: {date(40)}"), 40),
        (("Cache-Control: max-age=4294967896",), 600),
        ((f"Cache-Control: max-age={10**30}", f"Expires: {date(40)}"), 40),
        (("Cache-Control: max-age=2147483647",), 2147483647),
        (("Set-Cookie: a=b", "Cache-Control: max-age=600"), 600),
        (('Cache-Control: x="a, no-store", max-age=600',), 600),
    ],
)
def test_a_stored_answer_is_fresh_for_its_lifetime(fields: tuple[str, ...], lifetime: int):
    until = min(NOW + lifetime, FOREVER)
    assert stored_until(200, head(*fields), NOW) == until
    assert held_until(200, head(*fields), NOW) == until


@pytest.mark.parametrize(
    "fields",
    [
        ("Cache-Control: max-age=600, private",),
        ('Cache-Control: max-age=600, private="a"',),
        ("Cache-Control: max-age=600, No-Store",),
        ('Cache-Control: max-age=600, no-cache="a"',),
        ("Cache-Control: max-age=600", "Vary: *"),
        ("Cache-Control: max-age=600", "Vary: accept", "Vary: *"),
        ("Cache-Control: max-age=600", "Vary: ,"),
        ("Cache-Control: max-age=600", "Content-Type: Multipart/X-Mixed-Replace; boundary=x"),
        ("Cache-Control: max-age=60", "Content-Length: 0"),
        (f"Last-Modified: {date(-100)}", "Content-Length: 0"),
    ],
)
def test_what_squid_does_not_store_is_fresh_until_nothing(fields: tuple[str, ...]):
    assert stored_until(200, head(*fields), NOW) == 0


def test_an_empty_answer_is_stored_if_it_is_fresh_for_more_than_a_minute():
    assert stored_until(200, head("Cache-Control: max-age=61", "Content-Length: 0"), NOW) == NOW + 61


@pytest.mark.parametrize("status", [200, 203, 300, 301, 308, 410])
def test_these_are_stored_even_if_stale_at_once(status: int):
    assert stored_until(status, head(), NOW) == NOW


@pytest.mark.parametrize("status", [302, 307])
def test_temporary_redirects_are_stored_only_if_they_say_how_long(status: int):
    assert stored_until(status, head("Cache-Control: max-age=600"), NOW) == NOW + 600
    assert stored_until(status, head(f"Expires: {date(600)}"), NOW) == NOW + 600
    assert stored_until(status, head(f"Expires: {date(-600)}"), NOW) == 0
    assert stored_until(status, head(f"Last-Modified: {date(-6000)}"), NOW) == 0
    assert stored_until(status, head(f"Expires: {date(600)}", dated=False), NOW) == 0


@pytest.mark.parametrize("status", [201, 204, 206, 303, 304, 400, 401, 403, 404, 405, 414, 500, 502, 503, 504, 599])
def test_others_are_not_stored(status: int):
    assert stored_until(status, head("Cache-Control: max-age=600"), NOW) == 0


def test_with_a_vary_it_is_the_marker_that_counts():
    for fields in ("Cache-Control: max-age=5", "Cache-Control: no-cache", "X: y"):
        assert stored_until(200, head("Vary: Accept", fields), NOW) == NOW + VARY_MARKER_S
        assert held_until(200, head("Vary: Accept", fields, "Age: 7"), NOW) == NOW - 7 + VARY_MARKER_S
    assert stored_until(200, head("Vary: Accept", "Content-Length: 0"), NOW) == 0


def test_a_slow_origin_makes_its_answer_older():
    assert stored_until(200, head("Cache-Control: max-age=600"), NOW, 3) == NOW + 597
    assert stored_until(200, head(f"Last-Modified: {date(-1000)}"), NOW, 3) == NOW + 197
    assert stored_until(200, head("Vary: a"), NOW, 3) == NOW - 3 + VARY_MARKER_S


@pytest.mark.parametrize("status", [206, 304])
def test_parts_and_confirmations_tell_of_the_whole(status: int):
    assert held_until(status, head("Cache-Control: max-age=600", "Age: 100"), NOW) == NOW + 500


def test_a_304_that_does_not_say_how_long_tells_nothing():
    assert held_until(304, head(f"Last-Modified: {date(-1000)}", "Age: 3"), NOW) == 0


def test_a_hit_that_must_not_be_stored_is_never_fresh():
    assert held_until(200, head("Cache-Control: private, max-age=600", "Age: 3"), NOW) == NOW - 3


def test_an_error_that_is_kept_for_a_while_tells_nothing():
    assert held_until(404, head("Cache-Control: max-age=600"), NOW) == 0


@pytest.mark.parametrize(
    ("dated", "age", "served"),
    [
        (-5, 0, -5),
        (-5, 3, -5),
        (-5, 9, -9),
        (5, 0, 0),  # in the future
        (5, 7, -7),
        (-90000, 0, 0),  # more than a day ago
        (-90000, 7, -7),
        (-NOW - 1, 0, 0),  # none
        (0, NOW, 0),
    ],
)
def test_when_an_answer_was_made(dated: int, age: int, served: int):
    assert served_at(NOW, NOW + dated, age) == NOW + served


@pytest.mark.parametrize(
    ("age", "modified", "expires", "until"),
    [(0, -1, NOW + 50, NOW + 50), (9, -1, NOW + 50, NOW + 41), (0, NOW - 1000, -1, NOW + 300), (0, -1, 0, 1)],
)
def test_the_arithmetic(age: int, modified: int, expires: int, until: int):
    assert fresh_until(NOW, NOW, modified, expires, Heuristic(50, 300), age) == until


def test_without_a_heuristic_freshness_must_be_said():
    assert fresh_until(NOW, NOW, NOW - 1000, -1, None) == 0


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37", "sun, 6 November 1994 08:49:37 GMT", "Sun, 06 Nov 94 08:49:37 GMT",
    ],
)  # fmt: skip
def test_dates_are_read_as_loosely_as_squid_does(text: str):
    assert parse_date(text.encode()) == 784111777
    assert parse_date(text.encode()) == 784111777  # now that it is known


@pytest.mark.parametrize(
    "text",
    [
        "", "0", "never", "06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 08:60:00 GMT", "Sun, 06 Nov 1994 08:00:60 GMT",
        "Sun, 06 Nod 1994 08:49:37 GMT", "Sun, 32 Nov 1994 08:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT", "Sun, 06 Nov 1960 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT x",
    ],
)  # fmt: skip
def test_other_dates_are_none(text: str):
    parse_date(b"Sun, 06 Nov 1994 08:49:37 GMT")
    assert parse_date(text.encode()) == -1


def test_a_day_that_a_month_does_not_have_is_one_of_the_next():
    assert parse_date(b"Sun, 31 Feb 2033 08:49:37 GMT") == parse_date(b"Thu, 03 Mar 2033 08:49:37 GMT")
    assert parse_date(b"Sun, 06 Nov 2033 08:49 GMT") == parse_date(b"Sun, 06 Nov 2033 08:49:00 GMT")


def test_no_date_is_none():
    assert parse_date(None) == -1


@given(st.integers(0, 4_000_000_000))
def test_every_date_is_read(when: int):
    parts = time.gmtime(when)
    for form in ("%a, %d %b %Y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"):
        assert parse_date(time.strftime(form, parts).encode()) == when


NAMES = st.sampled_from(["Date", "Age", "Expires", "Last-Modified", "Cache-Control", "Vary", "Pragma", "Content-Length", "X"])
VALUES = st.one_of(
    st.sampled_from(["max-age=5", "s-maxage=99", "no-cache", "*", "0", "7", date(9), date(-9), '"', "max-age="]),
    st.text("\t !\"',-/0123456789:;=GMTabcdeNov\xe9\xff", max_size=40),
)


@given(st.integers(200, 599), st.lists(st.tuples(NAMES, VALUES), max_size=12), st.integers(1, FOREVER), st.integers(0, 99))
def test_whatever_a_head_says_the_answer_is_a_time(status: int, fields: list[tuple[str, str]], now: int, delay_s: int):
    text = head(*[f"{name}: {value}" for name, value in fields], dated=False)
    for until in (stored_until(status, text, now, delay_s), held_until(status, text, now)):
        assert 0 <= until <= FOREVER


def test_fields_that_are_cut_short_give_a_time_all_the_same():
    whole = head("Vary: Accept", "Cache-Control: max-age=5", "Vary: Range", "Expires: 0")
    for size in range(len(whole)):
        assert 0 <= stored_until(200, whole[:size], NOW) <= FOREVER


LINES = st.sampled_from(
    [
        *("Cache-Control: max-age=9", "cache-control: no-cache", "Pragma: no-cache", "VARY: *", "Vary: a", "Age: 5", "Date: x"),
        *(f"Date: {date()}", f"Expires: {date(9)}", f"Last-Modified: {date(-99)}", "Content-Length: 0", "X: y"),
    ]
)


@given(st.lists(LINES, max_size=9))
def test_values_are_the_same_in_one_pass_and_by_searching(lines: list[str]) -> None:
    fields = head(*lines, dated=False)
    in_one_pass = freshness._picker.pick(fields)
    assert [value and split_list(value) for value in in_one_pass] == [
        value and split_list(value) for value in freshness._values(fields)
    ]
