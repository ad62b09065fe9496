from __future__ import annotations

import json

import pytest
from fakes import get

from cachelb.config import Config
from cachelb.errors import BadRequest, Reason
from cachelb.http.fields import request_fields
from cachelb.http.head import Limits, scan_request
from cachelb.relay import pages
from cachelb.relay.plan import OWNERS, Planner, plan_settings
from cachelb.routing.classify import Kind
from cachelb.routing.pool import Tables, make_pools
from cachelb.routing.ring import Member
from cachelb.routing.table import make_table

LIMITS = Limits()
NODES = ["n0", "n1", "n2", "n3"]


def planner(admits=(1.0,) * 4, **sections):
    sections.setdefault("relay", {}).setdefault("via", "me:1")
    config = Config.model_validate(sections)
    table = make_table("ring", [Member(name, 1.0) for name in NODES])
    return Planner(plan_settings(config), table, NODES, admits)


def plans(data, **how):
    """Both halves of a request, and the planner that made them."""
    each = planner(**how)
    head = scan_request(data, LIMITS)
    assert head is not None
    block = each.plan_block(head.block)
    return each.plan_line(head, block.fields.host), block, each


def test_a_plain_get_needs_two_halves_and_nothing_else():
    line, block, each = plans(get("http://a.test/x", "Accept: */*"))
    assert line.plain
    assert block.plain
    assert line.head + block.pre + b"10.0.0.1" + block.post == each.node_head(line, block, b"10.0.0.1")
    assert each.node_head(line, block, b"10.0.0.1") == (
        b"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\n"
        b"Via: 1.1 me:1 (cachelb)\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n"
    )


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_nothing_speaks_against_is_hashed(method):
    line, block, each = plans(get("http://a.test/x", method=method))
    assert each.classify(line, block).kind is Kind.HASH


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "get", "Get"])
def test_other_methods_are_not_plain(method):
    line, _, _ = plans(get("a.test:443" if method == "CONNECT" else "http://a.test/", method=method))
    assert not line.plain


@pytest.mark.parametrize(
    "field",
    [
        "Authorization: x", "Cache-Control: no-store", "Cache-Control: only-if-cached",
        "Transfer-Encoding: chunked", "Content-Length: 5", "Expect: 100-continue", "Via: 1.1 me:1",
        "Upgrade: x\r\nConnection: upgrade",
    ],
)  # fmt: skip
def test_fields_that_change_anything_make_a_block_general(field):
    _, block, _ = plans(get("http://a.test/", field))
    assert not block.plain


@pytest.mark.parametrize("rules", [{"hosts": ("b.test",)}, {"paths": ("/b",)}, {"headers": ("X",)}])
def test_with_rules_of_the_operator_every_block_is_general(rules):
    _, block, _ = plans(get("http://a.test/"), bypass=rules)
    assert not block.plain


def test_http_1_0_is_general():
    line, _, _ = plans(get("http://a.test/", version="1.0"))
    assert not line.plain


def test_a_loop_is_seen_in_the_block():
    assert plans(get("http://a.test/", "Via: 1.0 x, 1.1 ME:1"))[1].loop
    assert not plans(get("http://a.test/", "Via: 1.0 x, 1.1 me:12"))[1].loop


def test_owners_are_those_of_the_table_in_order():
    line, _, each = plans(get("http://a.test/x"))
    assert line.key == b"http://a.test/x"
    expected = [NODES[i] for i in each.table.owners(line.key, 4)]
    assert list(line.targets) == expected[:OWNERS]


def test_dead_nodes_are_passed_over():
    line, _, _ = plans(get("http://a.test/x"))
    admits = [1.0] * 4
    admits[NODES.index(line.targets[0])] = 0.0
    again, _, _ = plans(get("http://a.test/x"), admits=admits)
    assert list(again.targets[:2]) == list(line.targets[1:3])


def test_without_nodes_there_are_no_targets():
    assert plans(get("http://a.test/x"), admits=[0.0] * 4)[0].targets == ()
    empty = Planner(plan_settings(Config()), None, [], [])
    assert empty.owners(b"http://a.test/") == ()


