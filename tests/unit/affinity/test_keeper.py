"""Templates survive whatever happens to a director: with real processes, two workers, and clients of many addresses."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import PATIENCE_S, FakeSquid, Peer, get
from live_director import LiveDirector, wait_until

from cachelb import cli
from cachelb.affinity.keeper import BAD_NAME
from cachelb.affinity.saved import FILE_NAME
from cachelb.demo.leash import Leash

CLIENTS = [f"127.0.5.{number}" for number in range(1, 25)]
RULES = '[[rule]]\naffinity = "shop"\n'


class Subject:
    """A director with two workers in front of three nodes that say who they are."""

    def __init__(self, directory: Path, leash: Leash) -> None:
        self.nodes = {f"n{i}": FakeSquid(f"127.0.0.{81 + i}") for i in range(3)}
        for node in self.nodes.values():
            node.serve()
        self.director = LiveDirector(directory, leash, self.nodes, "")
        self.state = directory / "state"
        self.state.mkdir()
        self.configure()

    def configure(self, *, group: str = 'name = "shop"\n', more: str = "", rules: str = RULES) -> None:
        sections = f'[relay]\nworkers = 2\n[index]\nstate = "{self.state}"\n[timeouts]\ndrain_s = 2\n'
        sections += f'[admin]\nsocket = "{self.state}/admin"\n'
        self.director.configure(f"{sections}{more}[[affinity]]\n{group}{rules}")

    def start(self) -> None:
        ready = self.director.log().count("ready: ") if self.director.log_path.exists() else 0
        self.director.launch()
        wait_until(lambda: self.director.log().count("ready: ") > ready, "ready", 30.0)

    def stop(self) -> None:
        self.director.signal(signal.SIGTERM)
        assert self.director.ended() == 0

    def connect(self, ip: str) -> Peer:
        sock = socket.socket()
        sock.settimeout(PATIENCE_S)
        sock.bind((ip, 0))
        sock.connect(self.director.http)
        return Peer(sock)

    def node_of(self, ip: str, client: Peer | None = None) -> str:
        """Which node a request of a client went to, on a connection of its own: any of the workers may have it."""
        client = client or self.connect(ip)
        client.send(get("http://www.test/page", "Connection: close"))
        answer = client.read_answer()
        client.close()
        assert answer.status == 200, answer
        host = answer.body.split()[0].decode()
        return next(name for name, node in self.nodes.items() if node.host == host)

    def nodes_of(self, clients: list[str] = CLIENTS) -> dict[str, str]:
        return {ip: self.node_of(ip) for ip in clients}

    def affinity(self, query: str = "") -> Any:
        return json.loads(self.director.read(f"/api/v1/affinity{query}"))

    def close(self) -> None:
        self.director.close()
        for node in self.nodes.values():
            node.stop()


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    with Leash() as leash:
        made = Subject(tmp_path, leash)
        yield made
        made.close()


@pytest.fixture
def running(subject: Subject) -> Subject:
    subject.start()
    return subject


def upgrade(director: LiveDirector) -> None:
    def pid() -> int:
        try:
            return int(director.status()["pid"])
        except OSError:
            return 0

    before = director.pid
    director.signal(signal.SIGUSR2)
    try:
        wait_until(lambda: pid() not in (0, before), "the new version is the director", 60.0)
    except AssertionError as problem:
        raise AssertionError(f"{problem}\n{director.log()}") from None
    director.follow(pid())


def test_two_workers_send_a_client_to_one_node(running: Subject):
    first = running.nodes_of()
    for _ in range(4):
        assert running.nodes_of() == first
    wait_until(lambda: all(worker["requests"] for worker in running.director.status()["workers"]), "both have served")
    assert sorted(list(first.values()).count(node) for node in running.nodes) == [8, 8, 8]
    assert running.affinity()["counters"]["affinity_created"] == len(CLIENTS)


def test_a_worker_that_is_killed_takes_nothing_with_it(running: Subject):
    first = running.nodes_of()
    for worker in running.director.status()["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)
        wait_until(lambda n=worker["number"]: running.director.status()["workers"][n - 1]["restarts"] == 1)
    wait_until(lambda: all(worker["epoch"] > 0 for worker in running.director.status()["workers"]))
    assert running.nodes_of() == first


def test_a_reload_keeps_groups_that_stay_and_drops_what_belongs_to_others(running: Subject):
    first = running.nodes_of()
    running.configure(more="[hash]\nalgorithm = \"carp\"\n", group='name = "shop"\ntimeout_s = 900\n')
    running.director.signal(signal.SIGHUP)
    wait_until(lambda: running.director.status()["reloads"] == 1)
    assert running.nodes_of() == first
    running.configure(group='name = "shop"\nnetmask_v4 = 24\n')
    running.director.signal(signal.SIGHUP)
    wait_until(lambda: running.director.status()["reloads"] == 2)
    assert running.affinity()["templates"] == 0
    assert "the templates of shop are gone" in running.director.log()
    assert len(set(running.nodes_of().values())) == 1
    running.configure(group='name = "other"\n', rules='[[rule]]\naffinity = "other"\n')
    running.director.signal(signal.SIGHUP)
    wait_until(lambda: running.director.status()["reloads"] == 3)
    assert [group["name"] for group in running.affinity()["groups"]] == ["other"]


def test_a_restart_keeps_them(running: Subject):
    first = running.nodes_of()
    running.stop()
    assert (running.state / FILE_NAME).stat().st_mode & 0o777 == 0o600
    running.configure(more='[[node]]\nname = "n9"\nhost = "127.0.0.99"\nstate = "down"\n')  # other slots: names matter
    running.start()
    assert running.affinity()["templates"] == len(CLIENTS)
    assert running.nodes_of() == first
    assert "the nodes of 24 clients are known" in running.director.log()


def test_a_file_that_cannot_be_used_is_set_aside_and_told(running: Subject):
    running.nodes_of(CLIENTS[:3])
    running.stop()
    data = (running.state / FILE_NAME).read_bytes()
    (running.state / FILE_NAME).write_bytes(data[:-1] + b"!")
    running.start()
    assert "damaged: the checksum is wrong: beginning without templates" in running.director.log()
    assert (running.state / BAD_NAME).read_bytes() == data[:-1] + b"!"
    assert running.affinity()["templates"] == 0
    assert running.node_of(CLIENTS[0]) in running.nodes


@pytest.mark.parametrize("has_state", [True, False])
def test_an_upgrade_keeps_them(subject: Subject, has_state: bool):
    if not has_state:
        text = subject.director.config.read_text()
        subject.director.config.write_text(text.replace(f'state = "{subject.state}"', 'state = ""'))
    subject.start()
    first = subject.nodes_of()
    upgrade(subject.director)
    assert subject.nodes_of() == first
    upgrade(subject.director)
    assert subject.nodes_of() == first
    assert subject.affinity()["counters"]["affinity_created"] == 0  # by the one that runs now


def test_what_the_old_director_decides_after_an_upgrade_the_new_one_knows_and_the_other_way_round(running: Subject):
    kept = {ip: running.connect(ip) for ip in CLIENTS}  # without a request: the old one has to wait for it
    wait_until(lambda: running.director.status()["farm"]["clients_open"] == len(CLIENTS))
    upgrade(running.director)
    by_old = {ip: running.node_of(ip, kept[ip]) for ip in CLIENTS[::2]}
    wait_until(lambda: running.affinity()["templates"] == len(by_old))
    assert running.nodes_of(list(by_old)) == by_old
    by_new = running.nodes_of(CLIENTS[1::2])
    assert {ip: running.node_of(ip, kept[ip]) for ip in by_new} == by_new
    assert running.affinity()["counters"]["affinity_created"] == len(by_new)


def test_the_command_line_lists_counts_and_flushes(running: Subject, capsys: pytest.CaptureFixture[str]):
    first = running.nodes_of(CLIENTS[:6])

    def command(*words: str) -> str:
        assert cli.main(["affinity", *words, "-c", str(running.director.config)]) == 0
        return capsys.readouterr().out

    assert [line.split() for line in command("count").splitlines()] == [
        ["group", "node", "templates"],
        *(["shop", name, "2"] for name in running.nodes),
        ["6", "of", "at", "most", "1000000"],
    ]
    lines = command("list", "--node", "n1").splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["shop", ip, "n1"] for ip, node in first.items() if node == "n1"]
    assert command("flush", "--client", CLIENTS[0]) == "1 templates flushed\n"
    assert len(json.loads(command("list", "--json"))["clients"]) == 5
    assert command("flush", "--group", "shop") == "5 templates flushed\n"
    events = json.loads(running.director.read("/api/v1/events"))["events"]
    assert [event["text"] for event in events if event["kind"] == "affinity"] == [
        f"1 templates flushed: client {CLIENTS[0]}, by the operator",
        "5 templates flushed: group shop, by the operator",
    ]
    assert cli.main(["affinity", "flush", "-c", str(running.director.config)]) == 1
    assert "flush what?" in capsys.readouterr().err
