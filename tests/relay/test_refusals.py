"""only-if-cached: when a node does not have the URL, the next one that may have it is asked."""

from __future__ import annotations

import pytest
from fakes import PATIENCE_S, answer_head, chunk, get, ok

from cachelb.relay.refusals import REFUSAL_BYTES

rows = pytest.mark.parametrize
ONLY = "Cache-Control: only-if-cached"
NOT_HERE = "X-Squid-Error: ERR_ONLY_IF_CACHED_MISS 0"
MISS, HIT = "X-Cache: MISS from n", "X-Cache: HIT from n"


def refusal(*fields, body=b"not here"):
    return ok(body, NOT_HERE, MISS, *fields, status="504 Gateway Timeout")


def nodes_asked(farm):
    return [len(node.heads) for node in farm.nodes]


def refuse_all(farm):
    """Every node says 504, and who it is."""
    for i, node in enumerate(farm.nodes):
        node.serve(refusal(body=b"node %d" % i))


@rows("method", ["GET", "HEAD"])
def test_a_node_that_does_not_have_it_is_passed_over(farm, method):
    farm.nodes[1].serve(refusal())
    farm.nodes[2].serve(ok(b"here" if method == "GET" else b"", HIT))
    farm.nodes[0].serve()
    answer = farm.ask(farm.url(1, 2, 0), ONLY, method=method)
    assert (answer.status, answer.body) == (200, b"here" if method == "GET" else b"")
    assert nodes_asked(farm) == [0, 1, 1]
    assert farm.counter("second_chances") == 1
    assert farm.counter("hashed") == 1
    assert [farm.counter(name) for name in ("retries", "failovers", "hits")] == [0, 0, 1]
    assert farm.ended() == {"done": 1}


def test_a_504_that_was_passed_over_is_not_kept(farm):
    farm.nodes[1].serve(refusal())
    farm.nodes[2].serve(ok(b"here", HIT))
    client = farm.connect()
    client.send(get(farm.url(1, 2, 0), ONLY))
    assert client.read_answer().body == b"here"
    (own,) = farm.engine.clients
    farm.wait_until(lambda: own.exchange.refusal is None)


def test_the_last_504_is_passed_to_the_client(farm):
    refuse_all(farm)
    client = farm.connect()
    for _ in range(2):
        client.send(get(farm.url(1, 2, 0), ONLY))
        answer = client.read_answer()
        assert (answer.status, answer.body) == (504, b"node 0")
        assert answer.fields[b"x-squid-error"] == b"ERR_ONLY_IF_CACHED_MISS 0"
    assert farm.counter("second_chances") == 4
    assert farm.ended() == {"done": 2}


def test_three_nodes_are_asked_at_most(make_farm):
    farm = make_farm(5)
    refuse_all(farm)
    assert farm.ask(farm.url(4, 3, 2), ONLY).body == b"node 2"
    assert nodes_asked(farm) == [0, 0, 1, 1, 1]


def test_connections_that_gave_a_504_are_kept(farm):
    refuse_all(farm)
    for _ in range(3):
        farm.ask(farm.url(), ONLY)
    assert [node.connections for node in farm.nodes] == [1, 1, 1]
    assert nodes_asked(farm) == [3, 3, 3]
    assert [farm.node_counters(i)["responses"] for i in range(3)] == [3, 3, 3]
    assert [farm.node_counters(i)["idle"] for i in range(3)] == [1, 1, 1]


def test_a_504_that_comes_in_pieces_is_read_whole_before_its_connection_is_used_again(farm):
    client = farm.connect()
    client.send(get(farm.url(0, 1), ONLY))
    link = farm.nodes[0].accept()
    link.read_head()
    answer = refusal(body=b"x" * 5000)
    link.send(answer[:300])
    farm.wait_until(lambda: next(iter(farm.engine.clients)).exchange.link.exchange.__class__.__name__ == "Refusal")
    link.send(answer[300:2000])
    assert farm.nodes[1].is_left_alone()
    link.send(answer[2000:])
    second = farm.nodes[1].accept()
    second.read_head()
    second.send(ok(b"here", HIT))
    assert client.read_answer().body == b"here"
    assert farm.node_counters(0)["idle"] == 1
    client.send(get(farm.url(0, 1)))
    link.read_head()
    link.send(ok(b"on the same connection"))
    assert client.read_answer().body == b"on the same connection"


@rows(
    "answer",
    [
        refusal("Connection: close"),
        refusal() + b"more than was said",
        answer_head(NOT_HERE, "Transfer-Encoding: chunked", status="504 X") + chunk(b"abc"),
        answer_head(NOT_HERE, status="504 X") + b"until close",
        answer_head(NOT_HERE, f"Content-Length: {REFUSAL_BYTES + 1}", status="504 X") + b"x" * 100,
    ],
)
def test_other_connections_are_closed(farm, answer):
    client = farm.connect()
    client.send(get(farm.url(0, 1), ONLY))
    link = farm.nodes[0].accept()
    link.read_head()
    link.send(answer)
    farm.nodes[1].serve(ok(b"here", HIT))
    assert client.read_answer().body == b"here"
    assert link.is_closed()
    assert farm.node_counters(0)["idle"] == 0


def test_a_504_that_breaks_off_is_a_504(farm):
    client = farm.connect()
    client.send(get(farm.url(0, 1), ONLY))
    link = farm.nodes[0].accept()
    link.read_head()
    farm.nodes[1].serve(ok(b"here", HIT))
    link.send(refusal(body=b"x" * 1000)[:500])
    link.close()
    assert client.read_answer().body == b"here"


