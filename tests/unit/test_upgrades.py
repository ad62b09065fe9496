"""A new version takes over while clients ask: with real processes and sockets."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes import Peer, get
from live_director import LiveDirector, SlowNode, wait_until
from steady import SteadyLoad, SteadyNode

from cachelb.demo.leash import Leash

Make = Callable[..., LiveDirector]


def upgrade(director: LiveDirector) -> int:
    """Have a new version take over; its process id.  The director's process is that one from now on."""
    before = director.pid
    director.signal(signal.SIGUSR2)
    wait_until(lambda: director.status()["pid"] != before, "the new version is the director")
    director.follow(director.status()["pid"])
    return director.pid


@contextmanager
def steady_director(tmp_path: Path, workers: int) -> Iterator[LiveDirector]:
    nodes = [SteadyNode(f"127.0.0.{number}") for number in (71, 72, 73)]
    with Leash() as leash:
        subject = LiveDirector(tmp_path, leash, {f"n{i}": node for i, node in enumerate(nodes)}, f"[relay]\nworkers = {workers}\n")
        try:
            subject.launch()
            subject.wait_for("ready: ")
            yield subject
        finally:
            subject.close()
            for node in nodes:
                node.stop()


@pytest.mark.slow
def test_no_request_fails_in_10_upgrades_and_100_reloads(tmp_path: Path):
    with steady_director(tmp_path, 2) as subject:
        with SteadyLoad(subject.http, 2500) as load:
            for _ in range(10):
                for _ in range(10):
                    count = subject.status()["reloads"]
                    answered = load.answered
                    subject.signal(signal.SIGHUP)
                    wait_until(lambda count=count: subject.status()["reloads"] > count)
                    wait_until(lambda answered=answered: load.answered > answered + 50)
                upgrade(subject)
        result = load.result
        print(f"{result.answered} answers, {result.rate:.0f}/s, {len(result.failed)} failed, {result.repeated} repeated, "
              f"{result.last} said that they were the last")  # fmt: skip
        assert result.failed == []
        assert result.repeated == 0
        assert result.last > 0
        assert result.rate >= 2000
