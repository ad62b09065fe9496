"""Rates and series from counters."""

from __future__ import annotations

import pytest

from cachelb.admin.history import FARM_SERIES, KEPT_S, SERIES, STEP_S, History, NodeRows, Sample, quantile_ms
from cachelb.counters import (
    BLOCK_BYTES,
    FARM,
    FARM_INDEX,
    FIRST_BYTE_TIME,
    NODE_INDEX,
    NODE_WIDTH,
    TOTAL_TIME,
    node_offset,
    note_time,
)


def node(seconds: tuple[float, ...] = (), **counts: int) -> list[int]:
    values = [0] * NODE_WIDTH
    for name, count in counts.items():
        values[NODE_INDEX[name]] = count
    for took in seconds:
        note_time(values, TOTAL_TIME, took)
    return values


def farm(**counts: int) -> list[int]:
    values = [0] * len(FARM)
    for name, count in counts.items():
        values[FARM_INDEX[name]] = count
    return values


def test_before_there_are_two_samples_there_are_no_rates():
    history = History()
    assert history.rates()["requests_per_s"] == history.rates("a")["requests_per_s"] == 0
    history.take(Sample(1.0, 1.0, farm(requests=5), {"a": node(requests=5)}))
    assert history.rates("a")["window_s"] == 0
    assert history.rates()["hit_ratio"] is None


def test_rates_are_what_has_grown_by_the_time_it_took():
    history = History()
    old = {"a": node(requests=100, hits=50, misses=50)}
    history.take(Sample(1.0, 1.0, farm(requests=100, ended_reset=1), old, {"icp_hit": 1}))
    new = farm(requests=300, ended_reset=3, bytes_out=4096, bypassed=20)
    history.take(Sample(3.0, 3.0, new, {"a": node((0.01,) * 9, requests=200, hits=130, misses=70, bytes=2048)}, {"icp_hit": 21}))
    assert history.rates("a") | {"p50_ms": 0, "p99_ms": 0} == {
        "window_s": 2.0, "requests_per_s": 50.0, "hits_per_s": 40.0, "hit_ratio": 0.8, "bytes_per_s": 1024.0, "errors_per_s": 0.0,
        "p50_ms": 0, "p99_ms": 0, "first_byte_p50_ms": None, "first_byte_p99_ms": None,
    }  # fmt: skip
    rates = history.rates()
    assert (rates["requests_per_s"], rates["errors_per_s"], rates["bytes_per_s"]) == (100.0, 1.0, 2048.0)
    assert (rates["bypassed_per_s"], rates["icp_per_s"], rates["hit_ratio"]) == (10.0, 10.0, 0.8)
    assert rates["p50_ms"] == pytest.approx(10, rel=0.4)


def test_a_node_that_is_new_has_no_rates_yet_and_one_that_is_gone_none_any_more():
    history = History()
    history.take(Sample(1.0, 1.0, farm(), {"a": node(requests=5)}))
    history.take(Sample(2.0, 2.0, farm(), {"b": node(requests=5)}))
    assert history.rates("a")["requests_per_s"] == history.rates("b")["requests_per_s"] == 0


def test_counters_that_went_back_count_nothing():
    history = History()
    history.take(Sample(1.0, 1.0, farm(requests=50), {"a": node(requests=50)}))
    history.take(Sample(2.0, 2.0, farm(requests=3), {"a": node(requests=3)}))
    assert history.rates()["requests_per_s"] == history.rates("a")["requests_per_s"] == 0


@pytest.mark.parametrize("took", [0.00005, 0.0003, 0.004, 0.05, 1.0, 30.0])
def test_quantiles_are_within_the_bucket(took: float):
    values = node((took,) * 100)
    for part in (0.01, 0.5, 0.99):
        found = quantile_ms(values, TOTAL_TIME, part)
        assert found is not None
        assert 0.5 <= found / (took * 1000) <= 2.0
    assert quantile_ms(values, FIRST_BYTE_TIME, 0.5) is None


def test_quantiles_tell_the_slow_ones_apart():
    values = node((0.001,) * 98 + (1.0,) * 2)
    assert quantile_ms(values, TOTAL_TIME, 0.5) < 2  # type: ignore[operator]
    assert quantile_ms(values, TOTAL_TIME, 0.99) > 500  # type: ignore[operator]


def test_a_time_beyond_the_last_bucket_is_counted():
    assert quantile_ms(node((1e6,)), TOTAL_TIME, 0.5) >= 67_000  # type: ignore[operator]


def run(seconds: int) -> History:
    history = History()
    for second in range(seconds + 1):
        values = {"a": node(requests=10 * second, ended=10 * second - 2, hits=second, misses=second)}
        history.take(Sample(float(second), 1e9 + second, farm(requests=10 * second), values))
    return history


def test_there_is_a_point_for_each_step_and_no_more_than_are_kept():
    found = run(20).as_dict(KEPT_S, ["a"])
    assert found["at"] == [1e9 + 5, 1e9 + 10, 1e9 + 15, 1e9 + 20]
    assert found["farm"]["requests_per_s"] == [10.0] * 4
    assert found["nodes"]["a"]["hit_ratio"] == [0.5] * 4
    assert found["nodes"]["a"]["in_flight"] == [2] * 4
    assert set(found["farm"]) == set(FARM_SERIES)
    assert set(found["nodes"]["a"]) == set(SERIES)
    assert len(run(int(KEPT_S) + 100).as_dict(KEPT_S, [])["at"]) == KEPT_S / STEP_S
    assert run(20).as_dict(10, ["a"])["at"] == [1e9 + 15, 1e9 + 20]


def test_where_a_node_was_not_there_nothing_is_known():
    history = run(10)
    history.take(Sample(15.0, 1e9 + 15, farm(), {"b": node()}))
    history.take(Sample(20.0, 1e9 + 20, farm(), {"b": node()}))
    found = history.as_dict(KEPT_S, ["a", "b"])["nodes"]
    assert found["a"]["requests_per_s"] == [10.0, 10.0, None, None]
    assert found["b"]["requests_per_s"] == [None, None, None, 0.0]


def test_rows_are_of_the_moment_when_they_were_noted_whenever_they_are_read():
    block = memoryview(bytearray(BLOCK_BYTES)).cast("Q")
    at = node_offset(3) + NODE_INDEX["requests"]
    block[at] = 5
    rows = NodeRows([block, block], {"a": 3, "b": 0})
    block[at] = 6
    assert rows["a"][NODE_INDEX["requests"]] == 2 * 5
    assert rows["b"] == [0] * NODE_WIDTH
    assert (list(rows), len(rows)) == (["a", "b"], 2)
    with pytest.raises(KeyError):
        rows["c"]
    assert dict(NodeRows([block], {})) == {}


def test_a_farm_without_workers_yet_has_rows_of_noughts():
    assert NodeRows([], {"a": 0})["a"] == [0] * NODE_WIDTH
