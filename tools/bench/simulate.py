"""How many lines does ``cachelb simulate`` take in a minute?  ``python -m cachelb.tools.bench.simulate [THOUSAND_LINES]``.

Writes a log of URLs whose popularity follows Zipf's law, reads it, and has each policy replay it, all in this process, so
that the figures are those of one core.  Seconds are those of this process's CPU; memory is the largest there was.

1,000,000 lines, 233,000 URLs, 3 nodes and one that comes (2026-11): reading takes 2.2 s (combined: 4.1 s), ring, modulo and
round-robin 1.7 to 2.0 s each, carp 12 s; so with reading the ring does 14 million lines a minute (combined: 10), carp 4.  96 MB.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from cachelb.config import Config
from cachelb.relay.plan import plan_settings
from cachelb.simulate.policies import POLICIES, Node
from cachelb.simulate.replay import Case, replay
from cachelb.simulate.run import read_logs
from cachelb.simulate.trace import Trace

SKEW = 0.85  # of Zipf's law; proxies have 0.6 to 0.9
MEAN_PER_S = 50
STORE_BYTES = 500 << 20
FORMATS = ("squid", "combined")
START = 1_795_234_877


def lines(count: int, form: str = "squid", seed: int = 1) -> Iterator[str]:
    """A log: 4 % CONNECT, 2 % POST, the rest GET of 0.4 URLs a line, of which some are 304 and 404."""
    chance = random.Random(seed)
    urls = max(1, count * 2 // 5)
    weights = list(accumulate(1 / (n + 1) ** SKEW for n in range(urls)))
    at = float(START)
    for n in chance.choices(range(urls), cum_weights=weights, k=count):
        at += chance.expovariate(MEAN_PER_S)
        size = 300 + n * 7919 % 40_000
        kind = chance.random()
        status = 304 if n % 37 == 5 else 404 if n % 53 == 2 else 200
        method, url = "GET", f"http://www{n % 300}.example.com/images/path/{n % 17}/file{n}.jpg"
        if kind < 0.04:
            method, url = "CONNECT", f"www{n % 300}.example.com:443"
        elif kind < 0.06:
            method = "POST"
        address = f"10.0.0.{n % 250}"
        if form == "combined":
            when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(at))
            request = f'"{method} {url} HTTP/1.1" {status} {size}'
            yield f'{address} - - [{when}] {request} "-" "Mozilla/5.0 (X11)" TCP_MISS:HIER_DIRECT\n'
        else:
            request = f"TCP_MISS/{status} {size} {method} {url}"
            yield f"{at:.3f} {n % 5000:6d} {address} {request} - HIER_DIRECT/10.2.3.4 image/jpeg\n"


def measure(path: Path) -> dict[str, float]:
    """CPU seconds for reading the log, and for each policy's replay; and how many lines, requests and URLs there are."""
    with Trace() as trace:
        begun = time.process_time()
        reader, _ = read_logs([str(path)], plan_settings(Config()).policy, trace)
        found = {"read": time.process_time() - begun}
        nodes = tuple(Node(f"cache{n}") for n in (1, 2, 3))
        case = Case(nodes, STORE_BYTES, added=Node("cache4"), change=trace.requests // 2)
        for policy in POLICIES:
            begun = time.process_time()
            replay(policy, case, trace)
            found[policy] = time.process_time() - begun
        return found | {"lines": reader.lines, "requests": reader.requests, "urls": reader.urls}


def report(form: str, found: dict[str, float], resident_mb: float) -> str:
    """A table: what takes how long, and lines a minute of one core, reading included."""
    rows = [
        f"{form}: {found['lines']:,.0f} lines, {found['requests']:,.0f} requests of {found['urls']:,.0f} URLs; "
        f"{resident_mb:.0f} MB"
    ]
    for name in ("read", *POLICIES):
        total = found["read"] + (0 if name == "read" else found[name])
        rows.append(f"  {name:<12} {found[name]:6.2f} s   with reading {found['lines'] / total * 60 / 1e6:6.1f} M lines a minute")
    return "\n".join(rows)


def main() -> None:
    """Measure both formats and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("thousand", nargs="?", type=int, default=1000, help="lines (1000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cachelb") as folder:
        path = Path(folder) / "access.log"
        for form in FORMATS:
            with path.open("w") as file:
                file.writelines(lines(options.thousand * 1000, form))
            found = measure(path)
            print(report(form, found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), flush=True)


if __name__ == "__main__":
    main()
