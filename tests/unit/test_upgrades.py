"""A new version takes over while clients ask: with real processes and sockets."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cachelb.tools.stats.client import Admin
from fakes import Peer, get, parse_answer_head
from live_director import LiveDirector, SlowNode, wait_until
from steady import SteadyLoad, SteadyNode

from cachelb.demo.leash import Leash
from icp import packet

Make = Callable[..., LiveDirector]


def upgrade(director: LiveDirector) -> int:
    """Have a new version take over; its process id.  The director's process is that one from now on."""
    before = director.pid
    director.signal(signal.SIGUSR2)
    wait_until(lambda: pid_of(director) not in (0, before), "the new version is the director", 60.0)
    director.follow(pid_of(director))
    return director.pid


def pid_of(director: LiveDirector) -> int:
    try:
        return int(director.status()["pid"])
    except OSError:  # from the last word of the one to the first of the other
        return 0


def begin_slow(director: LiveDirector, node: SlowNode) -> Peer:
    client = director.connect()
    client.send(get("http://www.test/slow"))
    assert node.waiting.acquire(timeout=10)
    return client


@contextmanager
def steady_director(tmp_path: Path, workers: int, listen: str = "") -> Iterator[LiveDirector]:
    nodes = [SteadyNode(f"127.0.0.{number}") for number in (71, 72, 73)]
    with Leash() as leash:
        subject = LiveDirector(tmp_path, leash, {f"n{i}": node for i, node in enumerate(nodes)}, "")
        subject.more_listen = listen
        subject.configure(f"[relay]\nworkers = {workers}\n")
        try:
            subject.launch()
            subject.wait_for("ready: ")
            yield subject
        finally:
            subject.close()
            for node in nodes:
                node.stop()


@pytest.mark.slow
@pytest.mark.alone
def test_no_request_fails_in_upgrades_and_reloads(tmp_path: Path):
    thorough = bool(os.environ.get("CACHELB_THOROUGH"))
    upgrades = 10 if thorough else 3  # with ten reloads each
    with steady_director(tmp_path, 2) as subject:
        with SteadyLoad(subject.http, 2500) as load:
            for _ in range(upgrades):
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
        assert result.rate >= (2000 if thorough else 500)  # what a machine manages that does other things, too


# -- what was begun, and what was not


def test_what_the_old_one_has_begun_it_finishes(director: Make, node: SlowNode):
    subject = director()
    waiting = begin_slow(subject, node)
    kept, fresh = subject.connect(), subject.connect()
    kept.send(get("http://www.test/first"))
    assert b"connection" not in kept.read_answer().fields
    wait_until(lambda: subject.status()["farm"]["clients_open"] == 3)
    old = subject.pid
    upgrade(subject)
    assert kept.is_quiet()  # where its next request may be on the way, it is not closed
    for client in (kept, fresh):
        client.send(get("http://www.test/after"))
        answer = client.read_answer()
        assert (answer.status, answer.body) == (200, b"127.0.0.61 http://www.test/after")
        assert answer.fields[b"connection"] == b"close"
        assert client.read_to_end() == b""
    assert old in subject.processes()
    node.gate.set()
    answer = waiting.read_answer()
    assert (answer.status, answer.fields[b"connection"]) == (200, b"close")
    wait_until(lambda: old not in subject.processes())
    assert "stopped: every exchange was finished" in subject.log()
    assert subject.ask() == b"127.0.0.61 http://www.test/page"
    assert "ERROR" not in subject.log()


def test_who_waits_in_the_backlog_is_served_by_the_new_one(director: Make):
    """The worker hangs; the kernel accepts for it."""
    subject = director()
    worker = subject.status()["workers"][0]["pid"]
    os.kill(worker, signal.SIGSTOP)
    clients = [subject.connect() for _ in range(50)]
    for client in clients:
        client.send(get("http://www.test/backlog", "Connection: close"))
    upgrade(subject)
    assert [client.read_answer().body for client in clients] == [b"127.0.0.61 http://www.test/backlog"] * 50
    os.kill(worker, signal.SIGCONT)


def test_at_the_end_of_its_time_the_old_one_closes_idle_connections_in_good_order(director: Make):
    subject = director("[service]\nupgrade_drain_s = 0.3\n")
    kept = subject.connect()
    kept.send(get("http://www.test/"))
    kept.read_answer()
    old = subject.pid
    upgrade(subject)
    assert kept.read_to_end() == b""
    wait_until(lambda: old not in subject.processes())
    assert "stopped: every exchange was finished" in subject.log()


