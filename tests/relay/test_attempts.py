"""Which node gets a request when some of them fail, and which requests are never repeated."""

from __future__ import annotations

import contextlib
import errno
import os
import time

import pytest
from fakes import FakeSquid, get, ok, post

from cachelb.relay import attempts, race

rows = pytest.mark.parametrize


def kept_link(farm, node=0):
    """A client and its node connection, both kept after one exchange."""
    client = farm.connect()
    client.send(get(farm.url(node)))
    link = farm.nodes[node].accept()
    link.read_head()
    link.send(ok())
    assert client.read_answer().status == 200
    return client, link


def test_a_refused_connection_goes_to_the_second_owner(farm):
    farm.nodes[0].refuse()
    farm.nodes[1].serve()
    farm.nodes[2].serve()
    url = farm.url(0, 2)
    assert farm.ask(url).body.startswith(farm.nodes[2].host.encode())
    assert farm.nodes[1].heads == []
    assert farm.counter("failovers") == 1
    assert farm.node_counters(0)["connect_failures"] == 1
    assert farm.ended() == {"done": 1}


def test_three_owners_are_tried_at_most(make_farm):
    farm = make_farm(5, bypass={"mode": "nodes"})
    url = farm.url(4, 3, 2)
    for node in farm.nodes:
        node.refuse()
    answer = farm.ask(url)
    assert answer.status == 503
    assert b"connection_refused" in answer.fields[b"proxy-status"]
    assert [farm.node_counters(i)["requests"] for i in range(5)] == [0, 0, 1, 1, 1]
    assert farm.ended() == {"connect_refused": 1}


def test_nodes_that_nobody_can_reach_are_gone_around_before_they_are_known_to_be_dead(farm):
    for node in farm.nodes:
        node.refuse()
    farm.origin.serve(ok(b"from the origin"))
    assert farm.ask(farm.origin_url()).body == b"from the origin"
    assert farm.ended() == {"done": 1}
    assert farm.counter("bypassed") == 1
    only_cached = farm.ask(farm.origin_url(), "Cache-Control: only-if-cached")
    assert only_cached.status == 503


def test_a_node_that_does_not_accept_is_given_up_for_the_next(make_farm):
    farm = make_farm(timeouts={"connect_s": 0.2})
    farm.nodes[0].refuse()
    farm.nodes[0] = FakeSquid(farm.nodes[0].host, backlog=0)
    farm.apply()
    farm.nodes[1].serve()
    farm.nodes[2].serve()
    with farm.nodes[0].deaf():
        assert farm.ask(farm.url(0, 1)).body.startswith(farm.nodes[1].host.encode())
    assert farm.node_counters(0)["connect_failures"] == 1


def test_nodes_that_do_not_accept_end_in_a_504(make_farm):
    farm = make_farm(1, timeouts={"connect_s": 0.1}, bypass={"mode": "nodes"})
    farm.nodes[0].refuse()
    farm.nodes[0] = FakeSquid(farm.nodes[0].host, backlog=0)
    farm.apply()
    with farm.nodes[0].deaf():
        answer = farm.ask(farm.url(0))
    assert answer.status == 504
    assert farm.ended() == {"connect_timeout": 1}


@pytest.mark.sources
@rows("several", [False, True])
@rows("lacking", [errno.EMFILE, errno.EADDRNOTAVAIL])
def test_what_the_director_lacks_is_not_blamed_on_the_nodes(make_farm, monkeypatch, lacking, several):
    def fail(*_):
        raise OSError(lacking, os.strerror(lacking))

    farm = make_farm()
    if several:
        farm.addresses = [(node.host, "127.0.0.99") for node in farm.nodes]
        farm.apply()
    with monkeypatch.context() as patch:
        patch.setattr(attempts, "open_link", fail)
        patch.setattr(race, "open_link", fail)
        answer = farm.ask(farm.url(0))
    assert answer.status == 503
    assert farm.ended()["overloaded"] == 1
    assert [farm.node_counters(i)["connect_failures"] for i in range(3)] == [0, 0, 0]


