from __future__ import annotations

import gzip
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from loglines import START, native

from cachelb.routing.classify import Policy
from cachelb.simulate import run as subject
from cachelb.simulate.policies import POLICIES, Node
from cachelb.simulate.replay import Case, Outcome, replay
from cachelb.simulate.run import PolicyError, read_logs, run, usable_cores
from cachelb.simulate.source import LogError
from cachelb.simulate.trace import Trace

CASE = Case((Node("cache1"), Node("cache2")), 1 << 20, added=Node("cache3"), change=2500)
LINES = [native(f"http://a.example/{n % 700}", 100, START + n) for n in range(5000)]


def test_logs_are_read_one_after_the_other(policy: Policy, tmp_path: Path):
    names = []
    for number in range(2):
        path = tmp_path / f"log{number}"
        path.write_bytes(b"\n".join([b"bad", *LINES[:100]]))
        names.append(str(path))
    with Trace() as trace:
        reader, damages = read_logs(names, policy, trace)
        assert (reader.requests, reader.bad, reader.urls, damages) == (200, 2, 100, [])
        assert (trace.requests, trace.urls) == (200, 100)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the log is empty"),
        (b"\n\n", "the log is empty"),
        (b"a\nb\x1b\nc", "none of 3 lines is in Squid's native format or in combined; the first: 'a'"),
        (native("http://a.example/", method="POST"), "none of 1 lines is a request that would go to a node"),
        (b"\x1f\x8bnonsense", "the rest cannot be read"),
    ],
)
def test_a_log_without_a_request_is_an_error(content: bytes, why: str, policy: Policy, tmp_path: Path):
    (tmp_path / "log").write_bytes(content)
    with Trace() as trace, pytest.raises(LogError) as caught:
        read_logs([str(tmp_path / "log")], policy, trace)
    assert why in str(caught.value)


def test_a_damaged_log_is_used_as_far_as_it_goes(policy: Policy, tmp_path: Path):
    path = tmp_path / "log.gz"
    chance = random.Random(1)  # so that it does not come as one block
    lines = [native(f"http://a.example/{chance.getrandbits(256):x}") for _ in range(30_000)]
    path.write_bytes(gzip.compress(b"\n".join(lines))[:-20])
    with Trace() as trace:
        reader, damages = read_logs([str(path)], policy, trace)
        assert reader.requests > 0
        assert len(damages) == 1


def test_too_many_urls_name_the_way_out(policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = subject.Reader
    monkeypatch.setattr(subject, "Reader", lambda policy, sample: real(policy, sample, urls_limit=10))
    (tmp_path / "log").write_bytes(b"\n".join(LINES))
    with Trace() as trace, pytest.raises(LogError, match=r"more than 10 distinct URLs; .* --sample 0\.1"):
        read_logs([str(tmp_path / "log")], policy, trace)


@pytest.mark.parametrize("jobs", [1, 3])
def test_in_processes_or_without_the_outcomes_are_the_same(jobs: int, traced: Callable[..., Trace]):
    trace = traced(LINES)
    assert run(POLICIES, CASE, trace, jobs) == [replay(policy, CASE, trace) for policy in POLICIES]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_goes_wrong_in_a_process_is_told(jobs: int, traced: Callable[..., Trace]):
    with pytest.raises(ValueError, match="same name"):
        run(["ring", "carp"], Case((Node("a"), Node("a")), 1 << 20), traced(LINES), jobs)
    assert multiprocessing.active_children() == []


def test_a_process_that_is_killed_is_told(traced: Callable[..., Trace], monkeypatch: pytest.MonkeyPatch):
    def dying(policy: str, *_: object) -> Outcome:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(subject, "replay", dying)
    with pytest.raises(PolicyError, match=r"(ring|carp) ended with -9"):
        run(["ring", "carp"], CASE, traced(LINES), 2)
    assert multiprocessing.active_children() == []


def test_ctrl_c_ends_all_processes(traced: Callable[..., Trace], monkeypatch: pytest.MonkeyPatch):
    trace = traced(LINES)
    parent = os.getpid()

    def waiting(policy: str, *_: object) -> Outcome:
        os.kill(os.getpid(), signal.SIGINT)  # a terminal's goes to all; here it is without effect
        if policy == "ring":
            os.kill(parent, signal.SIGINT)
        time.sleep(60)  # it is killed long before
        raise AssertionError

    monkeypatch.setattr(subject, "replay", waiting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # started with "&", a shell has it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            run(["ring", "carp"], CASE, trace, 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert multiprocessing.active_children() == []


def test_there_is_a_core_at_least():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
