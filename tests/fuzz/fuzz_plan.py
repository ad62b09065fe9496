"""The short way of a plain GET gives what the general way gives: the same plan, verdict, owner and bytes for the node."""

from __future__ import annotations

import random

import fuzz_head
from mutate import mutate

from cachelb.config import Config
from cachelb.errors import BadRequest
from cachelb.http.framing import request_body
from cachelb.http.head import Limits, scan_request
from cachelb.relay.plan import LinePlan, Planner, plan_settings
from cachelb.routing.classify import HASH_GET
from cachelb.routing.pool import Tables, make_pools
from cachelb.routing.ring import Member
from cachelb.routing.table import make_table

LIMITS = Limits(head_bytes=600, url_bytes=60, fields=9)
NODES = ["n0", "n1", "n2", "n3"]
TABLE = make_table("ring", [Member(name, 1.0) for name in NODES])
SETTINGS = plan_settings(Config.model_validate({"relay": {"via": "lb:3128"}}))
ADMITS = ([1.0] * 4, [1.0, 0.0, -1.0, 0.5])
RULED = Config.model_validate(
    {
        "relay": {"via": "lb:3128"},
        "pool": ({"name": "two", "nodes": ["n1", "n2"], "weights": {"n2": 3.0}},),
        "rule": (
            {"host": "a.com", "path": "*x*", "key_sort_query": True, "pool": "two"},
            {"host": ".a-b.example.org", "method": ["HEAD"], "pool": "two", "scheduler": "carp"},
            {"host": "*.org", "key_host": "a-b.org", "key_strip_query": ["y*"], "scheduler": "host"},
            {"header": "Via", "path_prefix": "/y", "scheduler": "rr"},
        ),
    }
)
MEMBERS = [Member(name, 1.0) for name in NODES]
PLANNERS = [Planner(SETTINGS, TABLE, NODES, admits) for admits in ADMITS]
PLANNERS += [
    Planner(plan_settings(RULED), TABLE, NODES, admits, make_pools(RULED.pool, "ring", Tables(), MEMBERS, NODES, admits))
    for admits in ADMITS
]
IP = b"10.0.0.1"
REQUESTS = [
    b"GET http://a.com/x?y HTTP/1.1\r\nHost: a.com\r\nAccept: */*\r\nX-Forwarded-For: 10.1.1.1\r\n\r\n",
    b"HEAD http://www.a-b.example.org/x/y#z HTTP/1.1\r\nHost: b\r\nVia: 1.1 c (squid/5.7)\r\nConnection: keep-alive\r\n\r\n",
    b"GET http://a.com/squid-internal-periodic/store_digest HTTP/1.1\r\nHost: a.com\r\n\r\n",
    *fuzz_head.REQUESTS,
]
NASTY = [*fuzz_head.NASTY, b"http://", b"@", b"/squid-internal-", b":80", b":81", b"1.2.3.4", b"Via: 1.1 lb:3128\r\n", b"HEAD "]
SAME = ("form", "head", "host", "idempotent", "internal", "key", "method", "minor", "plain", "port", "segment", "target")


def make(chance: random.Random) -> bytes:
    return mutate(chance, REQUESTS, NASTY)


def same_lines(short: LinePlan[str], general: LinePlan[str]) -> None:
    for name in (*SAME, "can_go_direct"):
        assert getattr(short, name) == getattr(general, name), name
    assert repr(short.url) == repr(general.url)
    assert (short.rule, short.rules, short.asked) == (general.rule, general.rules, general.asked)
    assert short.targets[0] == general.targets[0]
    assert short.partial or short.targets == general.targets


def check(data: bytes) -> str:
    first, _, rest = data.partition(b"\r\n")
    short = [planner.plan_usual_line(first) for planner in PLANNERS]
    try:
        head = scan_request(data, LIMITS)
        if head is None:
            return "more is needed"
        block = PLANNERS[0].plan_block(head.block)
        general = [planner.plan_line(head, block.fields.host) for planner in PLANNERS]
    except BadRequest:
        return "refused"
    if rest != head.block + b"\r\n":
        return "more than one head, or empty lines before it"
    usual = PLANNERS[0].plan_usual_block(head.block, LIMITS.fields)
    if usual is not None:
        for name in ("block", "ip", "loop", "plain", "post", "pre"):
            assert getattr(usual, name) == getattr(block, name), name
        assert repr(usual.fields) == repr(block.fields)
    for planner, one, other in zip(PLANNERS, short, general, strict=True):
        if one is not None:
            same_lines(one, other)
        if other.plain and block.plain:
            assert planner.classify(other, block) == HASH_GET
            assert request_body(other, block.fields) == 0
            assert not block.loop
            ip = IP if block.ip else b""
            assert other.head + block.pre + ip + block.post == planner.node_head(other, block, IP)
    plain = "plain" if general[0].plain and block.plain else "not plain"
    return plain + (", the usual line" if short[0] is not None else "")
