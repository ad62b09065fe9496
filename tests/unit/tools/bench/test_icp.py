from __future__ import annotations

import asyncio
import json
import os
import socket
import threading

import pytest
from cachelb.tools.bench import icp as bench
from cachelb.tools.bench.icp import CONFIG, GARBAGE, SCENARIOS, Turn, held_url, load, main, measure, queries, render

from icp.answer import Answerer
from icp.errors import Fault
from icp.packet import header_fault, parse_query
from icp.service import Service


@pytest.fixture(scope="module")
def ours():
    """(address, answerer) of a service in a thread: half of the URLs are held."""
    ready, answerer = threading.Event(), Answerer(lambda url: b"/held/" in url, lambda source: True, rate_per_s=0)
    found: list[tuple[str, int]] = []
    loop = asyncio.new_event_loop()

    async def start() -> Service:
        service = await Service.start([("127.0.0.1", 0)], answerer.answer)
        found.extend(service.addresses)
        ready.set()
        return service

    def run() -> None:
        service = loop.run_until_complete(start())
        loop.run_forever()
        service.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    yield found[0], answerer
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


def test_half_of_the_queries_are_for_what_is_held():
    urls = [parse_query(query).url for query in queries()]
    assert sum(url == held_url(number) for number, url in enumerate(urls)) == len(urls) / 2


def test_the_garbage_is_none_that_ends_a_squid():
    assert GARBAGE[1] == 1
    assert header_fault(GARBAGE) is Fault.VERSION


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_turn_counts_answers_and_hits(ours, scenario: str):
    address, answerer = ours
    before = answerer.faults["version"]
    turn = load(address, os.getpid(), 0.05, **SCENARIOS[scenario])
    assert turn.per_s > 100
    assert turn.cpu_us > 0
    assert turn.lost == 0
    assert turn.hits == pytest.approx(0.5, abs=0.1)
    assert (turn.p99_us >= turn.median_us > 0) == (scenario == "one at a time")
    assert (answerer.faults["version"] > before) == (scenario == "with garbage")


def test_what_is_not_answered_is_lost_and_does_not_hang():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        turn = load(silent.getsockname(), os.getpid(), 0.01, wait_s=0.02)
    assert (turn.per_s, turn.lost) == (0, 32)


def test_figures_are_medians_by_scenario(monkeypatch: pytest.MonkeyPatch):
    rates = iter([1.0, 9.0, 5.0] * len(SCENARIOS))
    monkeypatch.setattr(bench, "load", lambda *_, **__: Turn(next(rates), 1.0, 0, 0.5))
    results = measure({"ours": (("127.0.0.1", 1), 1)}, 3, 0.1)
    assert {scenario: rows["ours"].per_s for scenario, rows in results.items()} == dict.fromkeys(SCENARIOS, 5.0)


def test_the_table_names_the_ratios():
    rows = {"ours": Turn(200.0, 5.0, 0, 0.5, 20.0, 30.0), "squid": Turn(100.0, 10.0, 0, 0.5), "silent": Turn(400.0, 4.0, 1, 0.5)}
    text = render({"x": rows})
    assert "ours / squid: rate 2.00, CPU 0.50" in text
    assert "ours / silent: rate 0.50, CPU 1.25" in text


def test_the_squids_settings_have_no_place_left_empty():
    text = CONFIG.format(host="127.0.4.1", http_port=1, icp_port=2, folder="/tmp/x", access_log="none")
    assert "{" not in text
    assert "icp_port 2\nudp_incoming_address 127.0.4.1\n" in text


@pytest.fixture
def _signals_stay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench.signal, "signal", lambda *_: None)


@pytest.mark.usefixtures("_signals_stay")
def test_json_is_what_was_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(bench, "_run", lambda options: {"x": {"ours": Turn(1.0, 2.0, 0, 0.5)}})
    assert main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["x"]["ours"]["cpu_us"] == 2.0


@pytest.mark.usefixtures("_signals_stay")
def test_what_cannot_run_is_a_sentence_and_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(bench, "missing", lambda programs: "squid is not installed")
    assert main([]) == 1
    assert capsys.readouterr().err == "bench: squid is not installed\n"
