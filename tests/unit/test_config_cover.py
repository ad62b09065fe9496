"""Rules that never decide: what is said is so, held against the rules as they are compiled."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb import config_cover
from cachelb.config import Config
from cachelb.config_cover import covers, covers_glob, covers_host, hosts_of, never, useless
from cachelb.config_policy import RuleConfig
from cachelb.routing.rules import Rule, RuleSet, compile_rules


def complaints(*rules: dict[str, Any]) -> dict[int, str]:
    config = Config(rule=tuple(RuleConfig(**rule) for rule in rules))
    return {int(found.path[1]) + 1: found.text for found in useless(config)}


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ({}, {"host": "a"}),
        ({"host": ".a.com"}, {"host": ["x.a.com", "a.com", ".b.a.com", "img*.a.com"]}),
        ({"host": "img*"}, {"host": "img1.a.com"}),
        ({"host": "*"}, {"host": ".a.com"}),
        ({"path": "/a/*"}, {"path": ["/a/b", "/a/*.gif"]}),
        ({"path": "/a*"}, {"path_prefix": "/a/"}),
        ({"path_prefix": "/a"}, {"path": "/a/*"}),
        ({"path": "*.gif"}, {"path": "/x/*.gif"}),
        ({"path_prefix": ["/a", "/b"]}, {"path_prefix": "/b/c"}),
        ({"query": "*"}, {"query": "a=*"}),
        ({"method": ["GET", "HEAD"]}, {"method": "GET", "scheme": "http"}),
        ({"port": "80-90"}, {"port": [80, "82-85"]}),
        ({"header": "Cookie"}, {"header": "cookie: *a*"}),
        ({"client": "10.0.0.0/8"}, {"client": ["10.1.0.0/16"]}),
        ({"path_regex": "a"}, {"path_regex": "a", "host": "b"}),
    ],
)
def test_a_wider_rule_before_takes_all(wide: dict[str, Any], narrow: dict[str, Any]):
    assert complaints(wide, narrow) == {2: "never decides: rule[1] takes all that it would"}
    assert complaints(narrow, wide) == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"host": "a"}, {}),
        ({"host": ".a.com"}, {"host": ["x.a.com", "b.com"]}),
        ({"host": ".a.com"}, {"host": "*a.com"}),
        ({"path": "/a?b"}, {"path": "/a*b"}),
        ({"path_prefix": "/a/"}, {"path": "/a*"}),
        ({"header": "Cookie: a"}, {"header": "Cookie"}),
        ({"client": "10.0.0.0/8"}, {"client": "192.168.0.0/16"}),
        ({"port": 80}, {"port": "80-81"}),
        ({"query": "*"}, {"path": "/a"}),
    ],
)
def test_what_is_not_wider_is_not_taken_for_it(one: dict[str, Any], other: dict[str, Any]):
    assert complaints(one, other) == {}


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"method": "CONNECT", "path_prefix": "/a"}, "CONNECT has no path"),
        ({"method": "CONNECT", "path": "/*"}, "CONNECT has no path"),
        ({"method": "CONNECT", "scheme": "http"}, "CONNECT is https"),
        ({"method": "PURGE"}, "PURGE goes to all"),
        ({"port": 25}, "no request for 25 is allowed"),
        ({"method": "CONNECT", "port": 80}, "no request for 80 is allowed"),
        ({"path": "/a", "query": "*"}, "leaves room for a query"),
        ({"path": ["/a*", "/b"], "path_prefix": "/c"}, "no path begins with path_prefix"),
        ({"client": "8.8.8.0/24"}, "none of its clients"),
    ],
)
def test_conditions_that_exclude_each_other(rule: dict[str, Any], why: str):
    assert why in complaints(rule)[1]
    assert why in complaints(rule, {})[1]


@pytest.mark.parametrize(
    "rule",
    [
        {"method": "CONNECT", "path": "*"}, {"method": "CONNECT", "port": 443}, {"port": "1-80"}, {"path": "/a?b", "query": "b"},
        {"path": "/a*", "path_prefix": "/a/b"}, {"path": "/a/b*", "path_prefix": "/a"}, {"client": "10.1.0.0/16"},
    ],
)  # fmt: skip
def test_conditions_that_can_be_met(rule: dict[str, Any]):
    assert complaints(rule) == {}


def test_the_wider_rule_is_named():
    found = complaints({"name": "wide", "host": ".a"}, {"host": "b.a"})
    assert found[2] == "never decides: rule[1], wide, takes all that it would"


def test_not_more_pairs_are_compared_than_take_a_second(monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []
    monkeypatch.setattr(config_cover, "covers", lambda wide, narrow: asked.append(1) or covers(wide, narrow))
    monkeypatch.setattr(config_cover, "COMPARED_MAX", 1000)
    assert complaints(*({"path": f"/{number}/*"} for number in range(500))) == {}
    assert 1000 <= len(asked) < 1500
    asked.clear()
    assert complaints(*({"host": f"h{number}.a.com"} for number in range(500))) == {}
    assert asked == []


def test_the_name_of_a_key_is_one_of_the_hosts():
    assert hosts_of(RuleConfig(host=("A.com.",), key_host="b.com")) == ["a.com", "b.com"]
    assert hosts_of(RuleConfig(key_host="b.com")) == []


words = st.text("ab.*?", min_size=1, max_size=5)


@given(words, words, st.text("ab.", max_size=6))
def test_a_pattern_that_is_wider_matches_all(wide: str, narrow: str, text: str):
    if covers_glob(wide, narrow) and fnmatch.fnmatchcase(text, narrow):
        assert fnmatch.fnmatchcase(text, wide)


hosts = st.sampled_from(["a.com", "x.a.com", ".a.com", ".com", "com", "*.com", "x*.a.com", "*", "x*", "?.com"])
rule_configs = st.builds(
    RuleConfig,
    host=st.lists(hosts, max_size=2).map(tuple),
    path=st.lists(st.sampled_from(["/a*", "/a/*", "*b", "/a/b", "*"]), max_size=2).map(tuple),
    path_prefix=st.lists(st.sampled_from(["/", "/a", "/a/"]), max_size=2).map(tuple),
    query=st.lists(st.sampled_from(["*", "b*", "b"]), max_size=1).map(tuple),
    method=st.lists(st.sampled_from(["GET", "CONNECT"]), max_size=2).map(tuple),
    port=st.lists(st.sampled_from([80, 443, "80-443"]), max_size=1).map(tuple),
)
lines = st.tuples(
    st.sampled_from([b"GET", b"POST"]),
    st.sampled_from([b"a.com", b"x.a.com", b"y.x.a.com", b"com", b"b.com", b"xa.com"]),
    st.sampled_from([80, 443]),
    st.sampled_from([b"/", b"/a", b"/a/b", b"/a/?b", b"/ab", b"/a/x?b=/b"]),
)


def takes(rule: Rule, method: bytes, host: bytes, port: int, path: bytes) -> bool:
    return bool(RuleSet([rule]).candidates(method, b"http", host, port, path))


@given(rule_configs, rule_configs, st.lists(lines, min_size=5, max_size=20))
def test_what_is_said_is_so(wide: RuleConfig, narrow: RuleConfig, asked: list[tuple[bytes, bytes, int, bytes]]):
    is_wider, is_never = covers(wide, narrow), bool(never(narrow, Config()))
    one, other = compile_rules([wide, narrow]).rules
    for line in asked:
        if takes(other, *line):
            assert not is_wider or takes(one, *line)
            assert not is_never


def test_a_tail_is_not_put_together_of_head_and_tail():
    assert not covers_glob("*aa", "a*a")


def test_hosts():
    assert covers_host(".a.com", "a.com")
    assert not covers_host("a.com", ".a.com")
    assert not covers_host("w*.a.com", ".a.com")