@pytest.mark.parametrize(
    ("data", "form", "host", "port"),
    [
        (get("http://A.test/x"), "absolute", b"a.test", 80),
        (get("/x", "Host: a.test:8080"), "origin", b"a.test", 8080),
        (get("a.test:443", method="CONNECT"), "authority", b"a.test", 443),
        (get("[::1]:443", "Host: x", method="CONNECT"), "authority", b"::1", 443),
        (get("*", "Host: a.test", method="OPTIONS"), "asterisk", b"", 0),
        (get("https://a.test/x"), "absolute", b"a.test", 443),
    ],
)
def test_every_form_of_target_is_understood(data, form, host, port):
    line, _, _ = plans(data)
    assert (line.form, line.host, line.port) == (form, host, port)


@pytest.mark.parametrize("url", ["http://a.test/", "https://a.test/", "ftp://a.test/"])
def test_only_http_can_go_direct(url):
    assert plans(get(url))[0].can_go_direct == url.startswith("http:")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET /x HTTP/1.1\r\n\r\n", Reason.BAD_REQUEST),
        (b"GET nonsense HTTP/1.1\r\nHost: a\r\n\r\n", Reason.BAD_URL),
        (get("a.test", "Host: a", method="CONNECT"), Reason.BAD_URL),
    ],
)
def test_what_cannot_be_understood_is_refused(data, reason):
    with pytest.raises(BadRequest) as refused:
        plans(data)
    assert refused.value.reason is reason


def test_internal_pages_need_no_host():
    for data in (b"GET /squid-internal-x HTTP/1.0\r\n\r\n", b"GET /squid-internal-x HTTP/1.1\r\nHost:\r\n\r\n"):
        line, block, each = plans(data)
        assert each.classify(line, block).kind is Kind.LOCAL


def test_a_full_url_of_an_internal_page_is_never_plain():
    line, block, each = plans(get("http://a.test:3128/squid-internal-periodic/store_digest"))
    assert line.internal
    assert not line.plain
    assert line.targets
    assert each.classify(line, block).kind is Kind.HASH
    assert each.classify(line, block, (b"a.test", 3128)).kind is Kind.LOCAL
    assert not plans(get("http://a.test:3128/page"))[0].internal


def test_what_the_configuration_and_the_host_are_called_is_ours():
    settings = {"listen": {"http": ["10.0.0.5:8080", "[::]:3129"], "names": ["Proxy.Test"]}}
    policy = plan_settings(Config.model_validate_json(json.dumps(settings)), ["host.test"]).policy
    assert policy.own_hosts >= {b"proxy.test", b"10.0.0.5", b"host.test"}
    assert policy.own_ports == {8080, 3129}


@pytest.mark.parametrize(("method", "idempotent"), [("GET", True), ("PUT", True), ("DELETE", True), ("POST", False)])
def test_what_may_be_repeated_is_known(method, idempotent):
    assert plans(get("http://a.test/", method=method))[0].idempotent == idempotent


def test_an_origin_gets_a_path_and_no_credentials_of_the_proxy():
    line, block, each = plans(get("http://a.test:8080/x?y", "Proxy-Authorization: z", "Accept: */*"))
    assert each.origin_head(line, block, b"10.0.0.1") == (
        b"GET /x?y HTTP/1.1\r\nHost: a.test:8080\r\nAccept: */*\r\nVia: 1.1 me:1 (cachelb)\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n"
    )
    assert b"Proxy-Authorization: z" in each.node_head(line, block, b"10.0.0.1")


def test_userinfo_goes_on_as_authorization():
    line, block, each = plans(get("http://user:pa%20ss@a.test/", "Host: a.test"))
    assert line.key == b"http://a.test/"
    assert b"\r\nAuthorization: Basic dXNlcjpwYSBzcw==\r\n" in each.origin_head(line, block, b"")


