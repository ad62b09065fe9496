"""How long a real Squid takes what it stored for fresh, and whether ``freshness`` says the same from the answer's head.

Each answer is fetched as a miss and again.  ICP says whether it is fresh for 30 s more; a request with ``only-if-cached,
min-fresh=N`` says it to the second.
"""

from __future__ import annotations

import email.utils
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import quote, unquote

import pytest

from cachelb.cluster.holdings import MARGIN_S
from cachelb.demo.farm import Squid, SquidFarm
from cachelb.http.freshness import held_until, stored_until

UNMEASURABLE_S = 1 << 30  # min-fresh has 31 bits
SLOW_S = 2


class _Origin(BaseHTTPRequestHandler):
    """Answers with the status, body size and field lines that the path names, ``@N`` being the date N seconds from now."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, size, lines = unquote(self.path).split("/", 4)[2:5]
        if "X-Slow" in lines:
            time.sleep(SLOW_S + 0.1)
        now = time.time()
        fields = re.sub(r"@(-?\d+)", lambda match: email.utils.formatdate(now + int(match[1]), usegmt=True), lines)
        body = b"x" * int(size)
        head = "".join(line + "\r\n" for line in [*fields.split("|"), f"Content-Length: {size}"] if line)
        self.wfile.write(f"HTTP/1.1 {status} Fine\r\n{head}\r\n".encode() + (b"" if int(status) in (204, 304) else body))

    def log_message(self, *_: object) -> None:
        pass


class Bench(NamedTuple):
    """A Squid, and where the origin is."""

    node: Squid
    base: str

    def url(self, word: str, fields: str, status: int, size: int) -> str:
        return f"{self.base}/{word}/{status}/{size}/{quote(fields, safe='')}"

    def ask(self, url: str, control: str = "") -> tuple[int, bytes, bool]:
        """GET: status, head and whether it was a hit."""
        field = f"Cache-Control: {control}\r\n" if control else ""
        answer = self.node.exchange(f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{field}\r\n".encode())
        head = answer.partition(b"\r\n\r\n")[0] + b"\r\n"
        return int(head[9:12]), head, b"X-Cache: HIT" in head and b"ERR_ONLY_IF_CACHED_MISS" not in head

    def is_fresh_for(self, url: str, seconds: int) -> bool:
        return self.ask(url, f"only-if-cached, min-fresh={seconds}")[2]


@pytest.fixture(scope="module")
def bench(_squid_is_installed: None) -> Iterator[Bench]:
    origin = ThreadingHTTPServer(("127.0.0.11", 0), _Origin)
    origin.daemon_threads = True
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    with SquidFarm(1) as farm:
        yield Bench(farm.nodes[0], f"http://127.0.0.11:{origin.server_port}")
    origin.shutdown()
    origin.server_close()


DATED = [
    "", "Cache-Control: max-age=600", "Cache-Control: max-age=70", "Cache-Control: max-age=40", "Cache-Control: max-age=20",
    "Cache-Control: max-age=0", "Cache-Control: max-age=0|Last-Modified: @-100000", "Cache-Control: max-age=5, s-maxage=600",
    "Cache-Control: max-age=600, s-maxage=5", "Cache-Control: max-age=600|Expires: @5", "Cache-Control: max-age=5|Expires: @600",
    "Expires: @600", "Expires: @40", "Expires: @20", "Expires: @-5", "Expires: 0", "Expires: never",
    "Expires: @-600|Expires: @600",
    "Expires: Thu, 01 Jan 1970 00:00:00 GMT|Last-Modified: @-100000", "Expires: Sunday, 06-Nov-33 08:49:37 GMT",
    "Expires: Sun Nov  6 08:49:37 2033", "Expires: Sun, 06 Nov 2033 08:49:37 UTC", "Expires: Sun, 06 Nov 2033 08:49 GMT",
    "Expires: Sun, 31 Feb 2033 08:49:37 GMT", "Expires: Sun, 6 november 2033 08:49:37", "Expires: 06 Nov 2033 08:49:37 GMT",
    "Expires: Sun, 06 Nov 2033 8:49:37 GMT", "Expires: Sun, 06 Nov 2033 24:00:00 GMT", "Expires: Fri, 31 Dec 9999 23:59:59 GMT",
    "Last-Modified: @-1000", "Last-Modified: @-100", "Last-Modified: @-100000000", "Last-Modified: @100", "Last-Modified: x",
    "Last-Modified: @-1000|Age: 30", "Last-Modified: @-1000|Age: 190", "Cache-Control: max-age=600|Age: 100",
    "Cache-Control: max-age=600|Age: 590", "Cache-Control: max-age=600|Age: 700", "Cache-Control: max-age=600|Age: x",
    "Cache-Control: max-age=600|Age: -50", "Cache-Control: max-age=600|Age: 10|Age: 590",
    "Cache-Control: max-age=600|Age: 2147483648",
    "Cache-Control: no-cache, max-age=600", 'Cache-Control: no-cache="a", max-age=600', "Cache-Control: no-cache=a, max-age=600",
    'Cache-Control: no-cache="", max-age=600', "Cache-Control: private, max-age=600", 'Cache-Control: private="a", max-age=600',
    "Cache-Control: no-store, max-age=600", "Cache-Control: max-age=600, must-revalidate", "Cache-Control: public",
    "Pragma: no-cache|Expires: @600", "Pragma: no-cache|Cache-Control: max-age=600", "Pragma: x-no-cache|Expires: @600",
    'Cache-Control: max-age="600"', "Cache-Control: max-age=600x", "Cache-Control: max-age=x|Expires: @600",
    "Cache-Control: max-age=-5|Expires: @600", "Cache-Control: max-age=4294967295|Expires: @600",
    "Cache-Control: max-age=2147483647", "Cache-Control: max-age=4294967896",
    "Cache-Control: max-age=99999999999999999999999|Expires: @600", "Cache-Control: max-age=600, max-age=5",
    "Cache-Control: max-age=x, max-age=600", "Cache-Control: max-age=5|Cache-Control: s-maxage=600",
    "Cache-Control: max-age =600", "Cache-Control: max-age= 600", "Cache-Control: max-age= 0|Expires: @600",
    "Cache-Control: MAX-AGE=600", "Cache-Control: max-age", 'Cache-Control: x="a, no-store", max-age=600',
    "Vary: Accept", "Vary: Accept|Cache-Control: max-age=600", "Vary: Accept|Cache-Control: max-age=5",
    "Vary: Accept|Cache-Control: no-cache", "Vary: Accept|Cache-Control: private", "Vary: ,|Cache-Control: max-age=600",
    "Set-Cookie: a=b|Cache-Control: max-age=600", "Surrogate-Control: no-store|Cache-Control: max-age=600",
    "Content-Type: multipart/x-mixed-replace; boundary=x|Cache-Control: max-age=600",
]  # fmt: skip
ODDLY_DATED = [
    f"Date: {date}|{fields}"
    for date in ("@-5", "@-500", "@-7200", "@-90000", "@7200")
    for fields in (
        "Cache-Control: max-age=600", "Cache-Control: max-age=10000", "Expires: @600", "Last-Modified: @-1000",
        "Last-Modified: @-100000", "Cache-Control: max-age=10000|Age: 9000", "Cache-Control: max-age=10000|Age: 9990",
    )
]  # fmt: skip
UNDATED = ["Expires: @600", "Last-Modified: @-1000", ""]
EMPTY = [
    "Cache-Control: max-age=600",
    "Cache-Control: max-age=50",
    "Last-Modified: @-1000",
    "Last-Modified: @-100",
    "Vary: Accept",
]
STATUSES = (203, 204, 300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410, 414, 500, 503)

TABLE = [
    *((f"Date: @0|{fields}", 200, 50) for fields in DATED),
    *((fields, 200, 50) for fields in (*ODDLY_DATED, *UNDATED)),
    *((f"Date: @0|{fields}", 200, 0) for fields in EMPTY),
    *(
        (f"Date: @0|{fields}", status, 50)
        for status in STATUSES
        for fields in ("Cache-Control: max-age=600", "Expires: @600", "")
    ),
]


@pytest.mark.parametrize(("fields", "status", "size"), TABLE)
def test_the_head_says_what_the_squid_says(bench: Bench, unique: str, fields: str, status: int, size: int):
    url = bench.url(unique, fields, status, size)
    seen, head, is_hit = bench.ask(url)
    now = int(time.time())
    assert (seen, is_hit) == (status, False)
    until = stored_until(status, head, now)
    assert bench.node.holds(url) is (until > now + MARGIN_S)
    if now + 5 < until < now + UNMEASURABLE_S and "Vary" not in fields:
        assert bench.is_fresh_for(url, until - now - 5)
        assert not bench.is_fresh_for(url, until - now + 2)
    _, head, is_hit = bench.ask(url)
    if is_hit:
        assert abs(held_until(status, head, now) - until) <= 1 + int(time.time()) - now


def test_the_time_that_the_origin_took_counts(bench: Bench, unique: str):
    url = bench.url(unique, "Date: @0|Cache-Control: max-age=600|X-Slow: 1", 200, 50)
    _, head, _ = bench.ask(url)
    now = int(time.time())
    until = stored_until(200, head, now, SLOW_S)
    assert bench.is_fresh_for(url, until - now - 5)
    assert not bench.is_fresh_for(url, until - now + 2)
    _, head, is_hit = bench.ask(url)
    assert is_hit
    assert abs(held_until(200, head, now) - until) <= 1 + int(time.time()) - now


@pytest.mark.parametrize("field", ["Range: bytes=0-9", f"If-Modified-Since: {email.utils.formatdate(4e9, usegmt=True)}"])
def test_a_part_and_a_304_say_the_same_as_the_whole(bench: Bench, unique: str, field: str):
    url = bench.url(unique, "Date: @-50|Cache-Control: max-age=600|Last-Modified: @-1000", 200, 50)
    _, head, _ = bench.ask(url)
    now = int(time.time())
    answer = bench.node.exchange(f"GET {url} HTTP/1.0\r\n{field}\r\n\r\n".encode())
    assert b"X-Cache: HIT" in answer
    assert int(answer[9:12]) in (206, 304)
    assert abs(held_until(int(answer[9:12]), answer, now) - stored_until(200, head, now)) <= 1 + int(time.time()) - now


def test_where_we_differ(bench: Bench, unique: str):
    for fields, is_hit in (("Date: @0|Vary: *|Cache-Control: max-age=600", True), ("Cache-Control: max-age=600", False)):
        url = bench.url(unique, fields, 200, 50)
        _, head, _ = bench.ask(url)
        assert bench.node.holds(url) is is_hit
        assert (stored_until(200, head, int(time.time())) > 0) is not is_hit
        assert not bench.ask(url)[2]
