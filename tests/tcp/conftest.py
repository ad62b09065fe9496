"""Real servers behind TCP services of a real director with two workers: vsftpd and OpenSSL, and HAProxy beside it.

``start(services, nodes, more="")``: a ready director.  ``run(command)``: a program that ends with the test.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cachelb.demo.director import Director, director_ports
from cachelb.demo.leash import Leash


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def leash() -> Iterator[Leash]:
    with Leash() as held:
        yield held


@pytest.fixture
def run(leash: Leash, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(command: list[str | Path]) -> subprocess.Popen[bytes]:
        with (tmp_path / f"program{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        leash.watch(process.pid)
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.wait(10)
        leash.forget(process.pid)


@pytest.fixture
def start(leash: Leash, tmp_path: Path) -> Iterator[Callable[..., Director]]:
    directors: list[Director] = []

    def make(services: str, nodes: str, more: str = "", listen: str = "", workers: int = 2) -> Director:
        http, admin = director_ports()
        text = f'[listen]\nhttp = "{http[0]}:{http[1]}"\nadmin = "{admin[0]}:{admin[1]}"\n{listen}\n'
        text += f"[relay]\nworkers = {workers}\n[health]\ninterval_s = 0.2\ntimeout_s = 0.15\n{more}\n{nodes}\n{services}"
        director = Director(text, tmp_path, leash, http=http, admin=admin)
        directors.append(director)
        director.start()
        return director

    yield make
    for director in directors:
        if director.is_running:
            assert director.stop() == 0, director.log_tail()
            assert "internal error" not in director.log()
