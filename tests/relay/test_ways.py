"""Which way a request takes where a rule only says which hash decides: the short ways stay, and so does what was learned."""

from __future__ import annotations

import pytest
from fakes import get, ok

POOL = [{"name": "two", "nodes": ["n1", "n2"]}]


def test_what_answers_teach_holds_under_a_rule_that_only_hashes(make_farm):
    farm = make_farm(rule=[{"pool": "two"}], pool=POOL)
    for node in farm.nodes:
        node.serve(ok(b"node", "Cache-Control: private"))
    farm.origin.serve(ok(b"origin", "Cache-Control: private"))
    url = farm.origin_url()
    assert farm.ask(url).body == b"node"
    assert farm.ask(url).body == b"origin"
    assert farm.counter("bypassed_learned") == 1


def test_a_farm_that_is_dead_may_be_gone_around(make_farm):
    farm = make_farm(rule=[{"pool": "two"}], pool=POOL)
    farm.origin.serve(ok(b"origin"))
    farm.declare(1, "dead")
    farm.declare(2, "dead")
    assert farm.ask(farm.origin_url()).body == b"origin"
    assert farm.nodes[0].is_left_alone()


def test_a_node_that_dies_is_followed_by_the_next_of_its_pool(make_farm):
    farm = make_farm(rule=[{"pool": "two"}], pool=POOL)
    url = farm.url(1)
    client = farm.connect()
    client.send(get(url))
    farm.nodes[1].accept().read_head()
    farm.nodes[2].serve(ok(b"next"))
    farm.declare(1, "dead")
    assert client.read_answer().body == b"next"


def test_a_rule_for_some_clients_leaves_the_others_where_they_were(make_farm):
    farm = make_farm(rule=[{"client": ["127.0.1.0/24"], "pool": "two"}], pool=POOL)
    for node in farm.nodes:
        node.serve()
    url = farm.url(0)
    for source, owner in (("127.0.0.1", 0), ("127.0.1.1", farm.owners(url)[1])):
        client = farm.connect(source)
        client.send(get(url))
        assert client.read_answer().body.split()[0].decode() == farm.nodes[owner].host


def test_only_if_cached_asks_the_pool(make_farm):
    farm = make_farm(rule=[{"pool": "two"}], pool=POOL)
    for node in farm.nodes:
        node.serve()
    url = farm.url(0)
    assert farm.ask(url, "Cache-Control: only-if-cached").body.split()[0].decode() == farm.nodes[farm.owners(url)[1]].host


def test_what_only_a_cache_may_answer_does_not_go_around_a_dead_pool(make_farm):
    farm = make_farm(rule=[{"client": ["127.0.0.0/8"], "pool": "two"}], pool=POOL)
    farm.declare(1, "dead")
    farm.declare(2, "dead")
    assert farm.ask(farm.origin_url(), "Cache-Control: only-if-cached").status == 503
    assert farm.origin.is_left_alone()


@pytest.mark.parametrize(("scheduler", "status"), [("url", 200), ("rr", 502)])
def test_a_node_that_dies_when_its_pool_has_gone(make_farm, scheduler: str, status: int):
    farm = make_farm(rule=[{"pool": "one", "scheduler": scheduler}], pool=[{"name": "one", "nodes": ["n1"]}])
    client = farm.connect()
    client.send(get(farm.url(1, 0)))
    farm.nodes[1].accept().read_head()
    farm.nodes[0].serve()
    farm.apply(rule=[], pool=[])
    farm.declare(1, "dead")
    assert client.read_answer().status == status
