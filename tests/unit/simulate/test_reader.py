from __future__ import annotations

import pytest
from loglines import START, native

from cachelb.routing.classify import Policy
from cachelb.simulate import kinds
from cachelb.simulate.kinds import LOOK, STORE
from cachelb.simulate.reader import LINE_BYTES, SHOWN_BAD, Reader, TooManyUrlsError


def test_urls_become_numbers_and_lines_words(policy: Policy):
    reader = Reader(policy)
    found = reader.feed(
        [
            native("http://a.example/1", 10),
            native("http://a.example/2", 20, START + 1),
            native("http://a.example/1", 0, status=304),
        ]
    )
    assert list(found.urls) == [0, 1, 0]
    assert list(found.words) == [10 << 2 | STORE, 20 << 2 | STORE, LOOK]
    assert list(found.seconds) == [START, START + 1, START]
    assert reader.take_urls() == [b"http://a.example/1", b"http://a.example/2"]
    assert reader.take_urls() == []
    assert (reader.lines, reader.requests, reader.urls) == (3, 3, 2)


def test_two_forms_of_a_url_are_one(policy: Policy):
    reader = Reader(policy)
    forms = ["http://A.example:80/x", "http://a.example/x", "HTTP://a.EXAMPLE./x", "http://A.example:80/x"]
    assert list(reader.feed([native(form) for form in forms]).urls) == [0, 0, 0, 0]
    assert reader.take_urls() == [b"http://a.example/x"]


def test_what_is_not_the_farms_is_left_out_and_counted(policy: Policy):
    reader = Reader(policy)
    lines = [
        native("http://a.example/", 100, method="POST"),
        native("a.example:443", 7, method="CONNECT", tag="TCP_TUNNEL"),
        native("http://a.example:22/", 3),
        native("http://a.example:22/", 4),
        native("error:invalid-request", 5),
        native("http://a.example/", 1),
    ]
    assert list(reader.feed(lines).urls) == [0]
    assert reader.left_out == {kinds.BYPASS: 1, kinds.TUNNEL: 1, kinds.REFUSED: 2, kinds.BAD_URL: 1}
    assert reader.bytes_left_out == 119
    assert (reader.lines, reader.requests, reader.bad) == (6, 1, 0)


def test_bad_lines_are_counted_and_the_first_are_kept(policy: Policy):
    reader = Reader(policy)
    lines = [b"x" * 1000, b"", b"\r", b"2", native("http://a.example/"), b"3", b"4"]
    assert len(reader.feed(lines).urls) == 1
    assert reader.bad == 4
    assert reader.lines == 5
    assert reader.shown == [b"x" * 200, b"2", b"3"]
    assert len(reader.shown) == SHOWN_BAD


def test_lines_that_end_in_crlf_are_lines(policy: Policy):
    reader = Reader(policy)
    combined = b'10.0.0.9 - - [20/Nov/2026:04:21:17 +0000] "GET http://a.example/b HTTP/1.1" 200 4321 "-" "-"\r'
    assert len(reader.feed([native("http://a.example/b") + b"\r", combined]).urls) == 2
    assert reader.urls == 1


def test_a_line_that_is_too_long_is_bad(policy: Policy):
    reader = Reader(policy)
    line = b'10.0.0.9 - - [20/Nov/2026:04:21:17 +0000] "GET http://a.example/%b HTTP/1.1" 200 4321 "-" "-"' % (b"x" * LINE_BYTES)
    assert len(reader.feed([line]).urls) == 0
    assert reader.bad == 1


def test_the_number_of_urls_is_bounded(policy: Policy):
    reader = Reader(policy, urls_limit=10)
    lines = [native(f"http://a.example/{n}") for n in range(10)]
    assert len(reader.feed(lines * 2).urls) == 20
    with pytest.raises(TooManyUrlsError, match="more than 10 distinct URLs"):
        reader.feed([native("http://a.example/x")])


def test_a_sample_takes_all_requests_of_a_part_of_the_urls(policy: Policy):
    lines = [native(f"http://a.example/{n % 5000}") for n in range(10_000)]
    reader = Reader(policy, sample=0.2)
    found = reader.feed(lines)
    assert 0.17 < reader.urls / 5000 < 0.23
    assert len(found.urls) == 2 * reader.urls
    assert reader.lines == 10_000
    assert reader.skipped == 10_000 - reader.requests


def test_kinds_are_remembered_with_a_bound(policy: Policy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cachelb.simulate.reader._KINDS_LIMIT", 2)
    reader = Reader(policy)
    reader.feed([native("http://a.example/", status=status) for status in range(200, 240)])
    assert reader.requests == 40
    assert len(reader._kinds) <= 2
