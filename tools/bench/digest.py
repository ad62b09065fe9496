"""What does a rebuild of the farm's digest cost, and what do ICP queries notice of it?

    python -m cachelb.tools.bench.digest [--keys 5000000] [--rounds 3] [--rate 1000] [--json]

A director's index with random keys of 16 nodes answers ICP queries, half of them for what is held, on the event loop from
which the digest is built.  It is asked at a steady rate by this process, in turns while nothing else goes on and while it
builds.  The time to answer begins when a query is sent, which waits for no other, and ends when the kernel has the reply: when
this process wakes up does not matter.

This process stays on the last CPU.  The index and the process that builds may use all, as they would anywhere.  Others who use
the CPUs make answers late as well: compare with the turns without a build.

Left out: HTTP load at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NamedTuple

from cachelb.cluster.builder import Builder, order_for
from cachelb.cluster.holdings import KEY_BYTES, Holdings, Source, mask_of
from cachelb.cluster.index import Index
from cachelb.priority import prompt
from digest import store_key
from icp.answer import Answerer
from icp.packet import Opcode, pack_query, parse_reply
from icp.service import Service

from .processes import BenchError

NODES = 16
URLS = 1000
FRESH_S = 86_400
BITS_PER_ENTRY = 8
READY_S = 300.0
ANSWER_S = 2.0
_BLOCK = 100_000  # keys at a time, so that the keys themselves do not count as memory
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")


class Turn(NamedTuple):
    """What one turn of queries was like: milliseconds to answer."""

    queries: int
    hits: float
    median_ms: float
    p99_ms: float
    latest_ms: float


def url(number: int) -> bytes:
    """Every other one is held."""
    return b"http://www.example.com/%d" % number


def filled(count: int) -> Holdings:
    """Random keys, and those of the URLs that are held."""
    holdings = Holdings(max(count, URLS))
    until = int(time.time()) + FRESH_S
    for number in range(0, URLS, 2):
        holdings.add(store_key(url(number)), number % NODES, until, Source.STORE_LOG)
    count -= URLS // 2
    for first in range(0, count, _BLOCK):
        keys = os.urandom(min(_BLOCK, count - first) * KEY_BYTES)
        for number, at in enumerate(range(0, len(keys), KEY_BYTES)):
            holdings.add(keys[at : at + KEY_BYTES], number % NODES, until, Source.STORE_LOG)
    return holdings


def memory(what: str) -> int:
    """Bytes of this process: VmRSS, resident now; VmHWM, the most since `forget_peak`."""
    found = re.search(rf"^{what}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def forget_peak() -> None:
    """Let VmHWM begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


async def build_once(builder: Builder, holdings: Holdings) -> dict[str, Any]:
    """The figures of one rebuild."""
    fd = os.memfd_create("bench")
    try:
        forget_peak()
        resident, used, began = memory("VmRSS"), time.process_time(), time.perf_counter()
        order = order_for(holdings, mask_of(range(NODES)), int(time.time()) + 30, BITS_PER_ENTRY)
        built = await builder.build(holdings, order, fd)
        return {
            "seconds": time.perf_counter() - began,
            "director_cpu_s": time.process_time() - used,
            "director_extra_mb": max(0, memory("VmHWM") - resident) / 1e6,  # both are exact to some pages per CPU
            "cpu_s": built.cpu_s,
            "peak_mb": built.peak_bytes / 1e6,
            "digest_mb": built.size_bytes / 1e6,
            **{name: value for name, value in asdict(built).items() if name in ("keys", "fill", "false_positives")},
        }
    finally:
        os.close(fd)


async def serve(count: int) -> None:
    """The director's part: a line of JSON when it is ready, and one with figures for each line that it reads."""
    index = Index(filled(count), time.time)
    index.live = mask_of(range(NODES))
    answerer = Answerer(index.holds, lambda source: True, rate_per_s=1e9, burst=10**9)
    service = await Service.start([("127.0.0.1", 0)], answerer.answer)
    prompt()  # as the supervisor does
    print(json.dumps({"address": service.addresses[0], "resident_mb": memory("VmRSS") / 1e6}), flush=True)
    loop, builder = asyncio.get_running_loop(), Builder()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await build_once(builder, index.holdings)), flush=True)
    builder.close()
    service.close()