def test_a_connection_that_went_stale_costs_nothing(farm):
    client, link = kept_link(farm)
    client.send(get(farm.url(0)))
    link.read_head()
    link.close()  # as it would for a request that arrives just when its patience ends
    fresh = farm.nodes[0].accept()
    fresh.read_head()
    fresh.send(ok(b"fresh"))
    assert client.read_answer().body == b"fresh"
    counters = farm.node_counters(0)
    assert (counters["stale"], counters["resets"], counters["connects"]) == (1, 0, 2)
    assert farm.counter("failovers") == 0
    assert farm.counter("retries") == 1


def test_an_idle_connection_that_is_closed_is_forgotten(farm):
    client, link = kept_link(farm)
    link.close()
    farm.wait_until(lambda: farm.node_counters(0)["idle"] == 0)
    client.send(get(farm.url(0)))
    fresh = farm.nodes[0].accept()
    fresh.read_head()
    fresh.send(ok(b"fresh"))
    assert client.read_answer().body == b"fresh"
    assert farm.node_counters(0)["stale"] == 0


@rows("end", ["close", "reset"])
@rows("method", ["GET", "HEAD"])
def test_a_fresh_connection_that_breaks_goes_to_the_next_owner(farm, end, method):
    url = farm.url(0, 1)
    client = farm.connect()
    client.send(get(url, method=method))
    link = farm.nodes[0].accept()
    link.read_head()
    getattr(link, end)()
    second = farm.nodes[1].accept()
    second.read_head()
    second.send(ok())
    assert client.read_answer(method).status == 200
    assert farm.node_counters(0)["resets"] == 1
    assert farm.counter("failovers") == 1


def test_a_request_that_kills_nodes_does_not_walk_through_the_farm(make_farm):
    farm = make_farm(5)
    url = farm.url(0, 1, 2)
    client = farm.connect()
    client.send(get(url))
    for node in farm.nodes[:3]:
        link = node.accept()
        link.read_head()
        link.reset()
    answer = client.read_answer()
    assert answer.status == 502
    assert b"connection_terminated" in answer.fields[b"proxy-status"]
    assert all(node.is_left_alone() for node in farm.nodes)
    assert farm.ended() == {"reset": 1}


@rows("method", ["POST", "PATCH"])
@rows("body", [b"", b"hello"])
def test_what_must_not_be_repeated_is_not(make_farm, method, body):
    farm = make_farm(1, bypass={"mode": "nodes"})
    client = farm.connect()
    client.send(post("http://a.test/", body, method=method))
    link = farm.nodes[0].accept()
    link.read_head()
    link.reset()
    answer = client.read_answer()
    assert answer.status == 502
    assert farm.nodes[0].is_left_alone()


def test_a_body_that_was_used_is_not_repeated(make_farm):
    farm = make_farm(1, bypass={"mode": "nodes"})
    client = farm.connect()
    client.send(post("http://a.test/", b"hello", method="PUT"))
    link = farm.nodes[0].accept()
    link.read_head()
    assert link.read_exactly(5) == b"hello"
    link.reset()
    assert client.read_answer().status == 502
    assert farm.nodes[0].is_left_alone()


@rows("size", [10, 1 << 20])
def test_a_body_that_was_read_but_not_sent_is_not_repeated(farm, size):
    client = farm.connect()
    client.send(get(farm.url(0, 1), f"Content-Length: {size}"))
    link = farm.nodes[0].accept()
    link.read_head()
    with farm.held():  # the first half of the body is read before the reset is, and has nowhere to go
        client.send(b"x" * 5)
        time.sleep(0.02)
        link.reset()
        time.sleep(0.02)
    assert client.read_answer().status == 502
    assert farm.nodes[1].is_left_alone()


@rows("body", [b"", b"hello"])
def test_a_node_that_hangs_up_on_a_body_is_not_blamed(farm, body):
    client = farm.connect()
    client.send(post(farm.url(0, 1), body, method="GET"))
    link = farm.nodes[0].accept()
    link.read_head()
    link.read_exactly(len(body))
    link.close()
    if body:
        assert client.read_answer().status == 502
    else:
        farm.nodes[1].accept().send(ok())
        assert client.read_answer().status == 200
    assert farm.node_counters(0)["resets"] == (not body)


