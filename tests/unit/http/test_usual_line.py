"""What is read byte by byte of a first line is what the pattern makes of it; whatever is not usual is left to others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.http import url
from cachelb.http.usual_line import UNUSUAL, line_parts

LINE = b"GET http://www.a-b.example.com/x/y?z#f HTTP/1.1"


@pytest.mark.parametrize(
    "line",
    [
        LINE,
        b"HEAD http://a/ HTTP/1.1",
        b"GET http://a.b9/\xff\x80 HTTP/1.1",
        b"GET http://" + b"a" * 255 + b"/ HTTP/1.1",
        b"GET http://1.a_/ HTTP/1.1",
    ],
)
def test_usual_lines_are_read(line: bytes) -> None:
    method, target, host, path = line_parts(line)
    assert (method, target, host, path) == url._by_pattern(line)
    assert line == method + b" " + target + b" HTTP/1.1"
    assert target == b"http://" + host + path


@pytest.mark.parametrize(
    "line",
    [
        *(LINE[:cut] for cut in range(len(LINE))),
        *(LINE[:at] + byte + LINE[at:] for at in range(len(LINE)) for byte in (b" ", b"\x00", b"\x7f", b"\t")),
        b"GET http://" + b"a" * 256 + b"/ HTTP/1.1",
        b"GET http://a..b/ HTTP/1.1",
        b"GET http://.a/ HTTP/1.1",
        b"GET http://a./ HTTP/1.1",
        b"GET http:/// HTTP/1.1",
        b"GET http://A/ HTTP/1.1",
        b"GET http://a:80/ HTTP/1.1",
        b"GET http://u@a/ HTTP/1.1",
        b"GET http://127.1/ HTTP/1.1",
        b"GET http://a.-b/ HTTP/1.1",
        b"GET http://a HTTP/1.1",
        b"GET http://a?x HTTP/1.1",
        b"GET http://a/ HTTP/1.0",
        b"POST http://a/ HTTP/1.1",
        b"get http://a/ HTTP/1.1",
        b"GET https://a/ HTTP/1.1",
    ],
)
def test_all_other_lines_are_left_to_others(line: bytes) -> None:
    assert line_parts(line) == UNUSUAL
    assert url._by_pattern(line) == UNUSUAL


@given(st.binary(max_size=12), st.binary(max_size=12), st.integers(0, len(LINE)))
def test_whatever_the_line_both_ways_agree(host: bytes, path: bytes, at: int) -> None:
    for line in (b"GET http://" + host + b"/" + path + b" HTTP/1.1", LINE[:at] + host + LINE[at:]):
        assert line_parts(line) == url._by_pattern(line)


@given(st.text("ab9-_.", max_size=9), st.text("/?#.%\x7f \xe9", max_size=5))
def test_hosts_of_all_kinds_are_judged_alike(host: str, path: str) -> None:
    line = b"GET http://" + host.encode() + path.encode("latin-1") + b" HTTP/1.1"
    assert line_parts(line) == url._by_pattern(line)
