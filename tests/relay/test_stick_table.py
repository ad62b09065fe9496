"""HAProxy's stick tables and our templates, side by side in front of the same nodes: the same questions, the same answers.

What differs is in docs/affinity.md.  HAProxy's clock is its own, so where something has to expire the test waits until HAProxy
says that it has.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import PATIENCE_S, Peer, get
from fakes_affinity import Office

from cachelb.demo.leash import Leash
from cachelb.demo.squid import free_port

HAPROXY = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

pytestmark = [
    pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed (Debian: apt-get install haproxy)"),
    pytest.mark.sources,  # the stage looks into the engine
]

PATIENT = {"keep_alive_s": 100_000.0}
CONFIG = """\
global
    stats socket {directory}/socket level admin
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    option redispatch 1
    retries 2
frontend front
    bind 127.0.0.1:{port}
    default_backend farm
backend farm
    balance leastconn
    stick-table type ip size 100k expire {expire}
    stick on src{mask}
{servers}
"""


class HaproxyFront:
    """A real HAProxy."""

    def __init__(self, directory: Path, leash: Leash, nodes: Any, expire: str, netmask: int) -> None:
        self.address = "127.0.0.1", free_port("127.0.0.1")
        self.socket = directory / "socket"
        self.nodes = nodes
        servers = "".join(f"    server n{i} {node.address}\n" for i, node in enumerate(nodes))
        mask = f",ipmask({netmask})" if netmask < 32 else ""
        path = directory / "haproxy.cfg"
        path.write_text(CONFIG.format(directory=directory, port=self.address[1], expire=expire, mask=mask, servers=servers))
        assert HAPROXY is not None
        self.process = subprocess.Popen([HAPROXY, "-db", "-q", "-f", str(path)], stderr=subprocess.DEVNULL)
        leash.watch(self.process.pid)
        self.wait_until(self._accepts)

    def _accepts(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(self.address) == 0 and self.socket.exists()

    @staticmethod
    def wait_until(is_true: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_true():
            assert time.monotonic() < end
            time.sleep(0.01)

    def say(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(str(self.socket))
            sock.sendall(command.encode() + b"\n")
            text = b""
            while data := sock.recv(65536):
                text += data
        return text.decode()

    def ask(self, ip: str) -> str:
        sock = socket.socket()
        sock.settimeout(PATIENCE_S)
        sock.bind((ip, 0))
        sock.connect(self.address)
        client = Peer(sock)
        client.send(get("http://www.test/", "Connection: close"))
        answer = client.read_answer()
        client.close()
        assert answer.status == 200
        return answer.body.split()[0].decode()

    def state(self, node: int, state: str) -> None:
        self.say(f"set server farm/n{node} state {({'up': 'ready', 'dead': 'maint'}).get(state, state)}")

    def entries(self) -> int:
        return self.say("show table farm").count(" use=")

    def flush(self, ip: str) -> None:
        self.say(f"clear table farm key {ip}")

    def expire(self) -> None:
        self.wait_until(lambda: not self.entries())

    def close(self, leash: Leash) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        leash.forget(self.process.pid)


class OurFront:
    """The relay and a register."""

    def __init__(self, farm: Any) -> None:
        self.farm = farm
        self.office = Office(farm)

    def ask(self, ip: str) -> str:
        client = self.farm.connect(ip)
        client.send(get("http://www.test/", "Connection: close"))
        answer = client.read_answer()
        client.close()
        assert answer.status == 200
        return str(answer.body.split()[0].decode())

    def state(self, node: int, state: str) -> None:
        self.farm.declare(node, state)

    def entries(self) -> int:
        return self.office.register.templates.size

    def flush(self, ip: str) -> None:
        self.office.flush(ip)

    def expire(self) -> None:
        engine = self.farm.engine
        self.farm.wait_until(lambda: not engine.clients and not engine.steering.templates._used)
        self.office.pass_time(2000.0)


Fronts = Callable[..., list[Any]]


@pytest.fixture
def fronts(make_farm: Callable[..., Any], tmp_path: Path) -> Iterator[Fronts]:
    """Both, in front of three nodes."""
    running: list[HaproxyFront] = []
    with Leash() as leash:

        def make(netmask: int = 32, expire: str = "30m") -> list[Any]:
            farm = make_farm(3, affinity=[{"name": "shop", "netmask_v4": netmask}], rule=[{"affinity": "shop"}], timeouts=PATIENT)
            for node in farm.nodes:
                node.serve()
            running.append(HaproxyFront(tmp_path, leash, farm.nodes, expire, netmask))
            return [running[0], OurFront(farm)]

        yield make
        for front in running:
            front.close(leash)


CLIENTS = [f"127.0.1.{number}" for number in range(1, 10)]


def both(fronts: list[Any], scenario: Callable[[Any], Any]) -> Any:
    """What a scenario finds, which must be the same with both."""
    haproxy, ours = (scenario(front) for front in fronts)
    assert ours == haproxy
    return ours


def index(front: Any, host: str) -> int:
    nodes = front.nodes if isinstance(front, HaproxyFront) else front.farm.nodes
    return [node.host for node in nodes].index(host)


def test_a_client_stays_with_the_node_of_its_first_request(fronts: Fronts):
    def scenario(front: Any) -> Any:
        first = {ip: front.ask(ip) for ip in CLIENTS}
        return [front.ask(ip) == first[ip] for ip in CLIENTS * 3], front.entries(), len(set(first.values()))

    assert both(fronts(), scenario) == ([True] * 27, 9, 3)


def test_a_netmask_makes_clients_of_a_network_one(fronts: Fronts):
    def scenario(front: Any) -> Any:
        return len({front.ask(ip) for ip in CLIENTS}), front.entries()

    assert both(fronts(netmask=24), scenario) == (1, 1)


def test_an_entry_expires(fronts: Fronts):
    def scenario(front: Any) -> Any:
        for ip in CLIENTS[:3]:
            front.ask(ip)
        front.expire()
        before = front.entries()
        front.ask(CLIENTS[0])
        return before, front.entries()

    assert both(fronts(expire="1s"), scenario) == (0, 1)


def test_who_is_still_connected_is_forgotten_by_haproxy_and_not_by_us(fronts: Fronts):
    haproxy, ours = fronts(expire="1s")
    for front in (haproxy, ours):
        sock = socket.create_connection(front.address if front is haproxy else front.farm.address, PATIENCE_S, ("127.0.1.1", 0))
        client = Peer(sock)
        client.send(get("http://www.test/"))
        assert client.read_answer().status == 200
        if front is haproxy:
            haproxy.expire()
        else:
            for _ in range(8):
                ours.office.pass_time(500.0)
            assert ours.entries() == 1
        client.close()


def test_a_node_that_drains_keeps_its_clients_and_gets_no_others(fronts: Fronts):
    def scenario(front: Any) -> Any:
        first = {ip: front.ask(ip) for ip in CLIENTS}
        leaving = first[CLIENTS[0]]
        front.state(index(front, leaving), "drain")
        stay = [front.ask(ip) == first[ip] for ip in CLIENTS]
        return stay, leaving in {front.ask(f"127.0.2.{number}") for number in range(1, 10)}

    assert both(fronts(), scenario) == ([True] * 9, False)


def test_a_node_that_is_gone_loses_its_clients_and_they_stay_where_they_have_gone(fronts: Fronts):
    def scenario(front: Any) -> Any:
        first = {ip: front.ask(ip) for ip in CLIENTS}
        gone = first[CLIENTS[0]]
        front.state(index(front, gone), "dead")
        after = {ip: front.ask(ip) for ip in CLIENTS}
        moved = [after[ip] != first[ip] for ip in CLIENTS] == [first[ip] == gone for ip in CLIENTS]
        front.state(index(front, gone), "up")
        return moved, [front.ask(ip) == after[ip] for ip in CLIENTS]

    assert both(fronts(), scenario) == (True, [True] * 9)


def test_the_operator_flushes_a_client(fronts: Fronts):
    def scenario(front: Any) -> Any:
        for ip in CLIENTS:
            front.ask(ip)
        front.flush(CLIENTS[3])
        before = front.entries()
        front.ask(CLIENTS[3])
        return before, front.entries()

    assert both(fronts(), scenario) == (8, 9)
