"""Which requests go where: conditions one by one, the index of hosts against the plain list, and keys."""

from __future__ import annotations

import fnmatch
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.config_policy import RuleConfig
from cachelb.http.url import parse_absolute
from cachelb.routing.rules import CLIENTS_MAX, HOSTS_MAX, NO_RULES, Action, Rule, RuleSet, compile_rules, first_that_takes


def ruleset(*rules: dict[str, Any]) -> RuleSet:
    return compile_rules([RuleConfig(**rule) for rule in rules])


def numbers(found: RuleSet, url: str = "http://www.a.com/", method: str = "GET") -> list[int]:
    at = parse_absolute(url.encode())
    return [rule.number for rule in found.candidates(method.encode(), at.scheme, at.host, at.port, at.path)]


@pytest.mark.parametrize(
    ("rule", "taken", "left"),
    [
        ({"host": "www.a.com"}, ["http://www.a.com/", "http://WWW.a.com.:81/"], ["http://a.com/", "http://x.www.a.com/"]),
        ({"host": ".a.com"}, ["http://a.com/", "http://b.www.a.com/"], ["http://ba.com/", "http://com/"]),
        ({"host": "img*.a.com"}, ["http://img.a.com/", "http://img1.x.a.com/"], ["http://a.com/", "http://img1.b.com/"]),
        ({"host": "img*"}, ["http://img/", "http://img1.b.com/"], ["http://a.img/"]),
        ({"host": "*a.com"}, ["http://a.com/", "http://ba.com/", "http://b.a.com/"], ["http://a.com.b/"]),
        ({"host": "*.com"}, ["http://a.com/"], ["http://com/"]),
        ({"host": ["x", "y*"]}, ["http://x/", "http://yz/"], ["http://z/"]),
        ({"host": "[2001:db8::1]"}, ["http://[2001:db8:0::1]/"], ["http://[2001:db8::2]/"]),
        ({"path": "*.html"}, ["http://a/b.html"], ["http://a/b.html?c", "http://a/b.HTML"]),
        ({"path": ["/a/*", "/b"]}, ["http://a/a/", "http://a/b"], ["http://a/b/"]),
        ({"path_prefix": ["/a/", "/b"]}, ["http://a/a/x", "http://a/b?c"], ["http://a/a", "http://a/c/b"]),
        ({"path_regex": "^/[0-9]+$"}, ["http://a/12", "http://a/1?x", "http://a/1#x?"], ["http://a/x1", "http://a/?1"]),
        ({"path_regex": ["^/a$", "b"]}, ["http://a/a", "http://a/xbx"], ["http://a/ac"]),
        ({"query": "*session=*"}, ["http://a/?session=1", "http://a/?a&session=1#x"], ["http://a/session=1", "http://a/#?session="]),
        ({"query": "*"}, ["http://a/?", "http://a/?b"], ["http://a/"]),
        ({"scheme": ["ftp", "https"]}, ["ftp://a/", "https://a/"], ["http://a/"]),
        ({"port": [80, "8000-8099"]}, ["http://a/", "http://a:8050/"], ["http://a:81/", "https://a/"]),
        ({"host": ".a.com", "path": "/x*", "port": 80}, ["http://b.a.com/xy"], ["http://b.a.com/y", "http://b.a.com:81/x"]),
    ],
)  # fmt: skip
def test_each_condition(rule: dict[str, Any], taken: list[str], left: list[str]):
    found = ruleset(rule)
    assert [url for url in [*taken, *left] if numbers(found, url)] == taken


def test_methods_and_connect():
    found = ruleset({"method": ["GET", "CONNECT"], "scheme": "https"})
    assert numbers(found, "https://a/") == [1]
    assert numbers(found, "https://a/", "HEAD") == []
    assert found.candidates(b"CONNECT", b"https", b"a", 443, b"")[0].number == 1
    assert ruleset({"path_prefix": "/"}).candidates(b"CONNECT", b"https", b"a", 443, b"") == ()


def test_candidates_end_with_the_first_that_asks_for_no_more():
    found = ruleset({"client": "10.0.0.0/8"}, {"host": "b"}, {"header": "Cookie"}, {"host": ".a.com"}, {})
    assert numbers(found) == [1, 3, 4]
    assert numbers(found, "http://b/") == [1, 2]
    assert numbers(found, "http://c/") == [1, 3, 5]
    assert numbers(ruleset({"header": "Cookie"})) == [1]


def test_fields_and_clients_are_asked_for_each_request():
    found = ruleset({"client": ["10.0.0.0/8", "2001:db8::/32"], "header": ["X-A", "Cookie: *b=*"]})
    (rule,) = found.candidates(b"GET", b"http", b"a", 80, b"/")
    assert rule.takes(b"x-a: 1\r\n", "10.1.2.3")
    assert rule.takes(b"Cookie: a=1; b=2\r\n", "2001:db8::7")
    assert not rule.takes(b"Cookie: a=1\r\n", "10.1.2.3")
    assert not rule.takes(b"X-A: 1\r\n", "11.1.2.3")
    assert first_that_takes([rule], b"", "10.1.2.3") is None
    assert first_that_takes([rule], b"X-A: 1\r\n", "10.1.2.3") is rule


def test_clients_and_hosts_are_remembered_but_not_without_end():
    rule = Rule(1, "", Action(), [ip_network("10.0.0.0/31")])
    found = RuleSet([rule])
    for number in range(CLIENTS_MAX + 10):
        assert rule.takes(b"", str(ip_address(0x0A000000 + number))) == (number < 2)
    for number in range(HOSTS_MAX + 10):
        assert found.candidates(b"GET", b"http", b"h%d" % number, 80, b"/") == (rule,)
    assert len(rule._known) == len(found._by_host) == 10
    assert len(found._once) == 1
    assert rule.takes(b"", "10.0.0.1")


