"""One connection of a TCP service: found a node, relayed both ways, ended for one reason."""

from __future__ import annotations

import hashlib
import os
import threading

import pytest
from fakes import get, ok
from fakes_tls import hello, real_hello, server_name

from cachelb.counters import END_INDEX
from cachelb.errors import Reason

RANDOM = os.urandom(1 << 20)
rows = pytest.mark.parametrize


def opened(stage):
    """A client, the number of its node, and what that node sees."""
    client = stage.call()
    stage.farm.wait_until(lambda: stage.farm.counter("tcp_open") == 1)
    busy = [number for number in range(len(stage.nodes)) if stage.farm.node_counters(number)["requests"]]
    assert len(busy) == 1
    return client, busy[0], stage.nodes[busy[0]].accept()


def test_bytes_go_both_ways_and_are_counted(make_service):
    stage = make_service()
    client, number, link = opened(stage)
    link.send(b"220 ready\r\n")  # the server may speak first
    assert client.read_exactly(11) == b"220 ready\r\n"
    for turn in range(10):
        client.send(b"ping %d" % turn)
        assert link.read_exactly(6) == b"ping %d" % turn
    client.half_close()
    assert link.read_to_end() == b""
    link.close()
    assert client.read_to_end() == b""
    stage.farm.wait_for_end("tcp_closed")
    counted = stage.farm.counters()
    assert (counted["tcp_connections"], counted["tcp_bytes_in"], counted["tcp_bytes_out"]) == (1, 60, 11)
    assert counted["clients"] == 1
    assert counted["requests"] == 0
    of_node = stage.farm.node_counters(number)
    names = ("requests", "ended", "connects", "tcp_connections", "bytes", "tcp_connect_failures", "responses")
    assert [of_node[name] for name in names] == [1, 1, 1, 1, 11, 0, 0]


def test_much_goes_both_ways_at_once_and_none_of_it_is_copied(make_service):
    stage = make_service()
    client, _, link = opened(stage)
    size, got = 16 << 20, {}

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
    assert stage.farm.counter("bytes_spliced") == 2 * size


@rows("first", ["client", "node"])
def test_half_a_close_leaves_the_other_half_open(make_service, first):
    stage = make_service()
    client, _, link = opened(stage)
    one, other = (client, link) if first == "client" else (link, client)
    one.send(b"last words")
    one.half_close()
    assert other.read_to_end() == b"last words"
    other.send(RANDOM)
    assert one.read_exactly(len(RANDOM)) == RANDOM
    other.half_close()
    assert one.read_to_end() == b""
    stage.farm.wait_for_end("tcp_closed")


@rows("who", ["client", "node"])
def test_a_reset_is_one_to_the_other_side_too(make_service, who):
    stage = make_service()
    client, _, link = opened(stage)
    one, other = (client, link) if who == "client" else (link, client)
    one.reset()
    assert other.is_cut()
    stage.farm.wait_for_end("tcp_reset")


def test_an_idle_connection_is_ended(make_service):
    stage = make_service(idle_s=0.15)
    client, _, link = opened(stage)
    for _ in range(5):
        client.send(b"x")  # not idle
        assert link.read_exactly(1) == b"x"
        assert client.is_quiet()
    assert client.is_cut()
    assert link.is_cut()
    assert stage.farm.ended() == {"tcp_idle": 1}


def test_a_side_that_does_not_read_stops_the_other(make_service):
    stage = make_service()
    client, _, link = opened(stage)
    assert client.send_until_stuck(RANDOM, most=256 << 20) < 96 << 20
    assert link.read_exactly(4 << 20) == RANDOM * 4


# -- finding a node


def test_who_refuses_is_passed_over_and_health_does_not_hear_of_it(make_service):
    stage = make_service(scheduler="rr")
    stage.nodes[0].refuse()
    stage.nodes[1].refuse()
    stage.nodes[2].serve_calls(b"2")
    assert [stage.who() for _ in range(6)] == [2] * 6
    counted = [stage.farm.node_counters(number) for number in range(2)]
    assert all(count["tcp_connect_failures"] and not count["connect_failures"] for count in counted)


def test_three_nodes_are_asked_at_most(make_service):
    stage = make_service(5)
    for node in stage.nodes:
        node.refuse()
    client = stage.call()
    assert client.read_to_end() == b""
    assert stage.farm.ended() == {"connect_refused": 1}
    assert sum(stage.farm.node_counters(number)["requests"] for number in range(5)) == 3


def test_who_does_not_answer_is_passed_over_in_time(make_service):
    stage = make_service(2, scheduler="rr", backlog=0, sections={"timeouts": {"connect_s": 0.1}})
    stage.nodes[1].serve_calls(b"1")
    with stage.nodes[0].deaf():
        assert [stage.who() for _ in range(4)] == [1] * 4
    assert stage.farm.node_counters(0)["tcp_connect_failures"] == 2


