"""What is kept of a head, and what its values are taken to say."""

from __future__ import annotations

import pytest

from cachelb.http.responsehead import ResponseHead, kept

DATA = b"HTTP/1.0 200 OK\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\nbody"
SIZE = DATA.index(b"body")
NOWHERE = (-1, 1)


def span(name: bytes) -> tuple[int, int]:
    begin = DATA.index(name + b":")
    return begin, begin + 6


@pytest.mark.parametrize(
    ("one", "other", "lines"),
    [
        (NOWHERE, NOWHERE, b"A: 1\r\nB: 2\r\nC: 3\r\n"),
        (span(b"A"), NOWHERE, b"B: 2\r\nC: 3\r\n"),
        (NOWHERE, span(b"C"), b"A: 1\r\nB: 2\r\n"),
        (span(b"A"), span(b"B"), b"C: 3\r\n"),
        (span(b"C"), span(b"A"), b"B: 2\r\n"),
        (span(b"B"), span(b"C"), b"A: 1\r\n"),
    ],
)
def test_two_lines_can_be_left_out_wherever_they_are(one: tuple[int, int], other: tuple[int, int], lines: bytes) -> None:
    assert kept(DATA, 0, SIZE, *one, *other) == b"HTTP/1.1 200 OK\r\n" + lines
    as_1_1 = DATA.replace(b"1.0", b"1.1")
    assert kept(as_1_1, 1, SIZE, *one, *other) == b"HTTP/1.1 200 OK\r\n" + lines


@pytest.mark.parametrize(
    ("status", "error", "uncacheable"),
    [(200, None, b"no-store"), (404, None, b"no-store"), (500, None, b""), (200, b"ERR_X 1", b"")],
)
def test_what_may_not_be_stored_is_told_of_an_origins_answer_only(status: int, error: bytes | None, uncacheable: bytes) -> None:
    head = ResponseHead()
    head.status, head.squid_error = status, error
    head.judge(b" no-store", None, None, b" MISS from a", None)
    assert (head.uncacheable, head.storable, head.hit) == (uncacheable, False, False)
    head.judge(b" max-age=5", None, None, None, b"a;hit")
    assert (head.uncacheable, head.storable, head.hit) == (b"", bool(uncacheable), True)
    head.judge(None, None, None, None, None)
    assert (head.storable, head.hit) == (False, None)