def test_no_rules_are_one_object():
    assert compile_rules([]) is NO_RULES
    assert NO_RULES.candidates(b"GET", b"http", b"a", 80, b"/") == ()
    url = parse_absolute(b"http://a/?b&a")
    assert NO_RULES.keyed(url) == (url, url)


HOSTS = ["a.com", "www.a.com", "b.a.com", "a.b.com", "img1.b.com", "com", "x", "1.2.3.4"]
host_rules = st.sampled_from([*HOSTS, ".a.com", ".com", ".b.com", "*.com", "img?.b.com", "*a*", "a.*", "w*.a.com", "*", "?"])
rule_configs = st.builds(
    dict,
    host=st.lists(host_rules, max_size=3),
    path=st.lists(st.sampled_from(["/a*", "*.html", "/", "*x*y*"]), max_size=2),
    method=st.lists(st.sampled_from(["GET", "HEAD"]), max_size=2),
    port=st.lists(st.sampled_from([80, "81-90"]), max_size=2),
    client=st.sampled_from([[], ["10.0.0.0/8"]]),
)


def naive(rule: dict[str, Any], method: str, host: str, port: int, path: str) -> bool:
    def is_host(wanted: str) -> bool:
        if wanted.startswith("."):
            return host == wanted[1:] or host.endswith(wanted)
        return fnmatch.fnmatchcase(host, wanted)

    ports = {80: {80}, "81-90": set(range(81, 91))}
    return (
        (not rule["host"] or any(map(is_host, rule["host"])))
        and (not rule["path"] or any(fnmatch.fnmatchcase(path, each) for each in rule["path"]))
        and (not rule["method"] or method in rule["method"])
        and (not rule["port"] or any(port in ports[each] for each in rule["port"]))
    )


@given(
    st.lists(rule_configs, max_size=12),
    st.lists(
        st.tuples(
            st.sampled_from(["GET", "HEAD", "POST"]),
            st.sampled_from(HOSTS),
            st.sampled_from([80, 85, 99]),
            st.sampled_from(["/", "/a", "/b.html", "/a?x&y", "/xay"]),
        ),
        max_size=20,
    ),
)
def test_the_index_finds_what_the_plain_list_finds(configs: list[dict[str, Any]], lines: list[tuple[str, str, int, str]]):
    found = ruleset(*configs)
    for method, host, port, path in lines:
        expected = []
        for number, rule in enumerate(configs, 1):
            if naive(rule, method, host, port, path):
                expected.append(number)
                if not rule["client"]:
                    break
        got = found.candidates(method.encode(), b"http", host.encode(), port, path.encode())
        assert [rule.number for rule in got] == expected


def test_a_key_is_that_of_the_first_rule_that_asks_for_the_url_alone():
    found = ruleset(
        {"host": "a", "header": "Cookie", "pool": "p"},
        {"host": "b", "method": "POST", "pool": "p"},
        {"host": "c"},
        {"host": ["a", "b", "c", "d"], "key_sort_query": True},
        {"key_strip_query": "y"},
    )
    assert found.has_keys
    keys = {host: found.keyed(parse_absolute(b"http://%b/?y&x" % host))[0].key for host in (b"a", b"b", b"c", b"d", b"e")}
    assert keys == {
        b"a": b"http://a/?x&y", b"b": b"http://b/?x&y", b"c": b"http://c/?y&x", b"d": b"http://d/?x&y", b"e": b"http://e/?x",
    }  # fmt: skip


def test_nodes_are_sent_the_key_or_the_url():
    for send, sent in (("key", b"http://cdn.x/a"), ("url", b"http://cdn1.x/a")):
        found = ruleset({"host": "cdn?.x", "key_host": "cdn.x", "key_send": send})
        key, to_node = found.keyed(parse_absolute(b"http://cdn1.x/a"))
        assert (key.key, to_node.key) == (b"http://cdn.x/a", sent)


def test_the_name_of_the_key_falls_under_its_rule():
    found = ruleset({"host": "cdn1.x", "key_host": "cdn.x", "key_sort_query": True, "pool": "p"})
    assert found.keyed(parse_absolute(b"http://cdn.x/?b&a"))[0].key == b"http://cdn.x/?a&b"
    assert numbers(found, "http://cdn.x/") == [1]


def test_what_only_hashes_is_decided_with_the_line():
    hashing = [Action(), Action("p", "carp"), Action("", "host"), Action("", "url")]
    others = [Action("p", "wlc"), Action("", "client"), Action("", "", "g"), Action(bypass=False), Action(refuse=True)]
    assert all(Rule(1, "", action).decides for action in hashing)
    assert not any(Rule(1, "", action).decides for action in [*others, Action("", "", "", ("c",))])
    assert not Rule(1, "", Action(), headers=["A"]).decides
    assert Rule(3, "", Action()).name == "rule 3"


class Counting:
    """In the place of an expression: counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def search(self, data: bytes) -> None:
        self.asked += len(data)


def test_a_line_costs_each_expression_one_pass_however_it_repeats_itself():
    """What takes exponential time elsewhere: RE2 has no backtracking, and nothing here asks it twice."""
    nasty = r"^/(a+)+(a|aa)*(.*a.*)*\d$"
    (rule,) = compile_rules([RuleConfig(path_regex=(nasty,))]).rules
    path = b"/" + b"a" * 8000
    assert not rule.allows(b"GET", b"http", 80, path)
    assert rule.allows(b"GET", b"http", 80, path + b"7")
    counting = Counting()
    rule._regexes = (counting, counting)
    assert not rule.allows(b"GET", b"http", 80, path + b"?" + path)
    assert counting.asked == 2 * len(path)
