from __future__ import annotations

import asyncio
import os
import socket
import threading

import pytest
from cachelb.tools.bench import icp_load
from cachelb.tools.bench.icp import SCENARIOS
from cachelb.tools.bench.icp_load import GARBAGE, UNDER_WAY, held_url, load, queries
from cachelb.tools.bench.processes import BenchError

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
        service = await Service.start([("127.0.0.1", 0)], answerer.answer, answerer.answer_all)
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
    assert (turn.load_us > 0) == ("pushed" not in scenario)
    assert (answerer.faults["version"] > before) == (scenario == "with garbage")


def test_what_is_not_answered_is_lost_and_does_not_hang():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        turn = load(silent.getsockname(), os.getpid(), 0.01, wait_s=0.02)
    assert (turn.per_s, turn.lost) == (0, UNDER_WAY)


def test_after_a_loss_as_much_is_under_way_as_before():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.setblocking(False)
        turn = load(silent.getsockname(), os.getpid(), 0.03, under_way=3, wait_s=0.02)
        assert turn.lost == 6
        assert [parse_query(silent.recv(100)).reqnum for _ in range(6)] == [1, 2, 3, 4, 5, 6]


def test_where_there_are_no_batches_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(icp_load.Batch, "of", lambda sock: None)
    with pytest.raises(BenchError, match="Linux"):
        load(("127.0.0.1", 1), os.getpid(), 0.01)
