from __future__ import annotations

import os
from array import array
from collections.abc import Callable

import pytest
from loglines import START, native

from cachelb.simulate.reader import Requests
from cachelb.simulate.trace import CHUNK, Trace


def of(trace: Trace, column: int, first: int = 0, end: int | None = None) -> list[int]:
    return [value for chunk in trace.chunks(first, end) for value in chunk[column]]


def test_what_was_added_is_read_in_chunks():
    count = CHUNK + 5
    with Trace() as trace:
        for start in range(0, count, 1000):
            some = range(start, min(count, start + 1000))
            requests = Requests(array("I", some), array("Q", (n << 34 for n in some)), array("I", (START + n for n in some)))
            trace.add(requests, [b"http://a/%d" % n for n in some])
        trace.end_log()
        trace.finish()
        assert (trace.requests, trace.urls) == (count, count)
        assert [len(chunk.urls) for chunk in trace.chunks()] == [CHUNK, 5]
        assert of(trace, 0) == list(range(count))
        assert of(trace, 1, CHUNK - 1, CHUNK + 2) == [n << 34 for n in range(CHUNK - 1, CHUNK + 2)]
        assert trace.second(CHUNK + 1) == START + CHUNK + 1
        assert list(trace.all_urls()) == [b"http://a/%d" % n for n in range(count)]


def test_urls_longer_than_a_block_come_whole():
    with Trace() as trace:
        urls = [b"http://a/" + b"x" * (1 << 20), b"http://b/", b"http://c/" + b"y" * (1 << 21)]
        trace.add(Requests(array("I", [0, 1, 2]), array("Q", [0, 0, 0]), array("I", [1, 1, 1])), urls)
        trace.end_log()
        trace.finish()
        assert list(trace.all_urls()) == urls


def log_of(word: str, seconds: list[int]) -> list[bytes]:
    return [native(f"http://{word}.example/{n}", n, START + second) for n, second in enumerate(seconds)]


def test_logs_one_after_the_other_stay_as_they_are(traced: Callable[..., Trace]):
    trace = traced(log_of("a", [0, 3, 2, 5]), log_of("b", [5, 6]))
    assert [second - START for second in of(trace, 2)] == [0, 3, 2, 5, 5, 6]
    assert of(trace, 0) == [0, 1, 2, 3, 4, 5]


def test_logs_in_the_wrong_order_are_put_right(traced: Callable[..., Trace]):
    trace = traced(log_of("b", [10, 11]), log_of("a", [0, 1]))
    assert of(trace, 0) == [2, 3, 0, 1]
    assert trace.second(0) == START


def test_logs_of_several_nodes_are_merged_by_time(traced: Callable[..., Trace]):
    trace = traced(log_of("a", [0, 2, 4]), log_of("b", [1, 3, 5]), log_of("c", [2, 2]))
    assert [second - START for second in of(trace, 2)] == [0, 1, 2, 2, 2, 3, 4, 5]
    assert of(trace, 0) == [0, 3, 1, 6, 7, 4, 2, 5]
    assert [word >> 2 for word in of(trace, 1)] == [0, 0, 1, 0, 1, 1, 2, 2]


def test_an_empty_log_is_none(traced: Callable[..., Trace]):
    trace = traced([], log_of("a", [1]), [b"bad"])
    assert trace.requests == 1


def test_nothing_is_left_behind(tmp_path: object, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Trace() as trace:
        trace.add(Requests(array("I", [0]), array("Q", [0]), array("I", [1])), [b"http://a/"])
        assert os.listdir(str(tmp_path)) == []