def test_sigterm_takes_the_old_ones_patience_away(director: Make, node: SlowNode):
    subject = director("[timeouts]\ndrain_s = 0.3\n")
    waiting = begin_slow(subject, node)
    kept = subject.connect()
    kept.send(get("http://www.test/"))
    kept.read_answer()
    old = subject.pid
    upgrade(subject)
    os.kill(old, signal.SIGTERM)
    assert kept.read_to_end() == b""
    assert parse_answer_head(waiting.read_head()).status == 503
    wait_until(lambda: old not in subject.processes())
    assert "stopped: 1 client connections were cut" in subject.log()
    assert subject.ask() == b"127.0.0.61 http://www.test/page"


def test_signals_for_the_director_that_the_old_one_gets_go_to_the_new_one(director: Make, node: SlowNode, tmp_path: Path):
    log = tmp_path / "access.log"
    subject = director(f'[log]\naccess = "{log}"\n')
    begin_slow(subject, node)
    old = subject.pid
    second = upgrade(subject)
    os.kill(old, signal.SIGHUP)
    wait_until(lambda: subject.status()["reloads"] == 1)
    log.rename(tmp_path / "rotated")
    os.kill(old, signal.SIGUSR1)
    wait_until(log.exists)
    os.kill(old, signal.SIGUSR2)
    wait_until(lambda: pid_of(subject) not in (0, old, second))
    subject.follow(pid_of(subject))
    node.gate.set()


# -- refused


def assert_goes_on(subject: LiveDirector, pid: int, why: str) -> None:
    wait_until(lambda: subject.status()["upgrade"]["problem"], why)
    status = subject.status()
    assert (status["pid"], status["state"]) == (pid, "running")
    assert why in status["upgrade"]["problem"]
    assert f"upgrade failed: {status['upgrade']['problem']}; this one goes on" in subject.log()
    assert subject.ask() == b"127.0.0.61 http://www.test/page"


def test_a_configuration_that_cannot_be_used_is_refused_and_a_better_one_is_taken(director: Make, node: SlowNode):
    subject = director()
    subject.configure("[relay]\nworkers = 0\nwrokers = 2\n")
    subject.signal(signal.SIGUSR2)
    assert_goes_on(subject, subject.pid, "ended before it was ready (exit status 1)")
    assert "relay.wrokers" in subject.log()
    assert "relay.workers" in subject.log()
    subject.configure("[relay]\nworkers = 2\n")
    upgrade(subject)
    assert len(subject.status()["workers"]) == 2
    assert subject.status()["upgrade"] == {"tries": 0, "problem": ""}


@pytest.mark.alone
def test_one_that_is_not_ready_in_time_is_ended(director: Make):
    subject = director("[service]\nupgrade_s = 2\n")
    count = len(subject.crew())
    subject.hang.touch()
    subject.signal(signal.SIGUSR2)
    wait_until(lambda: len(subject.crew()) > count + 1, "its worker was started")
    assert_goes_on(subject, subject.pid, "was not ready within [service] upgrade_s = 2 s")
    subject.hang.unlink()
    wait_until(lambda: len(subject.crew()) == count, "the new one and its worker have ended", 60.0)
    assert subject.ask() == b"127.0.0.61 http://www.test/page"


def test_one_at_a_time(director: Make):
    subject = director()
    old = subject.pid
    subject.hang.touch()
    subject.signal(signal.SIGUSR2)
    subject.wait_for("upgrade: starting the new version")
    subject.signal(signal.SIGUSR2)
    subject.wait_for("upgrade: one is under way")
    subject.hang.unlink()
    wait_until(lambda: pid_of(subject) not in (0, old))
    subject.follow(pid_of(subject))
    assert subject.log().count("upgrade: starting") == 1


def test_whoever_stops_the_old_one_meanwhile_stops_both(director: Make):
    subject = director()
    subject.hang.touch()
    count = len(subject.crew())
    subject.signal(signal.SIGUSR2)
    wait_until(lambda: len(subject.crew()) > count + 1)
    subject.hang.unlink()
    subject.signal(signal.SIGTERM)
    assert subject.ended() == 0  # and no process is left


def test_a_new_one_whose_predecessor_dies_is_the_only_one_left(director: Make):
    subject = director()
    old = subject.pid
    subject.hang.touch()
    subject.signal(signal.SIGUSR2)
    wait_until(lambda: len(subject.crew()) == 4)
    os.kill(old, signal.SIGKILL)
    subject.hang.unlink()
    wait_until(lambda: pid_of(subject) not in (0, old), "the new one is the director", 30.0)
    subject.follow(pid_of(subject))
    assert subject.ask() == b"127.0.0.61 http://www.test/page"


def test_a_reload_that_is_asked_for_meanwhile_is_not_lost(director: Make, node: SlowNode):
    subject = director()
    old = subject.pid
    subject.hang.touch()
    subject.signal(signal.SIGUSR2)
    wait_until(lambda: len(subject.crew()) == 4, "the new one has read the configuration")
    subject.configure("[timeouts]\ndrain_s = 7\n")
    subject.signal(signal.SIGHUP)
    subject.wait_for("reloaded: changed [timeouts]")
    subject.hang.unlink()
    wait_until(lambda: pid_of(subject) not in (0, old))
    subject.follow(pid_of(subject))
    wait_until(lambda: subject.status()["reloads"] == 1)


