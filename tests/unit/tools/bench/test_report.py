from __future__ import annotations

import io
import json

from cachelb.tools.bench.load import SCENARIOS, Answers
from cachelb.tools.bench.measure import Run, figures
from cachelb.tools.bench.report import Progress, as_json, steps_table, table
from cachelb.tools.bench.steps import StepTime

GOOD = Run(11.456, Answers(1000, 987.6, "635.00us", "1.2ms", 0, ""))
BAD = Run(None, Answers(0, 0.0, "-", "-", 4, "connect 32, read 0, write 0, timeout 0"))


def test_a_table_has_a_line_per_front_end_with_its_notes():
    text = table(SCENARIOS["small"], "haproxy", {"haproxy": figures([GOOD], [GOOD]), "squid": figures([BAD], [GOOD])})
    assert text.splitlines() == [
        "small: 400 bytes, 32 connections",
        "  front      us/request  vs haproxy  requests/s       p50       p99  notes",
        "  haproxy         11.46        1.00         988  635.00us     1.2ms",
        "  squid               -           -           0         -         -  no request was answered; 4 bad answers; "
        "connect 32, read 0, write 0, timeout 0",
    ]


def test_json_has_figures_and_runs_and_no_nan():
    value = as_json("haproxy", {"squid": figures([GOOD, BAD], None)}, {"squid": [GOOD, BAD]})
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["squid"]["us"] == 11.456
    assert value["squid"]["vs_haproxy"] is None
    assert [item["us"] for item in value["squid"]["runs"]] == [11.456, None]
    assert value["squid"]["runs"][0]["requests"] == 1000


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
        progress = Progress(2, stream)
        progress.step("one")
        progress.step("two")
        progress.clear()
    assert "[1/2] one" in terminal.getvalue()
    assert terminal.getvalue().endswith("[2/2] two\r\x1b[K")
    assert pipe.getvalue() == ""
