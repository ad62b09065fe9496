from __future__ import annotations

import json

import pytest
from cachelb.tools.bench import icp as bench
from cachelb.tools.bench.icp import CONFIG, SCENARIOS, index, main, measure, middle, ratio, render
from cachelb.tools.bench.icp_load import Turn, queries

from icp.packet import parse_query


def test_our_index_holds_half_of_what_is_asked():
    made = index()
    assert [made.holds(parse_query(query).url) for query in queries()[:10]] == [True, False] * 5
    assert made.holdings.count() == bench.KEYS + len(queries()) // 2


def test_all_take_turns_in_every_scenario(monkeypatch: pytest.MonkeyPatch):
    turns = []

    def load(address: tuple[str, int], pid: int, seconds: float, **options: object) -> Turn:
        turns.append((pid, options))
        return Turn(float(len(turns)), 1.0, 0, 0.5)

    monkeypatch.setattr(bench, "load", load)
    results = measure({"ours": (("127.0.0.1", 1), 7), "squid": (("127.0.0.2", 1), 8)}, 2, 0.1)
    assert turns == [(pid, options) for _ in range(2) for options in SCENARIOS.values() for pid in (7, 8)]
    assert [turn.per_s for turn in results["32 under way"]["ours"]] == [1.0, 1.0 + 2 * len(SCENARIOS)]


def test_figures_are_medians_and_ratios_those_of_the_rounds():
    turns = [Turn(rate, 10 * rate, 0, 0.5) for rate in (1.0, 9.0, 5.0)]
    assert middle(turns) == Turn(5.0, 50.0, 0, 0.5)
    assert ratio([1.0, 9.0, 5.0], [1.0, 3.0, 0.5]) == 3.0
    assert ratio([1.0], [0.0]) == 0.0


def test_the_table_names_the_ratios():
    rows = {
        "ours": [Turn(200.0, 5.0, 0, 0.5, 20.0, 30.0)],
        "squid": [Turn(100.0, 10.0, 0, 0.5)],
        "silent": [Turn(400.0, 4.0, 1, 0.5)],
    }
    text = render({"32 under way": rows})
    assert "ours / squid: rate 2.00, CPU 0.50" in text
    assert "ours / silent: rate 0.50, CPU 1.25" in text


def test_the_table_says_what_garbage_costs():
    text = render({"32 under way": {"ours": [Turn(200.0, 5.0, 0, 0.5)]}, "with garbage": {"ours": [Turn(190.0, 5.5, 0, 0.5)]}})
    assert "CPU +10%" in text.splitlines()[-1]


def test_the_squids_settings_have_no_place_left_empty():
    text = CONFIG.format(
        host="127.0.4.1", http_port=1, icp_port=2, folder="/tmp/x", access_log="none", origin_host="h", origin_port=3
    )
    assert "{" not in text
    assert "icp_port 2\nudp_incoming_address 127.0.4.1\n" in text


@pytest.fixture
def _signals_stay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench.signal, "signal", lambda *_: None)


@pytest.mark.usefixtures("_signals_stay")
def test_json_is_what_was_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(bench, "_run", lambda options: {"x": {"ours": [Turn(1.0, 2.0, 0, 0.5)]}})
    assert main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["x"]["ours"][0]["cpu_us"] == 2.0


@pytest.mark.usefixtures("_signals_stay")
def test_what_cannot_run_is_a_sentence_and_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(bench, "missing", lambda programs: "squid is not installed")
    assert main([]) == 1
    assert capsys.readouterr().err == "bench: squid is not installed\n"
