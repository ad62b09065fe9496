"""The life of a director, in processes of its own: how it starts, ends, reloads, and what it survives."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from fakes import Peer, get
from live_director import LiveDirector, SlowNode, wait_until

from cachelb import supervisor
from cachelb.config import Config
from cachelb.demo.squid import free_port
from cachelb.listen import open_listeners
from cachelb.nodes.health import HealthPolicy
from cachelb.snapshot import Snapshot
from cachelb.supervisor import Supervisor, health_policy

Make = Callable[..., LiveDirector]


def begin_slow(director: LiveDirector, node: SlowNode) -> Peer:
    """A client whose request is at the node, which does not answer before its gate opens."""
    client = director.connect()
    client.send(get("http://www.test/slow"))
    assert node.waiting.acquire(timeout=10)
    return client


def assert_ports_are_free(director: LiveDirector) -> None:
    class Address:
        host, port = director.http

    for sock in open_listeners(Address, 1):  # refuses to share with anybody
        sock.close()
    with socket.socket() as probe:
        assert probe.connect_ex(director.admin) != 0


# -- ending


def test_sigterm_ends_it_with_exit_status_0_and_leaves_nothing(director: Make):
    subject = director()
    assert subject.ask() == b"127.0.0.61 http://www.test/page"
    subject.signal(signal.SIGTERM)
    assert subject.ended() == 0
    assert "stopped: every exchange was finished" in subject.log()
    assert "ERROR" not in subject.log()
    assert_ports_are_free(subject)


@pytest.mark.parametrize("who", ["the supervisor", "all processes", "the worker, then the supervisor"])
def test_sigterm_lets_an_exchange_finish(director: Make, node: SlowNode, who: str):
    """Init systems send it to every process of a service."""
    subject = director()
    idle = subject.connect()
    idle.send(get("http://www.test/"))
    idle.read_answer()
    client = begin_slow(subject, node)
    if who == "all processes":
        os.killpg(subject.pid, signal.SIGTERM)
    elif who == "the supervisor":
        subject.signal(signal.SIGTERM)
    else:
        os.kill(subject.status()["workers"][0]["pid"], signal.SIGTERM)
        assert idle.is_closed()  # so the worker is draining
        subject.signal(signal.SIGTERM)
    subject.wait_for("stopping: ")
    wait_until(lambda: subject.status()["state"] == "draining")
    wait_until(lambda: refuses(subject))
    node.gate.set()
    assert client.read_answer().body == b"127.0.0.61 http://www.test/slow"
    assert subject.ended() == 0
    assert "stopped: every exchange was finished" in subject.log()


def refuses(director: LiveDirector) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(director.http) != 0


def test_status_and_metrics_answer_while_it_drains(director: Make, node: SlowNode):
    subject = director()
    client = begin_slow(subject, node)
    wait_until(lambda: subject.status()["nodes"][0]["counters"]["requests"] == 1)
    subject.signal(signal.SIGTERM)
    wait_until(lambda: subject.status()["state"] == "draining")
    counters = subject.status()["nodes"][0]["counters"]
    assert counters["requests"] - counters["ended"] == 1
    assert 'cachelb_node_requests_total{node="cache1"} 1.0\n' in subject.read("/metrics")
    node.gate.set()
    assert client.read_answer().status == 200
    assert subject.ended() == 0


def test_a_second_sigterm_hurries(director: Make, node: SlowNode):
    subject = director()
    client = begin_slow(subject, node)
    wait_until(lambda: subject.status()["farm"]["clients_open"] == 1)
    subject.signal(signal.SIGTERM)
    subject.wait_for("stopping: ")
    wait_until(lambda: refuses(subject))
    subject.signal(signal.SIGTERM)
    assert subject.ended() == 0
    assert client.is_closed()
    assert "stopped: 1 client connections were cut" in subject.log()


def test_sigint_ends_it_at_once(director: Make, node: SlowNode):
    subject = director()
    client = begin_slow(subject, node)
    wait_until(lambda: subject.status()["farm"]["clients_open"] == 1)
    os.killpg(subject.pid, signal.SIGINT)  # as a terminal does
    assert subject.ended() == 0
    assert client.is_closed()
    assert "stopped: 1 client connections were cut" in subject.log()
    assert "Traceback" not in subject.log()


def test_exchanges_get_no_more_time_than_is_configured_now(director: Make, node: SlowNode):
    subject = director("[timeouts]\ndrain_s = 600")
    subject.configure("[timeouts]\ndrain_s = 0.1")
    subject.signal(signal.SIGHUP)
    subject.wait_for("reloaded: ")
    client = begin_slow(subject, node)
    subject.signal(signal.SIGTERM)
    assert client.read_answer().status == 503
    assert subject.ended() == 0
    assert "at most 0.1 s" in subject.log()
    assert "stopped: 1 client connections were cut" in subject.log()


def test_an_idle_admin_connection_does_not_keep_it_alive(director: Make):
    subject = director()
    admin = Peer(socket.create_connection(subject.admin))
    admin.send(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert admin.read_answer().status == 200
    began = time.monotonic()
    subject.signal(signal.SIGTERM)
    assert subject.ended() == 0
    assert time.monotonic() - began < 5
    assert admin.is_closed()


def test_workers_finish_and_end_by_themselves_when_the_supervisor_is_killed(director: Make, node: SlowNode):
    subject = director("[relay]\nworkers = 2")
    client = begin_slow(subject, node)
    subject.signal(signal.SIGKILL)
    wait_until(lambda: refuses(subject))
    node.gate.set()
    assert client.read_answer().status == 200
    assert subject.ended() == -signal.SIGKILL
    assert_ports_are_free(subject)


# -- starting


@pytest.mark.parametrize("which", ["http", "admin"])
def test_an_address_in_use_is_a_sentence_and_exit_status_1(director: Make, which: str):
    """And no worker is left, nor was any started."""
    subject = director()
    second = director(until=None)
    setattr(second, which, getattr(subject, which))
    second.configure("")
    second.launch()
    assert second.ended() == 1
    lines = [line for line in second.log().splitlines() if " ERROR " in line]
    assert len(lines) == 1, lines
    assert f"cannot listen on 127.0.0.1 port {getattr(subject, which)[1]}: another program uses it" in lines[0]
    assert subject.ask().startswith(b"127.0.0.61")


def test_sigterm_ends_it_while_a_worker_is_being_started(director: Make):
    subject = director(until=None)
    subject.hang.touch()
    subject.launch()
    wait_until(lambda: len(subject.crew()) == 2)
    subject.signal(signal.SIGTERM)
    subject.wait_for("stopping: ")
    subject.hang.unlink()
    assert subject.ended() == 0
    assert "ready" not in subject.log()
    assert "ERROR" not in subject.log()


def test_a_worker_that_never_begins_does_not_outlive_it(director: Make):
    subject = director("[timeouts]\ndrain_s = 600", until=None)
    subject.hang.touch()
    subject.launch()
    wait_until(lambda: len(subject.crew()) == 2)
    subject.signal(signal.SIGTERM)
    subject.wait_for("stopping: ")
    subject.signal(signal.SIGTERM)
    assert subject.ended() == 0


def test_it_stays_while_workers_crash_at_their_start_and_recovers(director: Make):
    subject = director(until=None)
    subject.crash.touch()
    subject.launch()
    wait_until(subject.answers)
    wait_until(lambda: [worker for worker in subject.status()["workers"] if worker["restarts"] >= 3])
    status = subject.status()
    assert status["state"] == "starting"
    assert status["workers"][0]["epoch"] == -1
    assert "worker 1 ended (exit status 3)" in subject.log()
    assert "cachelb_requests_total 0.0\n" in subject.read("/metrics")
    subject.crash.unlink()
    subject.wait_for("ready: ")
    assert subject.ask().startswith(b"127.0.0.61")
    assert subject.status()["state"] == "running"


def test_sigterm_ends_it_while_workers_crash_at_their_start(director: Make):
    subject = director(until=None)
    subject.crash.touch()
    subject.launch()
    wait_until(subject.answers)
    wait_until(lambda: [worker for worker in subject.status()["workers"] if worker["restarts"] >= 3])
    subject.signal(signal.SIGTERM)
    assert subject.ended() == 0


# -- what a worker's death leaves


def test_counters_go_on_and_gauges_are_right_after_a_worker_was_killed(director: Make, node: SlowNode):
    subject = director()
    for number in range(3):
        subject.ask(f"{number}")
    client = begin_slow(subject, node)
    wait_until(lambda: subject.status()["farm"]["requests"] == 4)
    wait_until(lambda: subject.status()["nodes"][0]["counters"]["idle"] == 0)
    os.kill(subject.status()["workers"][0]["pid"], signal.SIGKILL)
    assert client.is_closed()
    wait_until(lambda: subject.status()["workers"][0]["restarts"] == 1)
    status = subject.status()
    assert status["farm"]["clients_open"] == 0
    assert status["nodes"][0]["counters"]["ended"] == status["nodes"][0]["counters"]["requests"] == 4
    subject.ask("after")
    wait_until(lambda: subject.status()["farm"]["requests"] == 5)
    counters = subject.status()["nodes"][0]["counters"]
    assert counters["requests"] == counters["ended"] == 5
    assert "worker 1 ended (killed by signal 9)" in subject.log()


def test_a_reload_while_a_worker_restarts_is_what_it_begins_with(director: Make):
    subject = director()
    subject.crash.touch()
    os.kill(subject.status()["workers"][0]["pid"], signal.SIGKILL)
    wait_until(lambda: subject.status()["workers"][0]["restarts"] >= 1)
    subject.configure('[access]\nallow = ["192.0.2.0/24"]')
    subject.signal(signal.SIGHUP)
    subject.wait_for("reloaded: ")
    subject.crash.unlink()
    wait_until(lambda: subject.status()["workers"][0]["epoch"] == subject.status()["epoch"])
    client = subject.connect()
    client.send(get("http://www.test/"))
    assert client.read_answer().status == 403


# -- reloading


def test_a_configuration_that_cannot_be_used_changes_nothing(director: Make):
    subject = director()
    subject.config.write_text("[listen]\nhttp = 1\n")
    subject.signal(signal.SIGHUP)
    subject.wait_for("reload refused: ")
    assert subject.status()["reloads"] == 0
    assert subject.ask().startswith(b"127.0.0.61")


def test_what_cannot_change_while_running_is_said_each_time(director: Make):
    subject = director()
    http = subject.http
    subject.http = ("127.0.0.1", free_port("127.0.0.1"))
    subject.configure("")
    for times in (1, 2):
        subject.signal(signal.SIGHUP)
        wait_until(lambda times=times: subject.log().count("reloaded: ") == times)
    subject.http = http
    subject.configure("")
    subject.signal(signal.SIGHUP)
    wait_until(lambda: subject.log().count("reloaded: ") == 3)
    assert subject.log().count("a change of [listen] needs an upgrade or a restart") == 2
    assert subject.ask().startswith(b"127.0.0.61")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_a_log_that_was_moved_is_opened_anew(director: Make, tmp_path, number: signal.Signals):
    path = tmp_path / "access.log"
    subject = director(f'[log]\naccess = "{path}"')
    subject.ask("before")
    moved = path.rename(tmp_path / "access.log.1")
    subject.signal(number)
    wait_until(path.exists)
    subject.ask("after")
    wait_until(lambda: "/after " in path.read_text())
    assert "/before " in moved.read_text()
    assert "/after " not in moved.read_text()


# -- what it tells workers, without any


class Listener:
    """In the place of all workers: keeps the epochs of the Snapshots it is told."""

    blocks: list[memoryview] = []  # noqa: RUF012  nobody adds to it

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.states: list[str] = []

    def apply(self, blob: bytes) -> None:
        snapshot = Snapshot.unpack(blob)
        self.epochs.append(snapshot.epoch)
        self.states = [node.state for node in snapshot.nodes]


def with_supervisor(test: Callable[[Supervisor, Listener], Awaitable[None]]) -> None:
    async def main() -> None:
        nodes = [{"name": f"n{i}", "host": "127.0.0.1"} for i in range(100)]
        subject = Supervisor(Path("unused"), config(node=nodes))
        listener = Listener()
        subject.workers = listener  # type: ignore[assignment]
        try:
            async with asyncio.timeout(10):
                await test(subject, listener)
        finally:
            await subject.names.stop()

    asyncio.run(main())


async def until(is_true: Callable[[], object]) -> None:
    while not is_true():  # noqa: ASYNC110  what is waited for knows nothing of events
        await asyncio.sleep(0.002)


def test_a_change_is_told_at_once_and_a_hundred_changes_are_told_together():
    async def test(subject: Supervisor, listener: Listener) -> None:
        now = time.monotonic()
        for i in range(100):
            for _ in range(2):
                subject.log_changes(subject.health.observe_probe(f"n{i}", False, "refused", now))
            assert listener.states.count("dead") == 1  # the first one, at once
        await until(lambda: listener.states.count("dead") == 100)
        assert listener.epochs == [1, 2]

    with_supervisor(test)


def test_a_reload_is_told_at_once_whatever_was_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervisor, "setup", lambda form, level: None)  # the log of this process is pytest's
    monkeypatch.setattr(supervisor, "PUBLISH_S", 60.0)  # however slow this machine is

    async def test(subject: Supervisor, listener: Listener) -> None:
        subject.path = tmp_path / "cachelb.toml"
        subject.path.write_text('[listen]\nhttp = "127.0.0.1:3128"\n[[node]]\nname = "new"\nhost = "127.0.0.2"\n')
        listener.tell = lambda kind: None  # type: ignore[attr-defined]
        subject.publish()
        subject.publish()
        subject.reload()
        assert (subject.reloads, listener.epochs, listener.states) == (1, [1, 2], ["up"])
        assert subject._publishing is None  # what waited has been told with it

    with_supervisor(test)


def test_what_watches_nodes_goes_on_after_an_error_of_ours(monkeypatch: pytest.MonkeyPatch, caplog):
    monkeypatch.setattr(supervisor, "AGAIN_S", 0.001)

    async def test(subject: Supervisor, listener: Listener) -> None:
        calls = []

        async def job() -> None:
            calls.append(1)
            if len(calls) < 3:
                raise ZeroDivisionError
            await asyncio.Event().wait()

        task = asyncio.ensure_future(subject._forever(job))
        await until(lambda: len(calls) == 3)
        task.cancel()
        assert [record.levelname for record in caplog.records] == ["CRITICAL"] * 2
        assert "ZeroDivisionError" in caplog.text

    with_supervisor(test)


def test_the_log_says_when_no_node_is_left_and_when_the_farm_is_back(director: Make, node: SlowNode):
    health = "[health]\ninterval_s = 0.2\ntimeout_s = 0.1"
    subject = director(health)
    node.stop()
    subject.wait_for("no node is left: requests go straight to the origins")
    other = SlowNode("127.0.0.62")
    try:
        subject.configure(health, f'[[node]]\nname = "cache2"\nhost = "{other.host}"\nhttp_port = {other.port}')
        subject.signal(signal.SIGHUP)
        subject.wait_for("the farm serves again")
    finally:
        other.stop()
    assert subject.log().count("no node is left") == 1


# -- small things


def config(**sections: object) -> Config:
    return Config.model_validate_json(json.dumps(sections))


NODES = [{"name": name, "host": f"127.0.0.{i}"} for i, name in enumerate("abc", 1)]


def test_each_setting_of_health_gets_into_its_policy():
    given = config(health={"interval_s": 7, "timeout_s": 3, "fall": 5, "rise": 4})
    policy = health_policy(given)
    assert (policy.interval_s, policy.timeout_s, policy.fall, policy.rise) == (7, 3, 5, 4)
    assert set(HealthPolicy._fields) <= set(type(given.health).model_fields)


