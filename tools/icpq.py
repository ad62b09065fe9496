"""cachelb-icpq: ask a cache by ICP or HTCP whether it holds a URL.

    cachelb-icpq 10.0.0.11 http://example.com/a               HIT http://example.com/a 0.21 ms
    cachelb-icpq 10.0.0.11:3130 http://example.com/a --count 1000
    cachelb-icpq '[2001:db8::1]:3130' - --json < urls.txt     one URL per line
    cachelb-icpq 10.0.0.11 http://example.com/a --htcp        by HTCP (TST), port 4827
    cachelb-icpq 10.0.0.11 http://example.com/a --clear       by HTCP (CLR): forget it; GONE, ABSENT or KEPT

Exit status: 0 every answer is HIT, or GONE; 1 some answer is another one: MISS, MISS_NOFETCH, DENIED, ERR, ABSENT, KEPT; 2
some query had no answer, or wrong usage.

Squid looks up the bytes that it is sent, so URLs are written as it stores them (host in lower case, no default port) unless
--raw is given.  By HTCP, silence may also mean that this address may not ask.

Left out: asking several caches at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

from cachelb.errors import BadRequest
from cachelb.http.url import parse_absolute
from icp.client import Answer, HtcpClient, IcpClient
from icp.htcp import CLR_ABSENT, CLR_GONE, CLR_KEPT, TST_HIT, HtcpOpcode, HtcpQuery, HtcpReply, Specifier
from icp.htcp import pack_query as pack_htcp
from icp.packet import MAX_URL, SRC_RTT, Message, pack_query

ALL_HIT, NOT_ALL, TROUBLE = 0, 1, 2
GOOD = {"HIT", "GONE"}
CLEARED = {CLR_GONE: "GONE", CLR_KEPT: "KEPT", CLR_ABSENT: "ABSENT"}
ICP_PORT, HTCP_PORT = 3130, 4827
MAX_COUNT = 1_000_000
REFUSAL_WAIT_S = 0.3  # for the ICMP message that nothing listens: it comes within a round trip, or never

Address = tuple[str, int]


class Result(NamedTuple):
    """One query.  reply: its word, None without an answer.  rtt: (hops, ms) to the origin, where the cache knows."""

    url: str
    reply: str | None
    ms: float | None
    rtt: tuple[int, int] | None = None


class Trouble(Exception):
    """Wrong usage, or the cache cannot be asked at all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status (SystemExit for wrong usage)."""
    options = _options(argv)
    results: list[Result] = []
    is_complete = True
    try:
        address = resolve(options.server, HTCP_PORT if options.htcp else ICP_PORT)
        urls = [url if options.raw else canonical(url) for url in _wanted(options.urls)]
        asyncio.run(_show(address, urls, options, results))
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return TROUBLE
    except (Trouble, OSError) as problem:
        if options.json:
            print(json.dumps({"error": str(problem)}))
        print(f"cachelb-icpq: {problem}", file=sys.stderr)
        return TROUBLE
    except KeyboardInterrupt:  # what is known is shown all the same
        is_complete = False
    if options.json:
        print(json.dumps(describe(address, results), indent=2))
    elif len(results) > 1:
        print(total(results))
    return status(results) if is_complete else TROUBLE


async def _show(address: Address, urls: Sequence[bytes], options: argparse.Namespace, results: list[Result]) -> None:
    """Ask, and print each answer when it is there; `results` has them all, and those so far after Ctrl-C."""
    async for result in ask(address, urls, options):
        if result.reply is None and all(earlier.reply is None for earlier in results) and is_refused(address, options):
            raise Trouble(f"nothing listens at {_place(address)} (UDP)")
        results.append(result)
        if not options.json:
            print(line(result, address, options.timeout), flush=True)


async def ask(address: Address, urls: Sequence[bytes], options: argparse.Namespace) -> AsyncIterator[Result]:
    """Every URL `options.count` times, one query after the other.  Raises Trouble."""
    flags = SRC_RTT if options.rtt else 0
    try:
        async with IcpClient(options.source) as icp, HtcpClient(options.source) as htcp:
            for url in (url for _ in range(options.count) for url in urls):
                if options.clear:
                    yield await _cleared(htcp, address, url, options.timeout)
                elif options.htcp:
                    yield _tested(url, await htcp.test(address, url, options.timeout))
                else:
                    yield _queried(url, await icp.query(address, url, options.timeout, flags=flags))
    except (OSError, ValueError) as problem:  # ValueError: a URL that no packet can carry
        place = f"--source {options.source}" if options.source else _place(address)
        raise Trouble(f"{place}: {getattr(problem, 'strerror', None) or problem}") from problem


def is_refused(address: Address, options: argparse.Namespace) -> bool:
    """Whether the host says that nobody listens at this port.  Only a connected socket is told."""
    query = pack_query(1, b"")
    if options.htcp:
        query = pack_htcp(HtcpQuery(HtcpOpcode.TST, 1, Specifier(b"GET", b"")))
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(REFUSAL_WAIT_S)
        try:
            if options.source:
                sock.bind((options.source, 0))
            sock.connect(address)
            sock.send(query)
            sock.recv(1)
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
        return False


def status(results: Iterable[Result]) -> int:
    """The exit status."""
    replies = {result.reply for result in results}
    if None in replies:
        return TROUBLE
    return ALL_HIT if replies <= GOOD else NOT_ALL


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


def describe(address: Address, results: Sequence[Result]) -> dict[str, Any]:
    """For --json."""
    queries = [
        {"url": result.url, "reply": result.reply, "ms": None if result.ms is None else round(result.ms, 3)}
        | ({} if result.rtt is None else {"origin_hops": result.rtt[0], "origin_ms": result.rtt[1]})
        for result in results
    ]
    return {"server": _place(address), "queries": queries, "summary": summary(results)}


def line(result: Result, address: Address, timeout_s: float) -> str:
    """One query, for a reader."""
    if result.ms is None:
        return f"no answer from {_place(address)} within {timeout_s:g} s: {result.url}"
    text = f"{result.reply} {result.url} {result.ms:.2f} ms"
    return text if result.rtt is None else f"{text}; origin {result.rtt[0]} hops, {result.rtt[1]} ms away"


def total(results: Sequence[Result]) -> str:
    """The last line, which sums up."""
    figures = summary(results)
    replies = ", ".join(f"{count} {reply}" for reply, count in sorted(figures["replies"].items()))
    times = "; median {median_ms} ms, p99 {p99_ms} ms, max {max_ms} ms".format_map(figures) if figures["answers"] else ""
    return f"{figures['queries']} queries: {replies}{times}"


def canonical(url: bytes) -> bytes:
    """As Squid stores it.  Raises Trouble."""
    try:
        return parse_absolute(url).key
    except BadRequest as problem:
        raise Trouble(f"{url.decode('latin-1')}: not a URL ({problem}); --raw sends it nevertheless") from problem


def resolve(server: str, default_port: int = ICP_PORT) -> Address:
    """HOST, HOST:PORT, [V6] or [V6]:PORT to an IP address and port.  Raises Trouble."""
    if "/" in server:
        raise Trouble(f"{server}: write HOST or HOST:PORT; the port is that of ICP, {default_port} unless given")
    if server.startswith("["):
        host, bracket, rest = server[1:].partition("]")
        port = rest.removeprefix(":")
        if not bracket or rest[:1] not in ("", ":"):
            raise Trouble(f"{server}: write [ADDRESS] or [ADDRESS]:PORT")
    elif server.count(":") > 1:
        host, port = server, ""
    else:
        host, _, port = server.partition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise Trouble(f"{server}: the port must be a number from 1 to 65535")
    try:
        found = socket.getaddrinfo(host, int(port or default_port), type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as problem:
        raise Trouble(f"{server or 'no host'}: no address found ({getattr(problem, 'strerror', None) or problem})") from problem
    address: Address = found[0][4][:2]  # type: ignore[assignment]
    return address


def _queried(url: bytes, answer: Answer[Message] | None) -> Result:
    text = url.decode("latin-1")
    if answer is None:
        return Result(text, None, None)
    return Result(text, answer.reply.opcode.name, answer.rtt_s * 1000, answer.reply.rtt)


def _tested(url: bytes, answer: Answer[HtcpReply] | None) -> Result:
    text = url.decode("latin-1")
    if answer is None:
        return Result(text, None, None)
    if answer.reply.is_refusal:
        return Result(text, "REFUSED", answer.rtt_s * 1000)
    return Result(text, "HIT" if answer.reply.response == TST_HIT else "MISS", answer.rtt_s * 1000)


async def _cleared(htcp: HtcpClient, address: Address, url: bytes, timeout_s: float) -> Result:
    start = time.perf_counter()
    response = await htcp.clear(address, url, timeout_s)
    if response is None:
        return Result(url.decode("latin-1"), None, None)
    return Result(url.decode("latin-1"), CLEARED.get(response, f"response {response}"), (time.perf_counter() - start) * 1000)


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


def _place(address: Address) -> str:
    return f"{address[0]} port {address[1]}"


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: seconds, above 0 and at most 3600")
    return number


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= MAX_COUNT):
        raise argparse.ArgumentTypeError(f"{text}: a number from 1 to {MAX_COUNT}")
    return int(text)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    description, _, epilog = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        "cachelb-icpq", description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("server", metavar="HOST[:PORT]", help=f"the cache; port {ICP_PORT} unless given, with HTCP {HTCP_PORT}")
    parser.add_argument("urls", metavar="URL", nargs="+", help="what to ask for; - reads lines from standard input")
    parser.add_argument("--count", type=_count, default=1, metavar="N", help="ask N times [1]")
    parser.add_argument("--timeout", type=_seconds, default=2.0, metavar="S", help="seconds to wait for an answer [2]")
    parser.add_argument("--raw", action="store_true", help="send URLs as they are written here")
    parser.add_argument("--rtt", action="store_true", help="ask how far the origin is (SRC_RTT)")
    parser.add_argument("--htcp", action="store_true", help="ask by HTCP")
    parser.add_argument("--clear", action="store_true", help="by HTCP: have the URLs forgotten, wherever the cache can")
    parser.add_argument("--source", default="", metavar="IP", help="address to send from")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    options.htcp = options.htcp or options.clear
    if options.htcp and options.rtt:
        parser.error("--rtt is for ICP")
    return options


if __name__ == "__main__":
    sys.exit(main())