def test_upgrade_is_passed_on_only_when_asked():
    line, block, each = plans(get("http://a.test/", "Connection: upgrade", "Upgrade: websocket"))
    assert b"pgrade" not in each.node_head(line, block, b"")
    head = each.node_head(line, block, b"", upgrade=True)
    assert head.endswith(b"\r\n\r\n")
    assert b"\r\nUpgrade: websocket\r\n" in head
    assert b"\r\nConnection: Upgrade\r\n" in head


def test_max_forwards_is_counted_down_for_options():
    line, block, each = plans(get("http://a.test/", "Max-Forwards: 3", method="OPTIONS"))
    assert b"\r\nMax-Forwards: 2\r\n" in each.node_head(line, block, b"")


def test_the_block_plan_keeps_the_facts():
    _, block, _ = plans(get("http://a.test/", "Accept: x"))
    assert repr(block.fields) == repr(request_fields(block.block))


@pytest.mark.parametrize("keep", [True, False])
def test_local_answers_are_whole(keep):
    for data, why, status in (
        (get("*", "Host: a", method="OPTIONS"), "options", b"200"),
        (get("http://a.test/", "Max-Forwards: 0", method="TRACE"), "max-forwards", b"200"),
        (get("/squid-internal-static/", "Host: a"), "internal", b"404"),
        (get("/squid-internal-periodic/store_digest", "Host: a", method="POST"), "digest", b"405"),
    ):
        line, block, each = plans(data)
        answer = pages.local_answer(line, block, each.via_name, why, keep)
        assert answer[9:12] == status
        assert (b"\r\nConnection: close\r\n" in answer) == (not keep)


def ruled(*rules, admits=(1.0,) * 4):
    pools = ({"name": "two", "nodes": ["n1", "n2"]},)
    config = Config.model_validate({"pool": pools, "rule": rules})
    members = [Member(name, 1.0) for name in NODES]
    made = make_pools(config.pool, "ring", Tables(), members, NODES, admits)
    return Planner(plan_settings(config), made[""].table(), NODES, admits, made)


def test_the_usual_line_falls_under_a_rule_that_only_hashes():
    each = ruled({"host": "a.test", "pool": "two"}, {"host": "b.test", "header": "Cookie", "pool": "two"})
    for number in range(30):
        line = each.plan_usual_line(b"GET http://a.test/%d HTTP/1.1" % number)
        assert line is not None
        assert line.plain
        assert line.rule is each.rules.rules[0]
        assert line.targets == each.pools["two"].owners(line.key, 1)
        assert each.line_owners(line) == each.holders(line) == each.pools["two"].owners(line.key, OWNERS)
    assert each.plan_usual_line(b"GET http://b.test/ HTTP/1.1") is None
    other = each.plan_usual_line(b"GET http://c.test/ HTTP/1.1")
    assert other is not None
    assert (other.rule, other.rules) == (None, ())


def test_a_line_with_another_key_keeps_what_was_asked_for():
    each = ruled({"host": "m?.test", "key_host": "m.test", "key_sort_query": True})
    head = scan_request(get("http://m1.test/?b&a"), LIMITS)
    line = each.plan_line(head, None)
    assert each.plan_usual_line(b"GET http://m1.test/?b&a HTTP/1.1") is None
    assert (line.key, line.asked) == (b"http://m.test/?a&b", b"http://m1.test/?b&a")
    assert line.head == b"GET http://m.test/?a&b HTTP/1.1\r\nHost: m.test\r\n"
    assert line.plain
    assert (line.host, line.url.key) == (b"m1.test", line.asked)
    own = each.plan_usual_line(b"GET http://m.test/x HTTP/1.1")
    assert (own.key, own.asked, own.rule) == (b"http://m.test/x", b"http://m.test/x", each.rules.rules[0])


def test_the_key_of_a_head_is_that_of_a_get():
    each = ruled({"host": "a.test", "method": ["GET"], "key_strip_query": ["utm_*"]})
    asked = b"http://a.test/x?utm_a=1&b=2"
    assert each.plan_usual_line(b"HEAD " + asked + b" HTTP/1.1") is None
    head, got = (each.plan_line(scan_request(get(asked.decode(), method=method), LIMITS), None) for method in ("HEAD", "GET"))
    assert head.key == got.key == b"http://a.test/x?b=2"
