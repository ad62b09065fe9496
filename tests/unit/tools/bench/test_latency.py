from __future__ import annotations

import pytest
from cachelb.tools.bench.latency import DIRECT, Times, added, percentile, table


def times(p50_us: float, p99_us: float, per_s: float = 1000.0) -> Times:
    return Times(p50_us, p99_us, per_s, 1.0)


RUNS = {
    DIRECT: [times(100, 200), times(100, 900)],
    "haproxy": [times(200, 300), times(200, 1000)],
    "cachelb": [times(250, 350), times(250, 1050, per_s=500.0)],
}


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (0.1, 1)])
def test_percentiles_are_by_nearest_rank(percent: float, value: int):
    assert percentile(range(1, 101), percent) == value


def test_what_is_added_is_taken_inside_each_round():
    assert (added(RUNS, "haproxy", 50), added(RUNS, "haproxy", 99)) == (100, 100)  # though the nodes' own p99 moved by 700


def test_a_front_end_that_answers_too_little_is_marked():
    lines = table(0.5, 1000.0, "haproxy", RUNS).splitlines()
    assert lines[0] == "latency: 1000 requests a second, 50% of what haproxy can do"
    assert [line.split()[0] for line in lines[2:]] == [DIRECT, "haproxy", "cachelb"]
    assert "1.50" in lines[4]
    assert lines[4].endswith("only 750 answers a second")
    assert "only" not in lines[3]
