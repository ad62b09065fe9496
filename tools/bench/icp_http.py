"""How late ICP's answers are while HTTP is at full load, and what a flood of bad packets costs HTTP.

    python -m cachelb.tools.bench.icp_http [--seconds 5] [--rounds 3] [--workers 1,2] [--json]

A director with three nginx as nodes, loaded by wrk as in the comparison with other front ends.  Meanwhile it is asked by ICP
500 times a second.  The time to answer begins before the query is sent and ends when the kernel has the answer
(SO_TIMESTAMPNS), so that it does not matter when we come to look at it.  Where we were interrupted while sending, which takes
10 us, nobody knows when it began: such answers do not count.

    quiet      no HTTP
    busy       as much HTTP as the director can do
    flooded    busy, and 20,000 packets a second that are no ICP

With one worker the director is alone on CPU 0, where its two processes compete; all else is on CPU 1.  With two workers all
compete everywhere.

2026-11, one worker, busy: median 0.12 ms, 99 % within 0.8 ms; without the nice value of ``priority.prompt`` within 1 to 5 ms, for
then the supervisor waits for the worker's turn to end.  Two workers: 99 % within 3.2 ms, for beside them nginx and wrk compete,
which are no children of the director's.  A flood slows HTTP by nothing that could be told from the scatter of this machine.

Left out: answers per second and their cost (``icp``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shlex
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from icp.packet import pack_query

from .icp_load import GARBAGE
from .load import LUA, SCENARIOS, Answers, parse_wrk, wrk_command
from .nodes import NODES, nginx_config, write_files
from .processes import SEARCH_PATH, BenchError, Processes, missing

ICP = ("127.0.4.5", 23130)
ASKER = "127.0.4.6"
HTTP_PORT = 18005
RATE_PER_S = 500
FLOOD_PER_S = 20_000
FLOOD_STEP_S = 0.001
WARM_UP_S = 0.5
SETTLE_S = 2.0  # until the director has found its nodes alive, and is idle
SENDING_NS = 100_000  # at most; longer: interrupted
ANSWER_S = 0.2  # after the last query: whoever has not answered by then does not
NICE = -10  # of who asks
SO_TIMESTAMPNS = 35
STAMP = struct.Struct("qq")
PHASES = ("quiet", "busy", "flooded")


class Delays(NamedTuple):
    """Of one phase.  late_1ms, late_5ms: answers that took longer.  rps: HTTP requests per second, and bad ones of them."""

    answers: int
    lost: int
    median_us: float
    p99_us: float
    worst_us: float
    late_1ms: int
    late_5ms: int
    rps: float = 0.0
    bad: int = 0


def config(workers: int) -> str:
    """The director's."""
    nodes = "".join(
        f'[[node]]\nname = "n{number}"\nhost = "{host}"\nhttp_port = {port}\nicp_port = 0\n'
        for number, (host, port) in enumerate(NODES)
    )
    return f"""[listen]
http = "127.0.0.1:{HTTP_PORT}"
icp = "{ICP[0]}:{ICP[1]}"
admin = "127.0.0.1:18181"
[relay]
workers = {workers}
[icp]
rate_per_s = 0
{nodes}"""


