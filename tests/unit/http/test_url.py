"""Canonical URLs: Squid's, and refusals where readers could differ about the host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.errors import BadRequest, Reason
from cachelb.http.url import Url, canonical, is_authority, parse_absolute, parse_authority, parse_origin

# From Squid itself (Debian 12, 5.7-2+deb12u6): each target sent in a GET, the key read from the access log's %ru with
# strip_query_terms off.  To make them again: a squid.conf with "logformat u %>Hs %ru", no DNS, one request per line.
SQUID = [
    (b"HTTP://ExAmPle.invalid:80/A%41?x=Y#frag", b"http://example.invalid/A%41?x=Y#frag"),
    (b"http://a.invalid?x=1", b"http://a.invalid/?x=1"),
    (b"http://a.invalid#f", b"http://a.invalid/#f"),
    (b"http://a.invalid", b"http://a.invalid/"),
    (b"http://a.invalid./x", b"http://a.invalid/x"),
    (b"http://a.invalid../x", b"http://a.invalid/x"),
    (b"http://user:pw@a.invalid/x", b"http://a.invalid/x"),
    (b"http://@a.invalid/x", b"http://a.invalid/x"),
    (b"http://a.invalid:080/x", b"http://a.invalid/x"),
    (b"http://[::1]:9/x", b"http://[::1]:9/x"),
    (b"http://[0:0:0:0:0:0:0:1]:9/x", b"http://[::1]:9/x"),
    (b"http://[::FFFF:127.0.0.1]:9/x", b"http://127.0.0.1:9/x"),
    (b"http://127.0.0.1.:9/x", b"http://127.0.0.1:9/x"),
    (b"http://a_b.invalid/x", b"http://a_b.invalid/x"),
    (b"http://-a.invalid/", b"http://-a.invalid/"),
    (b"http://a.invalid/\xc3\xa9", b"http://a.invalid/\xc3\xa9"),
    (b"http://a.invalid//x", b"http://a.invalid//x"),
    (b"http://a.invalid/../x", b"http://a.invalid/../x"),
    (b"ftp://u:p@a.invalid/x", b"ftp://u:p@a.invalid/x"),
    (b"ftp://a.invalid:21/x", b"ftp://a.invalid/x"),
    (b"https://a.invalid:443/x", b"https://a.invalid/x"),
    (b"https://a.invalid:80/x", b"https://a.invalid:80/x"),
    (b"whois://a.invalid:43/x", b"whois://a.invalid/x"),
    (b"wais://a.invalid:210/x", b"wais://a.invalid/x"),
    (b"foo://a.invalid:99/x", b"foo://a.invalid:99/x"),
    (b"foo://a.invalid/x", b"foo://a.invalid/x"),
]
# Squid reads some of these (127.1 as 127.0.0.1, u@v@a as a, a:8x as a:8); readers differ, so we do not.
REFUSED = [
    b"http://.a.invalid/x",
    b"http://a..invalid/x",
    b"http://u@v@a.invalid/x",
    b"http://a.invalid:0/x",
    b"http://a.invalid:65536/x",
    b"http://a.invalid:123456/",
    b"http://127.1:9/x",
    b"http://0x7f000001:9/",
    b"http://1.0x/",
    b"http://127.0.0.01:9/",
    b"http://2130706433:9/",
    b"http://1.2.3.4.5/",
    b"http://256.1.1.1/",
    b"http://127.1./",
    b"http://[::1%25lo]:9/",
    b"http://[::1]x:9/",
    b"http://[::1/",
    b"http://::1/",
    b"http://[]/",
    b"http://[1.2.3.4]/",
    b"http://[::g]/",
    b"http://[[::1]]/",
    b"http://a%41.invalid/",
    b"http://a.invalid\\@b.invalid/",
    b"http://a\\b/",
    b"http://\xc3\xa9.invalid/",
    b"http:///x",
    b"http:/a.invalid/x",
    b"http:a",
    b"//a/",
    b"/x",
    b"*",
    b"",
    b"a.invalid:80",
    b"http://a.invalid:80:80/x",
    b"http://a.invalid:8x/",
    b"http://a.invalid:-1/",
    b"http://a:+80/",
    b"http://?x",
    b"://a/",
    b"1http://a/",
    b"urn:a:b",
    b"http://./",
    b"http://" + b"a" * 256 + b"/",
    b"http://u@/",
    b"http://a,b/",
    b"http://a/b@c".replace(b"/b", b"\x5c"),
]


@pytest.mark.parametrize(("target", "key"), SQUID)
def test_the_key_is_what_squid_stores_under(target: bytes, key: bytes) -> None:
    assert parse_absolute(target).key == key


@pytest.mark.parametrize("key", sorted({key for _, key in SQUID}))
def test_canonical_urls_are_left_as_they_are(key: bytes) -> None:
    assert parse_absolute(key).key == key


@pytest.mark.parametrize("target", REFUSED)
def test_what_readers_could_read_differently_is_refused(target: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_absolute(target)
    assert caught.value.reason is Reason.BAD_URL


def parts(url: Url) -> tuple[bytes, bytes, int, bytes, bytes]:
    return url.scheme, url.host, url.port, url.authority, url.path


def test_the_parts_of_a_url() -> None:
    assert parts(parse_absolute(b"http://www.a.com/i/x?y=/z")) == (
        b"http",
        b"www.a.com",
        80,
        b"www.a.com",
        b"/i/x?y=/z",
    )
    assert parts(parse_absolute(b"HTTPS://A.com:8443")) == (b"https", b"a.com", 8443, b"a.com:8443", b"/")
    assert parts(parse_absolute(b"http://[FE80::1]:81/")) == (b"http", b"fe80::1", 81, b"[fe80::1]:81", b"/")
    assert parts(parse_absolute(b"http://a.com:/x")) == (b"http", b"a.com", 80, b"a.com", b"/x")
    assert parts(parse_absolute(b"foo://a.com/x")) == (b"foo", b"a.com", 0, b"a.com", b"/x")
    assert repr(parse_absolute(b"http://a/")) == "Url(b'http://a/')"


@pytest.mark.parametrize(
    ("path", "segment"),
    [
        (b"/", b"a.com/"),
        (b"/x.html", b"a.com/"),
        (b"/images/", b"a.com/images/"),
        (b"/images/a/b", b"a.com/images/"),
        (b"/x?y=/z/", b"a.com/"),
        (b"/i/x?y=/z/", b"a.com/i/"),
        (b"//x/y", b"a.com//"),
        (b"/x#/y/", b"a.com/"),
        (b"/?/", b"a.com/"),
    ],
)
def test_the_segment_is_the_authority_and_the_first_directory(path: bytes, segment: bytes) -> None:
    assert parse_absolute(b"http://a.com" + path).segment == segment
    assert parse_absolute(b"http://a.com:81" + path).segment == segment.replace(b"com", b"com:81")


def test_userinfo_is_noted_even_when_empty() -> None:
    url = parse_absolute(b"http://user:pw@a.com/x")
    assert (url.has_userinfo, url.userinfo, url.authority) == (True, b"user:pw", b"a.com")
    assert parse_absolute(b"http://@a.com/").has_userinfo
    assert not parse_absolute(b"http://a.com/@").has_userinfo
    assert not parse_absolute(b"http://a.com?u@b").has_userinfo
    assert parse_absolute(b"FTP://u@a.com:2121/x").key == b"ftp://u@a.com:2121/x"


def test_an_origin_form_takes_its_host_from_the_field() -> None:
    assert parse_origin(b"/x?y", b"a.com").key == b"http://a.com/x?y"
    assert parse_origin(b"/x", b"A.com.:80").key == b"http://a.com/x"
    assert parse_origin(b"//evil/x", b"a.com:81").key == b"http://a.com:81//evil/x"
    for target, host in (
        (b"*", b"a"),
        (b"x", b"a"),
        (b"/", b""),
        (b"/", b"u@a"),
        (b"/", b"a/b"),
        (b"/", b"a, b"),
        (b"", b"a"),
    ):
        with pytest.raises(BadRequest) as caught:
            parse_origin(target, host)
        assert caught.value.reason is Reason.BAD_URL


def test_an_authority_form_needs_a_port() -> None:
    assert parse_authority(b"A.com:443") == (b"a.com", 443)
    assert parse_authority(b"[::1]:0443") == (b"::1", 443)
    for bad in (
        b"a.com",
        b"a.com:",
        b"a.com:0",
        b"a.com:65536",
        b"u@a.com:443",
        b"a.com:443/",
        b":443",
        b"::1:443",
        b"127.1:443",
    ):
        with pytest.raises(BadRequest):
            parse_authority(bad)


def test_an_authority_is_told_from_what_is_none() -> None:
    assert is_authority(b"a.com:80")
    assert is_authority(b"[::1]")
    assert not is_authority(b"a b")


@given(st.text("aA.:/?#@[]%1x\\", max_size=12))
def test_canonicalising_twice_changes_nothing(rest: str) -> None:
    try:
        url = parse_absolute(b"http://" + rest.encode())
    except BadRequest:
        return
    again = parse_absolute(url.key)
    assert parts(again) == parts(url)
    assert again.key == url.key
    assert parts(parse_origin(url.path, url.authority)) == parts(url)


@given(st.from_regex(rb"[a-z0-9_.-]{1,12}(/[a-zA-Z/?#]{0,8})", fullmatch=True))
def test_the_short_way_and_the_general_way_agree(rest: bytes) -> None:
    results = []
    for prefix in (b"http://", b"HTTP://"):
        try:
            url = parse_absolute(prefix + rest)
            results.append((parts(url), url.key))
        except BadRequest:
            results.append(None)
    assert results[0] == results[1]


@given(
    st.sampled_from([b"http://", b"http://", b"https://", b"HTTP://"]),
    st.sampled_from([b"a.com", b"a", b"A.com", b"a..com", b"a.com.", b"1.2.3.x", b"[::1]"])
    | st.lists(
        st.integers(0, 260).map(b"%d".__mod__) | st.sampled_from([b"01", b"", b"0x1", b"256"]), min_size=3, max_size=5
    ).map(b".".join),
    st.sampled_from([b"", b":", b":0", b":80", b":080", b":81", b":8", b":800", b":65535", b":65536", b":99999", b":x"])
    | st.integers(0, 70_000).map(b":%d".__mod__),
    st.sampled_from([b"", b"/", b"/x?y", b"/x:80/\n", b"?x"]),
)
def test_the_canonical_form_is_found_in_short_as_in_general(scheme: bytes, host: bytes, port: bytes, path: bytes):
    found = []
    for read in (canonical, lambda target: parse_absolute(target).key):
        try:
            found.append(read(scheme + host + port + path))
        except BadRequest:
            found.append(b"")
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://www.a.com/x?y#z", b"http://www.a.com/x?y#z"),
        (b"HTTP://www.A.com:80/x", b"http://www.a.com/x"),
        (b"http://10.0.0.1/x", b"http://10.0.0.1/x"),
        (b"http://" + b"a" * 255 + b"/", b"http://" + b"a" * 255 + b"/"),
    ],
)
def test_the_canonical_form_alone_is_that_of_the_whole_reader(target: bytes, expected: bytes):
    assert canonical(target) == expected == parse_absolute(target).key


@pytest.mark.parametrize("target", [b"x", b"http://" + b"a" * 256 + b"/", b"http://127.1/"])
def test_what_has_no_canonical_form_is_refused(target: bytes):
    with pytest.raises(BadRequest):
        canonical(target)
