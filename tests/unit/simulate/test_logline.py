from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.accesslog import Entry, formatter
from cachelb.simulate.logline import words_of

NATIVE = b"1795234877.944     12 10.0.0.9 TCP_MEM_HIT/200 4321 GET http://a.example/b?c=d - HIER_NONE/- image/png"
COMBINED = (
    b'10.0.0.9 - - [20/Nov/2026:04:21:17 +0000] "GET http://a.example/b HTTP/1.1" 200 4321 '
    b'"http://r/" "Agent \\"x\\" 1" TCP_HIT:HIER_NONE'
)


def test_squids_native_format():
    assert words_of(NATIVE) == (b"1795234877", b"TCP_MEM_HIT/200", b"4321", b"GET", b"http://a.example/b?c=d")


def test_squids_combined_format_has_a_result_code():
    assert words_of(COMBINED) == (b"1795148477", b"TCP_HIT/200", b"4321", b"GET", b"http://a.example/b")


@pytest.mark.parametrize(
    "line",
    [
        b'10.0.0.9 - - [20/Nov/2026:04:21:17 +0000] "GET http://a.example/b HTTP/1.1" 200 4321 "-" "-"',
        b'10.0.0.9 - - [20/Nov/2026:06:21:17 +0200] "GET http://a.example/b HTTP/1.1" 200 4321',
        b'10.0.0.9 - bob [19/Nov/2026:22:51:17 -0530] "GET http://a.example/b" 200 4321 "-" "-"',
    ],
)
def test_apaches_formats_and_time_zones(line: bytes):
    assert words_of(line) == (b"1795148477", b"/200", b"4321", b"GET", b"http://a.example/b")


def test_no_bytes_are_a_dash_in_combined():
    line = b'10.0.0.9 - - [20/Nov/2026:04:21:17 +0000] "HEAD http://a.example/b HTTP/1.1" 304 - "-" "-"'
    assert words_of(line) == (b"1795148477", b"/304", b"0", b"HEAD", b"http://a.example/b")


@pytest.mark.parametrize("more", [b"", b" more columns", b' "[Host: a]" [X: y]'])
def test_further_columns_do_not_matter(more: bytes):
    assert words_of(NATIVE + more) == words_of(NATIVE)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        NATIVE[4:].replace(b".", b"x", 1),
        NATIVE.replace(b"1795234877", b"9795234877"),  # the year 2280
        NATIVE.replace(b"4321", b"4_321"),
        NATIVE.replace(b"4321", b"-1"),
        NATIVE.replace(b"/200", b"/20"),
        NATIVE.replace(b"GET", b"G\0T"),
        NATIVE[: NATIVE.index(b"?c=d")],
        COMBINED.replace(b"Nov", b"Nox"),
        COMBINED.replace(b"20/Nov", b"31/Nov"),
        COMBINED.replace(b"04:21", b"24:21"),
        COMBINED.replace(b"2026", b"1926"),
        COMBINED.replace(b"200", b"2x0"),
        COMBINED.replace(b"http://a.example/b", b""),
        b'{"time":"2026-11-20T04:21:17.000Z"}',
    ],
)
def test_other_lines_are_none(line: bytes):
    assert words_of(line) is None


@pytest.mark.parametrize("line", [NATIVE, COMBINED])
def test_every_beginning_is_a_line_with_the_same_words_or_none(line: bytes):
    whole = words_of(line)
    assert whole is not None
    for end in range(len(line)):
        words = words_of(line[:end])
        # where the size is the last column, a cut one is one, too; a result code may be gone
        assert words is None or (words[0], words[3], words[4]) == (whole[0], whole[3], whole[4])
        assert words is None or whole[2].startswith(words[2])


visible = st.binary(min_size=1, max_size=40).filter(lambda text: all(0x20 < byte < 0x7F for byte in text))


@given(
    at=st.integers(0, 3_999_999_999),
    outcome=st.sampled_from(["TCP_HIT", "TCP_MISS", "TCP_REFRESH_UNMODIFIED"]),
    status=st.integers(100, 599),
    size=st.integers(1, 10**14),
    method=st.sampled_from([b"GET", b"HEAD", b"M-SEARCH"]),
    path=st.binary(max_size=60),
    agent=st.binary(max_size=60),
    content_type=visible,
)
def test_it_reads_what_the_director_writes(
    at: int, outcome: str, status: int, size: int, method: bytes, path: bytes, agent: bytes, content_type: bytes
):
    url = b"http://a.example/" + path.translate(None, b'"\\')
    entry = Entry(
        at + 0.5, 7, "10.0.0.1", outcome, status, size, method, url, "CARP", "cache1", content_type, b"", agent, "id", "ok"
    )  # fmt: skip
    words = words_of(formatter("squid")(entry).rstrip(b"\n"))
    assert words is not None
    assert (words[0], words[1], words[2], words[3]) == (b"%d" % at, f"{outcome}/{status}".encode(), b"%d" % size, method)
    line = formatter("combined")(entry).rstrip(b"\n")
    assert words_of(line) == (b"%d" % at, b"/%d" % status, b"%d" % size, method, words[4])
