"""Patterns with stars and question marks.  What they match is held against a slow matcher in test_classify.py."""

from __future__ import annotations

import pytest

from cachelb.routing.globs import checked, checked_host, compile_globs, compile_header, is_pattern


def test_one_of_several_patterns_is_enough_and_has_to_match_all():
    pattern = compile_globs(["*.html", "/a|b", "/c?"])
    assert pattern.fullmatch(b"/x/y.html")
    assert pattern.fullmatch(b"/a|b")
    assert pattern.fullmatch(b"/c1")
    assert not pattern.fullmatch(b"/a")
    assert not pattern.fullmatch(b"/x.html?y")


def test_hosts_become_what_urls_have():
    assert checked_host(" WWW.A.com. ") == "www.a.com"
    assert checked_host("[2001:DB8::0:1]") == "2001:db8::1"
    assert checked_host(".A.com") == ".a.com"


@pytest.mark.parametrize("text", ["", " . ", "a b\n", "\xe4", "http://a/", "a:80"])
def test_what_is_no_host_is_refused(text: str):
    with pytest.raises(ValueError, match=r"host"):
        checked_host(text)


def test_paths_begin_with_a_slash_or_a_wildcard():
    assert checked("*.gif", "path") == "*.gif"
    with pytest.raises(ValueError, match="paths begin with /"):
        checked("x", "path")


def test_a_header_is_found_by_name_or_by_value():
    assert compile_header("cookie").search(b"A: b\r\nCookie: x\r\n")
    assert compile_header("Cookie: *session=*").search(b"cookie:  a=1; session=2 \r\n")
    assert not compile_header("Cookie: session=*").search(b"Cookie: a=1; session=2\r\nX: session=\r\n")
    with pytest.raises(ValueError, match="name of a header field"):
        compile_header("a b: c")


def test_stars_and_question_marks_make_a_pattern():
    assert is_pattern("a*")
    assert is_pattern("?")
    assert not is_pattern(".a.com")
