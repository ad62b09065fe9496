from __future__ import annotations

import errno
import socket

import pytest

from cachelb.relay.upstream import Link, Target, open_link


class Waiter:
    """An exchange that writes down what it is told."""

    def __init__(self):
        self.told = []

    def link_ready(self, link):
        self.told.append("ready")

    def link_failed(self, error):
        self.told.append(("failed", error.errno))

    def link_data(self, link, data):
        self.told.append(data)
        link.inbuf = data

    def link_readable(self, link):
        self.told.append("readable")
        link.sock.recv(100)

    def link_lost(self, link):
        self.told.append("lost")

    def crashed(self, exc):
        self.told.append(exc)


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(10.0)
        yield sock


@pytest.fixture
def target(server):
    target = Target("n0", ["127.0.0.1"], server.getsockname()[1], slot=0)
    yield target
    target.close_idle()


@pytest.fixture
def link(loop, server, target):
    """An open connection and its other side."""
    link = open_link(loop, target, "127.0.0.1")
    link.exchange = Waiter()
    peer, _ = server.accept()
    loop.run_until(lambda: link.exchange.told)
    assert link.exchange.told.pop() == "ready"
    yield link, peer
    link.shut()
    peer.close()


def test_an_open_connection_tells_its_exchange(loop, link):
    link, peer = link
    peer.send(b"hello")
    loop.turn(1.0)
    assert link.exchange.told == [b"hello"]
    peer.send(b" world")
    loop.turn(1.0)
    assert link.exchange.told == [b"hello", b"hello world"]


def test_a_refused_connection_tells_its_exchange(loop, target, server):
    server.close()
    link = open_link(loop, target, "127.0.0.1")
    link.exchange = waiter = Waiter()
    loop.run_until(lambda: waiter.told)
    assert waiter.told == [("failed", errno.ECONNREFUSED)]
    assert link.closed
    assert loop.writers == {}


def test_an_address_that_cannot_be_connected_to_is_an_error_at_once(loop, target):
    with pytest.raises(OSError, match=r"255\.255\.255\.255|unreachable|denied"):
        open_link(loop, target, "255.255.255.255")
    assert loop.writers == loop.readers == {}


def test_a_connection_that_nobody_waits_for_any_more_is_closed(loop, server, target):
    link = open_link(loop, target, "127.0.0.1")
    server.accept()[0].close()
    loop.run_until(lambda: link.closed)


@pytest.mark.parametrize("end", ["close", "reset"])
def test_the_end_of_a_connection_is_told(loop, link, end):
    link, peer = link
    if end == "reset":
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    loop.turn(1.0)
    assert link.exchange.told == ["lost"]


def test_a_body_is_left_to_the_exchange(loop, link):
    link, peer = link
    link.answering = True
    peer.send(b"body")
    loop.turn(1.0)
    assert link.exchange.told == ["readable"]


def test_a_bug_in_the_exchange_is_its_own_affair(loop, link):
    link, peer = link
    bug = ZeroDivisionError()

    def fail(link, data):
        raise bug

    link.exchange.link_data = fail
    peer.send(b"x")
    loop.turn(1.0)
    assert link.exchange.told == [bug]


def test_quiet_means_neither_bytes_nor_an_end(link):
    link, peer = link
    assert link.is_quiet()
    peer.send(b"x")
    assert not link.is_quiet()
    assert link.sock.recv(10) == b"x"
    assert link.is_quiet()
    peer.close()
    assert not link.is_quiet()


def test_a_kept_connection_is_used_last_in_first_out(loop, link, target):
    link, _ = link
    target.keep(link, now=100.0)
    assert target.idle == [link]
    assert link.exchange is None
    assert link.deadline == 100.0 + target.keep_s


@pytest.mark.parametrize("end", ["closes", "talks"])
def test_a_kept_connection_on_which_something_happens_is_forgotten(loop, link, target, end):
    link, peer = link
    target.keep(link, now=0.0)
    if end == "closes":
        peer.close()
    else:
        peer.send(b"unasked")
    loop.turn(1.0)
    assert target.idle == []
    assert link.closed


def test_no_more_are_kept_than_allowed(link, target):
    link, _ = link
    target.idle_max = 0
    target.keep(link, now=0.0)
    assert target.idle == []
    assert link.closed


def test_the_oldest_expire_first(loop, target):
    links = []
    for now in (0.0, 10.0, 20.0):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        links.append((Link(loop, ours, target, "127.0.0.1"), theirs))
        target.keep(links[-1][0], now)
    target.expire(target.keep_s + 10.0)
    assert [link.closed for link, _ in links] == [True, True, False]
    assert target.idle == [links[2][0]]
    target.close_idle()
    assert links[2][0].closed
    for _, theirs in links:
        theirs.close()


def test_counters_fit_the_shared_block(target):
    target.counts[0] = 2**64 - 1
    block = target.as_block()
    assert len(block) == len(target.counts)
    assert block[0] == 2**64 - 1


def test_a_call_too_many_does_not_make_a_connection(loop):
    """A poller may call back for a descriptor that had another owner a moment ago."""
    with socket.create_server(("127.0.0.3", 0), backlog=0) as deaf, socket.socket() as one, socket.socket() as two:
        for filler in (one, two):
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        link = open_link(loop, Target("n0", ["127.0.0.3"], deaf.getsockname()[1], slot=0), "127.0.0.3")
        link.exchange = waiter = Waiter()
        loop.writers[link.fd]()
        assert waiter.told == []
        assert link.fd in loop.writers
        link.shut()
