"""Rules over real sockets: domains and kinds of files on nodes of their own, and many names of one object."""

from __future__ import annotations

from collections import Counter

import pytest
from fakes import get, ok

POOLS = [
    {"name": "one", "nodes": ["n1", "n2"]},
    {"name": "two", "nodes": ["n1", "n3"]},
    {"name": "pages", "nodes": ["n0"]},
]


def nodes_of(farm, urls):
    """The nodes that answer these, by their numbers."""
    hosts = [node.host for node in farm.nodes]
    client = farm.connect()
    took = Counter()
    for url in urls:
        client.send(get(url))
        answer = client.read_answer()
        assert answer.status == 200, answer
        took[hosts.index(answer.body.split()[0].decode())] += 1
    return took


@pytest.fixture
def ruled(make_farm):
    """``ruled(rules, nodes=4)``: a farm with POOLS whose nodes answer by themselves."""

    def make(rules, nodes=4, **sections):
        farm = make_farm(nodes, rule=rules, pool=POOLS, **sections)
        for node in farm.nodes:
            node.serve()
        return farm

    return make


def test_domains_and_pages_each_on_nodes_of_their_own(ruled):
    """As a user has asked for it in 2007: domain1 only to servers 1 and 2, domain2 only to 1 and 3, *.html to one set."""
    farm = ruled(
        [
            {"name": "pages", "path": "*.html", "pool": "pages"},
            {"name": "first", "host": ".domain1.com", "pool": "one"},
            {"name": "second", "host": ".domain2.com", "pool": "two"},
        ]
    )
    assert set(nodes_of(farm, [f"http://domain1.com/{n}.gif" for n in range(40)])) == {1, 2}
    assert set(nodes_of(farm, [f"http://www.domain2.com/{n}.gif" for n in range(40)])) == {1, 3}
    assert nodes_of(farm, [f"http://www.domain1.com/{n}.html" for n in range(10)]) == {0: 10}
    assert set(nodes_of(farm, [f"http://domain3.com/{n}.gif" for n in range(60)])) == {0, 1, 2, 3}
    again = [f"http://domain1.com/{n}.gif" for n in range(40)]
    assert sum(node.connections for node in farm.nodes) == 4
    assert nodes_of(farm, again) == nodes_of(farm, again)


@pytest.mark.parametrize("rest", [{}, {"path": "*.gif"}, {"query": "*"}, {"header": "X-A: 1"}, {"client": "127.0.0.0/8"}])
def test_the_first_rule_that_is_met_decides(ruled, rest):
    farm = ruled([{"pool": "pages"} | rest, {"pool": "one"}])
    client = farm.connect()
    for url, field, is_first in (
        ("http://a.test/x.gif?y", "X-A: 1", not rest.get("path")),
        ("http://a.test/x.gif", "X-A: 1", not rest.get("query")),
        ("http://a.test/x.gif?y", "X-A: 2", not rest.get("path") and not rest.get("header")),
    ):
        client.send(get(url, field))
        took = [node.host.encode() for node in farm.nodes].index(client.read_answer().body.split()[0])
        assert (took == 0) == is_first, url


def test_mirrors_are_sent_to_one_node_under_one_name(ruled):
    rule = {"host": "cdn?.x.test", "key_host": "cdn.x.test", "key_strip_query": ["utm_*"], "key_sort_query": True, "pool": "one"}
    farm = ruled([rule])
    names = [f"http://cdn{n}.x.test/a?b=1&utm_x={n}&a=2" for n in range(8)] + ["http://cdn.x.test/a?a=2&b=1"]
    (only,) = nodes_of(farm, names)
    assert only in (1, 2)
    heads = [bytes(head).split(b"\r\n")[:2] for head in farm.nodes[only].heads]
    assert heads == [[b"GET http://cdn.x.test/a?a=2&b=1 HTTP/1.1", b"Host: cdn.x.test"]] * 9
    assert farm.counter("hashed") == 9


def test_nodes_that_map_by_themselves_are_sent_the_url_as_asked(ruled):
    farm = ruled([{"host": "cdn?.x.test", "key_host": "cdn.x.test", "key_send": "url", "scheduler": "host"}])
    names = [f"http://cdn{n}.x.test/{n}" for n in range(9)]
    (only,) = nodes_of(farm, names)
    assert [bytes(head).split()[1].decode() for head in farm.nodes[only].heads] == names


def test_origins_are_asked_for_the_url_as_it_is(make_farm):
    farm = make_farm(rule=[{"key_strip_query": "*"}])
    farm.origin.serve(ok(b"origin"))
    assert farm.ask(farm.origin_url() + "?a=1", method="DELETE").body == b"origin"
    assert bytes(farm.origin.heads[0]).split()[1].endswith(b"?a=1")


def test_who_comes_next_when_a_node_fails_is_of_the_pool(ruled):
    farm = ruled([{"pool": "one"}])
    farm.nodes[1].refuse()
    assert set(nodes_of(farm, [f"http://a.test/{n}" for n in range(20)])) == {2}
