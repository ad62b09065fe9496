"""What makes several URLs one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.errors import BadRequest
from cachelb.http.url import parse_absolute, parse_origin
from cachelb.routing.keys import Keying


@pytest.mark.parametrize(
    ("keying", "url", "key"),
    [
        (Keying("cdn.x"), b"http://cdn1.x/a?b", b"http://cdn.x/a?b"),
        (Keying("cdn.x"), b"http://cdn1.x:8080/a", b"http://cdn.x:8080/a"),
        (Keying("cdn.x"), b"https://cdn1.x/a", b"https://cdn.x/a"),
        (Keying("cdn.x"), b"ftp://cdn1.x/a", b"ftp://cdn.x/a"),
        (Keying("2001:db8::1"), b"http://cdn1.x:81/a", b"http://[2001:db8::1]:81/a"),
        (Keying(sorts=True), b"http://a/?b=2&a=1&b=1", b"http://a/?a=1&b=2&b=1"),
        (Keying(sorts=True), b"http://a/?ab=1&a=2", b"http://a/?a=2&ab=1"),
        (Keying(sorts=True), b"http://a/?b&a#c?d&a", b"http://a/?a&b#c?d&a"),
        (Keying(sorts=True), b"http://a/#c?d&a", b"http://a/#c?d&a"),
        (Keying(sorts=True), b"http://a/?", b"http://a/?"),
        (Keying(strips=["utm_*"]), b"http://a/?utm_x=1&b=utm_&utm_", b"http://a/?b=utm_"),
        (Keying(strips=["utm_*", "s"]), b"http://a/?utm_x=1&s=2", b"http://a/"),
        (Keying(strips=["utm_*", "s"]), b"http://a/?S=2&%75tm_x&ss", b"http://a/?S=2&%75tm_x&ss"),
        (Keying(strips=["*"]), b"http://a/x?&a", b"http://a/x"),
        (Keying("b", True, ["x"]), b"http://a:81/?z=?&x=1&y=1", b"http://b:81/?y=1&z=?"),
    ],
)
def test_keys_are_urls(keying: Keying, url: bytes, key: bytes):
    made = keying.key_of(parse_absolute(url))
    assert made.key == key
    again = parse_absolute(key)
    assert (made.host, made.port, made.path, made.authority, made.scheme) == (
        again.host, again.port, again.path, again.authority, again.scheme,
    )  # fmt: skip


def test_what_names_a_user_is_left_alone():
    url = parse_absolute(b"http://me:pw@cdn1.x/?b&a")
    assert Keying("cdn.x", True).key_of(url) is url


def test_what_is_its_own_key_stays_itself():
    url = parse_absolute(b"http://cdn.x/?a&b")
    assert Keying("cdn.x", True, ["c"]).key_of(url) is url


def test_what_is_plain_at_a_glance_is_so():
    keying = Keying("cdn.x", True)
    assert keying.leaves(b"cdn.x", b"/a")
    assert not keying.leaves(b"cdn1.x", b"/a")
    assert not keying.leaves(b"cdn.x", b"/a?b")


def test_a_name_of_a_parameter_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="parameter"):
        Keying(strips=[""])


keyings = st.builds(
    Keying, st.sampled_from(["", "b.x"]), st.booleans(), st.lists(st.sampled_from(["a", "?", "a*", "*b", ""]).filter(bool))
)
paths = st.text("ab=&?#/%", max_size=12).map(lambda text: b"/" + text.encode())


@given(keyings, paths, st.sampled_from([b"a.x", b"b.x", b"a.x:81"]))
def test_the_key_of_a_key_is_the_key_and_canonical(keying: Keying, path: bytes, host: bytes):
    try:
        key = keying.key_of(parse_origin(path, host))
    except BadRequest:
        return
    assert keying.key_of(key).key == key.key
    assert parse_absolute(key.key).key == key.key
    if keying.leaves(host.partition(b":")[0], path):
        assert key.key == b"http://" + host + path
