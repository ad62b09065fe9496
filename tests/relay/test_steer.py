"""Rules over real sockets: pools, schedulers, what is refused, what goes around, and who comes next when a node fails."""

from __future__ import annotations

from collections import Counter

import pytest
from fakes import get, ok, post

rows = pytest.mark.parametrize

POOL = [{"name": "two", "nodes": ["n1", "n2"]}]


def steered(make_farm, rule, nodes=3, **sections):
    """A farm with one rule, whose nodes answer by themselves."""
    farm = make_farm(nodes, rule=[rule], pool=POOL if nodes > 2 else [], **sections)
    for node in farm.nodes:
        node.serve()
    return farm


def who(farm, client, url="http://www.test/page", **how):
    """The number of the node that answers a request."""
    client.send(get(url, **how))
    answer = client.read_answer()
    assert answer.status == 200, answer
    return [node.host.encode() for node in farm.nodes].index(answer.body.split()[0])


def test_a_pool_has_the_urls_that_a_rule_sends_there(make_farm):
    farm = steered(make_farm, {"pool": "two"})
    client = farm.connect()
    for _ in range(5):
        url = farm.url(0)  # its owner in the whole farm is none of the pool
        after_it = farm.owners(url)[1]
        assert [who(farm, client, url) for _ in range(2)] == [after_it] * 2
    assert farm.counter("hashed") == 10
    assert farm.counter("steered") == 0


def test_what_no_cache_could_store_goes_around_a_pool_as_it_goes_around_the_farm(make_farm):
    farm = steered(make_farm, {"pool": "two"})
    farm.origin.serve(ok(b"origin"))
    assert farm.ask(farm.origin_url(), method="DELETE").body == b"origin"
    assert farm.ask(farm.origin_url(), "Authorization: Basic eDp5").body == b"origin"


@rows("how", [{"bypass": False}, {"scheduler": "client"}, {"scheduler": "rr"}])
def test_a_rule_that_wants_a_node_gets_one_for_every_request(make_farm, how):
    farm = steered(make_farm, {"pool": "two"} | how)
    client = farm.connect()
    client.send(post(farm.origin_url(), b"body"))
    assert client.read_answer().body.split()[0].decode() in [node.host for node in farm.nodes[1:]]
    assert farm.counter("bypassed") == 0
    assert farm.counter("steered") == 1


def test_in_turn(make_farm):
    farm = steered(make_farm, {"scheduler": "rr"})
    client = farm.connect()
    took = [who(farm, client) for _ in range(7)]
    assert took[:3] == took[3:6]
    assert sorted(took[:3]) == [0, 1, 2]


def test_in_turn_by_the_weights_of_the_pool(make_farm):
    pools = [{"name": "heavy", "nodes": ["n0", "n1"], "weights": {"n1": 3.0}}]
    farm = make_farm(rule=[{"pool": "heavy", "scheduler": "wrr"}], pool=pools)
    for node in farm.nodes:
        node.serve()
    client = farm.connect()
    assert Counter(who(farm, client) for _ in range(8)) == {0: 2, 1: 6}


def busy_client(farm, node, url="http://www.test/slow"):
    """A client whose request a node has and does not answer yet; the node's connection."""
    client = farm.connect()
    client.send(get(url))
    link = farm.nodes[node].accept()
    link.read_head()
    return client, link


def test_the_least_busy_node_is_asked(make_farm):
    farm = make_farm(2, rule=[{"scheduler": "lc"}])
    order = []
    held = []
    for _ in range(4):
        client = farm.connect()
        client.send(get("http://www.test/slow"))
        farm.wait_until(lambda: sum(farm.node_counters(i)["requests"] for i in range(2)) == len(order) + 1)
        order.append(farm.node_counters(0)["requests"])
        held.append(client)
    assert [farm.node_counters(i)["requests"] for i in range(2)] == [2, 2]
    links = [farm.nodes[1].accept() for _ in range(2)]
    for link in links:
        link.read_head()
        link.send(ok(b"done"))
    farm.wait_until(lambda: farm.node_counters(1)["ended"] == 2)
    for _ in range(2):  # node 1 has nothing to do now, node 0 has two
        held.append(farm.connect())
        held[-1].send(get("http://www.test/slow"))
        for link in links:
            if not link.is_quiet():
                link.read_head()
    farm.wait_until(lambda: farm.node_counters(1)["requests"] == 4)
    assert farm.node_counters(0)["requests"] == 2


def test_a_heavier_node_may_be_busier(make_farm):
    pools = [{"name": "heavy", "nodes": ["n0", "n1"], "weights": {"n1": 3.0}}]
    farm = make_farm(2, rule=[{"pool": "heavy", "scheduler": "wlc"}], pool=pools)
    clients = []
    for count in range(1, 9):
        clients.append(farm.connect())
        clients[-1].send(get("http://www.test/slow"))
        farm.wait_until(lambda count=count: sum(farm.node_counters(i)["requests"] for i in range(2)) == count)
    assert [farm.node_counters(i)["requests"] for i in range(2)] == [2, 6]


def test_what_other_workers_have_under_way_counts(make_farm):
    farm = steered(make_farm, {"scheduler": "lc"})
    client = farm.connect()
    farm.relay.call(lambda: farm.engine.take_loads({0: 5, 2: 5}))
    assert {who(farm, client) for _ in range(5)} == {1}
    farm.relay.call(lambda: farm.engine.take_loads({1: 9}))
    assert {who(farm, client) for _ in range(6)} == {0, 2}


