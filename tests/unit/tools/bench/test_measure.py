from __future__ import annotations

import pytest
from cachelb.tools.bench.load import Answers
from cachelb.tools.bench.measure import Run, busy_s, figures, measure

STAT = """cpu  999 9 9 9 9 9 9 9 9 9
cpu0 100 20 300 4000 500 6 70 8 1000 0
cpu1 1 1 1 1 1 1 1 1 0 0
intr 1 2 3
"""


def answers(requests: int = 100, bad: int = 0, errors: str = "") -> Answers:
    return Answers(requests, float(requests), "1ms", "2ms", bad, errors)


def run(us: float | None, **kinds) -> Run:
    return Run(us, answers(**kinds))


def test_busy_time_is_all_but_idle_iowait_and_guest():
    assert busy_s(STAT, 0, 100) == pytest.approx((100 + 20 + 300 + 6 + 70 + 8) / 100)
    assert busy_s(STAT, 1, 100) == pytest.approx(0.06)


def test_a_missing_cpu_is_said():
    with pytest.raises(LookupError, match="cpu7"):
        busy_s(STAT, 7, 100)


def test_a_request_costs_what_the_clock_has_advanced_divided_by_requests():
    times = iter([10.0, 10.5])
    assert measure(lambda: answers(50_000), lambda: next(times)).us == pytest.approx(10.0)


def test_a_run_without_requests_has_no_cost():
    times = iter([10.0, 10.5])
    assert measure(lambda: answers(0), lambda: next(times)).us is None


def test_cost_is_the_median_and_ratio_the_median_of_rounds():
    ours, base = [run(20.0), run(90.0), run(30.0)], [run(10.0), run(60.0), run(10.0)]
    sums = figures(ours, base)
    assert (sums.us, sums.ratio, sums.middle) == (30.0, 2.0, ours[2])  # not 30 / 10, the ratio of the medians


def test_the_base_has_ratio_one():
    base = [run(10.0), run(60.0)]
    assert figures(base, base).ratio == 1.0


def test_rounds_without_requests_are_left_out_but_their_notes_are_not():
    sums = figures([run(None, bad=3, errors="timeout 1"), run(20.0, errors="timeout 1")], [run(10.0), run(10.0)])
    assert (sums.us, sums.ratio, sums.bad, sums.errors) == (20.0, 2.0, 3, ("timeout 1",))


def test_without_any_request_there_are_no_figures():
    sums = figures([run(None)], [run(10.0)])
    assert (sums.us, sums.ratio, sums.middle.us) == (None, None, None)


def test_without_a_base_there_is_no_ratio():
    assert figures([run(10.0)], None).ratio is None
