from __future__ import annotations

import io
import json

from cachelb.tools.bench.load import SCENARIOS, Answers
from cachelb.tools.bench.measure import Run, figures
from cachelb.tools.bench.report import Progress, as_json, steps_table, table
from cachelb.tools.bench.steps import WARM, StepTime
from cachelb.tools.bench.tables import table_of

GOOD = Run(11.456, Answers(1000, 987.6, "635.00us", "1.2ms", 0, ""))
BAD = Run(None, Answers(0, 0.0, "-", "-", 4, "connect 32, read 0, write 0, timeout 0"))


def test_a_table_has_a_line_per_front_end_with_its_notes():
    rows = {"haproxy": figures([GOOD], [GOOD]), "squid": figures([BAD], [GOOD])}
    text = table(SCENARIOS["small"].title, "haproxy", rows, {})
    assert text.splitlines() == [
        "small: 400 bytes, 32 connections",
        "  front            us/request  vs haproxy  requests/s       p50       p99  notes",
        "  haproxy               11.46        1.00         988  635.00us     1.2ms",
        "  squid                     -           -           0         -         -  no request was answered; 4 bad answers; "
        "connect 32, read 0, write 0, timeout 0",
    ]


def test_memory_is_shown_where_it_is_asked_for():
    lines = table("urls", "first", {"cachelb, 10M": figures([GOOD], [GOOD])}, {"cachelb, 10M": 51200}).splitlines()
    assert "MiB" in lines[1]
    assert lines[2].endswith(" 50.0")


def test_json_has_figures_and_runs_and_no_nan():
    cases = table_of("small", ["squid"])
    value = as_json(cases, {"squid": figures([GOOD, BAD], None)}, {"squid": [GOOD, BAD]}, {"squid": 7})
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    squid = value["squid"]
    assert (squid["us"], squid["ratio"], squid["to"], squid["bytes"], squid["pss_kib"]) == (11.456, None, "squid", 400, 7)
    assert [item["us"] for item in squid["runs"]] == [11.456, None]
    assert squid["runs"][0]["requests"] == 1000


def test_steps_of_a_warm_request_are_added_up():
    times = [StepTime(name, None, 2.0) for name in WARM]
    assert steps_table(times).splitlines()[-1].split()[-1] == f"{2.0 * sum(WARM.values()):.2f}"


def test_steps_above_their_target_and_those_that_failed_are_marked():
    times = [
        StepTime("fast", 2.0, 1.5),
        StepTime("slow", 2.0, 2.5),
        StepTime("free", None, 9.0),
        StepTime("gone", 1.0, None, "ImportError: no"),
    ]
    lines = steps_table(times).splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["fast", "slow", "free", "gone"]
    assert ["above target" in line for line in lines] == [False, True, False, False]
    assert lines[3].endswith("ImportError: no")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_terminals_only():
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        progress = Progress(120.0, stream, iter([0.0, 6.0, 60.0]).__next__)
        progress.step("one")
        progress.step("two")
        progress.clear()
    assert "[0.1 of about 2.0 minutes] one" in terminal.getvalue()
    assert terminal.getvalue().endswith("[1.0 of about 2.0 minutes] two\r\x1b[K")
    assert pipe.getvalue() == ""
