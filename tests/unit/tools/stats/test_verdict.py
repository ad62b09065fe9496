"""When a farm is not well, and what is said of it."""

from typing import Any

import pytest
from cachelb.tools.stats.verdict import Verdict, judge
from fakes_stats import farm, hot, node, series, status


def kinds(verdict: Verdict) -> list[tuple[str, str, str]]:
    return [(finding.level, finding.kind, finding.node) for finding in verdict.findings]


def test_a_farm_that_is_well_is_called_so():
    verdict = judge(farm())
    assert (verdict.is_well, verdict.words(), verdict.findings) == (True, "all well", ())


SICK: list[tuple[str, str, dict[str, Any]]] = [
    ("bad", "dead", {"state": "dead"}),
    ("bad", "errors", {"rates": {"errors_per_s": 30.0}}),
    ("warn", "errors", {"rates": {"errors_per_s": 2.0}}),
    ("warn", "slow", {"rates": {"p50_ms": 90.0}}),
    ("warn", "slow", {"rates": {"p99_ms": 600.0}}),
    ("warn", "stuck", {"in_flight": 60, "rates": {"requests_per_s": 40.0}}),
    ("warn", "stuck", {"in_flight": 4, "rates": {"p50_ms": None, "p99_ms": None}}),
    ("warn", "cold", {"rates": {"hit_ratio": 0.3}, "since_s": 600.0}),
]


@pytest.mark.parametrize(("level", "kind", "fields"), SICK)
def test_a_sick_node_is_found_and_named_with_a_place_to_look(level: str, kind: str, fields: dict[str, Any]):
    verdict = judge(farm(node("a"), node("sick", **fields), node("c")))
    assert kinds(verdict) == [(level, kind, "sick")]
    assert verdict.words() == "NOT WELL: 1 problem"
    assert "sick" in verdict.findings[0].text
    assert "10.0.0.1:3128" in verdict.findings[0].look


@pytest.mark.parametrize(
    "fields",
    [
        {"rates": {"errors_per_s": 0.1}},
        {"rates": {"p50_ms": 6.5, "p99_ms": 80.0}},
        {"in_flight": 15},
        {"rates": {"requests_per_s": 2.0, "hit_ratio": 0.0}},
    ],
)
def test_what_is_chance_is_not_called_sick(fields: dict[str, Any]):
    assert judge(farm(node("a"), node("b", **fields), node("c"))).is_well


def test_what_is_slow_everywhere_is_no_nodes_fault():
    slow = {"p50_ms": 900.0, "p99_ms": 4000.0}
    assert judge(farm(*(node(name, rates=slow) for name in "abc"))).is_well


def test_a_node_alone_is_slow_by_itself():
    assert kinds(judge(farm(node("a", rates={"p50_ms": 2500.0})))) == [("warn", "slow", "a")]


def test_a_short_trouble_is_still_seen_ten_seconds_later_and_then_no_more():
    history = {"nodes": {"b": series(errors_per_s=[0.0, 0.0, 0.0, 0.0, 60.0, 0.0])}}
    assert kinds(judge(farm(history=history))) == [("bad", "errors", "b")]
    history = {"nodes": {"b": series(errors_per_s=[0.0, 0.0, 0.0, 60.0, 0.0, 0.0])}}
    assert judge(farm(history=history)).is_well


@pytest.mark.parametrize(
    ("each_s", "values"),
    [
        (0.2, {"p50_ms": [5.0] * 5 + [600.0], "p99_ms": [5.0] * 5 + [600.0]}),  # one answer
        (20.0, {"p50_ms": [5.0] * 6, "p99_ms": [9.0] * 5 + [800.0]}),  # one slow step
        (0.4, {"errors_per_s": [0.0] * 5 + [0.4]}),  # two errors
    ],
)
def test_a_little_is_chance_in_a_quiet_farm(each_s: float, values: dict[str, list[float]]):
    quiet = {"p50_ms": [5.0] * 6, "p99_ms": [9.0] * 6, "requests_per_s": [each_s] * 6}
    history = {"nodes": {name: series(**quiet) for name in "ac"} | {"b": series(**quiet | values)}}
    nodes = [node(name, rates={"requests_per_s": each_s}) for name in "abc"]
    assert judge(farm(*nodes, history=history)).is_well


def test_a_quiet_node_that_fails_for_half_a_minute_is_found():
    quiet = series(requests_per_s=[0.4] * 6, errors_per_s=[0.3] * 6)
    assert kinds(judge(farm(history={"nodes": {"b": quiet}}))) == [("bad", "errors", "b")]


