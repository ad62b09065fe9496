"""Whatever a log contains, each line is a request, left out, or bad, and counts once; alone as among others.

What is understood makes a native line that means the same.
"""

from __future__ import annotations

import random

from mutate import chance_of, mutate

from cachelb.config import Config
from cachelb.relay.plan import plan_settings
from cachelb.simulate.kinds import KIND_BITS, REASONS
from cachelb.simulate.logline import words_of
from cachelb.simulate.reader import LINE_BYTES, SHOWN_BAD, SHOWN_BYTES, Reader

POLICY = plan_settings(Config()).policy
LINES = [
    b"1795234877.944     12 10.0.0.9 TCP_MEM_HIT/200 4321 GET http://a.example/b?c=d - HIER_NONE/- image/png",
    b"1795234877.001      0 10.0.0.9 TCP_MISS_ABORTED/000 0 GET http://A.example:80/b - HIER_DIRECT/10.1.1.1 -",
    b" 795234878.008   9999 fe80::1 TCP_REFRESH_MODIFIED/200 10 GET http://b.example/ bob FIRSTUP_PARENT/cache2 text/html",
    b"1795234879.955    200 10.0.0.9 TCP_TUNNEL/200 99999 CONNECT a.example:443 - HIER_DIRECT/10.1.1.1 -",
    b"1795234879.955      0 10.0.0.9 TAG_NONE/400 3900 NONE error:invalid-request - HIER_NONE/- text/html",
    b"1795234879.955      0 10.0.0.9 UDP_MISS/000 66 ICP_QUERY http://a.example/ - HIER_NONE/- -",
    b"1795234880.000      1 10.0.0.9 TCP_MISS/404 350 HEAD http://a.example/none - HIER_DIRECT/10.1.1.1 text/html more columns",
    b'10.0.0.9 - - [20/Nov/2026:04:21:17 +0000] "GET http://a.example/ HTTP/1.1" 200 43 "r" "\\"x\\"" TCP_HIT:HIER_NONE',
    b'::1 - bob [01/Jan/2027:00:00:00 -1130] "POST http://a.example/form HTTP/1.0" 302 - "-" "-"',
    b'10.0.0.9 - - [20/Nov/2026:04:21:17 +0000] "GET /only/a/path HTTP/1.1" 200 4321',
]
SEEDS = [*LINES * 3, b"\n".join(LINES), b"\r\n".join(LINES), b"\n" * 5]
NASTY = [
    b"\n", b"\r", b"\0", b" ", b"  ", b"\t", b'"', b"\\", b"-", b"[", b"]", b"/", b".", b"0", b"000", b"9" * 20, b"-1", b"1e9",
    b"1_0", b"\xd9\xa3", b"\xff" * 9, b"GET", b"NONE", b"TCP_HIT/200", b"http://", b"@",
    b"a" * 300, b"31/Feb/2026:24:60:60 +9999",
]  # fmt: skip


def make(chance: random.Random) -> bytes:
    return mutate(chance, SEEDS, NASTY)


def check(data: bytes) -> str:
    lines = data.split(b"\n")
    reader = Reader(POLICY)
    found = reader.feed(lines)
    assert len(found.urls) == len(found.words) == len(found.seconds) == reader.requests
    assert reader.lines == sum(1 for line in lines if line.rstrip(b"\r"))
    assert set(reader.left_out) <= set(REASONS)
    assert len(reader.shown) == min(SHOWN_BAD, reader.bad)
    assert all(0 < len(line) <= SHOWN_BYTES for line in reader.shown)
    urls = reader.take_urls()
    assert len(set(urls)) == reader.urls == max(found.urls, default=-1) + 1

    alone = [Reader(POLICY) for _ in lines]
    singly = [reader.feed([line]) for reader, line in zip(alone, lines, strict=True)]
    assert [urls[number] for number in found.urls] == [url for reader in alone for url in reader.take_urls()]
    assert [word for one in singly for word in one.words] == list(found.words)
    assert sum(reader.bad for reader in alone) == reader.bad
    for line in lines:
        check_again(line.rstrip(b"\r"), chance_of(data))
    if reader.requests:
        return "a request" if reader.requests == reader.lines else "some of it"
    return "left out" if reader.left_out else f"refused {'as bad' if reader.bad else 'as nothing'}"


def check_again(line: bytes, chance: random.Random) -> None:
    words = words_of(line) if len(line) <= LINE_BYTES else None
    if words is None:
        return
    second, code, size, method, url = words
    assert 0 <= int(second) < 1 << 32
    assert int(size) << KIND_BITS < 1 << 64
    assert code[-4:-3] == b"/"
    assert 0 <= int(code[-3:]) <= 999
    if b" " in url or code.startswith(b"/"):
        return
    again = b"%b.%03d %6d x %b %b %b %b - y/z -" % (second, chance.randrange(1000), 7, code, size, method, url)
    assert words_of(again) == words
