"""What Cache-Control, Vary, Expires, X-Cache and Cache-Status are taken to say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.http import caching
from cachelb.http.caching import cacheability, is_hit


@pytest.mark.parametrize(
    ("control", "uncacheable", "storable"),
    [
        (b"private", b"private", False),
        (b"no-store", b"no-store", False),
        (b"Private, No-Store", b"private", False),
        (b"no-store, private", b"no-store", False),
        (b"public, no-store", b"no-store", False),
        (b'private="set-cookie"', b"private", False),
        (b"max-age=60, private", b"private", False),
        (b"no-cache", b"", False),
        (b'no-cache="set-cookie"', b"", False),
        (b"max-age=0", b"", False),
        (b"max-age=60", b"", True),
        (b'max-age="60"', b"", True),
        (b"MAX-AGE=60", b"", True),
        (b"s-maxage=1", b"", True),
        (b"max-age=0, s-maxage=9", b"", True),
        (b"max-age=9, s-maxage=0", b"", False),
        (b"public", b"", True),
        (b"public, max-age=0", b"", False),
        (b"public, no-cache", b"", False),
        (b"must-revalidate", b"", False),
        (b"max-age=000", b"", False),
        (b"max-age=-5", b"", False),
        (b"max-age", b"", False),
        (b"", b"", False),
        (b'ext="no-store, private"', b"", False),
        (b"x-no-store, privately", b"", False),
        (b"=, ,;", b"", False),
    ],
)
def test_cache_control_is_judged_as_squid_does(control: bytes, uncacheable: bytes, storable: bool) -> None:
    assert cacheability(control, None, None) == (uncacheable, storable)
    assert cacheability(control, None, None) == (uncacheable, storable), "the second time, from the memo"


def test_vary_star_forbids_storing_but_only_as_a_member() -> None:
    assert cacheability(None, b"*", None) == (b"vary-star", False)
    assert cacheability(b"max-age=9", b"Accept, *", None) == (b"vary-star", False)
    assert cacheability(b"no-store", b"*", None) == (b"no-store", False)
    assert cacheability(b"max-age=9", b"X-*", None) == (b"", True)


def test_expires_counts_where_cache_control_says_nothing() -> None:
    date = b" Sat, 21 Nov 2026 00:51:45 GMT"
    assert cacheability(None, None, date) == (b"", True)
    assert cacheability(b"must-revalidate", None, date) == (b"", True)
    assert cacheability(b"max-age=0", None, date) == (b"", False)
    for stale in (b"0", b" -1 ", b""):
        assert cacheability(None, None, stale) == (b"", False)
    assert cacheability(None, None, None) == (b"", False)


def test_the_memo_is_bounded() -> None:
    for number in range(2 * caching._VERDICTS_MAX):
        cacheability(b"max-age=%d" % number, None, None)
    assert len(caching._verdicts) <= caching._VERDICTS_MAX
    before = len(caching._verdicts)
    cacheability(b"private" + b" " * caching._VERDICT_BYTES_MAX, None, None)
    assert len(caching._verdicts) == before


@pytest.mark.parametrize(
    ("x_cache", "cache_status", "hit"),
    [
        (None, None, None),
        (b"HIT from cache1", None, True),
        (b" MISS from cache1", None, False),
        (b"hit", None, True),
        (b"MISS from a, HIT from b", None, True),
        (b"HIT from a, MISS from b", None, False),
        (b"NONE", None, None),
        (b"", None, None),
        (b",", None, None),
        (None, b"cache1;hit;detail=match", True),
        (None, b"c;fwd=miss", False),
        (None, b"o; hit, c; fwd=stale", False),
        (None, b'o;fwd=miss, "c, d"; HIT', True),
        (None, b"c", None),
        (None, b"c;hit=?0", False),
        (b"NONE from x", b"c;hit", True),
        (None, b"", None),
        (None, b"hit", None),
    ],
)
def test_a_hit_is_known_by_the_last_member(x_cache: bytes | None, cache_status: bytes | None, hit: bool | None) -> None:
    assert is_hit(x_cache, cache_status) is hit


@given(st.binary(max_size=80))
def test_any_value_is_judged(value: bytes) -> None:
    uncacheable, storable = cacheability(value, value, value)
    assert uncacheable in (b"", b"private", b"no-store", b"vary-star")
    assert not (uncacheable and storable)
    assert is_hit(value, value) in (True, False, None)
