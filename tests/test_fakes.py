"""The fakes against the real thing: the standard library's HTTP client, and sockets that behave as kernels do."""

from __future__ import annotations

import http.client
import socket

import pytest
from fakes import FakeSquid, Peer, answer_head, chunk, dechunk, get, ok, parse_answer_head, post


@pytest.fixture
def node():
    fake = FakeSquid("127.0.0.8")
    yield fake
    fake.stop()


@pytest.fixture
def pair():
    one, other = (Peer(sock) for sock in _connected())
    yield one, other
    one.close()
    other.close()


def _connected():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        return client, server.accept()[0]


def test_a_real_client_understands_a_fake_node(node):
    node.serve()
    connection = http.client.HTTPConnection(node.host, node.port, timeout=5)
    for body in (None, b"hello"):
        connection.request("POST" if body else "GET", "/x", body=body)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"127.0.0.8 /x")
    connection.close()
    assert node.connections == 1
    assert [head.split(b" ")[0] for head in node.heads] == [b"GET", b"POST"]
    assert node.bodies == [b"", b"hello"]


@pytest.mark.parametrize("size", [0, 1, 5000, 100_000])
def test_a_real_client_understands_our_chunks_and_we_do(node, size):
    body = bytes(i % 251 for i in range(size))
    node.serve(answer_head("Transfer-Encoding: chunked") + chunk(body, trailers=b"X: y\r\n", extension=b";a=b"))
    connection = http.client.HTTPConnection(node.host, node.port, timeout=5)
    connection.request("GET", "/")
    assert connection.getresponse().read() == body
    connection.close()
    assert dechunk(chunk(body, 7)) == body
    peer = Peer(socket.create_connection((node.host, node.port)))
    peer.send(get("http://a.test/"))
    assert peer.read_answer().body == body
    peer.close()


def test_an_empty_answer_closes(node):
    node.serve(b"")
    peer = Peer(socket.create_connection((node.host, node.port)))
    peer.send(post("http://a.test/", b"x"))
    assert peer.is_closed()
    peer.close()


def test_a_node_that_refuses_refuses_and_may_return(node):
    node.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((node.host, node.port))
    node.return_to_service()
    socket.create_connection((node.host, node.port)).close()


def test_a_deaf_node_neither_accepts_nor_refuses():
    node = FakeSquid("127.0.0.8", backlog=0)
    with node.deaf(), pytest.raises(TimeoutError):
        socket.create_connection((node.host, node.port), timeout=0.1)
    node.stop()


def test_left_alone_means_that_nobody_has_connected(node):
    assert node.is_left_alone()
    with socket.create_connection((node.host, node.port)):
        assert not node.is_left_alone()


def test_an_end_a_break_and_silence_are_told_apart(pair):
    one, other = pair
    assert one.is_quiet()
    other.send(b"x")
    assert not one.is_quiet()
    assert one.read_exactly(1) == b"x"
    other.half_close()
    assert not one.is_quiet()
    assert one.is_closed()
    one.send(b"still open")
    assert other.read_exactly(10) == b"still open"
    one.reset()
    assert other.is_cut()


def test_an_end_in_good_order_is_no_cut(pair):
    one, other = pair
    other.send(b"x")
    other.close()
    assert not one.is_cut()


def test_reading_does_not_lose_what_comes_after(pair):
    one, other = pair
    other.send(ok(b"one") + ok(b"two") + b"rest")
    assert [one.read_answer().body, one.read_answer().body, one.read_exactly(4)] == [b"one", b"two", b"rest"]


def test_an_early_end_is_an_error(pair):
    one, other = pair
    other.send(b"half")
    other.close()
    with pytest.raises(EOFError, match="after 4"):
        one.read_exactly(8)


def test_stuck_means_that_nobody_reads(pair):
    one, other = pair
    taken = one.send_until_stuck(bytes(1 << 20), most=64 << 20)
    assert 0 < taken < 64 << 20
    assert other.read_exactly(taken) == bytes(taken)


def test_repeated_fields_are_joined():
    answer = parse_answer_head(answer_head("A: 1", "B: 2", "a:3", status="404 Not Found"))
    assert (answer.status, answer.fields) == (404, {b"a": b"1, 3", b"b": b"2"})
