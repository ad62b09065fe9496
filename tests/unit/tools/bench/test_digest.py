"""The measuring of a rebuild: it asks while it is built, and what it says of the digest is so."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Iterator

import pytest
from cachelb.tools.bench import digest as bench
from cachelb.tools.bench.digest import NODES, URLS, Turn, ask, build_once, filled, measure, memory, render, url
from cachelb.tools.bench.processes import BenchError

from cachelb.cluster.builder import Builder
from digest import store_key
from icp.packet import Opcode, pack_reply, parse_query


@pytest.fixture
def responder() -> Iterator[tuple[str, int]]:
    """Answers HIT to the first query, MISS to all others."""

    def answer() -> None:
        opcode = Opcode.HIT
        while True:
            data, source = sock.recvfrom(16384)
            if not data:
                return
            query = parse_query(data)
            sock.sendto(pack_reply(opcode, query.reqnum, query.url), source)
            opcode = Opcode.MISS

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield sock.getsockname()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(b"", sock.getsockname())
        thread.join(10)


def test_half_of_the_urls_are_held_and_all_keys_are_there():
    holdings = filled(3000)
    assert holdings.count() == 3000
    held = [number for number in range(URLS) if holdings.holders(store_key(url(number)))]
    assert held == list(range(0, URLS, 2))
    assert all(holdings.count(node) > 100 for node in range(NODES))


def test_a_build_is_of_everything():
    builder = Builder()
    figures = asyncio.run(build_once(builder, filled(3000)))
    builder.close()
    assert figures["keys"] == 3000
    assert figures["digest_mb"] == pytest.approx(0.003128)
    assert 0.3 < figures["fill"] < 0.5
    assert all(figures[name] > 0 for name in ("seconds", "director_cpu_s", "cpu_s", "peak_mb"))
    assert figures["director_extra_mb"] >= 0


def test_queries_keep_their_rate(responder: tuple[str, int]):
    answers = iter([False] * 50)
    turn = ask(responder, 1000, lambda: next(answers, True))
    assert turn.queries == 50
    assert turn.hits == 1 / 50
    assert 0 < turn.median_ms <= turn.p99_ms <= turn.latest_ms < 1000


def test_who_does_not_answer_ends_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "ANSWER_S", 0.01)
    answers = iter([False] * 3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(BenchError, match=r"3 queries were not answered within 0\.01 s"):
            ask(silent.getsockname(), 1000, lambda: next(answers, True))


def test_the_peak_begins_anew():
    data = b"x" * (64 << 20)
    high = memory("VmHWM")
    del data
    bench.forget_peak()
    assert memory("VmRSS") <= memory("VmHWM") < high - (48 << 20)


def test_it_goes_back_to_all_cpus():
    before = os.sched_getaffinity(0)
    with bench.on_the_last_cpu():
        assert os.sched_getaffinity(0) == {max(before)}
    assert os.sched_getaffinity(0) == before


def test_it_measures_with_and_without_a_build():
    figures = measure(2000, 1, 500)
    assert figures["keys"] == 2000
    assert list(figures["icp"]) == ["quiet", "building"]
    assert all(turn["queries"] > 10 and turn["hits"] == pytest.approx(0.5, abs=0.1) for turn in figures["icp"].values())
    text = render(figures)
    assert text.startswith("2,000 keys, ")
    assert [line.split()[0] for line in text.splitlines()[-2:]] == ["quiet", "building"]


@pytest.fixture
def _signals_stay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench.signal, "signal", lambda *_: None)


@pytest.mark.usefixtures("_signals_stay")
def test_json_is_what_was_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(
        bench, "measure", lambda *given: {"given": given, "icp": {"quiet": Turn(1, 0.5, 1.0, 2.0, 3.0)._asdict()}}
    )
    assert bench.main(["--json", "--keys", "7", "--rounds", "2"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["given"] == [7, 2, 1000.0]
    assert said["icp"]["quiet"]["p99_ms"] == 2.0


@pytest.mark.usefixtures("_signals_stay")
def test_an_index_that_ends_is_a_sentence_and_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(bench.sys, "executable", "/bin/false")
    assert bench.main(["--keys", "10"]) == 1
    assert capsys.readouterr().err == "bench: the process that has the index ended\n"
