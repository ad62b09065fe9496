"""What an explanation says of the nodes."""

from __future__ import annotations

import json

from cachelb.config import Config, parse
from cachelb.explained import Explanation, node_lines, pools_of, state_of

TEXT = """
[[node]]
name = "a"
host = "10.0.0.1"
[[node]]
name = "b"
host = "10.0.0.2"
weight = 3
state = "drain"
[[node]]
name = "c"
host = "10.0.0.3"
http_port = 8080
[[pool]]
name = "p"
nodes = ["c", "b"]
weights = { b = 1 }
"""


def config() -> Config:
    return parse(TEXT, "c.toml")


def test_a_state_is_what_a_running_director_says_or_what_is_configured():
    assert state_of(config(), {}, "b") == ("drain", 1.0)
    assert state_of(config(), {"b": ("up", 0.25)}, "b") == ("up", 0.25)


def test_pools_are_those_of_the_relay():
    pools = pools_of(config(), {"c": ("dead", 0.0)})
    assert set(pools) == {"", "p"}
    assert (pools["p"].targets, pools["p"].weights) == (("c", "b"), [1.0])
    assert [pools["p"].targets[i] for i in pools["p"].serving] == ["b"]  # it drains, but there is no other
    assert [pools[""].targets[i] for i in pools[""].serving] == ["a"]


def test_nodes_come_in_the_keys_order_then_all_others():
    pool = pools_of(config(), {})[""]
    lines = node_lines(config(), {"a": ("dead", 0.0)}, pool, [2, 0], {2: 1})
    assert [(line.name, line.place, line.tried, line.state) for line in lines] == [
        ("c", 1, 1, "up"),
        ("a", 2, 0, "dead"),
        ("b", 0, 0, "drain"),
    ]
    assert [(line.port, line.share) for line in lines] == [(8080, 0.2), (3128, 0.2), (3128, 0.6)]
    assert {line.port for line in node_lines(config(), {}, pool, [], {}, 21)} == {21}


def test_it_is_plain_json():
    found = Explanation("GET", "http://a/", "10.0.0.9", "hash", "get", "to a", to=("a",))
    assert json.loads(json.dumps(found.as_dict()))["to"] == ["a"]
