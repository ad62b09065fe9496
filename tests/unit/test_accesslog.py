"""Access log lines: Squid's own lines as the truth, and nothing from outside leaves its column."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.accesslog import LINE_BYTES, Entry, SquidLines, escape_quoted, escape_url, formatter, visible_url

PLAIN = Entry(
    at=1795229565.1234,
    elapsed_ms=12,
    client="10.0.0.17",
    outcome="TCP_MISS",
    status=200,
    bytes_out=4325,
    method=b"GET",
    url=b"http://www.a.com/images/obj.gif?x=1",
    hierarchy="CARP",
    peer="cache2",
    content_type=b"image/gif",
    referer=b"http://www.a.com/",
    user_agent=b"Mozilla/5.0 (X11; Linux)",
    request_id="1f-ab-3",
    reason="done",
)
SQUID = formatter("squid")
COMBINED = formatter("combined")
JSON = formatter("json")

# What Squid 5.7 wrote with "access_log stdio:FILE squid" for an origin on 127.0.0.1 that answered
# "Content-Type: text/html; charset=utf-8"; and for a request line that it refused.
SQUID_WROTE = [
    (
        PLAIN._replace(
            at=1795231881.970,
            elapsed_ms=0,
            client="127.0.0.1",
            bytes_out=229,
            url=b"http://127.0.0.1:18932/~user/a|b'c^d`e{f}[g]h\\i<j>k\"l%zz%20m;n#frag",
            hierarchy="HIER_DIRECT",
            peer="127.0.0.1",
            content_type=b"text/html; charset=utf-8",
        ),
        b"1795231881.970      0 127.0.0.1 TCP_MISS/200 229 GET "
        b"http://127.0.0.1:18932/~user/a|b'c^d`e{f}[g]h\\i<j>k\"l%zz%20m;n#frag - HIER_DIRECT/127.0.0.1 text/html\n",
    ),
    (
        PLAIN._replace(
            at=1795231881.971,
            elapsed_ms=0,
            client="127.0.0.1",
            outcome="NONE_NONE",
            status=400,
            bytes_out=3580,
            url=b"garbage",
            hierarchy="HIER_NONE",
            peer="-",
            content_type=b"text/html;charset=utf-8",
        ),
        b"1795231881.971      0 127.0.0.1 NONE_NONE/400 3580 GET garbage - HIER_NONE/- text/html\n",
    ),
]


@pytest.mark.parametrize(("entry", "line"), SQUID_WROTE)
def test_squid_lines_are_what_squid_itself_wrote(entry: Entry, line: bytes) -> None:
    assert SQUID(entry) == line


def test_elapsed_time_is_padded_to_six_columns_and_may_be_wider() -> None:
    assert b".123     12 10.0.0.17 " in SQUID(PLAIN)
    assert b".123 86400000 10.0.0.17 " in SQUID(PLAIN._replace(elapsed_ms=86_400_000))


def test_an_exchange_without_an_answer_has_status_000_and_dashes() -> None:
    entry = PLAIN._replace(outcome="NONE_NONE", status=0, bytes_out=0, method=b"", url=b"", peer="", content_type=b"")
    assert SQUID(entry) == b"1795229565.123     12 10.0.0.17 NONE_NONE/000 0 - - - CARP/- -\n"
    assert b'"- - HTTP/1.1" 000 - "' in COMBINED(entry)
    assert json.loads(JSON(entry))["status"] == 0


def test_combined_is_apaches_format_in_utc() -> None:
    assert COMBINED(PLAIN) == (
        b'10.0.0.17 - - [21/Nov/2026:02:52:45 +0000] "GET http://www.a.com/images/obj.gif?x=1 HTTP/1.1" 200 4325 '
        b'"http://www.a.com/" "Mozilla/5.0 (X11; Linux)"\n'
    )


def test_combined_escapes_quotes_backslashes_and_control_bytes_as_apache_does() -> None:
    entry = PLAIN._replace(user_agent=b'Mo"zil\\la\tta\x1b[1m \xff', referer=b"x\r\ny", url=b'http://a/"\\ \n')
    line = COMBINED(entry)
    assert line.endswith(rb'"x\r\ny" "Mo\"zil\\la\tta\x1b[1m \xff"' + b"\n")
    assert rb'"GET http://a/\"\\%20%0A HTTP/1.1"' in line


def test_json_has_every_field_and_keeps_every_byte() -> None:
    every_byte = bytes(range(256))
    record = json.loads(JSON(PLAIN._replace(user_agent=every_byte)))
    assert record.pop("user_agent").encode("latin-1") == every_byte
    assert record == {
        "time": "2026-11-21T02:52:45.123Z",
        "elapsed_ms": 12,
        "client": "10.0.0.17",
        "outcome": "TCP_MISS",
        "status": 200,
        "bytes_out": 4325,
        "method": "GET",
        "url": "http://www.a.com/images/obj.gif?x=1",
        "hierarchy": "CARP",
        "peer": "cache2",
        "content_type": "image/gif",
        "referer": "http://www.a.com/",
        "request_id": "1f-ab-3",
        "reason": "done",
    }


def test_every_month_has_its_english_name() -> None:
    months = {COMBINED(PLAIN._replace(at=1767225600.0 + day * 86400)).split(b"/")[1] for day in range(365)}
    assert months == set(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split())


SQUID_COLUMNS = re.compile(rb"\d+\.\d{3} +\d+ [!-~]+ [A-Z_]+/\d{3} \d+ [!-~]+ [!-~]+ - [A-Z_]+/[!-~]+ [!-~]+\n")
COMBINED_COLUMNS = re.compile(
    rb'[!-~]+ - - \[[^]]+\] "(?:[!#-\[\]-~]|\\.)+ (?:[!#-\[\]-~]|\\.)+ HTTP/1\.1" \d{3} (?:\d+|-) '
    rb'"(?:[ !#-\[\]-~]|\\.)+" "(?:[ !#-\[\]-~]|\\.)+"\n'
)
foreign = st.binary(max_size=30) | st.text(' "\\\n\r%x', max_size=8).map(str.encode)


@given(method=foreign, url=foreign, mime=foreign, referer=foreign, agent=foreign, peer=st.text(max_size=10))
def test_nothing_from_outside_leaves_its_column(
    method: bytes, url: bytes, mime: bytes, referer: bytes, agent: bytes, peer: str
) -> None:
    entry = PLAIN._replace(method=method, url=url, content_type=mime, referer=referer, user_agent=agent, peer=peer)
    assert SQUID_COLUMNS.fullmatch(SQUID(entry))
    assert COMBINED_COLUMNS.fullmatch(COMBINED(entry))
    line = JSON(entry)
    assert line.count(b"\n") == 1
    assert json.loads(line)["url"].encode("latin-1") == url


@given(st.binary())
def test_the_escapes_change_nothing_that_is_harmless_and_everything_else(text: bytes) -> None:
    """The slow twin of the ``translate`` checks: byte by byte."""
    url = b"".join(bytes([c]) if 0x20 < c < 0x7F else b"%%%02X" % c for c in text)
    assert escape_url(text) == (url or b"-")
    short = {8: b"b", 10: b"n", 13: b"r", 9: b"t", 11: b"v", 34: b'"', 92: b"\\"}
    quoted = b"".join(
        b"\\" + short[c] if c in short else bytes([c]) if 0x20 <= c < 0x7F else b"\\x%02x" % c for c in text
    )
    assert escape_quoted(text) == (quoted or b"-")


def test_a_line_that_is_put_has_the_time_of_the_latest_stamp() -> None:
    lines = SquidLines()
    for at in (PLAIN.at, PLAIN.at + 0.0001, PLAIN.at + 7.5):
        lines.stamp(at)
        put = lines.put(12, "10.0.0.17", "TCP_MISS", 200, 4325, b"GET", PLAIN.url, "CARP", "cache2", b"image/gif")
        assert put == SQUID(PLAIN._replace(at=at))


@given(st.binary(max_size=40))
def test_a_visible_url_is_the_same_object_and_another_one_is_escaped(text: bytes) -> None:
    assert visible_url(text) == escape_url(text)
    assert (visible_url(text) is text) == (bool(text) and escape_url(text) == text)


@pytest.mark.parametrize("form", [SQUID, COMBINED, JSON])
def test_a_line_never_exceeds_its_limit(form) -> None:  # type: ignore[no-untyped-def]
    long = b"\xff" * 65536
    entry = PLAIN._replace(
        method=long, url=long, referer=long, user_agent=long, content_type=long, peer="\u20ac" * 9999
    )
    line = form(entry)
    assert len(line) <= LINE_BYTES
    assert b"..." in line
    assert line.count(b"\n") == 1


def test_a_long_url_that_fits_is_written_whole() -> None:
    url = b"http://a/" + b"x" * 32768
    assert url in SQUID(PLAIN._replace(url=url))
