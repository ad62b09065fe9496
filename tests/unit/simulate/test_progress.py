from __future__ import annotations

import io

import pytest

from cachelb.simulate import progress
from cachelb.simulate.progress import Progress, render


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_says_how_much_how_fast_and_how_long():
    line = render("reading", 250, 1000, 5_000_000, "lines", 30.0)
    assert line == "reading [#####...............]  25%  5.0 M lines, 10.0 M a minute, 90 s left"
    assert len(line) <= 79


def test_a_pipe_has_no_end_to_wait_for():
    assert render("reading", 250, 0, 5_000_000, "lines", 30.0) == "reading: 5.0 M lines, 10.0 M a minute"


def test_long_waits_are_minutes_and_none_is_promised_at_once():
    assert render("reading", 20, 1000, 1, "lines", 60.0).endswith("49 min left")
    assert "left" not in render("reading", 5, 1000, 1, "lines", 60.0)
    assert render("reading", 0, 10, 0, "lines", 0.0).endswith("0.0 M a minute")


def test_nothing_is_shown_where_nobody_looks():
    stream = io.StringIO()
    shown = Progress("reading", 10, stream)
    shown._told = 0.0
    shown.at(5, 1, "lines")
    shown.end()
    assert stream.getvalue() == ""


def test_it_is_shown_now_and_then_and_removed(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = Terminal()
    shown = Progress("reading", 10, stream)
    for _ in range(100):
        now[0] += 0.01
        shown.at(5, 1, "lines")
    assert 4 <= stream.getvalue().count("\r") <= 5
    shown.end()
    last = stream.getvalue().split("\r")[-2:]
    assert last[0].strip() == ""
    assert len(last[0]) >= len(render("reading", 5, 10, 1, "lines", 1.0))