def test_a_client_stays_with_its_node_and_clients_are_spread(make_farm):
    farm = steered(make_farm, {"scheduler": "client"})
    took = {}
    for i in range(1, 41):
        client = farm.connect(f"127.0.1.{i}")
        took[i] = who(farm, client)
        assert who(farm, client, "http://other.test/x") == took[i]
    assert set(took.values()) == {0, 1, 2}


def test_a_host_stays_with_its_node_whatever_its_urls(make_farm):
    farm = steered(make_farm, {"scheduler": "host"})
    client = farm.connect()
    for host in ("a.test", "b.test", "c.test", "d.test"):
        assert len({who(farm, client, f"http://{host}/{i}") for i in range(5)}) == 1
    assert len({who(farm, client, f"http://h{i}.test/") for i in range(30)}) == 3


def test_the_next_of_the_pool_takes_over_for_one_that_cannot_be_reached(make_farm):
    farm = steered(make_farm, {"pool": "two", "scheduler": "rr"})
    farm.nodes[1].refuse()
    client = farm.connect()
    assert [who(farm, client) for _ in range(4)] == [2] * 4
    assert farm.counter("failovers") == 2


def test_a_dead_node_gets_no_turn_and_what_waits_for_it_moves_within_the_pool(make_farm):
    farm = make_farm(rule=[{"pool": "two", "scheduler": "client"}], pool=POOL)
    client = farm.connect()
    client.send(get("http://www.test/slow"))
    farm.wait_until(lambda: sum(farm.node_counters(i)["requests"] for i in (1, 2)) == 1)
    first = 1 if farm.node_counters(1)["requests"] else 2
    farm.nodes[first].accept().read_head()
    other = farm.nodes[3 - first]
    other.serve()
    farm.declare(first, "dead")
    assert client.read_answer().body.split()[0].decode() == other.host
    assert farm.counter("moved") == 1


def test_a_pool_without_a_node_is_an_answer_and_not_a_way_around(make_farm):
    farm = steered(make_farm, {"pool": "two", "scheduler": "rr"})
    farm.declare(1, "down")
    farm.declare(2, "dead")
    assert farm.ask(farm.origin_url()).status == 503
    assert farm.origin.is_left_alone()
    assert farm.ended() == {"no_node": 1}


def test_a_pool_that_drains_serves_while_there_is_no_other(make_farm):
    farm = steered(make_farm, {"pool": "two", "scheduler": "rr"})
    farm.declare(1, "drain")
    client = farm.connect()
    assert {who(farm, client) for _ in range(4)} == {2}
    farm.declare(2, "down")
    assert who(farm, client) == 1


def test_a_rule_refuses(make_farm):
    farm = steered(make_farm, {"name": "no-games", "refuse": True})
    answer = farm.ask("http://games.test/")
    assert answer.status == 403
    assert b"no-games" in answer.body
    assert farm.ended() == {"rule_denied": 1}


def test_a_rule_sends_around_the_farm(make_farm):
    farm = steered(make_farm, {"bypass": True})
    farm.origin.serve(ok(b"origin"))
    assert farm.ask(farm.origin_url()).body == b"origin"
    assert farm.counter("bypassed") == 1


def test_rules_of_clients_ask_who_it_is(make_farm):
    farm = make_farm(rule=[{"client": ["127.0.1.0/24"], "refuse": True}, {"pool": "two"}], pool=POOL)
    for node in farm.nodes:
        node.serve()
    url = farm.url(0)
    denied, allowed = farm.connect("127.0.1.7"), farm.connect()
    assert who(farm, allowed, url) == farm.owners(url)[1]
    denied.send(get(url))
    assert denied.read_answer().status == 403
    assert who(farm, allowed, url) == farm.owners(url)[1]


def test_connect_and_upgrade_go_through_a_node_that_a_rule_wants(make_farm):
    farm = make_farm(rule=[{"pool": "two", "scheduler": "client"}], pool=POOL, access={"connect_ports": ["1-65535"]})
    client = farm.connect()
    client.send(get("www.test:443", method="CONNECT"))
    farm.wait_until(lambda: sum(farm.node_counters(i)["requests"] for i in (1, 2)) == 1)
    node = 1 if farm.node_counters(1)["requests"] else 2
    link = farm.nodes[node].accept()
    assert link.read_head().startswith(b"CONNECT www.test:443 HTTP/1.1\r\n")
    link.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    assert client.read_answer("HEAD").status == 200
    client.send(b"hello")
    assert link.read_exactly(5) == b"hello"
    link.send(b"world")
    assert client.read_exactly(5) == b"world"
    other = farm.connect()
    other.send(get("http://www.test/chat", "Connection: Upgrade", "Upgrade: websocket"))
    head = farm.nodes[node].accept().read_head()
    assert b"\r\nUpgrade: websocket\r\n" in head


def test_a_reload_takes_rules_away(make_farm):
    farm = steered(make_farm, {"refuse": True})
    url = farm.url(1)
    assert farm.ask(url).status == 403
    farm.apply(rule=[])
    assert farm.ask(url).status == 200