def test_slow_for_two_steps_is_slow():
    slow = series(p50_ms=[5.0] * 4 + [300.0, 900.0])
    assert kinds(judge(farm(history={"nodes": {"b": slow}}))) == [("warn", "slow", "b")]


def test_a_farm_without_nodes_is_judged_too():
    found = status(rates={"retries_per_s": 30.0}) | {"nodes": []}
    assert [finding.kind for finding in judge(farm(status=found)).findings] == ["retries"]


def test_many_in_flight_because_much_is_asked_is_not_stuck():
    """A hot URL: each takes less than a second (Little's law)."""
    busy = node("b", in_flight=60, rates={"requests_per_s": 466.0})
    assert not [finding for finding in judge(farm(node("a"), busy, node("c"))).findings if finding.kind == "stuck"]


def test_a_slow_node_is_not_called_stuck_besides():
    slow = node("b", in_flight=60, rates={"requests_per_s": 40.0, "p50_ms": 900.0})
    assert kinds(judge(farm(node("a"), slow, node("c")))) == [("warn", "slow", "b")]


def test_a_node_that_comes_and_goes_is_not_well_between_two_deaths():
    def died(node_name: str, at: float, state: str = "dead") -> dict[str, Any]:
        return {"kind": "node", "node": node_name, "at": at, "level": "error", "text": "", "data": {"state": state}}

    now = status()["now"]
    twice = [died("b", now - 200), died("b", now - 150, "up"), died("b", now - 100)]
    verdict = judge(farm(events=twice))
    assert kinds(verdict) == [("warn", "unsteady", "b")]
    assert "b comes and goes: it died 2 times in the last 5 min" in verdict.words() + verdict.findings[0].text
    assert judge(farm(events=[died("b", now - 400), died("b", now - 100), died("a", now - 50)])).is_well
    assert judge(farm(node("a"), node("b", state="drain"), node("c"), events=twice)).is_well  # that was done already


def test_what_an_operator_does_is_worth_knowing_and_well():
    drained = node("b", state="drain", operator={"state": "drain"}, drain={"done": False, "eta_s": 3.0}, in_flight=2)
    verdict = judge(farm(node("a"), drained, node("c", share=0.4), node("d", state="down")))
    assert verdict.is_well
    assert [finding.text for finding in verdict.notes] == [
        "b is drained by an operator: 2 in flight, done in 3 s",
        "c is coming back: it takes 40 % of its keys",
        "d is taken down by the file",
    ]


def test_no_node_that_serves_is_bad_and_the_last_resort_is_a_warning():
    assert ("bad", "farm", "") in kinds(judge(farm(node("a", state="dead"), node("b", state="down"))))
    assert ("warn", "farm", "") in kinds(judge(farm(node("a", state="dead"), node("b", state="drain"))))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("director", {"state": "draining"}),
        ("reload", {"config": {"problems": ["line 3: what is this?"]}}),
        ("worker", {"workers": [{"number": 1, "pid": 0, "epoch": 7}]}),
        ("worker", {"workers": [{"number": 1, "pid": 3, "epoch": 2}]}),
        ("worker", {"workers": [{"number": 1, "pid": 3, "epoch": 7, "loop_lag_ms": 400.0}]}),
        ("peers", {"onecache": {"icp": {"mode": "index", "serving": False}}}),
        ("digest", {"onecache": {"digest": {"problem": "no room"}}}),
        ("errors", {"rates": {"errors_per_s": 9.0}}),
        ("bypass", {"rates": {"bypassed_per_s": 200.0}}),
        ("refused", {"rates": {"refused_per_s": 60.0}}),
        ("retries", {"rates": {"retries_per_s": 60.0}}),
    ],
)
def test_what_is_wrong_with_the_director_or_the_traffic_is_said(kind: str, fields: dict[str, Any]):
    verdict = judge(farm(status=status(**fields)))
    assert [finding.kind for finding in verdict.troubles] == [kind]


def test_retries_that_follow_from_a_failing_node_are_not_said_again():
    found = status(node("a"), node("b", rates={"errors_per_s": 50.0}), rates={"retries_per_s": 60.0})
    assert [finding.kind for finding in judge(farm(status=found)).findings] == ["errors"]


def test_figures_that_are_old_are_not_called_well():
    verdict = judge(farm(age_s=40.0, problem="nothing listens there"))
    assert not verdict.is_well
    assert "40 s old" in verdict.findings[0].text