# -- with another configuration


def test_another_number_of_workers_and_no_request_fails(tmp_path: Path):
    with steady_director(tmp_path, 2) as subject, SteadyLoad(subject.http, 500) as load:
        for workers in (3, 1, 2, 4):
            subject.configure(f"[relay]\nworkers = {workers}\n")
            upgrade(subject)
            assert len(subject.status()["workers"]) == workers
            answered = load.answered
            wait_until(lambda answered=answered: load.answered > answered + 200)
            counts = subject.status()
            assert counts["state"] == "running"
    assert load.result.failed == []


def test_another_address_is_listened_on_and_the_old_one_no_more(director: Make):
    subject = director()
    before = subject.http
    with socket.create_server(("127.0.0.1", 0)) as sock:
        subject.http = sock.getsockname()
    subject.configure("")
    upgrade(subject)
    assert subject.ask() == b"127.0.0.61 http://www.test/page"
    with socket.socket() as probe:
        wait_until(lambda: probe.connect_ex(before) != 0)


def can_connect(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_the_unix_socket_is_there_all_the_time(director: Make, tmp_path: Path):
    path = tmp_path / "admin.sock"
    subject = director(f'[admin]\nsocket = "{path}"\n')
    tried: list[bool] = []
    stop = threading.Event()

    def connect_always() -> None:
        while not stop.wait(0.002):  # as fast as can be would fill the backlog
            tried.append(can_connect(path))

    trying = threading.Thread(target=connect_always)
    trying.start()
    try:
        pids = [upgrade(subject) for _ in range(2)]
        wait_until(lambda: len(subject.crew()) == 2, "the old ones have ended")
    finally:
        stop.set()
        trying.join()
    assert all(tried)
    assert len(tried) > 100
    assert Admin(str(path), timeout_s=10.0).get("/status")["pid"] == pids[-1]
    subject.signal(signal.SIGTERM)
    assert subject.ended() == 0
    assert not path.exists()


def test_the_unix_socket_moves_and_goes(director: Make, tmp_path: Path):
    before, after = tmp_path / "before", tmp_path / "after"
    subject = director(f'[admin]\nsocket = "{before}"\n')
    subject.configure(f'[admin]\nsocket = "{after}"\n')
    upgrade(subject)
    wait_until(lambda: not before.exists())
    assert can_connect(after)
    subject.configure(f'[admin]\nsocket = "{tmp_path}/none/s"\n')
    subject.signal(signal.SIGUSR2)
    assert_goes_on(subject, subject.pid, "ended before it was ready (exit status 1)")
    assert f"cannot listen on {tmp_path}/none/s: No such file or directory" in subject.log()
    assert can_connect(after)
    subject.configure("")
    upgrade(subject)
    wait_until(lambda: not after.exists())


def test_a_node_that_is_dead_stays_dead(director: Make, node: SlowNode):
    subject = director("[health]\ninterval_s = 0.2\ntimeout_s = 0.1\n")
    node.stop()
    subject.wait_for("node cache1 is dead")
    upgrade(subject)
    (found,) = subject.status()["nodes"]
    assert found["state"] == "dead"
    assert subject.log().count("node cache1 is dead") == 1


# -- the farm as one cache


def test_icp_answers_go_on_from_what_was_known(tmp_path: Path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    with steady_director(tmp_path, 1, f'icp = "127.0.0.1:{address[1]}"\n') as subject:
        urls = [f"http://www.test/{number}" for number in range(20)]
        for url in urls:
            subject.ask(url.removeprefix("http://www.test/"))
        answers: list[packet.Opcode | str] = []
        stop = threading.Event()

        def ask_all() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(3.0)
                number = 0
                while not stop.is_set():
                    number += 1
                    sock.sendto(packet.pack_query(number, urls[number % len(urls)].encode()), address)
                    try:
                        answers.append(packet.parse_reply(sock.recv(4096)).opcode)
                    except TimeoutError:
                        answers.append("none")

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5.0)

            def is_known(url: str) -> bool:
                sock.sendto(packet.pack_query(1, url.encode()), address)
                return packet.parse_reply(sock.recv(4096)).opcode is packet.Opcode.HIT

            wait_until(lambda: all(map(is_known, urls)))
        asking = threading.Thread(target=ask_all)
        asking.start()
        try:
            for _ in range(3):
                upgrade(subject)
        finally:
            stop.set()
            asking.join()
        assert len(answers) > 100
        assert set(answers) == {packet.Opcode.HIT}
