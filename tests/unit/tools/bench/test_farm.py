from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cachelb.tools.bench.farm import Farm, free_ports, raise_files
from cachelb.tools.bench.fronts import USUAL, Front
from cachelb.tools.bench.processes import BenchError, Processes

LISTEN = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(open(sys.argv[1]).read()))); time.sleep(60)"
COMMAND = [sys.executable, "-c", LISTEN]
FRONT = Front("it", "python3", "python3", lambda place, _: str(place.port), lambda path: [*COMMAND, str(path)])


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    with Processes(tmp_path) as processes:
        yield Farm(tmp_path, processes, {"it": FRONT}, {})


def test_a_front_end_is_started_once_for_each_setting(farm: Farm):
    usual, two = farm.front("it", settle_s=0), farm.front("it", USUAL._replace(workers=2), settle_s=0)
    assert farm.front("it") == usual
    assert len({usual.pid, two.pid}) == len({usual.port, two.port}) == 2


def test_what_is_unusual_is_stopped_and_the_usual_stays(farm: Farm):
    usual, two = farm.front("it", settle_s=0), farm.front("it", USUAL._replace(workers=2), settle_s=0)
    farm.stop_unusual()
    farm.check()
    assert not Path(f"/proc/{two.pid}").exists()
    assert Path(f"/proc/{usual.pid}").exists()


def test_one_that_cannot_start_is_reported(tmp_path: Path):
    broken = FRONT._replace(command=lambda path: ["/bin/false"])
    with Processes(tmp_path) as processes, pytest.raises(BenchError, match="ended with status 1"):
        Farm(tmp_path, processes, {"it": broken}, {}).front("it")


def test_ports_differ():
    assert len(set(free_ports(20))) == 20


def test_as_many_descriptors_as_we_may_have():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        raise_files()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == hard >= before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[0], resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
