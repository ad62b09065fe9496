"""CONNECT and Upgrade: bytes both ways, each direction with an end of its own, and limits on time."""

from __future__ import annotations

import hashlib
import os
import threading

import pytest
from fakes import answer_head, get, ok

RANDOM = os.urandom(1 << 20)
PORTS = {"connect_ports": ["1-65535"]}
rows = pytest.mark.parametrize


@pytest.fixture
def open_farm(make_farm):
    """A farm that lets tunnels go anywhere."""
    return make_farm(access=PORTS)


def tunnel(farm, early=b""):
    """A client and the origin at the two ends of an open tunnel."""
    client = farm.connect()
    client.send(get(farm.origin.address, method="CONNECT") + early)
    assert client.read_answer("HEAD").status == 200
    return client, farm.origin.accept()


def upgraded(farm, early=b""):
    client = farm.connect()
    fields = ("Connection: Upgrade", "Upgrade: websocket")
    client.send(get(farm.origin_url(), *fields) + early)
    link = farm.origin.accept()
    head = link.read_head()
    assert b"\r\nConnection: Upgrade\r\n" in head
    assert b"\r\nUpgrade: websocket\r\n" in head
    link.send(answer_head("Connection: Upgrade", "Upgrade: websocket", status="101 Switching Protocols"))
    answer = client.read_answer()
    assert answer.status == 101
    assert answer.fields[b"upgrade"] == b"websocket"
    assert answer.fields[b"connection"] == b"Upgrade"
    return client, link


KINDS = rows("open_one", [tunnel, upgraded], ids=["connect", "upgrade"])


@KINDS
def test_bytes_go_both_ways(open_farm, open_one):
    client, link = open_one(open_farm)
    for turn in range(10):
        client.send(b"ping %d" % turn)
        assert link.read_exactly(6) == b"ping %d" % turn
        link.send(b"pong %d" % turn)
        assert client.read_exactly(6) == b"pong %d" % turn
    assert open_farm.counter("tunnels") == 1
    assert all(node.is_left_alone() for node in open_farm.nodes)


@KINDS
def test_what_the_client_says_early_is_not_lost(open_farm, open_one):
    _, link = open_one(open_farm, b"early bird")
    assert link.read_exactly(10) == b"early bird"


def test_what_the_origin_says_early_is_not_lost(open_farm):
    client = open_farm.connect()
    client.send(get(open_farm.origin_url(), "Connection: Upgrade", "Upgrade: x"))
    link = open_farm.origin.accept()
    link.read_head()
    link.send(answer_head("Connection: Upgrade", "Upgrade: x", status="101 S") + b"early bird")
    client.read_head()
    assert client.read_exactly(10) == b"early bird"


