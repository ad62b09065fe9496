from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
from cachelb.tools.bench import processes
from cachelb.tools.bench.processes import BenchError, Processes, missing

LISTEN = "import socket, time; s = socket.create_server(('127.0.0.1', {})); time.sleep(60)"


@pytest.fixture
def address() -> tuple[str, int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()


def test_nothing_missing_is_nothing_said():
    assert missing([("sh", "dash"), ("python3", "python3")]) == ""


def test_missing_programs_are_named_with_the_line_that_installs_them():
    assert missing([("no-such-a", "pkg-a")]) == (
        "no-such-a is not installed; on Debian or Ubuntu, as root: apt-get install --no-install-recommends pkg-a"
    )
    assert missing([("no-such-a", "pkg"), ("sh", "dash"), ("no-such-b", "pkg"), ("no-such-c", "c")]) == (
        "no-such-a, no-such-b and no-such-c are not installed; "
        "on Debian or Ubuntu, as root: apt-get install --no-install-recommends pkg c"
    )


def test_a_process_is_awaited_and_stopped(tmp_path: Path, address: tuple[str, int]):
    with Processes(tmp_path) as started:
        started.start("it", [sys.executable, "-c", LISTEN.format(address[1])], 0, address)
        started.check()
        with socket.create_connection(address):
            pass
    with socket.socket() as probe:
        assert probe.connect_ex(address) != 0


def test_a_process_that_ends_is_reported_with_its_last_words(tmp_path: Path, address: tuple[str, int]):
    with Processes(tmp_path) as started, pytest.raises(BenchError, match=r"it ended with status 3:\n  why"):
        started.start("it", ["/bin/sh", "-c", "echo why >&2; exit 3"], 0, address)


def test_a_process_that_does_not_listen_is_stopped(tmp_path: Path, address: tuple[str, int], monkeypatch):
    monkeypatch.setattr(processes, "START_S", 0.1)
    with pytest.raises(BenchError, match="does not listen"), Processes(tmp_path) as started:
        started.start("it", ["/bin/sh", "-c", "echo $$; exec sleep 60"], 0, address)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "it.out").read_text()), 0)


def test_an_address_in_use_is_refused_before_anything_is_started(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as other, Processes(tmp_path) as started:
        with pytest.raises(BenchError, match="is in use"):
            started.start("it", ["/bin/false"], 0, other.getsockname())
        assert not (tmp_path / "it.out").exists()


def test_a_process_that_ended_since_is_noticed(tmp_path: Path, address: tuple[str, int]):
    listen_once = f"import socket; socket.create_server(('127.0.0.1', {address[1]})).accept(); raise SystemExit('gone')"
    with Processes(tmp_path) as started:
        started.start("it", [sys.executable, "-c", listen_once], 0, address)
        started._running[0][1].wait(10)
        with pytest.raises(BenchError, match=r"it ended during the measurement, status 1:\n  gone"):
            started.check()


def test_one_of_several_can_be_stopped_and_has_its_own_environment(tmp_path: Path):
    listen = "import os, socket, time; s = socket.create_server(('127.0.0.1', int(os.environ['AT']))); time.sleep(60)"
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [sock.getsockname()[1] for sock in (one, two)]
    with Processes(tmp_path) as started:
        pids = [
            started.start(f"p{port}", [sys.executable, "-c", listen], 0, ("127.0.0.1", port), {"AT": str(port)}) for port in ports
        ]
        started.stop(pids[0])
        started.check()
        assert [Path(f"/proc/{pid}").exists() for pid in pids] == [False, True]
