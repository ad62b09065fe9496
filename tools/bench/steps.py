"""What each step of a request costs inside cachelb, in microseconds: the best of several short runs, one process, warm.

Those that every request on warm connections goes through are added up (``WARM``); what a request costs beyond the sum, as the
comparison says, is the relay's own glue and the loop's.  A step that cannot be set up is reported as such, so that one changed
signature does not hide the others.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any, NamedTuple

from . import syscalls

BEST_OF = 5
RUN_S = 0.02

BLOCK = (
    b"Host: www.site12.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:109.0)\r\nAccept: */*\r\n"
    b"Accept-Encoding: gzip, deflate\r\nVia: 1.1 child.example.com (squid/5.7)\r\nX-Forwarded-For: 10.0.0.12\r\n"
    b"Cache-Control: max-age=259200\r\nConnection: keep-alive\r\n"
)
URL = b"http://www.site12.example.com/small/obj12.gif"
REQUEST = b"GET " + URL + b" HTTP/1.1\r\n" + BLOCK + b"\r\n"
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 02:52:45 GMT\r\nContent-Type: image/gif\r\n"
    b'Content-Length: 400\r\nLast-Modified: Sat, 21 Nov 2026 02:50:00 GMT\r\nETag: "65b3c1d8-190"\r\n'
    b"Cache-Control: max-age=3600\r\nAge: 12\r\nX-Cache: HIT from cache2\r\nVia: 1.1 cache2 (squid/5.7)\r\n"
    b"Connection: keep-alive\r\n\r\n"
)

Step = Callable[[], object]


class StepTime(NamedTuple):
    """us: None if the step could not be measured; then problem says why."""

    name: str
    target_us: float | None
    us: float | None
    problem: str = ""


def _scan_request() -> Step:
    from cachelb.http.head import Limits, scan_request

    limits = Limits()
    return lambda: scan_request(REQUEST, limits)


def _request_fields() -> Step:
    from cachelb.http.fields import request_fields

    return lambda: request_fields(BLOCK)


def _request_edit() -> Step:
    from cachelb.http.fields import request_fields
    from cachelb.http.rewrite import EditPolicy, request_edit

    fields, policy = request_fields(BLOCK), EditPolicy("append", b"1.1 front (cachelb)")
    return lambda: request_edit(fields, policy)


def _scan_response() -> Step:
    from cachelb.http.head import Limits
    from cachelb.http.response import scan_response

    limits = Limits()
    return lambda: scan_response(RESPONSE, limits)


def _parse_url() -> Step:
    from cachelb.http.url import parse_absolute

    return lambda: parse_absolute(URL)


def _keys_once() -> list[bytes]:
    return [b"http://www.site%d.example.com/small/obj%d.gif" % (k % 97, k) for k in range(1000)]


def _keys() -> Iterator[bytes]:
    return cycle(_keys_once())


def _owner(algorithm: str, members: int) -> Callable[[], Step]:
    def prepare() -> Step:
        from cachelb.routing.ring import Member
        from cachelb.routing.table import make_table

        owner = make_table(algorithm, [Member(f"cache{i}", 1.0) for i in range(members)]).owner
        keys = _keys()
        for _ in range(5000):  # parts of the ring are built when first used
            owner(next(keys))
        return lambda: owner(next(keys))

    return prepare


def _classify() -> Step:
    from cachelb.http.fields import request_fields
    from cachelb.http.url import parse_absolute
    from cachelb.routing.classify import Policy, classify
    from cachelb.routing.ports import PortSet

    fields, url = request_fields(BLOCK), parse_absolute(URL)
    policy = Policy(PortSet.parse([443, 563]), PortSet.parse([80, 443, "1025-65535"]))
    return lambda: classify(b"GET", url, fields, "absolute", policy, BLOCK)


def _learned(taught: bool) -> Callable[[], Step]:
    def prepare() -> Step:
        from cachelb.routing.learned import Learned

        learned = Learned()
        for k in range(1000 * taught):
            learned.observe(b"http://other.example.com/private/%d" % k, b"other.example.com/", b"private", False, 0.0)
        return lambda: learned.lookup(URL, b"www.site12.example.com/small/", 1.0)

    return prepare


def _plan(half: str) -> Callable[[], Step]:
    def prepare() -> Step:
        from cachelb.config import Config
        from cachelb.http.head import Limits, scan_request
        from cachelb.relay.plan import Planner, plan_settings
        from cachelb.routing.ring import Member
        from cachelb.routing.route import ADMIT_ALL
        from cachelb.routing.table import make_table

        table = make_table("ring", [Member(f"cache{i}", 1.0) for i in range(3)])
        planner = Planner(plan_settings(Config()), table, ["a", "b", "c"], [ADMIT_ALL] * 3)
        head = scan_request(REQUEST, Limits())
        if head is None:
            raise ValueError("the request is not whole")
        if half == "block":
            return lambda: planner.plan_block(head.block)
        if half == "usual block":
            return lambda: planner.plan_usual_block(head.block, 256)
        return lambda: planner.plan_line(head, b"www.site12.example.com")

    return prepare


def _ruled_lines(kind: str) -> Callable[[], Step]:
    """Lines whose plans are not remembered, of 300 hosts that 1,000 rules concern, or that they do not."""

    def prepare() -> Step:
        from cachelb.config import Config
        from cachelb.config_policy import PoolConfig, RuleConfig
        from cachelb.relay.plan import Planner, plan_settings
        from cachelb.routing.pool import Tables, make_pools
        from cachelb.routing.ring import Member

        config = Config(pool=(PoolConfig(name="p", nodes=("a", "b")),), rule=tuple(RuleConfig(**rule) for rule in _rules(kind)))
        members = [Member(name, 1.0) for name in "abc"]
        pools = make_pools(config.pool, "ring", Tables(), members, ["a", "b", "c"], [1.0] * 3)
        planner = Planner(plan_settings(config), pools[""].table(), ["a", "b", "c"], [1.0] * 3, pools)
        plan = planner.plan_usual_line
        lines = cycle([b"GET http://www%d.site.example/small/obj%d.gif HTTP/1.1" % (k % 300, k) for k in range(3000)])
        for _ in range(6000):  # parts of the ring are built when first used
            plan(next(lines))
        return lambda: plan(next(lines))

    return prepare


def _rules(kind: str) -> list[dict[str, Any]]:
    """1,000 rules: of exact hosts, or a mixture of all that finds hosts, with four that stand for any."""
    if not kind:
        return []
    if kind == "hosts":
        return [{"host": (f"www{k}.site.example",), "pool": "p"} for k in range(1000)]
    if kind == "others":
        return [{"host": (f"www{k}.elsewhere.example",), "pool": "p"} for k in range(1000)]
    anywhere: list[dict[str, Any]] = [
        {"path": ("*.never",)}, {"path_prefix": ("/never/",)}, {"query": ("never=*",)}, {"scheme": ("ftp",)},
    ]  # fmt: skip
    return [
        *anywhere,
        *({"host": (f"www{k}.site.example",), "path": ("/s*", "/t*"), "pool": "p"} for k in range(0, 796, 2)),
        *({"host": (f".{k}.site.example",), "pool": "p"} for k in range(300)),
        *({"host": (f"img*.{k}.site.example",), "pool": "p"} for k in range(200)),
        *({"host": ("www?.site.example", "www1?.site.example"), "path_prefix": ("/small/",), "pool": "p"} for _ in range(1)),
        *({"host": (f"w{k}.*",), "path_regex": ("^/never",), "pool": "p"} for k in range(97)),
    ]


def _candidates(kind: str, hosts: int) -> Callable[[], Step]:
    """By itself what rules add to a line; with more hosts than are remembered each is a new one."""

    def prepare() -> Step:
        from cachelb.config_policy import RuleConfig
        from cachelb.routing.rules import compile_rules

        candidates = compile_rules([RuleConfig(**rule) for rule in _rules(kind)]).candidates
        names = cycle([b"www%d.site.example" % k for k in range(hosts)])
        for _ in range(hosts):
            candidates(b"GET", b"http", next(names), 80, b"/small/obj1.gif")
        return lambda: candidates(b"GET", b"http", next(names), 80, b"/small/obj1.gif")

    return prepare


def _memo() -> Step:
    from cachelb.relay.memo import Memo

    memo: Memo[bytes, bytes] = Memo(16384)
    for key in _keys_once():
        memo.put(key, key)
    keys = _keys()
    return lambda: memo.get(next(keys))


def _access_line(form: str) -> Callable[[], Step]:
    def prepare() -> Step:
        from cachelb.accesslog import Entry, formatter

        line = formatter(form)
        agent = b"Mozilla/5.0 (X11; Linux x86_64; rv:109.0)"
        entry = Entry(
            *(1795229565.1234, 12, "10.0.0.17", "TCP_HIT", 200, 823, b"GET", URL, "CARP", "cache2", b"image/gif"),
            *(b"http://www.site12.example.com/", agent, "1f2e-ab01cd-3", "done"),
        )
        return lambda: line(entry)

    return prepare


# name, target in us (None: known to the reader only), what prepares it
STEPS: tuple[tuple[str, float | None, Callable[[], Step]], ...] = (
    (f"scan_request, {len(REQUEST)} bytes", 2.5, _scan_request),
    ("request_fields (once per field block)", None, _request_fields),
    ("request_edit (once per field block)", None, _request_edit),
    (f"scan_response, {len(RESPONSE)} bytes", 4.0, _scan_response),
    ("parse_absolute (once per URL)", None, _parse_url),
    ("classify", None, _classify),
    ("ring owner, 3 nodes", 0.5, _owner("ring", 3)),
    ("ring owner, 1000 nodes", 0.5, _owner("ring", 1000)),
    ("carp owner, 3 nodes (once per URL)", None, _owner("carp", 3)),
    ("learned lookup, nothing learned", 0.1, _learned(False)),
    ("learned lookup, 1000 observations", None, _learned(True)),
    ("access log line, squid", 2.0, _access_line("squid")),
    ("access log line, combined", 2.0, _access_line("combined")),
    ("access log line, json", None, _access_line("json")),
    ("plan of a line (once per URL)", None, _plan("line")),
    ("plan of a field block (once per block)", None, _plan("block")),
    ("plan of a usual field block (compiled only)", None, _plan("usual block")),
    ("plan of a usual line, no rules", None, _ruled_lines("")),
    ("plan of a usual line, 1000 rules by host", None, _ruled_lines("hosts")),
    ("plan of a usual line, 1000 rules for other hosts", None, _ruled_lines("others")),
    ("plan of a usual line, 1000 rules of all kinds", None, _ruled_lines("mixture")),
    ("1000 rules by host, by themselves", 2.0, _candidates("hosts", 300)),
    ("1000 rules by host, a new host", 2.0, _candidates("hosts", 20_000)),
    ("1000 rules of all kinds, by themselves", 2.0, _candidates("mixture", 300)),
    ("1000 rules of all kinds, a new host", None, _candidates("mixture", 20_000)),
    ("look-up in a memo", None, _memo),
    (f"send and receive {len(REQUEST)} bytes, TCP", None, lambda: syscalls.send_and_receive(REQUEST)),
    (f"send and receive {len(RESPONSE) + 400} bytes, TCP", None, lambda: syscalls.send_and_receive(RESPONSE + b"x" * 400)),
    ("receive, by itself", None, lambda: syscalls.peek(REQUEST)),
    ("receive where nothing is", None, syscalls.nothing_there),
    ("epoll, one socket ready", None, lambda: syscalls.poll(1)),
    ("epoll, 32 sockets ready", None, lambda: syscalls.poll(32)),
)
# How often a request on warm connections goes through which.  Others send to us and receive from us: of the four pairs of a
# send and a receive, the front end has half of each.
WARM = {
    STEPS[0][0]: 1.0,
    "look-up in a memo": 2.0,
    STEPS[3][0]: 1.0,
    f"send and receive {len(REQUEST)} bytes, TCP": 1.0,
    f"send and receive {len(RESPONSE) + 400} bytes, TCP": 1.0,
    "epoll, 32 sockets ready": 2 / 32,
}


def warm_us(times: Sequence[StepTime]) -> float | None:
    """What a request on warm connections takes in the steps that were measured; None if one could not be."""
    us = {time.name: time.us for time in times}
    parts = [(us.get(name), count) for name, count in WARM.items()]
    if any(cost is None for cost, _ in parts):
        return None
    return sum(cost * count for cost, count in parts if cost is not None)


def time_us(step: Step, best_of: int = BEST_OF, run_s: float = RUN_S) -> float:
    """Microseconds per call of ``step``, less those of calling nothing."""
    timer, empty = timeit.Timer(step), timeit.Timer(lambda: None)
    calls = 1
    while (once := timer.timeit(calls)) < run_s / 4:
        calls *= 4
    calls = max(1, int(calls * run_s / once))
    cost = min(timer.repeat(best_of, calls)) - min(empty.repeat(best_of, calls))
    return max(0.0, cost / calls * 1e6)


def step_times() -> list[StepTime]:
    """Measure every step."""
    times = []
    for name, target_us, prepare in STEPS:
        try:
            times.append(StepTime(name, target_us, time_us(prepare())))
        except Exception as exc:
            times.append(StepTime(name, target_us, None, f"{type(exc).__name__}: {exc}"))
    return times
