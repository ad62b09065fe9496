"""The store log of a real Squid, and whether what we make of it is what that Squid answers by ICP."""

from __future__ import annotations

import email.utils
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from cachelb.cluster.holdings import Holding, Holdings, mask_of
from cachelb.cluster.storelog import StoreLog, What, apply
from cachelb.demo.farm import Squid, SquidFarm, wait_until
from cachelb.demo.origin import OriginProcess
from digest import store_key

NODE = 3
HOST = "127.0.0.77"  # where the store log goes
SETTLE_S = 5.0


class _Dated(BaseHTTPRequestHandler):
    """An origin whose answers are dated as the query says.

    ma, lm, exp: max-age, seconds since Last-Modified, seconds to Expires; skew: of the Date, s; age: Age; size: bytes;
    st: status; etag: has one, and answers 304 to conditional requests.
    """

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        query = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query, keep_blank_values=True).items()}
        now = time.time()
        status = int(query.get("st", 200))
        if "etag" in query and self.headers.get("If-None-Match"):
            status = 304
        body = b"" if status == 304 else b"x" * int(query.get("size", 100))
        fields = {
            "Date": _date(now + int(query.get("skew", 0))),
            "Cache-Control": f"max-age={query['ma']}" if "ma" in query else "",
            "Last-Modified": _date(now - int(query["lm"])) if "lm" in query else "",
            "Expires": _date(now + int(query["exp"])) if "exp" in query else "",
            "Age": query.get("age", ""),
            "ETag": '"one"' if "etag" in query else "",
            "Content-Length": "" if status == 304 else str(len(body)),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
        self.wfile.write(f"HTTP/1.1 {status} Fine\r\n{head}\r\n".encode() + (body if self.command == "GET" else b""))

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def _date(when: float) -> str:
    return email.utils.formatdate(when, usegmt=True)


class Watch:
    """Receives the store log and keeps the holdings."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind((HOST, 0))
        self.socket.setblocking(False)
        self.log = StoreLog()
        self.holdings = Holdings()
        self.told: list[tuple[What, bytes]] = []

    @property
    def line(self) -> str:
        """For squid.conf."""
        return f"cache_store_log udp://{HOST}:{self.socket.getsockname()[1]}"

    def read(self) -> None:
        while True:
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                return
            assert data.count(b"\n") == 1, "one line a datagram"
            events = self.log.read(data)
            self.told += [(event.what, event.key) for event in events]
            apply(events, self.holdings, NODE)

    def holds(self, url: str, now: int | None = None) -> bool:
        self.read()
        return self.holdings.holds(store_key(url.encode()), now or int(time.time()), mask_of([NODE]))

    def record(self, url: str) -> list[Holding]:
        self.read()
        return self.holdings.holders(store_key(url.encode()))

    def waits_for(self, what: What, url: str) -> bool:
        def told() -> bool:
            self.read()
            return (what, store_key(url.encode())) in self.told

        return wait_until(told, SETTLE_S)

    def clear(self) -> None:
        self.read()
        self.told.clear()

    def is_clean(self) -> bool:
        return not [word for word in self.log.counts if word.startswith("bad") or word in ("cut", "excess")]


class Bench(NamedTuple):
    """One Squid, its log, and an origin."""

    farm: SquidFarm
    watch: Watch
    base: str

    @property
    def node(self) -> Squid:
        return self.farm.nodes[0]

    def ask(self, url: str, method: str = "GET", head: str = "") -> bytes:
        return self.node.exchange(f"{method} {url} HTTP/1.0\r\n{head}\r\n".encode())

    def agree(self, *urls: str) -> bool:
        """Whether what we think of these URLs becomes what the Squid says."""
        return wait_until(lambda: all(self.watch.holds(url) is self.node.holds(url) for url in urls), SETTLE_S)


@pytest.fixture(scope="module")
def dated() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.11", 0), _Dated)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.11:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def watch() -> Iterator[Watch]:
    seen = Watch()
    with closing(seen.socket):
        yield seen
        seen.read()
        assert seen.is_clean(), seen.log.counts


@pytest.fixture
def bench(own_farm: Callable[..., SquidFarm], watch: Watch, dated: str) -> Bench:
    return Bench(own_farm(1, extra=[watch.line]), watch, dated)


def test_warm_replace_purge(bench: Bench):
    url = f"{bench.base}/x?ma=3600"
    bench.ask(url)
    assert bench.watch.waits_for(What.STORED, url)
    assert bench.watch.holds(url)
    assert bench.node.holds(url)
    first = bench.watch.record(url)[0].expires
    assert abs(first - time.time() - 3600) < 10
    bench.watch.clear()
    bench.ask(url, head="Cache-Control: no-cache\r\n")
    assert bench.watch.waits_for(What.STORED, url)
    assert [what for what, _ in bench.watch.told] == [What.RELEASED, What.STORED]
    bench.ask(url, "PURGE")
    assert wait_until(lambda: not bench.watch.record(url), SETTLE_S)
    assert not bench.node.holds(url)


def test_a_head_is_stored_under_a_key_that_nobody_asks_for(bench: Bench):
    url = f"{bench.base}/x?ma=3600"
    bench.ask(url, "HEAD")
    bench.ask(url)
    assert bench.watch.waits_for(What.STORED, url)
    assert bench.watch.holdings.count() == 1
    bench.watch.clear()
    bench.ask(url, "HEAD", "Cache-Control: no-cache\r\n")  # a HEAD that is a miss throws the object away
    assert bench.watch.waits_for(What.RELEASED, url)
    assert bench.agree(url)


@pytest.mark.parametrize(
    ("query", "held"),
    [
        ("ma=100", True),
        ("ma=40", True),
        ("ma=20", False),  # it must be fresh for 30 s more
        ("exp=100", True),
        ("exp=-5", False),
        ("exp=100&skew=-7200", True),
        ("ma=10000&skew=7200", True),
        ("ma=10000&skew=-7200", True),
        ("ma=7100&skew=-7200", False),
        ("ma=10000&skew=-90000", True),
        ("lm=1000", True),
        ("lm=100", False),
        ("lm=-100", False),
        ("", False),
        ("ma=0", False),
        ("ma=3600&size=0", True),
        ("ma=99999999999", True),
        ("ma=3600&st=301", True),
        ("st=301", False),
        ("ma=3600&st=410", True),
        ("ma=3600&st=404", False),
        ("ma=3600&st=500", False),
        ("ma=3600&st=206", False),
    ],
)
def test_freshness_is_what_squid_says(shared: Bench, unique: str, query: str, held: bool):
    url = f"{shared.base}/{unique}?{query}"
    shared.ask(url)
    assert wait_until(lambda: shared.watch.holds(url) is held, SETTLE_S)
    assert shared.node.holds(url) is held


@pytest.fixture(scope="module")
def shared(_squid_is_installed: None, dated: str) -> Iterator[Bench]:
    """For tests that leave it alone."""
    watch = Watch()
    with closing(watch.socket), SquidFarm(1, extra=[watch.line]) as farm:
        yield Bench(farm, watch, dated)
        watch.read()
        assert watch.is_clean(), watch.log.counts


def test_the_age_of_an_answer_is_not_told(shared: Bench, unique: str):
    # if a later Squid does, StoreLog can know more
    url = f"{shared.base}/{unique}?ma=100&age=90"
    shared.ask(url)
    assert shared.watch.waits_for(What.STORED, url)
    assert shared.watch.holds(url)
    assert not shared.node.holds(url)


def test_a_range_that_the_origin_ignores_stores_the_whole(shared: Bench, unique: str):
    url = f"{shared.base}/{unique}?ma=100"
    shared.ask(url, head="Range: bytes=0-9\r\n")
    assert shared.watch.waits_for(What.STORED, url)
    assert shared.agree(url)


def test_a_304_renews(shared: Bench, unique: str):
    url = f"{shared.base}/{unique}?ma=33&etag"
    shared.ask(url)
    assert shared.watch.waits_for(What.STORED, url)
    first = shared.watch.record(url)[0].expires
    assert wait_until(lambda: time.time() > first - 31, 10)
    shared.ask(url, head="Cache-Control: max-age=0\r\n")
    assert shared.watch.waits_for(What.RENEWED, url)
    assert shared.watch.record(url)[0].expires > first
    assert shared.agree(url)


def test_variants_have_keys_of_their_own_beside_the_marker(origin: OriginProcess, shared: Bench, unique: str):
    url = f"{origin.base}/any/{unique}?cc=max-age=3600&vary=accept"
    before = shared.watch.holdings.count()
    shared.ask(url, head="Accept: a/b\r\n")
    shared.ask(url, head="Accept: c/d\r\n")
    assert wait_until(lambda: bool(shared.watch.record(url)) and shared.watch.holdings.count() == before + 3, SETTLE_S)
    assert shared.agree(url)
    shared.ask(url, "PURGE", "Accept: a/b\r\n")
    assert wait_until(lambda: not shared.watch.record(url), SETTLE_S)
    assert not shared.node.holds(url)
    assert shared.watch.holdings.count() == before + 1  # of the marker and two variants, the other one stays


def test_for_how_long_squid_was_told_to_keep_errors_is_not_told(own_farm: Callable[..., SquidFarm], watch: Watch, dated: str):
    bench = Bench(own_farm(1, extra=[watch.line, "negative_ttl 60 seconds"]), watch, dated)
    url = f"{dated}/x?st=404"
    bench.ask(url)
    assert watch.waits_for(What.STORED, url)
    assert not watch.holds(url)
    assert bench.node.holds(url)


def slow_reader(node: Squid, url: str) -> socket.socket:
    """A client that has begun to read an answer and does not go on."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((node.host, node.http_port))
    client.sendall(f"GET {url} HTTP/1.0\r\n\r\n".encode())
    client.recv(100)
    return client


def test_an_object_purged_while_it_is_read_ends_when_the_reader_does(bench: Bench):
    url = f"{bench.base}/x?ma=3600&size=3000000"
    bench.ask(url)
    assert bench.watch.waits_for(What.STORED, url)
    with closing(slow_reader(bench.node, url)):
        assert b" 200 " in bench.ask(url, "PURGE").split(b"\r\n")[0]
        assert not bench.node.holds(url)
        assert bench.watch.holds(url)  # it was not told yet
    assert bench.watch.waits_for(What.ENDED, url)
    assert bench.agree(url)


def test_an_object_replaced_while_it_is_read_does_not_take_its_successor_along(bench: Bench):
    url = f"{bench.base}/x?ma=3600&size=3000000"
    bench.ask(url)
    assert bench.watch.waits_for(What.STORED, url)
    first = bench.watch.record(url)[0].expires
    with closing(slow_reader(bench.node, url)):
        bench.watch.clear()
        assert wait_until(lambda: time.time() > first - 3598, 5)
        bench.ask(url, head="Cache-Control: no-cache\r\n")
        assert bench.watch.waits_for(What.STORED, url)
    assert bench.watch.waits_for(What.ENDED, url)
    assert bench.watch.holds(url)
    assert bench.node.holds(url)


def test_the_log_uri_loses_its_query_where_squid_is_told_so(own_farm: Callable[..., SquidFarm], watch: Watch, dated: str):
    bench = Bench(own_farm(1, extra=[watch.line, "strip_query_terms on"]), watch, dated)
    url = f"{dated}/x?ma=100&etag"
    bench.ask(url)
    assert watch.waits_for(What.STORED, url)
    watch.clear()
    bench.ask(url, head="Cache-Control: max-age=0\r\n")
    assert watch.waits_for(What.RENEWED, f"{dated}/x?")
    assert bench.agree(url)


def test_a_node_without_a_disk_says_nothing(watch: Watch, dated: str):
    farm = SquidFarm(1, extra=[watch.line])
    node = farm.nodes[0]
    lines = node._settings.splitlines(keepends=True)
    node._settings = "".join(line for line in lines if not line.startswith("cache_dir "))
    with farm:
        bench = Bench(farm, watch, dated)
        bench.ask(f"{dated}/x?ma=100")
        assert node.holds(f"{dated}/x?ma=100")
        bench.ask(f"{dated}/x?ma=0&st=500")  # which is told, so that we know when to stop waiting
        assert wait_until(lambda: not watch.read() and watch.log.counts["private"] == 1, SETTLE_S)
        assert watch.told == []


def test_a_restart_is_noticed_and_the_cache_is_as_it_was(bench: Bench):
    url = f"{bench.base}/x?ma=3600"
    bench.ask(url)
    assert bench.watch.waits_for(What.STORED, url)
    bench.watch.clear()
    bench.node.kill()
    bench.node.start()
    assert wait_until(lambda: not bench.watch.read() and bench.watch.log.restarts == 1, SETTLE_S)
    assert bench.agree(url)


def test_a_small_cache_that_evicts_purges_and_replaces_agrees_with_the_index(
    own_farm: Callable[..., SquidFarm], watch: Watch, dated: str
):
    # cache_mem 0: what is in memory alone is not told
    bench = Bench(own_farm(1, cache_mb=2, extra=[watch.line, "cache_mem 0 MB"]), watch, dated)
    chance = random.Random(5)
    urls = [f"{dated}/{number}?ma={chance.choice((3600, 7200, 33, 0))}&size=8000" for number in range(600)]
    for _ in range(1200):
        url = chance.choice(urls)
        match chance.randrange(10):
            case 0:
                bench.ask(url, "PURGE")
            case 1:
                bench.ask(url, head="Cache-Control: no-cache\r\n")
            case _:
                bench.ask(url)
        watch.read()
    assert wait_until(lambda: bench.agree(*chance.sample(urls, 20)), SETTLE_S)
    time.sleep(1.2)  # Squid evicts once a second
    wrong = [url for url in urls if watch.holds(url) is not bench.node.holds(url)]
    assert len(wrong) <= 3, (len(wrong), wrong[:5])
    assert 50 < sum(watch.holds(url) for url in urls) < 500
    assert any(what is What.RELEASED for what, _ in watch.told)