def test_a_body_that_was_not_used_goes_to_the_next_node(make_farm):
    farm = make_farm(2, bypass={"mode": "nodes"})
    client = farm.connect()
    client.send(get("http://a.test/", "Content-Length: 5", method="PUT"))
    farm.wait_until(lambda: sum(farm.node_counters(i)["connects"] for i in (0, 1)) == 1)
    first = next(i for i in (0, 1) if farm.node_counters(i)["connects"])
    link = farm.nodes[first].accept()
    link.read_head()
    link.reset()
    second = farm.nodes[1 - first].accept()
    second.read_head()
    client.send(b"hello")
    assert second.read_exactly(5) == b"hello"
    second.send(ok(b"thanks"))
    assert client.read_answer().body == b"thanks"


def test_a_refused_connection_loses_no_body(make_farm):
    farm = make_farm(2, bypass={"mode": "nodes"})
    farm.nodes[0].refuse()
    farm.nodes[1].serve()
    client = farm.connect()
    for turn in range(4):
        client.send(post("http://a.test/", b"hello %d" % turn))
        assert client.read_answer().status == 200
    assert farm.nodes[1].bodies == [b"hello 0", b"hello 1", b"hello 2", b"hello 3"]


def test_a_get_that_waits_for_a_dead_node_is_moved_at_once(farm):
    url = farm.url(0, 1)
    client = farm.connect()
    client.send(get(url))
    hung = farm.nodes[0].accept()
    hung.read_head()
    farm.declare(0, "dead")
    second = farm.nodes[1].accept()
    second.read_head()
    second.send(ok(b"moved"))
    assert client.read_answer().body == b"moved"
    assert hung.is_closed()
    assert farm.counter("moved") == 1
    assert farm.ended() == {"done": 1}


def test_a_pooled_get_that_waits_for_a_dead_node_is_moved_at_once(farm):
    client, hung = kept_link(farm)
    client.send(get(farm.url(0, 2)))
    hung.read_head()
    farm.declare(0, "dead")
    second = farm.nodes[2].accept()
    second.read_head()
    second.send(ok(b"moved"))
    assert client.read_answer().body == b"moved"


def test_a_connect_that_hangs_on_a_dead_node_is_moved_at_once(make_farm):
    farm = make_farm(timeouts={"connect_s": 30.0})
    farm.nodes[0].refuse()
    farm.nodes[0] = FakeSquid(farm.nodes[0].host, backlog=0)
    farm.apply()
    farm.nodes[1].serve()
    client = farm.connect()
    with farm.nodes[0].deaf():
        client.send(get(farm.url(0, 1)))
        farm.wait_until(lambda: farm.node_counters(0)["requests"] == 1)
        farm.declare(0, "dead")
        assert client.read_answer().status == 200


def test_a_post_that_waits_for_a_dead_node_is_not_moved(make_farm):
    farm = make_farm(2, bypass={"mode": "nodes"})
    client = farm.connect()
    client.send(post("http://a.test/", b"hello"))
    farm.wait_until(lambda: sum(farm.node_counters(i)["connects"] for i in (0, 1)) == 1)
    first = next(i for i in (0, 1) if farm.node_counters(i)["connects"])
    link = farm.nodes[first].accept()
    link.read_head()
    link.read_exactly(5)
    farm.declare(first, "dead")
    assert farm.nodes[1 - first].is_left_alone()
    link.send(ok(b"alive after all"))
    assert client.read_answer().body == b"alive after all"


def test_an_answer_that_has_begun_is_not_moved(farm):
    client = farm.connect()
    client.send(get(farm.url(0)))
    link = farm.nodes[0].accept()
    link.read_head()
    link.send(ok(b"hello")[:-2])
    client.read_head()
    farm.declare(0, "dead")
    link.send(b"lo")
    assert client.read_exactly(5) == b"hello"
    assert farm.counter("moved") == 0


def test_the_last_node_that_dies_while_it_is_waited_for_ends_in_an_error_page(make_farm):
    farm = make_farm(1, bypass={"mode": "nodes"})
    client = farm.connect()
    client.send(get(farm.url(0)))
    farm.nodes[0].accept().read_head()
    farm.declare(0, "dead")
    answer = client.read_answer()
    assert answer.status == 502
    assert farm.ended() == {"node_dead": 1}