@KINDS
def test_much_goes_both_ways_at_once(open_farm, open_one):
    client, link = open_one(open_farm)
    size = 16 << 20
    got = {}

    def send(peer):
        for _ in range(size >> 20):
            peer.send(RANDOM)

    def read(peer, name):
        got[name] = hashlib.sha1(peer.read_exactly(size)).digest()

    work = [(send, (client,)), (send, (link,)), (read, (client, "client")), (read, (link, "link"))]
    threads = [threading.Thread(target=function, args=args) for function, args in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = hashlib.sha1(RANDOM * (size >> 20)).digest()
    assert got == {"client": expected, "link": expected}
    assert open_farm.counter("bytes_spliced") >= 2 * size


@KINDS
@rows("first", ["client", "origin"])
def test_half_a_close_leaves_the_other_half_open(open_farm, open_one, first):
    client, link = open_one(open_farm)
    one, other = (client, link) if first == "client" else (link, client)
    one.send(b"last words")
    one.half_close()
    assert other.read_to_end() == b"last words"
    other.send(RANDOM)
    assert one.read_exactly(len(RANDOM)) == RANDOM
    other.half_close()
    assert one.is_closed()
    open_farm.wait_for_end("done")


def test_a_client_that_has_said_all_before_the_tunnel_opens_is_heard(open_farm):
    client = open_farm.connect()
    client.send(get(open_farm.origin.address, method="CONNECT") + b"all I have")
    client.half_close()
    link = open_farm.origin.accept()
    assert link.read_to_end() == b"all I have"
    link.send(b"fine")
    link.close()
    assert client.read_head()
    assert client.read_to_end() == b"fine"


@KINDS
@rows("who", ["client", "origin"])
def test_a_broken_side_ends_the_tunnel(open_farm, open_one, who):
    client, link = open_one(open_farm)
    one, other = (client, link) if who == "client" else (link, client)
    one.reset()
    assert other.is_closed()
    open_farm.wait_until(lambda: open_farm.counter("clients_open") == 0)


@KINDS
def test_an_idle_tunnel_is_closed(make_farm, open_one):
    farm = make_farm(access=PORTS, timeouts={"tunnel_idle_s": 0.15})
    client, link = open_one(farm)
    for _ in range(5):
        client.send(b"x")  # not idle
        assert link.read_exactly(1) == b"x"
        assert client.is_quiet()
    assert client.is_closed()
    assert link.is_closed()
    assert farm.ended() == {"tunnel_idle": 1}


def test_a_busy_tunnel_is_closed_when_its_time_is_over(make_farm):
    farm = make_farm(access=PORTS, timeouts={"tunnel_total_s": 0.2})
    client, link = tunnel(farm)
    for _ in range(1000):
        link.send(b"x")
        if client.is_closed():
            break
        client.read_some()
    farm.wait_for_end("tunnel_limit")


def test_a_side_that_does_not_read_stops_the_other(open_farm):
    client, link = tunnel(open_farm)
    assert client.send_until_stuck(RANDOM, most=256 << 20) < 96 << 20
    assert link.send_until_stuck(RANDOM, most=256 << 20) < 96 << 20
    assert link.read_exactly(4 << 20) == RANDOM * 4
    assert client.read_exactly(4 << 20) == RANDOM * 4


def test_ports_that_may_not_be_tunnelled_to_are_refused(farm):
    client = farm.connect()
    client.send(get("127.0.0.9:25", method="CONNECT"))
    assert client.read_answer().status == 403
    assert farm.ended() == {"port_denied": 1}


def test_an_origin_that_refuses_the_connection_is_a_503(open_farm):
    open_farm.origin.refuse()
    client = open_farm.connect()
    client.send(get(open_farm.origin.address, method="CONNECT"))
    assert client.read_answer().status == 503
    assert open_farm.ended() == {"connect_refused": 1}


@rows("target", ["127.0.0.9", "http://a.test/", "127.0.0.9:0", "127.0.0.9:99999", ":443"])
def test_a_tunnel_to_nowhere_is_refused(farm, target):
    client = farm.connect()
    client.send(get(target, "Host: a.test", method="CONNECT"))
    assert client.read_answer().status in (400, 403)


@rows("mode", ["nodes", "off"])
def test_a_tunnel_may_lead_through_a_node(make_farm, mode):
    farm = make_farm(1, access=PORTS, bypass={"mode": mode})
    client = farm.connect()
    client.send(get(farm.origin.address, method="CONNECT"))
    link = farm.nodes[0].accept()
    assert link.read_head().startswith(f"CONNECT {farm.origin.address} HTTP/1.1\r\n".encode())
    link.send(answer_head(status="200 Connection established") + b"early")
    assert client.read_head().startswith(b"HTTP/1.1 200 ")
    assert client.read_exactly(5) == b"early"
    client.send(b"ping")
    assert link.read_exactly(4) == b"ping"
    link.send(b"pong")
    assert client.read_exactly(4) == b"pong"
    client.half_close()
    assert link.is_closed()
    link.close()
    assert client.is_closed()
    assert farm.origin.is_left_alone()


def test_a_node_may_refuse_a_tunnel(make_farm):
    farm = make_farm(1, access=PORTS, bypass={"mode": "nodes"})
    client = farm.connect()
    client.send(get(farm.origin.address, method="CONNECT"))
    link = farm.nodes[0].accept()
    link.read_head()
    link.send(ok(b"no", status="403 Forbidden"))
    answer = client.read_answer()
    assert (answer.status, answer.body) == (403, b"no")


def test_an_origin_may_decline_an_upgrade(open_farm):
    client = open_farm.connect()
    client.send(get(open_farm.origin_url(), "Connection: Upgrade", "Upgrade: websocket"))
    link = open_farm.origin.accept()
    link.read_head()
    link.send(ok(b"plain"))
    assert client.read_answer().body == b"plain"
    client.send(get(open_farm.origin_url(), "Authorization: x"))
    assert link.read_head()
    link.send(ok())
    assert client.read_answer().status == 200


def test_an_offer_of_http_2_is_ignored(farm):
    farm.nodes[0].serve()
    fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    assert farm.ask(farm.url(0), *fields[1:], "X: y").status == 200
    client = farm.connect()
    client.send(get(farm.url(0), *fields))
    assert client.read_answer().status == 200
    assert b"h2c" not in farm.nodes[0].heads[-1]


def test_neighbours_do_not_notice_tunnels(open_farm):
    open_farm.nodes[0].serve()
    neighbour = open_farm.connect()
    client, link = tunnel(open_farm)
    client.send_until_stuck(RANDOM, most=64 << 20)
    neighbour.send(get(open_farm.url(0)))
    assert neighbour.read_answer().status == 200
    link.reset()
    neighbour.send(get(open_farm.url(0)))
    assert neighbour.read_answer().status == 200
