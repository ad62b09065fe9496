"""Rules between values: nodes, listeners, pairs of numbers."""

from __future__ import annotations

import pytest

from cachelb.config import DEFAULTS
from cachelb.config_rules import check, explain, freeze
from cachelb.config_text import Found, dotted

NODES = [{"name": "a", "host": "10.0.0.1"}]


def found(**raw: object) -> list[str]:
    return [f"{dotted(path)}: {text}" for path, text, _ in check({"node": NODES} | raw, DEFAULTS)]


def test_nothing_is_wrong_with_a_usual_configuration():
    assert found() == []
    assert found(node=[*NODES, {"name": "b", "host": "10.0.0.1", "http_port": 3129}]) == []


def test_a_name_belongs_to_one_node():
    nodes = [*NODES, {"name": "b", "host": "h2"}, {"name": "a ", "host": "h3"}]
    assert found(node=nodes) == ['node[3].name: "a " is the name of node[1], too']


def test_a_place_belongs_to_one_node():
    nodes = [*NODES, {"name": "b", "host": "10.0.0.1", "http_port": 3128}]
    assert found(node=nodes) == ["node[2].host: 10.0.0.1 port 3128 is where node[1] is, too"]
    nodes = [{"name": "a", "host": "[::1]"}, {"name": "b", "host": "0:0::1"}]
    assert found(node=nodes) == ["node[2].host: ::1 port 3128 is where node[1] is, too"]


def test_equal_names_are_found_beside_other_mistakes():
    nodes = [{"name": "a", "host": 5, "weight": "x"}, 7, {"name": "a"}]
    assert found(node=nodes) == ['node[3].name: "a" is the name of node[1], too']


def test_some_node_needs_a_weight():
    idle = {"name": "a", "host": "h", "weight": 0}
    assert found(node=[idle]) == ["node: every node has weight 0: no URL has an owner"]
    assert found(node=[idle, {"name": "b", "host": "i"}]) == []


def test_nodes_beyond_the_counters_are_too_many():
    nodes = [{"name": f"n{i}", "host": f"h{i}"} for i in range(2049)]
    assert found(node=nodes) == ["node: 2049 nodes are more than the 2048 that a director serves"]


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        (
            {"http": ["127.0.0.1:1", "127.0.0.1:1"]},
            ["listen.http[2]: overlaps with listen.http: that listens on 127.0.0.1:1, too"],
        ),
        (
            {"http": ["127.0.0.1:1", "0.0.0.0:1"]},
            ["listen.http[2]: overlaps with listen.http: that listens on 127.0.0.1:1, which 0.0.0.0:1 includes"],
        ),
        (
            {"admin": "127.0.0.1:3128"},
            ["listen.admin: overlaps with listen.http: that listens on 0.0.0.0:3128, which includes 127.0.0.1:3128"],
        ),
        (
            {"http": ["[::1]:1", "[::]:1"]},
            ["listen.http[2]: overlaps with listen.http: that listens on [::1]:1, which [::]:1 includes"],
        ),
        ({"http": ["0.0.0.0:1", "[::]:1"]}, []),
        ({"http": ["127.0.0.1:1", "127.0.0.2:1"]}, []),
        ({"icp": "0.0.0.0:3128"}, []),
        (
            {"icp": "0.0.0.0:3130", "htcp": "0.0.0.0:3130"},
            ["listen.htcp: overlaps with listen.icp: that listens on 0.0.0.0:3130, too"],
        ),
        ({"http": 5, "admin": ["x", None]}, []),
    ],
)
def test_listeners_do_not_overlap(listen: dict[str, object], expected: list[str]):
    assert found(listen=listen) == expected


def test_the_store_log_of_a_node_has_a_place_of_its_own():
    nodes = [
        {"name": "a", "host": "10.0.0.1", "store_log": "0.0.0.0:3131"},
        {"name": "b", "host": "10.0.0.2", "store_log": "127.0.0.1:3131"},
        {"name": "c", "host": "10.0.0.3", "store_log": "0.0.0.0:3130"},
    ]
    assert found(listen={"icp": "0.0.0.0:3130"}, node=nodes) == [
        "node[2].store_log: overlaps with node[1].store_log: that listens on 0.0.0.0:3131, which includes 127.0.0.1:3131",
        "node[3].store_log: overlaps with listen.icp: that listens on 0.0.0.0:3130, too",
    ]


@pytest.mark.parametrize("listen", [{"http": ""}, {"http": []}])
def test_the_director_listens_somewhere(listen: dict[str, object]):
    assert found(listen=listen) == ["listen.http: is empty: the director must listen somewhere"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_a_node_is_not_the_director(host: str):
    (text,) = found(node=[{"name": "a", "host": host}])
    assert "is the director itself, which listens on 0.0.0.0:3128" in text


def test_a_node_on_another_port_or_address_of_this_machine_is_none():
    assert found(node=[{"name": "a", "host": "127.0.0.1", "http_port": 3129}]) == []
    assert found(node=[{"name": "a", "host": "127.0.0.1"}], listen={"http": "127.0.0.2:3128"}) == []


def test_a_probe_ends_before_the_next_one():
    assert found(health={"timeout_s": 2}) == [
        "health.timeout_s: is 2, and interval_s is 2, its default; timeout_s must be below interval_s"
    ]
    assert found(health={"interval_s": 0.5}) == [
        "health.interval_s: is 0.5, and timeout_s is 1, its default; timeout_s must be below interval_s"
    ]
    assert found(health={"interval_s": 3, "timeout_s": 4}) == [
        "health.timeout_s: is 4, and interval_s is 3; timeout_s must be below interval_s"
    ]
    assert found(health={"interval_s": 0.5, "timeout_s": 0.4}) == []


def test_a_clash_with_a_default_is_mended_by_writing_both():
    clash = {"node": NODES, "health": {"interval_s": 0.5}}
    assert [hint for *_, hint in check(clash, DEFAULTS)] == ["write both: timeout_s and interval_s"]
    clash = {"node": NODES, "health": {"interval_s": 0.5, "timeout_s": 1}}
    assert [hint for *_, hint in check(clash, DEFAULTS)] == [""]


def test_least_and_most_are_in_order():
    assert found(resolver={"ttl_min_s": 10, "ttl_max_s": 10}) == []
    assert found(resolver={"ttl_min_s": 11, "ttl_max_s": 10}) == [
        "resolver.ttl_min_s: is 11, and ttl_max_s is 10; ttl_min_s must be at most ttl_max_s"
    ]


@pytest.mark.parametrize("value", ["x", True, None, float("nan"), -1, 10**400, []])
def test_values_of_a_wrong_kind_are_left_to_the_schema(value: object):
    assert found(health={"timeout_s": value}) == []
    assert found(health=value, listen=value, resolver=value) == []
    assert check({"node": [{"name": value, "host": value, "http_port": value, "weight": value}]}, DEFAULTS) == []


def test_a_complaint_that_has_no_words_here_keeps_the_schema_s():
    error = {"type": "something_new", "loc": ("hash", "key"), "input": 1, "msg": "Odd"}
    assert explain(error, {"hash": {"key": 1}}, {}) == Found(("hash", "key"), "Odd")


def test_lists_are_frozen_all_the_way_down():
    assert freeze({"a": [1, [2, {"b": [3]}]]}) == {"a": (1, (2, {"b": (3,)}))}