def test_a_504_that_stops_arriving_ends_as_no_answer_would(make_farm):
    farm = make_farm(timeouts={"first_byte_s": 0.1})
    client = farm.connect()
    client.send(get(farm.url(0, 1), ONLY))
    link = farm.nodes[0].accept()
    link.read_head()
    link.send(refusal(body=b"x" * 1000)[:500])
    assert client.read_answer().status == 504
    assert farm.ended() == {"first_byte_timeout": 1}
    assert link.is_closed()


def test_a_client_that_goes_while_a_504_arrives_is_gone(farm):
    client = farm.connect()
    client.send(get(farm.url(0, 1), ONLY))
    link = farm.nodes[0].accept()
    link.read_head()
    link.send(refusal(body=b"x" * 1000)[:500])
    farm.wait_until(lambda: next(iter(farm.engine.clients)).exchange.link.exchange.__class__.__name__ == "Refusal")
    client.reset()
    assert link.is_closed()


def test_an_owner_that_cannot_be_reached_is_passed_over_too(farm):
    farm.nodes[0].refuse()
    farm.nodes[1].serve(refusal())
    farm.nodes[2].serve(ok(b"here", HIT))
    assert farm.ask(farm.url(0, 1, 2), ONLY).body == b"here"
    assert farm.counter("failovers") == 1
    assert farm.counter("second_chances") == 1


def test_if_nobody_else_can_be_reached_the_504_stands(farm):
    farm.nodes[0].serve(refusal(body=b"node 0"))
    farm.nodes[1].refuse()
    farm.nodes[2].refuse()
    answer = farm.ask(farm.url(0, 1, 2), ONLY)
    assert (answer.status, answer.body) == (504, b"node 0")
    assert farm.ended() == {"done": 1}


def test_a_504_of_an_earlier_request_is_not_remembered(farm):
    for node in farm.nodes[1:]:
        node.refuse()
    farm.nodes[0].serve(refusal())
    client = farm.connect()
    client.send(get(farm.url(0, 1), ONLY))
    assert client.read_answer().status == 504
    farm.nodes[0].refuse()
    farm.nodes[0].stop()
    client.send(get(farm.url(1, 2), ONLY))
    assert client.read_answer().status == 503


@rows("fields", [(), ("Cache-Control: no-cache",), ("Cache-Control: max-age=9",)])
def test_a_504_to_other_requests_is_the_answer(farm, fields):
    refuse_all(farm)
    assert farm.ask(farm.url(0, 1), *fields).body == b"node 0"
    assert nodes_asked(farm) == [1, 0, 0]
    assert farm.counter("second_chances") == 0


def test_a_request_with_a_body_is_not_repeated(farm):
    refuse_all(farm)
    client = farm.connect()
    client.send(get(farm.url(0, 1), ONLY, "Content-Length: 3", body=b"abc"))
    assert client.read_answer().body == b"node 0"


# -- who may have it


def test_a_node_that_drains_is_asked_for_what_it_had(farm):
    refuse_all(farm)
    farm.declare(0, "drain")
    url = farm.url(0, 1, 2)
    client = farm.connect()
    client.send(get(url, ONLY))
    assert client.read_answer().body == b"node 2"
    assert nodes_asked(farm) == [1, 1, 1]
    client.send(get(url))
    assert client.read_answer().body == b"node 1"  # but for nothing else
    assert nodes_asked(farm) == [1, 2, 1]


@rows("state", ["down", "dead"])
def test_nodes_out_of_service_are_not_asked(farm, state):
    refuse_all(farm)
    farm.declare(0, state)
    assert farm.ask(farm.url(0, 1, 2), ONLY).body == b"node 2"
    assert nodes_asked(farm) == [0, 1, 1]


def test_a_node_that_is_declared_dead_while_it_is_asked_is_left(farm):
    client = farm.connect()
    client.send(get(farm.url(0, 1), ONLY))
    link = farm.nodes[0].accept()
    link.read_head()
    farm.nodes[1].serve(ok(b"here", HIT))
    farm.declare(0, "dead")
    assert client.read_answer().body == b"here"


# -- what it tells of the stores


@rows("field", [NOT_HERE, "X: y"])
def test_one_504_is_told_once(farm, field):
    heard = []
    farm.relay.call(lambda: setattr(farm.engine, "tell_seen", heard.extend))
    farm.declare(1, "down")
    farm.declare(2, "down")
    farm.nodes[0].serve(ok(b"", field, MISS, status="504 Gateway Timeout"))
    farm.ask(farm.url(0), ONLY)
    farm.drain(PATIENCE_S)
    assert len(heard) == 1


def test_each_504_says_that_a_node_does_not_have_it(farm):
    heard = []
    farm.relay.call(lambda: setattr(farm.engine, "tell_seen", heard.extend))
    refuse_all(farm)
    url = farm.url(1, 0, 2)
    farm.ask(url, ONLY)
    farm.wait_until(lambda: len(heard) == 3)
    assert [(seen.slot, seen.expires, seen.url) for seen in heard] == [(i, 0, url.encode()) for i in (1, 0, 2)]


def test_a_504_is_no_hit_even_if_squid_says_so_of_what_is_stale(farm):
    heard = []
    farm.relay.call(lambda: setattr(farm.engine, "tell_seen", heard.extend))
    for node in farm.nodes:
        node.serve(ok(b"", NOT_HERE, HIT, "Age: 9", status="504 Gateway Timeout"))
    assert farm.ask(farm.url(0), ONLY).status == 504
    farm.drain(PATIENCE_S)
    assert [seen.expires for seen in heard] == [0, 0, 0]
    assert farm.counter("hits") == 0