def ask(address: tuple[str, int], seconds: float, rate_per_s: float = RATE_PER_S) -> Delays:
    """Ask at this rate, whether there are answers or not.

    Raises:
        BenchError: There is no answer at all.
    """
    sent: dict[int, int] = {}  # when, in ns, by request number
    times: list[int] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((ASKER, 0))
        sock.connect(address)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        start = time.perf_counter()
        count, total = 0, round(seconds * rate_per_s)
        while (left_s := start + count / rate_per_s - time.perf_counter()) > 0 or count < total:
            if left_s <= 0:
                count += 1
                query = pack_query(count, b"http://www.site%d.example.com/small/obj%d.gif" % (count % 97, count % 1000))
                began = time.time_ns()
                with contextlib.suppress(ConnectionError):  # nobody listens
                    sock.send(query)
                sent[count] = began if time.time_ns() < began + SENDING_NS else 0
            else:
                poll.poll(left_s * 1000)
            times += _answered(sock, sent)
        end = time.perf_counter() + ANSWER_S
        while sent and time.perf_counter() < end:
            poll.poll(1)
            times += _answered(sock, sent)
    if not times:
        raise BenchError(f"nobody answers ICP on {address[0]}:{address[1]}")
    times.sort()
    late = [sum(ns > limit_ms * 1_000_000 for ns in times) for limit_ms in (1, 5)]
    return Delays(
        len(times), len(sent), *(times[len(times) * share // 100] / 1000 for share in (50, 99)), times[-1] / 1000, *late
    )


def _answered(sock: socket.socket, sent: dict[int, int]) -> Iterator[int]:
    """How long each of the answers that are here has taken, in ns."""
    while True:
        try:
            answer, ancillary, *_ = sock.recvmsg(16384, 64)
        except (BlockingIOError, ConnectionError):
            return
        began = sent.pop(int.from_bytes(answer[4:8], "big"), None)
        if began and ancillary:
            seconds, ns = STAMP.unpack(ancillary[0][2])
            yield seconds * 1_000_000_000 + ns - began


@contextlib.contextmanager
def _first() -> Iterator[None]:
    """Where it is permitted this process goes before those that load; they were started before, and are no heirs."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, min(usual, NICE))
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, usual)


def flood(address: tuple[str, int]) -> None:
    """Send FLOOD_PER_S bad packets a second, until killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sent, start = 0, time.perf_counter()
        while True:
            for _ in range(min(1000, int((time.perf_counter() - start) * FLOOD_PER_S) - sent)):
                sock.sendto(GARBAGE, address)
                sent += 1
            time.sleep(FLOOD_STEP_S)


@contextlib.contextmanager
def _loaded(phase: str, seconds: float, script: Path) -> Iterator[list[Answers]]:
    """HTTP's share of a phase; what wrk said is in the list afterwards."""
    told: list[Answers] = []
    with contextlib.ExitStack() as stack:
        if phase == "flooded":
            stack.enter_context(_child([sys.executable, "-m", __spec__.name, "--flood"]))
        wrk = None
        if phase != "quiet":
            command = wrk_command(HTTP_PORT, SCENARIOS["small"], int(seconds + WARM_UP_S) + 1, script)
            wrk = stack.enter_context(_child(command))
            time.sleep(WARM_UP_S)
        yield told
        if wrk is not None:
            output, _ = wrk.communicate()
            if wrk.returncode:
                raise BenchError(f"wrk ended with status {wrk.returncode}: {output.strip()[-200:]}")
            told.append(parse_wrk(output))


@contextlib.contextmanager
def _child(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PATH": SEARCH_PATH}
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def measure(workers: int, rounds: int, seconds: float, cachelb: str) -> dict[str, list[Delays]]:
    """Every phase in each round, for a director with so many workers.

    Raises:
        BenchError: Something did not start, or nobody answers.
    """
    with tempfile.TemporaryDirectory(prefix="cachelb-bench.") as name, Processes(Path(name)) as processes:
        folder = Path(name)
        folder.chmod(0o755)
        write_files(folder)
        (folder / "load.lua").write_text(LUA)
        (folder / "nodes.conf").write_text(nginx_config(folder))
        (folder / "cachelb.toml").write_text(config(workers))
        processes.start("nodes", ["nginx", "-c", str(folder / "nodes.conf")], 1, NODES[0])
        command = [*shlex.split(cachelb), "run", "-c", str(folder / "cachelb.toml")]
        processes.start("cachelb", command, "0" if workers == 1 else "0,1", ("127.0.0.1", HTTP_PORT))
        time.sleep(SETTLE_S)
        found: dict[str, list[Delays]] = {phase: [] for phase in PHASES}
        for _ in range(rounds):
            for phase in PHASES:
                with _loaded(phase, seconds, folder / "load.lua") as told, _first():
                    delays = ask(ICP, seconds)
                processes.check()
                found[phase].append(delays._replace(rps=told[0].rps, bad=told[0].bad) if told else delays)
        return found


def middle(rounds: Sequence[Delays]) -> Delays:
    """The median of each figure, but all of those that came late or not at all."""
    medians = Delays(*(statistics.median(values) for values in zip(*rounds, strict=True)))
    sums = {
        field: sum(getattr(delays, field) for delays in rounds) for field in ("answers", "lost", "late_1ms", "late_5ms", "bad")
    }
    return medians._replace(**sums)


def render(workers: int, found: dict[str, list[Delays]]) -> str:
    """A table of the phases."""
    lines = [
        f"{workers} worker{'s' if workers > 1 else ' '}  {'answers':>9}{'lost':>6}{'median us':>11}{'p99 us':>9}{'worst us':>10}"
    ]
    lines[0] += f"{'> 1 ms':>8}{'> 5 ms':>8}{'HTTP/s':>9}"
    for phase, rounds in found.items():
        told = middle(rounds)
        line = f"{phase:10}{told.answers:9.0f}{told.lost:6.0f}{told.median_us:11.0f}{told.p99_us:9.0f}{told.worst_us:10.0f}"
        line += f"{told.late_1ms:8.0f}{told.late_5ms:8.0f}" + (f"{told.rps:9,.0f}" if told.rps else f"{'-':>9}")
        if told.bad:
            line += f"  {told.bad:.0f} bad answers"
        lines.append(line)
    slower = statistics.median(b.rps / a.rps if a.rps else 0.0 for a, b in zip(found["busy"], found["flooded"], strict=True))
    lines.append(f"{'':10}HTTP, flooded / busy: {slower:.2f}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; exit status 1 if it could not be."""
    parser = argparse.ArgumentParser(prog="python -m cachelb.tools.bench.icp_http", description="ICP while HTTP is busy.")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each phase [5]")
    parser.add_argument("--rounds", type=int, default=3, help="of all phases [3]")
    parser.add_argument("--workers", default="1,2", help="how many workers, one after the other [1,2]")
    parser.add_argument("--cachelb", default=f"{sys.executable} -m cachelb", help="the command that is ours")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--flood", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.flood:
        flood(ICP)
    results = {}
    try:
        if problem := missing([("taskset", "util-linux"), ("nginx", "nginx-light"), ("wrk", "wrk")]):
            raise BenchError(problem)
        if not {0, 1} <= os.sched_getaffinity(0):
            raise BenchError("CPUs 0 and 1 are needed")
        os.sched_setaffinity(0, {1})
        for workers in map(int, options.workers.split(",")):
            results[workers] = measure(workers, options.rounds, options.seconds, options.cachelb)
            if not options.json:
                print(render(workers, results[workers]), flush=True)
    except (BenchError, OSError) as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({n: {phase: [d._asdict() for d in rounds] for phase, rounds in r.items()} for n, r in results.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
