"""Whatever the target, a URL is refused with BadRequest or canonical: reading its key again changes nothing."""

from __future__ import annotations

import random
import re

from mutate import mutate

from cachelb.errors import BadRequest, Reason
from cachelb.http import url as url_module
from cachelb.http.url import Url, parse_absolute, parse_authority, parse_origin
from cachelb.http.usual_line import line_parts

TARGETS = [
    b"http://www.a.com/x/y?z#f",
    b"HTTP://A.com:80",
    b"https://u:p@b_c.d:8443/",
    b"http://[::1]:81/x",
    b"ftp://u@a/x",
    b"http://127.0.0.1:8080/",
    b"http://a.com.:/?q",
    b"http://[::ffff:10.0.0.1]/",
    b"foo://x:1/",
]
NASTY = [
    b"@",
    b":",
    b"/",
    b"//",
    b"?",
    b"#",
    b"[",
    b"]",
    b"\\",
    b".",
    b"..",
    b"%41",
    b"%",
    b"0x7f",
    b"127.1",
    b"0",
    b"80",
    b"99999",
    b"\xc3\xa9",
    b"\xff",
    b";",
    b",",
    b"[::]",
    b"a" * 300,
    b"-",
    b"_",
    b"http://",
]
HOST = re.compile(rb"[0-9a-z._-]+|[0-9a-f:]+")


def parts(url: Url) -> tuple[object, ...]:
    return url.scheme, url.host, url.port, url.path, url.authority, url.userinfo, url.segment


def make(chance: random.Random) -> bytes:
    return mutate(chance, TARGETS, NASTY)


def check(target: bytes) -> str:
    line = b"GET " + target + b" HTTP/1.1"
    assert line_parts(line) == url_module._by_pattern(line)
    try:
        url = parse_absolute(target)
    except BadRequest as problem:
        assert problem.reason is Reason.BAD_URL
        return "refused"
    assert HOST.fullmatch(url.host)
    assert url.path.startswith(b"/")
    assert target.endswith(url.path.lstrip(b"/"))
    assert url.key.startswith(url.scheme + b"://")
    again = parse_absolute(url.key)
    assert again.key == url.key
    if url.scheme in (b"http", b"https"):
        assert b"@" not in url.key[: -len(url.path)]
        assert parts(again)[:5] == parts(url)[:5]
    else:
        assert parts(again) == parts(url)
    if url.port:
        host = b"[%b]" % url.host if b":" in url.host else url.host
        assert parse_authority(b"%b:%d" % (host, url.port)) == (url.host, url.port)
    if url.scheme == b"http":
        assert parts(parse_origin(url.path, url.authority))[1:5] == parts(url)[1:5]
    return url.scheme.decode() if url.scheme in (b"http", b"https", b"ftp") else "another scheme"
