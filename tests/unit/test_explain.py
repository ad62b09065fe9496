"""What `cachelb explain` says, and that it is what the relay's planner would do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.config import Config, parse
from cachelb.errors import Reason
from cachelb.explain import explain, planner_of
from cachelb.explain_text import render
from cachelb.explained import BadQuestionError

NODES = "".join(f'[[node]]\nname = "cache{n}"\nhost = "10.0.0.1{n}"\n' for n in (1, 2, 3))
URL = "http://www.example.com/a/b.png"


def config(more: str = "", nodes: str = NODES) -> Config:
    return parse(f"[relay]\nvia = 'me'\n{more}\n{nodes}", "c.toml")


def test_a_url_has_one_owner_and_an_order_of_the_others():
    found = explain(config(), URL)
    assert (found.kind, found.why, found.reason) == ("hash", "get", "")
    assert found.key == URL
    assert [node.place for node in found.nodes] == [1, 2, 3]
    assert {node.name for node in found.nodes} == {"cache1", "cache2", "cache3"}
    assert found.owner == found.nodes[0].name == found.to[0]
    assert found.to == tuple(node.name for node in found.nodes)
    assert found.goes == f"to {found.owner}, its owner"
    assert all(node.share == pytest.approx(1 / 3) for node in found.nodes)


def test_the_key_is_canonical():
    found = explain(config(), "HTTP://WWW.Example.com:80/a/b.png").as_dict()
    assert found | {"url": URL} == explain(config(), URL).as_dict()


def test_a_path_takes_its_host_from_the_header():
    found = explain(config(), "/a/b.png", headers=["host: www.example.com"])
    assert found.key == URL
    assert explain(config(), "/a").reason == "bad_request"


def test_the_head_that_a_node_is_sent_is_shown():
    found = explain(config(), URL, headers=["Cookie: a=1", "Connection: x", "X: 1", "X-Forwarded-For: 192.0.2.1"])
    assert found.sent == (
        f"GET {URL} HTTP/1.1\r\nHost: www.example.com\r\nCookie: a=1\r\nVia: 1.1 me (cachelb)\r\n"
        "X-Forwarded-For: 192.0.2.1, 127.0.0.1\r\n\r\n"
    )


def test_when_the_owner_is_away_the_next_one_is_asked():
    usual = explain(config(), URL)
    owner, second = usual.to[:2]
    for state, words in (("dead", "is dead"), ("down", "is down"), ("drain", "is drain")):
        found = explain(config(), URL, states={owner: (state, 1.0)})  # type: ignore[dict-item]
        assert found.owner == owner
        assert found.to == usual.to[1:]
        assert found.goes == f"to {second}, because its owner {owner} {words}"
        assert found.nodes[0].state == state
        assert (found.nodes[0].tried, found.nodes[1].tried) == (0, 1)


def test_an_owner_that_returns_slowly_does_not_have_all_keys_yet():
    usual = explain(config(), URL)
    less, more = usual.fraction * 0.9, usual.fraction + (1 - usual.fraction) / 2
    assert explain(config(), URL, states={usual.owner: ("up", more)}).to[0] == usual.owner
    found = explain(config(), URL, states={usual.owner: ("up", less)})
    assert found.to[0] == usual.to[1]
    assert "returns slowly" in found.goes


@pytest.mark.parametrize("mode", ["direct", "nodes", "off"])
def test_a_purge_goes_to_caches_only_if_the_client_may_purge(mode: str):
    for client, allow, reason in (
        ("192.0.2.7", "10.0.0.0/8", ""),  # need not be let use the caches
        ("127.0.0.1", "127.0.0.0/8", "purge_denied"),
        ("127.0.0.1", "10.0.0.0/8", "access_denied"),
    ):
        access = f"[bypass]\nmode = '{mode}'\n[access]\npurge = ['192.0.2.0/24']\nallow = ['{allow}']"
        found = explain(config(access), URL, method="PURGE", client=client)
        assert (found.reason, found.sent, found.to) == (reason, "", ())
        assert found.status == (403 if reason else 0)
        if reason != "access_denied":
            assert (found.kind, found.key) == ("purge", URL)
            assert ("[access] purge" in found.why) == bool(reason)
            assert ("owner" in found.goes) == (not reason)


def test_the_digest_is_the_directors_where_the_url_names_it():
    page = "/squid-internal-periodic/store_digest"
    own = config("[listen]\nhttp = '10.0.0.5:3128'\nnames = ['proxy.test']")
    for host in ("10.0.0.5:3128", "proxy.test:3128", "host.test:3128"):
        assert explain(own, f"http://{host}{page}", host_names=["host.test"]).kind == "local"
    assert explain(own, page, headers=["Host: other.test"]).kind == "local"
    assert explain(own, f"http://other.test:3128{page}", host_names=["host.test"]).kind == "hash"


def test_without_a_node_in_service_it_goes_straight_or_nowhere():
    dead = {f"cache{n}": ("dead", 0.0) for n in (1, 2, 3)}
    found = explain(config(), URL, states=dead)  # type: ignore[arg-type]
    assert found.goes == "straight to the origin, because no node is in service"
    assert found.sent.startswith("GET /a/b.png HTTP/1.1\r\nHost: www.example.com\r\n")
    for mode in ("nodes", "off"):
        found = explain(config(f"[bypass]\nmode = '{mode}'"), URL, states=dead)  # type: ignore[arg-type]
        assert (found.reason, found.status) == ("no_node", 503)
        assert found.to == ()


@pytest.mark.parametrize(
    ("method", "headers", "why"),
    [
        ("POST", [], "method POST"),
        ("GET", ["Authorization: Basic eA=="], "authorization"),
        ("GET", ["Cache-Control: no-store"], "no-store"),
        ("GET", ["Cookie: session=1"], "rule Cookie: session=*"),
    ],
)
def test_what_no_cache_could_store_goes_around_the_farm(method: str, headers: list[str], why: str):
    rule = "headers = ['Cookie: session=*']"
    found = explain(config(f"[bypass]\n{rule}"), URL, method, headers)
    assert (found.kind, found.why, found.goes, found.to) == ("bypass", why, "straight to the origin", ())
    assert found.rule == why.removeprefix("rule ") if why.startswith("rule") else found.rule == ""
    assert found.owner
    spread = explain(config(f"[bypass]\nmode = 'nodes'\n{rule}"), URL, method, headers)
    assert set(spread.to) == {"cache1", "cache2", "cache3"}
    assert "any node" in spread.goes
    hashed = explain(config(f"[bypass]\nmode = 'off'\n{rule}"), URL, method, headers)
    assert hashed.to == explain(config(), URL).to


def test_connect_is_a_tunnel():
    found = explain(config(), "www.example.com:443", "CONNECT")
    assert (found.kind, found.goes) == ("tunnel", "straight to the origin")
    assert (found.key, found.sent) == ("www.example.com:443", "")
    assert len(explain(config("[bypass]\nmode = 'nodes'"), "www.example.com:443", "CONNECT").to) == 3
    assert explain(config(), "www.example.com:22", "CONNECT").reason == "port_denied"


def test_schemes_that_are_not_spoken_here_need_a_node():
    found = explain(config(), "https://www.example.com/", headers=["Authorization: x"])
    assert (found.kind, len(found.to)) == ("bypass", 3)


def test_what_the_director_answers_itself():
    assert explain(config(), "*", "OPTIONS", ["Host: me"]).kind == "local"
    found = explain(config(), URL, "TRACE", ["Max-Forwards: 0"])
    assert (found.kind, found.goes) == ("local", "nowhere: the director answers itself")


@pytest.mark.parametrize(
    ("url", "method", "headers", "client", "reason"),
    [
        ("http://a.example:25/", "GET", [], "127.0.0.1", Reason.PORT_DENIED),
        (URL, "GET", [], "8.8.8.8", Reason.ACCESS_DENIED),
        (URL, "GET", ["Via: 1.1 me"], "127.0.0.1", Reason.LOOP),
        ("www.example.com", "GET", [], "127.0.0.1", Reason.BAD_URL),
        ("http://a b/", "GET", [], "127.0.0.1", Reason.BAD_REQUEST),
        ("http://a/" + "x" * 40000, "GET", [], "127.0.0.1", Reason.URL_TOO_LONG),
        (URL, "GET", ["Content-Length: 1", "Transfer-Encoding: chunked"], "127.0.0.1", Reason.BAD_FRAMING),
        (URL, "GET", ["A : 1"], "127.0.0.1", Reason.BAD_REQUEST),
        (URL, "G ET", [], "127.0.0.1", Reason.BAD_REQUEST),
    ],
)
def test_a_refusal_has_the_relay_s_reason(url: str, method: str, headers: list[str], client: str, reason: Reason):
    found = explain(config(), url, method, headers, client)
    assert (found.kind, found.reason, found.status) == ("refuse", reason.label, reason.value.status)
    assert found.why
    assert "nowhere" in found.goes


@pytest.mark.parametrize(
    ("url", "method", "headers", "client"),
    [
        ("http://a/\r\nX: 1", "GET", [], "127.0.0.1"),
        (URL, "GET\n", [], "127.0.0.1"),
        (URL, "GET", ["no colon"], "127.0.0.1"),
        (URL, "GET", ["a: b\r\nc: d"], "127.0.0.1"),
        (URL, "GET", [], "localhost"),
    ],
)
def test_what_cannot_be_asked_is_said(url: str, method: str, headers: list[str], client: str):
    with pytest.raises(BadQuestionError):
        explain(config(), url, method, headers, client)


def test_a_node_without_weight_comes_last_and_is_never_asked():
    found = explain(config(nodes=NODES.replace('cache1"\n', 'cache1"\nweight = 0\n')), URL)
    assert (found.nodes[-1].name, found.nodes[-1].place, found.nodes[-1].tried) == ("cache1", 0, 0)
    assert "cache1" not in found.to


@pytest.mark.parametrize("algorithm", ["ring", "carp"])
@given(path=st.text("abc/?=", max_size=12), away=st.sets(st.sampled_from(["cache1", "cache2", "cache3"])))
def test_it_is_what_the_planner_does(algorithm: str, path: str, away: set[str]):
    settings = config(f"[hash]\nalgorithm = '{algorithm}'")
    states = dict.fromkeys(away, ("dead", 0.0))
    found = explain(settings, URL + path, states=states)  # type: ignore[arg-type]
    assert found.to == planner_of(settings, states).owners(found.key.encode())  # type: ignore[arg-type]


def test_as_text_it_fits_a_terminal_and_cannot_steer_it():
    text = render(explain(config(), URL + "\u202e\x9b"))
    assert all(line.isprintable() for line in text.splitlines())
    assert "\\u202e" in text
    for words in ("owner", "order", "10.0.0.11:3128", "33.3%", "sent:"):
        assert words in text


def test_as_text_the_order_of_the_nodes_is_a_table():
    usual = explain(config(), URL)
    first, second, third = usual.nodes
    found = explain(config(), URL, states={first.name: ("dead", 0.0)})
    table = render(found).partition("order")[2].splitlines()[:4]
    assert table == [
        "  node    address         state  weight  share  asked",
        f"1      {first.name}  {first.host}:3128  dead   1       33.3%  -",
        f"2      {second.name}  {second.host}:3128  up     1       33.3%  1",
        f"3      {third.name}  {third.host}:3128  up     1       33.3%  2",
    ]
    around = render(explain(config(), URL, "POST"))
    assert around.count("33.3%  -\n") == 3


def test_as_text_a_tunnel_has_neither_hash_nor_order():
    text = render(explain(config(), "www.example.com:443", "CONNECT"))
    assert text.splitlines() == [
        "request  CONNECT www.example.com:443",
        "client   127.0.0.1",
        "key      www.example.com:443",
        "kind     tunnel: connect",
        "goes     straight to the origin",
    ]


def test_as_text_a_large_farm_is_cut_short():
    nodes = "".join(f'[[node]]\nname = "n{n}"\nhost = "h{n}"\n' for n in range(40))
    found = explain(config(nodes=nodes), URL)
    assert "... and 24 more" in render(found)
    assert len(found.nodes) == 40


def test_as_a_dictionary_it_can_be_json():
    found = explain(config(), URL)
    assert json.loads(json.dumps(found.as_dict()))["owner"] == found.owner


def test_what_answers_have_taught_sends_a_url_around_the_farm():
    made = config()
    asked: list[tuple[bytes, bytes]] = []

    def taught(key: bytes, segment: bytes) -> str | None:
        asked.append((key, segment))
        return "learned segment no-store" if segment == b"www.test/api/" else None

    found = explain(made, "http://www.test/api/1", taught=taught)
    assert (found.kind, found.why, found.goes, found.to) == ("bypass", "learned segment no-store", "straight to the origin", ())
    assert explain(made, "http://www.test/other/1", taught=taught).kind == "hash"
    assert asked == [(b"http://www.test/api/1", b"www.test/api/"), (b"http://www.test/other/1", b"www.test/other/")]
    assert explain(made, "http://www.test/api/1", "POST", taught=taught).why != "learned segment no-store"


RULES = """
[[pool]]
name = "images"
nodes = ["cache1", "cache2"]
[[affinity]]
name = "shop"
[[cookie]]
name = "id"
[[rule]]
name = "no-spam"
host = "spam.example"
refuse = true
[[rule]]
name = "live"
host = "live.example"
bypass = true
[[rule]]
name = "shoppers"
host = "shop.example"
pool = "images"
affinity = "shop"
cookie = "id"
[[rule]]
name = "pictures"
host = ".img.example"
pool = "images"
key_host = "img.example"
[[rule]]
name = "turns"
host = "rr.example"
header = "X-Turn"
scheduler = "rr"
[[rule]]
host = "client.example"
scheduler = "client"
bypass = false
"""


def ruled(url: str, *headers: str, **how):
    return explain(config(RULES), url, headers=headers, **how)


def test_a_rule_and_its_pool_are_named():
    found = ruled("http://a.img.example/x.png")
    assert (found.rule, found.rule_in, found.pool, found.scheduler) == ("pictures", "rule", "images", "url")
    assert found.kind == "hash"
    assert {node.name for node in found.nodes} == {"cache1", "cache2"}
    assert found.to == tuple(node.name for node in found.nodes)
    assert found.key == "http://img.example/x.png"
    assert found.sent.startswith("GET http://img.example/x.png HTTP/1.1\r\nHost: img.example\r\n")
    assert found.to == ruled("http://b.img.example/x.png").to
    text = render(found)
    assert "rule     pictures of [[rule]]\npool     images\nby       url\n" in text


def test_what_a_rule_refuses_or_sends_around():
    found = ruled("http://spam.example/")
    assert (found.kind, found.reason, found.rule) == ("refuse", Reason.RULE_DENIED.label, "no-spam")
    found = ruled("http://live.example/")
    assert (found.kind, found.goes, found.rule, found.rule_in) == ("bypass", "straight to the origin", "live", "rule")


def test_a_condition_on_fields_decides():
    found = ruled("http://rr.example/", "X-Turn: 1")
    assert (found.rule, found.scheduler, found.owner, found.hash) == ("turns", "rr", "", "")
    assert found.goes == "to a node of the farm, in turn"
    assert set(found.to) == {"cache1", "cache2", "cache3"}
    assert ruled("http://rr.example/").rule == ""


def test_a_rule_by_the_client_has_no_owner_by_url():
    first = ruled("http://client.example/a", client="10.0.0.1")
    assert first.to == ruled("http://client.example/b", client="10.0.0.1").to
    assert first.kind == "hash"
    assert first.sent
    others = {ruled("http://client.example/a", client=f"10.0.0.{n}").to[0] for n in range(30)}
    assert others == {"cache1", "cache2", "cache3"}
    posted = ruled("http://client.example/a", method="POST")
    assert (posted.rule, posted.kind, posted.why) == ("rule 6", "hash", "rule rule 6")


def test_a_group_names_the_node_that_the_client_has_there():
    found = ruled("http://shop.example/")
    assert (found.affinity, found.cookies, found.scheduler, found.template) == ("shop", ("id",), "wlc", "")
    assert found.goes == "to a node of pool images, whoever has the fewest requests under way for its weight"
    assert "group    shop: this client has no template there\ncookies  id\n" in render(found)
    asked = []
    found = ruled("http://shop.example/", client="10.0.0.9", followed=lambda *who: asked.append(who) or "cache2")
    assert asked == [("shop", "10.0.0.9")]
    assert found.to == ("cache2", "cache1")
    assert found.goes == "to cache2, where the client's template in the group shop sends it"


def test_a_pool_that_is_dead_serves_nobody_but_what_its_origin_can():
    dead = {"cache1": ("dead", 1.0), "cache2": ("down", 1.0)}
    assert ruled("http://shop.example/", states=dead).reason == Reason.NO_NODE.label
    assert ruled("http://img.example/", states=dead).goes == "straight to the origin, because no node is in service"
    assert ruled("http://img.example/", states={"cache1": ("dead", 1.0)}).to == ("cache2",)


def test_what_no_cache_could_store_goes_as_without_a_pool():
    found = ruled("http://img.example/", method="POST")
    assert (found.kind, found.why, found.rule) == ("bypass", "method POST", "pictures")


def test_a_rule_of_bypass_says_that_it_is_one():
    found = explain(config("[bypass]\nhosts = ['a.example']"), "http://a.example/")
    assert (found.rule, found.rule_in) == ("a.example", "bypass")
    assert "rule     a.example of [bypass]" in render(found)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("www.test/logo.png", "'www.test/logo.png'; did you mean http://www.test/logo.png?"),
        ("127.0.0.1:8080/", "'127.0.0.1:8080/'; did you mean http://127.0.0.1:8080/?"),
        ("www.test", "'www.test'; did you mean http://www.test?"),
        ("www.test?x=1", "'www.test?x=1'; did you mean http://www.test?x=1?"),
        ("http:/www.test/", "'http:/www.test/'"),
        ("http:www.test/", "'http:www.test/'"),
        ("mailto:a@b.test", "'mailto:a@b.test'"),
    ],
)
def test_who_leaves_out_the_scheme_is_told_how_to_write_it(url: str, hint: str):
    found = explain(config(), url)
    assert found.reason == "bad_url"
    assert found.why.endswith(hint)
    assert "b'" not in found.why


def test_connect_without_a_port_is_no_url_without_a_scheme():
    assert explain(config(), "www.test", "CONNECT").why == "no port: 'www.test'"
