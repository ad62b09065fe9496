"""Accepting: bursts, a lack of descriptors, clients that have gone before they were accepted."""

from __future__ import annotations

import errno
import resource
import socket

import pytest
from fakes import get


def test_a_burst_of_connections_is_accepted_whole(farm):
    farm.nodes[0].serve()
    with farm.held():
        clients = [farm.connect() for _ in range(120)]
    for client in clients:
        client.send(get(farm.url(0)))
    assert [client.read_answer().status for client in clients] == [200] * 120
    assert farm.counter("clients") == 120


def test_a_client_that_has_gone_before_it_was_accepted_harms_nobody(farm):
    farm.nodes[0].serve()
    with farm.held():
        for _ in range(10):
            farm.connect().reset()
        client = farm.connect()
    client.send(get(farm.url(0)))
    assert client.read_answer().status == 200
    farm.wait_until(lambda: farm.counter("clients_open") == 1)


class Exhausted(socket.socket):
    """A listener whose process has no descriptors left, for the first few calls."""

    failures = 3

    def _accept(self):
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super()._accept()


def test_a_lack_of_descriptors_is_waited_for(farm):
    farm.nodes[0].serve()
    with socket.create_server(("127.0.0.1", 0)) as plain:
        listener = Exhausted(fileno=socket.dup(plain.fileno()))
    farm.relay.call(lambda: farm.engine.door.open([*farm.engine.door.listeners, listener]))
    farm.address = listener.getsockname()
    client = farm.connect()
    client.send(get(farm.url(0)))
    assert client.read_answer().status == 200
    assert listener.failures == 0


def test_no_more_clients_are_let_in_than_descriptors_allow(farm, monkeypatch):
    farm.nodes[0].serve()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 16))
    farm.apply(timeouts={"keep_alive_s": 60.0})
    clients = [farm.connect() for _ in range(4)]
    for client in clients:
        client.send(get(farm.url(0)))
        assert client.read_answer().status == 200
    assert farm.connect().read_answer().status == 503
    assert farm.ended()["overloaded"] == 1


@pytest.mark.parametrize("allow", [["127.0.0.1/32"], ["127.0.0.1/32", "10.0.0.0/8"]])
def test_permission_is_by_address(make_farm, allow):
    farm = make_farm(access={"allow": allow})
    farm.nodes[0].serve()
    for _ in range(2):  # the second time from memory
        for source, status in (("127.0.0.1", 200), ("127.0.0.2", 403)):
            client = farm.connect(source)
            client.send(get(farm.url(0)))
            assert client.read_answer().status == status