def test_a_node_that_is_declared_dead_is_waited_for_no_longer(make_service):
    stage = make_service(2, scheduler="rr", backlog=0, sections={"timeouts": {"connect_s": 9.0}})
    stage.nodes[1].serve_calls(b"1")
    with stage.nodes[0].deaf():
        clients = [stage.call() for _ in range(2)]
        stage.farm.wait_until(lambda: stage.farm.node_counters(0)["requests"] == 1)
        stage.farm.declare(0, "dead")
        assert [client.read_to_end() for client in clients] == [b"1"] * 2
    assert stage.farm.counter("moved") == 1


def test_where_no_node_is_in_service_the_connection_is_closed(make_service):
    stage = make_service(2)
    stage.farm.states = ["dead", "down"]
    stage.farm.apply()
    assert stage.call().read_to_end() == b""
    assert stage.farm.ended() == {"no_node": 1}


def test_a_node_with_several_addresses_is_reached_by_the_one_that_answers(make_service):
    stage = make_service(1)
    stage.nodes[0].serve_calls(b"0")
    stage.farm.addresses = [("127.0.0.77", stage.nodes[0].host)]
    stage.farm.apply()
    assert stage.who() == 0


# -- TLS


def test_a_hello_goes_on_untouched_however_it_came(make_service):
    stage = make_service(1, tls="sni")
    for data in (real_hello(), hello(server_name(b"a.b"), size=5)):
        for step in (1, 7, len(data)):
            client = stage.call()
            client.send_slowly(data, step)
            client.send(b"and more")
            link = stage.nodes[0].accept()
            assert link.read_exactly(len(data) + 8) == data + b"and more"
            link.send(b"fine")
            link.close()
            assert client.read_to_end() == b"fine"
            client.close()


@rows(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "bad_hello"),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n", "bad_hello"),
        (hello(server_name(b"no name")), "bad_hello"),
        (b"\x16\3\1\xff\xff", "bad_hello"),
        (b"\x16\3\1\x40\0\1\0\xff\xff" + b"x" * 20000, "bad_hello"),
        (b"\x16\3\1", "hello_timeout"),
        (real_hello()[:-1], "hello_timeout"),
        (b"", "hello_timeout"),
    ],
)
def test_who_says_no_hello_is_closed_in_time(make_service, said, reason):
    stage = make_service(1, tls="sni", hello_s=0.2)
    client = stage.call()
    client.send(said)
    assert client.is_closed()
    assert stage.farm.ended() == {reason: 1}
    assert stage.nodes[0].is_left_alone()


def test_who_goes_before_the_hello_is_whole_is_counted(make_service):
    stage = make_service(1, tls="sni")
    client = stage.call()
    client.send(b"\x16\3\1")
    client.close()
    stage.farm.wait_for_end("client_gone")


# -- the end


def test_a_drain_waits_for_connections_and_cuts_them_then(make_service):
    stage = make_service()
    client, _, link = opened(stage)
    drained = threading.Thread(target=lambda: results.append(stage.farm.drain(5.0)))
    results: list[int] = []
    drained.start()
    client.send(b"still")
    assert link.read_exactly(5) == b"still"
    client.close()
    link.close()
    drained.join()
    assert results == [0]


def test_what_is_open_when_the_drain_is_over_is_cut(make_service):
    stage = make_service()
    client, _, link = opened(stage)
    assert stage.farm.drain(0.1) == 1
    assert client.is_cut()
    assert link.is_cut()
    assert stage.farm.ended() == {"shutdown": 1}


def test_http_goes_on_beside_it(make_service):
    stage = make_service()
    client, _, link = opened(stage)
    stage.farm.nodes[0].serve(ok(b"hello"))
    asked = stage.farm.connect()
    asked.send(get(stage.farm.url(0)))
    assert asked.read_answer().body == b"hello"
    client.send(b"x")
    assert link.read_exactly(1) == b"x"
    assert stage.farm.counter("clients_open") == 2


def test_a_bug_of_ours_ends_one_connection(make_service, relay_errors):
    stage = make_service()
    client, _, link = opened(stage)
    services = stage.farm.engine.door.services

    def broken(*_):
        raise ZeroDivisionError

    services.choose, choose = broken, services.choose
    assert stage.call().is_closed()
    services.choose = choose
    client.send(b"x")
    assert link.read_exactly(1) == b"x"
    assert [text.splitlines()[0] for text in relay_errors] == ["internal error: ZeroDivisionError()"]
    assert stage.farm.ended() == {"internal": 1}
    relay_errors.clear()
    stage.farm.engine.farm[END_INDEX[Reason.INTERNAL]] = 0  # which the stage would find otherwise
