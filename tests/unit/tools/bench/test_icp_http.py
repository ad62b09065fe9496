from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cachelb.tools.bench import icp_http as bench
from cachelb.tools.bench.icp_http import PHASES, Delays, ask, config, main, middle, render
from cachelb.tools.bench.load import Answers
from cachelb.tools.bench.processes import BenchError

from cachelb.config import load
from icp.packet import Opcode, pack_reply, parse_query


class Peer(threading.Thread):
    """Answers what is asked by ICP, but for every tenth query."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))

    def run(self) -> None:
        while True:
            data, source = self.sock.recvfrom(65536)
            if not data:
                return
            query = parse_query(data)
            if query.reqnum % 10:
                self.sock.sendto(pack_reply(Opcode.MISS, query.reqnum, query.url), source)


@pytest.fixture
def peer() -> Iterator[tuple[str, int]]:
    made = Peer()
    made.start()
    yield made.sock.getsockname()
    made.sock.sendto(b"", made.sock.getsockname())
    made.join(5)
    made.sock.close()


def test_answers_are_timed_and_what_is_not_answered_is_lost(peer: tuple[str, int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "SENDING_NS", 10**9)
    monkeypatch.setattr(bench, "ANSWER_S", 0.05)
    delays = ask(peer, 0.05, 1000)
    assert (delays.answers, delays.lost) == (45, 5)
    assert 0 < delays.median_us <= delays.p99_us <= delays.worst_us < 5e6
    assert 0 <= delays.late_5ms <= delays.late_1ms <= 45


def test_answers_to_what_was_not_sent_at_once_do_not_count(peer: tuple[str, int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "SENDING_NS", 0)
    with pytest.raises(BenchError, match="nobody answers ICP on 127"):
        ask(peer, 0.01, 1000)


def test_a_director_that_answers_no_icp_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "ANSWER_S", 0.0)
    with pytest.raises(BenchError, match="nobody answers ICP on 127"):
        ask(("127.0.0.1", 9), 0.01, 1000)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_directors_settings_are_sound(workers: int, tmp_path: Path):
    (tmp_path / "cachelb.toml").write_text(config(workers))
    made = load(tmp_path / "cachelb.toml")
    assert (made.listen.icp[0].host, made.listen.icp[0].port) == bench.ICP
    assert made.relay.workers == workers


def test_late_answers_are_added_up_and_times_are_medians():
    rounds = [Delays(100, lost, us, us, us, lost, 0, 10.0 * us) for lost, us in ((1, 5.0), (0, 9.0), (3, 7.0))]
    assert middle(rounds) == Delays(300, 4, 7.0, 7.0, 7.0, 4, 0, 70.0)


def test_the_table_says_how_much_a_flood_slows_http():
    found = {phase: [Delays(100, 0, 50.0, 90.0, 99.0, 0, 0, rps)] for phase, rps in zip(PHASES, (0, 1000, 950), strict=True)}
    text = render(1, found)
    assert "flooded / busy: 0.95" in text
    assert [line.split()[-1] for line in text.splitlines()[1:4]] == ["-", "1,000", "950"]


def test_a_flood_is_as_fast_as_it_should_be(monkeypatch: pytest.MonkeyPatch):
    class Done(Exception):
        pass

    clock = iter([0.0, 0.0, 0.0005, 0.001])
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            raise Done

    monkeypatch.setattr(bench.time, "sleep", nap)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        with pytest.raises(Done):
            bench.flood(sock.getsockname())
        for _ in range(round(bench.FLOOD_PER_S * 0.001)):
            assert sock.recv(1000) == bench.GARBAGE
        with pytest.raises(BlockingIOError):
            sock.recv(1000)


def test_without_http_there_is_no_load(tmp_path: Path):
    with bench._loaded("quiet", 1.0, tmp_path / "x") as told:
        pass
    assert told == []


def test_what_the_load_says_belongs_to_the_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "WARM_UP_S", 0.0)
    monkeypatch.setattr(bench, "wrk_command", lambda *_: ["echo", "Requests/sec: 12.5"])
    with bench._loaded("busy", 1.0, tmp_path / "x") as told:
        pass
    assert [answers.rps for answers in told] == [12.5]
    assert isinstance(told[0], Answers)


def test_a_load_generator_that_fails_ends_the_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "WARM_UP_S", 0.0)
    monkeypatch.setattr(bench, "wrk_command", lambda *_: ["false"])
    with pytest.raises(BenchError, match="wrk ended with status 1"), bench._loaded("busy", 1.0, tmp_path / "x"):
        pass


@pytest.fixture
def _cpus_stay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench.os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(bench.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(bench, "missing", lambda programs: "")


@pytest.mark.usefixtures("_cpus_stay")
def test_json_is_what_was_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(bench, "measure", lambda workers, *_: {"quiet": [Delays(workers, 0, 1.0, 2.0, 3.0, 0, 0)]})
    assert main(["--json", "--workers", "1,3"]) == 0
    assert [found["quiet"][0]["answers"] for found in json.loads(capsys.readouterr().out).values()] == [1, 3]


@pytest.mark.usefixtures("_cpus_stay")
def test_what_cannot_run_is_a_sentence_and_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(bench, "missing", lambda programs: "wrk is not installed")
    assert main([]) == 1
    assert capsys.readouterr().err == "bench: wrk is not installed\n"
