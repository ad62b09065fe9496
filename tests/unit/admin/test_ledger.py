"""Squid's counters for the whole farm."""

from __future__ import annotations

from cachelb.admin.ledger import Ledger, Minute, Usage, added, grown, median_s, squid_counts
from cachelb.counters import FARM, FARM_INDEX, NODE_INDEX, NODE_WIDTH, TOTAL_TIME, note_time


def minute(at: float, **counts: float) -> Minute:
    return Minute(at, dict(counts), [0] * NODE_WIDTH)


def test_minutes_are_kept_for_an_hour_and_no_more():
    ledger = Ledger()
    for second in range(0, 4000, 10):
        ledger.note(minute(float(second)))
    now = minute(4000.0)
    assert ledger.before(now, 5).at == 3720
    assert 360 <= ledger.before(now, 60).at <= 420
    assert ledger.before(minute(9000.0), 5).at == 9000
    assert len(ledger._minutes) <= 61


def test_a_young_director_averages_since_it_began():
    ledger = Ledger()
    ledger.note(minute(100.0))
    assert ledger.before(minute(130.0), 5).at == 100


def test_a_clock_that_was_put_back_begins_anew():
    ledger = Ledger()
    ledger.note(minute(1000.0))
    ledger.note(minute(10.0))
    assert ledger.before(minute(20.0), 5).at == 10


def test_medians_are_those_of_the_time_between():
    old, new = [0] * NODE_WIDTH, [0] * NODE_WIDTH
    for _ in range(1000):
        note_time(old, TOTAL_TIME, 5.0)
        note_time(new, TOTAL_TIME, 5.0)
    for _ in range(10):
        note_time(new, TOTAL_TIME, 0.01)
    assert 0.005 < median_s(Minute(0, {}, old), Minute(1, {}, new)) < 0.02
    assert median_s(Minute(0, {}, old), Minute(1, {}, old)) == 0.0
    assert sum(grown(Minute(0, {}, new), Minute(1, {}, old))) == 0


def test_counts_are_sums_over_the_farm():
    farm, nodes = [0] * len(FARM), {name: [0] * NODE_WIDTH for name in "ab"}
    values = {"requests": 9, "hits": 4, "bytes_out": 5000, "direct_connects": 2, "ended_reset": 1, "ended_client_gone": 3}
    for name, value in values.items():
        farm[FARM_INDEX[name]] = value
    for values_ in nodes.values():
        values_[NODE_INDEX["requests"]] = 3
        values_[NODE_INDEX["resets"]] = 1
    found = squid_counts(farm, added(nodes, NODE_WIDTH), {"icp_hit": 2, "icp_miss": 3, "icp_received": 7}, Usage(1.5, 2), 60.0)
    assert (found["client_http.requests"], found["client_http.hits"], found["client_http.errors"]) == (9, 4, 1)
    assert (found["server.all.requests"], found["server.all.errors"], found["client_http.kbytes_out"]) == (8, 2, 4)
    assert (found["icp.queries_recv"], found["icp.replies_sent"], found["icp.pkts_recv"]) == (5, 5, 7)
    assert (found["cpu_time"], found["page_faults"], found["wall_time"], found["aborted_requests"]) == (1.5, 2, 60.0, 3)


def test_no_nodes_add_up_to_nothing():
    assert added({}, 3) == [0, 0, 0]
