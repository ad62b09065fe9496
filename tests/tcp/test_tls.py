"""TLS that is never decrypted: names lead to nodes, and a session is gone on with where it was begun, by two workers."""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes_tls import certificate
from live_director import wait_until
from tcp_servers import TlsClient, TlsServer, farm_counters, is_open, node, program

from cachelb.demo.squid import free_port

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VISITS = 20


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Callable[..., list[TlsServer]]]:
    """``servers(tickets=True)``: three, on one port of three addresses."""
    made: list[TlsServer] = []
    files = certificate(tmp_path)

    def make(tickets: bool = True) -> list[TlsServer]:
        port = 0
        for number in range(3):
            made.append(TlsServer(f"n{number}", f"127.0.0.{51 + number}", port, files, tickets))
            port = made[0].port
        return made

    yield make
    for server in made:
        server.close()


def nodes_of(servers: list[TlsServer]) -> str:
    return "".join(node(server.name, f"127.0.0.{51 + i}", server.port, "") for i, server in enumerate(servers))


def service(here: int, port: int, more: str) -> str:
    return f'[[tcp]]\nname = "tls"\nlisten = "127.0.0.1:{here}"\nport = {port}\n{more}\n'


def visits(client: TlsClient, count: int = VISITS) -> list[str]:
    return [client.visit() for _ in range(count)]


def test_names_lead_to_nodes(servers, start):
    nodes, here = servers(), free_port("127.0.0.1")
    pools = "".join(f'[[pool]]\nname = "p{i}"\nnodes = "n{i}"\n' for i in range(3))
    chosen = 'tls = "sni"\npool = "p2"\npools = { "shop.example" = "p0", ".mail.example" = "p1" }'
    director = start(pools + service(here, nodes[0].port, chosen), nodes_of(nodes))
    wanted = {"shop.example": "n0", "imap.mail.example": "n1", "mail.example": "n1", "other.example": "n2"}
    for name, server in wanted.items():
        for newest in (V12, V13):
            assert set(visits(TlsClient(("127.0.0.1", here), newest, name), 3)) == {server}
    wait_until(lambda: farm_counters(director)["ended_tcp_closed"] + farm_counters(director)["ended_tcp_reset"] == 24)


@pytest.mark.parametrize("tickets", [True, False], ids=["tickets", "session ids"])
def test_a_session_of_tls_12_is_gone_on_with(servers, start, tickets):
    nodes, here = servers(tickets), free_port("127.0.0.1")
    director = start(service(here, nodes[0].port, 'tls = "session"\nscheduler = "rr"'), nodes_of(nodes))
    for round_ in range(3):
        client = TlsClient(("127.0.0.1", here), V12)
        first = client.visit()
        # the other worker is told of it; which of the two takes a connection is the kernel's choice
        wait_until(lambda: farm_counters(director)["clients_open"] == 0)
        assert set(visits(client)) == {first}, round_
        assert client.reused == [False] + [True] * VISITS
    wait_until(lambda: farm_counters(director)["tls_resumed"] == 3 * VISITS)


def test_without_that_a_session_is_lost_on_other_nodes(servers, start):
    nodes, here = servers(), free_port("127.0.0.1")
    start(service(here, nodes[0].port, 'tls = "sni"\nscheduler = "rr"'), nodes_of(nodes))
    client = TlsClient(("127.0.0.1", here), V12)
    assert len(set(visits(client))) == 3
    assert client.reused.count(False) > VISITS // 4


@pytest.mark.parametrize("how", ['affinity = "g"', 'scheduler = "client"'])
def test_sessions_of_tls_13_need_the_clients_affinity(servers, start, how):
    nodes, here = servers(), free_port("127.0.0.1")
    group = '[[affinity]]\nname = "g"\n' if "affinity" in how else ""
    start(group + service(here, nodes[0].port, f'tls = "session"\n{how}'), nodes_of(nodes))
    client = TlsClient(("127.0.0.1", here), V13)
    assert len(set(visits(client))) == 1
    assert client.reused == [False] + [True] * (VISITS - 1)


def test_openssls_own_client_reconnects(run, start, tmp_path):
    openssl, here = program("openssl"), free_port("127.0.0.1")
    cert, key = certificate(tmp_path)
    port = free_port("127.0.0.51")
    hosts = ("127.0.0.51", "127.0.0.52")
    for host in hosts:
        run([openssl, "s_server", "-accept", f"{host}:{port}", "-cert", cert, "-key", key, "-www", "-quiet"])
        wait_until(lambda host=host: is_open(host, port))
    nodes = "".join(node(f"n{i}", host, port) for i, host in enumerate(hosts))
    start(service(here, port, 'tls = "session"\nscheduler = "rr"'), nodes)
    command = [openssl, "s_client", "-connect", f"127.0.0.1:{here}", "-tls1_2", "-reconnect"]
    said = subprocess.run(command, input=b"", capture_output=True, timeout=60, check=False).stdout.decode()
    assert re.findall(r"^(New|Reused), TLSv1.2", said, re.M) == ["New"] + ["Reused"] * 5