def test_an_answer_that_is_missing_is_said():
    assert "no answer to /api/v1/hot: late" in judge(farm(missing={"hot": "late"})).findings[0].text


def test_a_hot_url_is_a_note_with_its_owner():
    verdict = judge(farm(hot=hot("http://www.test/hot", share=0.6)))
    assert verdict.is_well
    assert verdict.notes[0].text == (
        "one URL is 60 % of the requests of the last 60 s, its owner is a, hits 100 %: http://www.test/hot"
    )


def test_what_is_usual_is_not_said_beside_what_is_wrong():
    found = judge(farm(node("a"), node("b", state="dead"), hot=hot("http://www.test/hot", share=0.6)))
    assert [finding.kind for finding in found.findings] == ["dead"]


def test_a_node_that_has_just_come_may_hit_less():
    rates = {"hit_ratio": 0.3}
    assert judge(farm(node("a", rates=rates, since_s=60.0), node("b"), node("c"))).is_well
    assert not judge(farm(node("a", rates=rates, since_s=600.0), node("b"), node("c"))).is_well
    assert judge(farm(node("a", rates=rates | {"requests_per_s": 6.0}, since_s=600.0), node("b"), node("c"))).is_well


def test_nothing_is_well_before_anything_was_measured():
    at_start = status(rates={"requests_per_s": 0.0}, uptime_s=1.0) | {"farm": {"requests": 0}}
    assert judge(farm(status=at_start)).words() == "nothing wrong yet: nothing was measured so far"
    assert judge(farm(status=status(rates={"requests_per_s": 0.0}, uptime_s=60.0))).words() == "all well"
    asked = status(rates={"requests_per_s": 0.0}, uptime_s=1.0) | {"farm": {"requests": 30}}  # but none in the last second
    assert judge(farm(status=asked)).words() == "all well"


def test_clients_that_saw_nothing_of_a_failing_node_are_spoken_of():
    sick = node("a", rates={"errors_per_s": 9.0})
    spared = judge(farm(status=status(sick, node("b"), rates={"errors_per_s": 0.0, "retries_per_s": 15.0}))).findings[0]
    assert spared.text.endswith(", 15/s were tried again; clients got no errors")
    suffering = judge(farm(status=status(sick, node("b"), rates={"errors_per_s": 9.0}))).findings
    assert not any("clients got no errors" in finding.text for finding in suffering)


def test_a_node_with_more_requests_than_keys_is_a_note_with_its_hottest_url():
    found = farm(node("a", rates={"requests_per_s": 900.0}), node("b"), node("c"), hot=hot("http://www.test/x", share=0.1))
    verdict = judge(found)
    assert verdict.is_well
    assert verdict.notes[0].text == "a gets 82 % of requests with 25 % of the keys, the most for http://www.test/x"


def test_a_flood_that_goes_around_the_farm_is_said_with_its_host_and_reason():
    hosts = {
        "around_by_requests": [{"name": "api.test/v1/", "requests_share": 0.2}, {"name": "api.test/v2/", "requests_share": 0.05}],
    }
    found = status(rates={"bypassed_per_s": 200.0}, farm={"bypassed_method": 30, "bypassed_rule": 2})
    finding = judge(farm(status=found, hot=hosts)).findings[0]
    because = "mostly because they are neither GET nor HEAD; the most for api.test/v1/"
    assert finding.text == f"67 % of all requests go around the farm, {because}"


@pytest.mark.parametrize(("share", "said"), [(0.02, ""), (0.3, ", the most for http://www.test/hot")])
def test_a_node_that_gets_more_than_its_keys_is_a_note_and_a_url_is_named_if_it_explains_that(share: float, said: str):
    """The first of a node's URLs is no news: it is named when it is a good part of what is too much."""
    found = [node("a", rates={"requests_per_s": 400.0}), node("b"), node("c")]
    notes = judge(farm(*found, hot=hot("http://www.test/hot", share=share))).notes
    assert [note.text for note in notes if note.kind == "skew"] == [f"a gets 67 % of requests with 25 % of the keys{said}"]


def test_retries_name_the_node_that_most_are_for():
    found = status(node("a"), node("b", rates={"errors_per_s": 8.0}), node("c"), rates={"retries_per_s": 30.0})
    history = {"nodes": {"b": series()}}  # lately it failed nothing: only the last second is known
    finding = judge(farm(status=found, history=history)).findings[0]
    assert finding.text == "10 % of requests are tried again on another connection or node, the most for b (8.0 err/s)"