def test_neighbours_do_not_notice_a_dying_node(farm):
    farm.nodes[1].serve()
    neighbour = farm.connect()
    url = farm.url(1, 0)
    for end in ("close", "reset"):
        client = farm.connect()
        client.send(get(farm.url(0, 1)))
        link = farm.nodes[0].accept()
        link.read_head()
        neighbour.send(get(url))
        assert neighbour.read_answer().body.startswith(farm.nodes[1].host.encode())
        getattr(link, end)()
        assert client.read_answer().status == 200
    farm.declare(0, "dead")
    neighbour.send(get(url))
    assert neighbour.read_answer().body.startswith(farm.nodes[1].host.encode())


def test_no_first_byte_in_time_is_a_504_and_is_not_asked_again(make_farm):
    farm = make_farm(timeouts={"first_byte_s": 0.1})
    client = farm.connect()
    client.send(get(farm.url(0)))
    link = farm.nodes[0].accept()
    link.read_head()
    answer = client.read_answer()
    assert answer.status == 504
    assert b"http_response_timeout" in answer.fields[b"proxy-status"]
    assert link.is_closed()
    assert farm.node_counters(0)["timeouts"] == 1
    assert farm.ended() == {"first_byte_timeout": 1}
    assert farm.nodes[1].is_left_alone()
    assert farm.nodes[2].is_left_alone()
    farm.nodes[0].serve()
    client.send(get(farm.url(0)))  # the client keeps its connection
    assert client.read_answer().status == 200


def test_a_dribbled_head_is_given_up_in_time(make_farm):
    farm = make_farm(timeouts={"first_byte_s": 0.15})
    client = farm.connect()
    client.send(get(farm.url(0)))
    link = farm.nodes[0].accept()
    link.read_head()
    link.send(b"HTTP/1.1 200 OK\r\n")
    for i in range(100):
        if not client.is_quiet():
            break
        link.send(b"X-%d: y\r\n" % i)
    assert client.read_answer().status == 504


def test_an_answer_that_stops_is_cut(make_farm):
    farm = make_farm(timeouts={"idle_body_s": 0.1})
    for size, fields in ((5, "Content-Length: 1000000"), (50_000, "Content-Length: 1000000"), (5, "X: until close")):
        client = farm.connect()
        client.send(get(farm.url(0)))
        link = farm.nodes[0].accept()
        link.read_head()
        link.send(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + b"x" * size)
        assert client.is_cut()
        assert link.is_closed()
    assert farm.ended() == {"body_stalled": 3}


def test_a_slow_but_steady_answer_is_not_cut(make_farm):
    farm = make_farm(timeouts={"idle_body_s": 0.2})
    client = farm.connect()
    client.send(get(farm.url(0)))
    link = farm.nodes[0].accept()
    link.read_head()
    link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
    client.read_head()
    for _ in range(8):
        link.send(b"x")
        assert client.read_exactly(1) == b"x"
        assert client.is_quiet()  # 0.05 s, so 0.4 s in all
    farm.wait_for_end("done")


def test_a_reader_that_stops_is_cut(make_farm):
    farm = make_farm(timeouts={"idle_body_s": 0.4})
    client = farm.connect(receive_bytes=4096)
    client.send(get(farm.url(0)))
    link = farm.nodes[0].accept()
    link.read_head()
    link.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
    with contextlib.suppress(ConnectionResetError):
        link.send_until_stuck(bytes(65536), most=64 << 20)
    farm.wait_for_end("client_stalled")
    assert link.is_closed()


def test_an_upload_that_stops_is_a_408(make_farm):
    farm = make_farm(1, timeouts={"idle_body_s": 0.1, "first_byte_s": 0.1}, bypass={"mode": "nodes"})
    client = farm.connect()
    client.send(get("http://a.test/", "Content-Length: 100", method="POST") + b"hello")
    link = farm.nodes[0].accept()
    link.read_head()
    assert link.read_exactly(5) == b"hello"
    answer = client.read_answer()
    assert answer.status == 408
    assert client.is_closed()
    assert link.is_closed()
    assert farm.ended() == {"body_timeout": 1}