def ask(address: tuple[str, int], rate: float, is_over: Callable[[], bool]) -> Turn:
    """Send `rate` queries a second, whether or not those before are answered, until `is_over`.

    Raises:
        BenchError: Some were not answered at all.
    """
    asked: dict[int, float] = {}
    times: list[float] = []
    hits = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.connect(address)
        due, number, end = time.monotonic(), 0, 0.0
        while True:
            if select.select([sock], [], [], max(0.0, due - time.monotonic()))[0]:
                answer, [(_, _, stamp)], _, _ = sock.recvmsg(16384, 64)
                seconds, nanoseconds = _TIMESPEC.unpack(stamp)
                reply = parse_reply(answer)
                times.append((seconds + nanoseconds / 1e9 - asked.pop(reply.reqnum)) * 1000)
                hits += reply.opcode is Opcode.HIT
            elif not is_over() or not number:
                number += 1
                query = pack_query(number, url(number % URLS))
                asked[number] = time.time()
                sock.send(query)
                due = max(due + 1 / rate, time.monotonic())  # no burst when this process was late
            elif not asked:
                break
            elif not end:
                end = due + ANSWER_S
            elif time.monotonic() > end:
                raise BenchError(f"{len(asked)} queries were not answered within {ANSWER_S:g} s")
            else:
                due += 0.001
    times.sort()
    return Turn(len(times), hits / len(times), times[len(times) // 2], times[len(times) * 99 // 100], times[-1])


@contextlib.contextmanager
def director(count: int) -> Iterator[subprocess.Popen[str]]:
    """The process that has the index."""
    command = [sys.executable, "-m", __spec__.name, "--serve", "--keys", str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def on_the_last_cpu() -> Iterator[None]:
    """Where this process is meanwhile."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


def _said(stream: IO[str]) -> dict[str, Any]:
    line = stream.readline()
    if not line:
        raise BenchError("the process that has the index ended")
    said: dict[str, Any] = json.loads(line)
    return said


def measure(count: int, rounds: int, rate: float) -> dict[str, Any]:
    """Medians over all rounds, and all that was late."""
    turns: dict[str, list[Turn]] = {"quiet": [], "building": []}
    builds: list[dict[str, Any]] = []
    with director(count) as process, on_the_last_cpu():
        assert process.stdin is not None
        assert process.stdout is not None
        stdout = process.stdout
        if not select.select([stdout], [], [], READY_S)[0]:
            raise BenchError(f"{count} keys were not there within {READY_S:g} s")
        ready = _said(stdout)
        address = ready["address"][0], ready["address"][1]
        for _ in range(rounds):
            process.stdin.write("build\n")
            process.stdin.flush()
            turns["building"].append(ask(address, rate, lambda: bool(select.select([stdout], [], [], 0)[0])))
            builds.append(_said(stdout))
            end = time.monotonic() + builds[-1]["seconds"]
            turns["quiet"].append(ask(address, rate, lambda end=end: time.monotonic() > end))  # type: ignore[misc]
    return {
        "resident_mb": ready["resident_mb"],
        **{name: statistics.median(build[name] for build in builds) for name in builds[0]},
        "icp": {name: Turn(*map(statistics.median, zip(*some, strict=True)))._asdict() for name, some in turns.items()},
        "latest_ms": {name: [round(turn.latest_ms, 2) for turn in some] for name, some in turns.items()},
    }


def render(figures: dict[str, Any]) -> str:
    """The figures as lines of text."""
    lines = [
        f"{figures['keys']:,.0f} keys, {figures['resident_mb']:.0f} MB; a digest of {figures['digest_mb']:.1f} MB, "
        f"{figures['fill']:.1%} full, {figures['false_positives']:.1%} false positives",
        f"a build: {figures['seconds']:.2f} s, of its process {figures['cpu_s']:.2f} s of CPU and {figures['peak_mb']:.0f} MB, "
        f"of the director {figures['director_cpu_s']:.2f} s and {figures['director_extra_mb']:.1f} MB",
        f"{'':10}{'queries':>9}{'hits':>7}{'median ms':>11}{'p99 ms':>9}{'latest ms':>11}    of each turn",
    ]
    for name, turn in figures["icp"].items():
        latest = "  ".join(f"{value:.2f}" for value in figures["latest_ms"][name])
        lines.append(
            f"{name:10}{turn['queries']:9.0f}{turn['hits']:7.0%}{turn['median_ms']:11.2f}{turn['p99_ms']:9.2f}"
            f"{turn['latest_ms']:11.2f}    {latest}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; exit status 1 if it could not be."""
    parser = argparse.ArgumentParser(prog="python -m cachelb.tools.bench.digest", description="A rebuild of the farm's digest.")
    parser.add_argument("--keys", type=int, default=5_000_000, help="that are held [5000000]")
    parser.add_argument("--rounds", type=int, default=3, help="builds [3]")
    parser.add_argument("--rate", type=float, default=1000.0, help="queries a second [1000]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.serve:
        import uvloop  # not needed where only figures are rendered

        uvloop.run(serve(options.keys))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        figures = measure(options.keys, options.rounds, options.rate)
    except (BenchError, OSError) as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 1
    print(json.dumps(figures) if options.json else render(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
