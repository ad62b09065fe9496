"""TCP services of a whole director: over reloads, upgrades and its end, by two workers, and with nodes that die."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import FakeSquid, Peer
from live_director import LiveDirector, wait_until

from cachelb.demo.leash import Leash
from cachelb.demo.squid import free_port

HOSTS = ("127.0.0.81", "127.0.0.82")


@pytest.fixture
def nodes() -> Iterator[list[FakeSquid]]:
    made = [FakeSquid(HOSTS[0])]
    made.append(FakeSquid(HOSTS[1], made[0].port))
    yield made
    for node in made:
        node.stop()


@pytest.fixture
def director(tmp_path: Path, nodes: list[FakeSquid]) -> Iterator[Callable[[str], LiveDirector]]:
    """``director(settings)``: a ready one with the service "svc" at ``.service`` and two workers."""
    made: list[LiveDirector] = []
    with Leash() as leash:

        def make(settings: str) -> LiveDirector:
            subject = LiveDirector(tmp_path, leash, {}, "")
            subject.service = ("127.0.0.1", free_port("127.0.0.1"))  # type: ignore[attr-defined]
            configure(subject, nodes, settings)
            made.append(subject)
            subject.launch()
            wait_until(lambda: "ready: " in subject.log() or not subject.is_running, "ready", 60.0)
            assert "ready: " in subject.log(), subject.log()
            return subject

        yield make
        for subject in made:
            subject.close()


def configure(subject: LiveDirector, nodes: list[FakeSquid], settings: str, more: str = "") -> None:
    where = "{}:{}".format(*subject.service)  # type: ignore[attr-defined]
    text = f'[[tcp]]\nname = "svc"\nlisten = "{where}"\nport = {nodes[0].port}\n{settings}\n{more}\n'
    for number, node in enumerate(nodes):
        text += f'[[node]]\nname = "n{number}"\nhost = "{node.host}"\nprobe = "connect"\nprobe_port = {node.port}\n'
    subject.configure("[relay]\nworkers = 2\n[health]\ninterval_s = 0.2\ntimeout_s = 0.15\n", text)


def call(subject: LiveDirector) -> Peer:
    return Peer(socket.create_connection(subject.service, 10))  # type: ignore[attr-defined]


def says(nodes: list[FakeSquid]) -> None:
    for number, node in enumerate(nodes):
        node.serve_calls(b"%d" % number)


def who(subject: LiveDirector) -> str:
    client = call(subject)
    said = client.read_to_end().decode()
    client.close()
    return said


def states(subject: LiveDirector) -> list[str]:
    return [node["state"] for node in json.loads(subject.read("/api/v1/nodes"))["nodes"]]


def test_a_dead_node_is_found_by_connecting_and_comes_back(director, nodes):
    says(nodes)
    subject = director('scheduler = "rr"')
    assert states(subject) == ["up", "up"]
    nodes[0].refuse()
    wait_until(lambda: states(subject) == ["dead", "up"])
    assert {who(subject) for _ in range(6)} == {"1"}
    nodes[0].return_to_service()
    says(nodes[:1])
    wait_until(lambda: states(subject) == ["up", "up"])
    wait_until(lambda: who(subject) == "0")


def test_calls_go_where_explain_says(director, nodes):
    says(nodes)
    subject = director('affinity = "g"\n[[affinity]]\nname = "g"')
    url = "/api/v1/explain?url=tcp://{}:{}".format(*subject.service)
    before = json.loads(subject.read(url))
    assert (before["kind"], before["rule"], before["template"], before["to"]) == ("tcp", "svc", "", ["n0", "n1"])
    went = "n" + who(subject)
    after = json.loads(subject.read(url))
    assert (after["template"], after["to"][0]) == (went, went)
    assert f"n{who(subject)}" == went


def test_a_reload_changes_where_calls_go_but_not_where_they_come_in(director, nodes):
    says(nodes)
    subject = director('scheduler = "rr"')
    assert {who(subject) for _ in range(8)} == {"0", "1"}
    pool = '[[pool]]\nname = "one"\nnodes = "n1"\n'
    configure(subject, nodes, 'pool = "one"', pool)
    subject.signal(signal.SIGHUP)
    wait_until(lambda: {who(subject) for _ in range(8)} == {"1"})
    other = f'[[tcp]]\nname = "more"\nlisten = "127.0.0.1:{free_port("127.0.0.1")}"\n'
    configure(subject, nodes, 'pool = "one"', pool + other)
    subject.signal(signal.SIGHUP)
    subject.wait_for("a change of [[tcp]] listen needs an upgrade or a restart")
    assert who(subject) == "1"


def test_an_upgrade_ends_no_connection_and_refuses_none(director, nodes):
    for number, node in enumerate(nodes):
        node.echo_calls(b"%d" % number)
    subject = director('scheduler = "rr"')
    client = call(subject)
    assert client.read_exactly(1) in (b"0", b"1")
    old = subject.pid
    subject.signal(signal.SIGUSR2)

    def pid() -> int:
        other = call(subject)
        assert other.read_exactly(1) in (b"0", b"1")
        other.close()
        try:
            return int(subject.status()["pid"])
        except OSError:  # from the last word of the one to the first of the other
            return old

    wait_until(lambda: pid() != old, "the new version is the director", 60.0)
    subject.follow(pid())
    client.send(b"still here")
    assert client.read_exactly(10) == b"still here"
    assert old in subject.processes()
    client.close()
    wait_until(lambda: old not in subject.processes())
    assert "ERROR" not in subject.log()


def test_connections_of_both_workers_count_for_the_least_busy(director, nodes):
    for node in nodes:
        node.echo_calls(b"x")
    subject = director('scheduler = "lc"')
    clients = [call(subject) for _ in range(40)]
    for client in clients:
        assert client.read_exactly(1) == b"x"
    wait_until(lambda: subject.status()["farm"]["tcp_open"] == 40)
    open_now = [node["counters"]["tcp_connections"] for node in json.loads(subject.read("/api/v1/nodes"))["nodes"]]
    assert sum(open_now) == 40
    assert abs(open_now[0] - open_now[1]) <= 10
    for client in clients:
        client.close()


def test_a_port_that_another_program_has_is_said_at_the_start(director, nodes):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError, match=f"cannot listen on 127.0.0.1 port {port}: another program uses it"):
            director(f'[[tcp]]\nname = "b"\nlisten = "127.0.0.1:{port}"')
