"""cachelb-icpq: ask a cache by ICP whether it holds a URL.

    cachelb-icpq 10.0.0.11 http://example.com/a               HIT http://example.com/a 0.21 ms
    cachelb-icpq 10.0.0.11:3130 http://example.com/a --count 1000
    cachelb-icpq '[2001:db8::1]:3130' - --json < urls.txt     one URL per line

Exit status: 0 every answer is HIT; 1 some answer is not: MISS, MISS_NOFETCH, DENIED, ERR; 2 some query had no answer, or
wrong usage.

Squid looks up the bytes that it is sent, so URLs are written as it stores them (host in lower case, no default port) unless
--raw is given.

Left out: HTCP, and asking several caches at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from cachelb.errors import BadRequest
from cachelb.http.url import parse_absolute
from icp.client import IcpClient
from icp.packet import MAX_URL, SRC_RTT, Opcode

ALL_HIT, NOT_ALL, TROUBLE = 0, 1, 2
DEFAULT_PORT = 3130
MAX_COUNT = 1_000_000


class Result(NamedTuple):
    """One query.  reply: the opcode's name, None without an answer.  rtt: (hops, ms) to the origin, where the cache knows."""

    url: str
    reply: str | None
    ms: float | None
    rtt: tuple[int, int] | None = None


class Trouble(Exception):
    """Wrong usage, or the cache cannot be asked at all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status (SystemExit for wrong usage)."""
    options = _options(argv)
    try:
        address = resolve(options.server)
        urls = [url if options.raw else canonical(url) for url in _wanted(options.urls)]
        results = asyncio.run(ask(address, urls, options))
    except (Trouble, OSError) as problem:
        print(f"cachelb-icpq: {problem}", file=sys.stderr)
        return TROUBLE
    except KeyboardInterrupt:
        return TROUBLE
    text = json.dumps(describe(address, results), indent=2) if options.json else render(results, options.timeout)
    print(text)
    return status(results)


async def ask(address: tuple[str, int], urls: Sequence[bytes], options: argparse.Namespace) -> list[Result]:
    """Every URL `options.count` times, one query after the other."""
    results = []
    async with IcpClient(options.source) as client:
        for _ in range(options.count):
            for url in urls:
                answer = await client.query(address, url, options.timeout, flags=SRC_RTT if options.rtt else 0)
                text = url.decode("latin-1")
                if answer is None:
                    results.append(Result(text, None, None))
                else:
                    results.append(Result(text, answer.reply.opcode.name, answer.rtt_s * 1000, answer.reply.rtt))
    return results


def status(results: Iterable[Result]) -> int:
    """The exit status."""
    replies = {result.reply for result in results}
    if None in replies:
        return TROUBLE
    return ALL_HIT if replies == {Opcode.HIT.name} else NOT_ALL


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """How many of what, and the times of those that were answered."""
    times = sorted(result.ms for result in results if result.ms is not None)
    counts: dict[str, int] = {}
    for result in results:
        counts[result.reply or "no answer"] = counts.get(result.reply or "no answer", 0) + 1
    figures: dict[str, Any] = {"queries": len(results), "answers": len(times), "replies": counts}
    if times:
        figures |= {
            "min_ms": round(times[0], 3),
            "median_ms": round(times[len(times) // 2], 3),
            "p99_ms": round(times[min(len(times) - 1, len(times) * 99 // 100)], 3),
            "max_ms": round(times[-1], 3),
        }
    return figures


def describe(address: tuple[str, int], results: Sequence[Result]) -> dict[str, Any]:
    """For --json."""
    queries = [
        {"url": result.url, "reply": result.reply, "ms": None if result.ms is None else round(result.ms, 3)}
        | ({} if result.rtt is None else {"origin_hops": result.rtt[0], "origin_ms": result.rtt[1]})
        for result in results
    ]
    return {"server": f"{address[0]} port {address[1]}", "queries": queries, "summary": summary(results)}


def render(results: Sequence[Result], timeout_s: float) -> str:
    """A line per query; with more than one, a last line that sums up."""
    lines = [_line(result, timeout_s) for result in results]
    if len(results) > 1:
        figures = summary(results)
        replies = ", ".join(f"{count} {reply}" for reply, count in sorted(figures["replies"].items()))
        times = "; median {median_ms} ms, p99 {p99_ms} ms, max {max_ms} ms".format_map(figures) if figures["answers"] else ""
        lines.append(f"{figures['queries']} queries: {replies}{times}")
    return "\n".join(lines)


def canonical(url: bytes) -> bytes:
    """As Squid stores it.  Raises Trouble."""
    try:
        return parse_absolute(url).key
    except BadRequest as problem:
        raise Trouble(f"{url.decode('latin-1')}: not a URL ({problem}); --raw sends it nevertheless") from problem


def resolve(server: str) -> tuple[str, int]:
    """HOST, HOST:PORT, [V6] or [V6]:PORT to an IP address and port.  Raises Trouble."""
    if server.startswith("["):
        host, _, rest = server[1:].partition("]")
        port = rest.removeprefix(":")
    elif server.count(":") > 1:
        host, port = server, ""
    else:
        host, _, port = server.partition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise Trouble(f"{server}: the port must be a number from 1 to 65535")
    try:
        found = socket.getaddrinfo(host, int(port or DEFAULT_PORT), type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as problem:
        raise Trouble(f"{server}: no address found ({problem})") from problem
    address: tuple[str, int] = found[0][4][:2]  # type: ignore[assignment]
    return address


def _line(result: Result, timeout_s: float) -> str:
    if result.ms is None:
        return f"no answer within {timeout_s:g} s {result.url}"
    line = f"{result.reply} {result.url} {result.ms:.2f} ms"
    return line if result.rtt is None else f"{line}; origin {result.rtt[0]} hops, {result.rtt[1]} ms away"


def _wanted(urls: Sequence[str]) -> list[bytes]:
    """The URLs of the command line; ``-`` stands for those of standard input."""
    found: list[bytes] = []
    for url in urls:
        if url == "-":
            found += [line.strip() for line in sys.stdin.buffer if line.strip()]
        else:
            found.append(url.encode("utf-8", "surrogateescape"))
    for url_bytes in found:
        if len(url_bytes) > MAX_URL or b"\0" in url_bytes:
            raise Trouble(f"a URL of {len(url_bytes)} bytes; ICP carries at most {MAX_URL}, without NUL")
    if not found:
        raise Trouble("no URL to ask for")
    return found


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number <= 3600:
        raise ValueError(text)
    return number


def _count(text: str) -> int:
    number = int(text)
    if not 0 < number <= MAX_COUNT:
        raise ValueError(text)
    return number


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cachelb-icpq",
        description="Ask a cache by ICP whether it holds a URL.",
        epilog="Exit status: 0 all HIT; 1 some answer is not HIT; 2 some query had no answer, or wrong usage.",
    )
    parser.add_argument("server", metavar="HOST[:PORT]", help=f"the cache; port {DEFAULT_PORT} unless given")
    parser.add_argument("urls", metavar="URL", nargs="+", help="what to ask for; - reads lines from standard input")
    parser.add_argument("--count", type=_count, default=1, metavar="N", help="ask N times [1]")
    parser.add_argument("--timeout", type=_positive, default=2.0, metavar="S", help="seconds to wait for an answer [2]")
    parser.add_argument("--raw", action="store_true", help="send URLs as they are written here")
    parser.add_argument("--rtt", action="store_true", help="ask how far the origin is (SRC_RTT)")
    parser.add_argument("--source", default="", metavar="IP", help="address to send from")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
