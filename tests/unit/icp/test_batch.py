"""Batches over real loopback sockets, IPv4 and IPv6, against the system calls for one datagram."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from icp import batch as module
from icp.batch import SLOTS, Batch

HOSTS = {socket.AF_INET: ("127.0.0.1", "127.0.0.7", "127.0.0.8"), socket.AF_INET6: ("::1", "::1", "::1")}
pytestmark = pytest.mark.skipif(module._CALLS is None, reason="no recvmmsg here")


@pytest.fixture(params=HOSTS, ids=lambda family: family.name)
def sockets(request: pytest.FixtureRequest) -> Iterator[list[socket.socket]]:
    """A server's socket and two clients'."""
    with ExitStack() as stack:
        made = [stack.enter_context(socket.socket(request.param, socket.SOCK_DGRAM)) for _ in range(3)]
        for sock, host in zip(made, HOSTS[request.param], strict=True):
            sock.bind((host, 0))
            sock.setblocking(False)
        yield made


def made(sock: socket.socket) -> Batch:
    batch = Batch.of(sock)
    assert batch is not None
    return batch


def all_of(sock: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(sock.recv(1 << 16))
        except BlockingIOError:
            return found


def test_what_waits_is_received_in_its_order_with_its_senders(sockets):
    server, first, second = sockets
    batch = made(server)
    for sender, text in ((first, b"a"), (second, b""), (first, b"c" * 1400), (second, b"d" * 60_000)):
        sender.sendto(text, server.getsockname())
    assert batch.receive() == [b"a", b"", b"c" * 1400, b"d" * 60_000]
    assert batch.hosts() == [sock.getsockname()[0] for sock in (first, second, first, second)]
    assert [batch.address(place) for place in range(2)] == [first.getsockname(), second.getsockname()]
    assert batch.receive() == []


def test_a_short_datagram_in_the_place_of_a_longer_one_is_short(sockets):
    server, first, _ = sockets
    batch = made(server)
    for text in (b"long" * 100, b"short", b""):
        first.sendto(text, server.getsockname())
        assert batch.receive() == [text]


def test_no_more_than_fit_are_received_at_a_time(sockets):
    server, first, _ = sockets
    batch = made(server)
    texts = [b"%d" % number for number in range(SLOTS + 3)]
    for text in texts:
        first.sendto(text, server.getsockname())
    assert batch.receive() == texts[:SLOTS]
    assert batch.receive() == texts[SLOTS:]
    assert len(batch.hosts()) == 3


def test_each_gets_his_own_reply(sockets):
    server, first, second = sockets
    batch = made(server)
    for number, sender in enumerate((first, second, first, second, first)):
        sender.sendto(b"%d" % number, server.getsockname())
    assert batch.send([text * 100 for text in batch.receive()]) == 5
    assert all_of(first) == [b"0" * 100, b"2" * 100, b"4" * 100]
    assert all_of(second) == [b"1" * 100, b"3" * 100]


@pytest.mark.parametrize("places", [[], [0], [4], [1, 2], [0, 3, 4], [1, 3], [0, 1, 2, 3, 4]])
def test_replies_to_some_go_to_them_alone(sockets, places: list[int]):
    server, first, second = sockets
    batch = made(server)
    senders = (first, second, second, first, second)
    for number, sender in enumerate(senders):
        sender.sendto(b"%d" % number, server.getsockname())
    datagrams = batch.receive()
    assert batch.send([datagrams[place] for place in places], places) == len(places)
    for sock in (first, second):
        assert all_of(sock) == [b"%d" % place for place in places if senders[place] is sock]


def test_what_are_not_bytes_is_an_error_before_anything_is_sent(sockets):
    server, first, _ = sockets
    batch = made(server)
    for text in (b"a", b"b"):
        first.sendto(text, server.getsockname())
    batch.receive()
    with pytest.raises(TypeError):
        batch.send([b"a", None])  # type: ignore[list-item]
    assert all_of(first) == []


def test_what_cannot_be_sent_does_not_keep_the_others(sockets):
    server, first, _ = sockets
    batch = made(server)
    for text in (b"a", b"b", b"c", b"d"):
        first.sendto(text, server.getsockname())
    batch.receive()
    assert batch.send([b"1", b"x" * 65_535, b"x" * 65_535, b"4"]) == 2
    assert all_of(first) == [b"1", b"4"]


def test_more_than_the_memory_holds_is_not_sent(sockets):
    server, first, _ = sockets
    batch = made(server)
    first.sendto(b"a", server.getsockname())
    batch.receive()
    assert batch.send([b"x" * (SLOTS * module.SLOT_BYTES + 1)]) == 0


def test_a_closed_socket_has_nothing_and_takes_nothing(sockets):
    server, first, _ = sockets
    batch = made(server)
    first.sendto(b"a", server.getsockname())
    assert batch.receive() == [b"a"]
    server.close()
    with closing(socket.socket()):  # may get the number that the socket had
        assert batch.send([b"b"]) == 0
        assert batch.receive() == []


@pytest.mark.sources
def test_no_more_addresses_are_remembered_than_the_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_HOSTS", 3)
    hosts = module._Hosts()
    assert [hosts[bytes((10, 0, 0, number))] for number in range(8)] == [f"10.0.0.{number}" for number in range(8)]
    assert len(hosts) == 2
    assert hosts[bytes(15) + b"\1"] == "::1"


def test_without_the_system_calls_there_are_no_batches(sockets, monkeypatch: pytest.MonkeyPatch):
    class Library:
        def __init__(self, name: object) -> None:
            pass

    monkeypatch.setattr(module.ctypes, "PyDLL", Library)
    assert module._calls() is None
    monkeypatch.setattr(module, "_CALLS", None)
    assert Batch.of(sockets[0]) is None
