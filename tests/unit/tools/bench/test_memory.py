from __future__ import annotations

import socket

import pytest
from cachelb.tools.bench import memory
from cachelb.tools.bench.memory import Held, answered, connect, settled, tcp_of
from cachelb.tools.bench.processes import BenchError


def test_memory_is_divided_by_clients():
    assert Held(clients=100, before_kib=1000, after_kib=1500, kernel_kib=0).each_kib == 5.0


def test_what_tcp_holds_is_read_in_pages():
    assert tcp_of("sockets: used 9\nTCP: inuse 5 orphan 0 tw 1 alloc 7 mem 12\nUDP: inuse 0 mem 3\n", 4096) == 48
    assert tcp_of("", 4096) == 0


def test_clients_come_from_several_addresses():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with connect(port, 0) as first, connect(port, 1) as second, connect(port, memory.SOURCES) as again:
            names = [client.getsockname()[0] for client in (first, second, again)]
    assert names[0] == names[2] != names[1]


def test_the_beginning_of_an_answer_is_awaited_and_left_there():
    client, server = socket.socketpair()
    with client, server:
        server.send(b"HTTP/1.1 200 OK\r\n")
        answered([client])
        assert client.recv(100) == b"HTTP/1.1 200 OK\r\n"


def test_an_answer_that_is_none_is_reported(monkeypatch: pytest.MonkeyPatch):
    client, server = socket.socketpair()
    with client, server:
        server.send(b"HTTP/1.1 503 No\r\n")
        with pytest.raises(BenchError, match="503"):
            answered([client])
        monkeypatch.setattr(memory, "WAIT_S", -1.0)
        with pytest.raises(BenchError, match="1 of 1 clients have had no answer"):
            answered([client])


def test_a_figure_counts_once_it_no_longer_grows():
    values = iter([100, 200, 300, 301, 900])
    assert settled(lambda: next(values), pause_s=0) == 301
