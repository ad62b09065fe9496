"""ICP answers per second and CPU per query: our service against Debian's Squid, the same queries in the same run.

    python -m cachelb.tools.bench.icp [--rounds 3] [--seconds 2] [--json]

Each is asked in turns, alone on CPU 0, by a loop on CPU 1 that keeps 32 queries under way; half of the URLs are held.  CPU is
what the kernel charged the process (schedstat), so it does not depend on who else is busy; the rate does.  "one at a time"
keeps one query under way and gives the times to answer, wake-ups included.  "with garbage" sends one packet of an unknown
version per query; only answers count.  Our lookup is a store key (MD5) in a set, which is about what an index costs.

"squid" logs every query, as it does unless told otherwise; its log's helper process is not charged.  "silent" logs nothing,
as we do.

Left out: HTTP load at the same time, the real index, forward mode.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from icp.answer import Answerer
from icp.errors import BadPacket
from icp.packet import Opcode, pack_query, parse_reply
from icp.service import Service

from .processes import SEARCH_PATH, BenchError, missing

OURS, SQUID, SILENT = ("127.0.4.1", 23130), ("127.0.4.2", 23130), ("127.0.4.4", 23130)
ORIGIN = ("127.0.4.3", 23180)
HTTP_PORT = 23128
URLS = 1000
UNDER_WAY = 32
READY_S = 20.0
# version 1: a version 3 query is the end of Debian's Squid 5.7
GARBAGE = b"\1\x01" + pack_query(1, b"http://127.0.4.3:23180/absent/0")[2:]

CONFIG = """http_port {host}:{http_port}
icp_port {icp_port}
udp_incoming_address {host}
icp_access allow all
http_access allow all
visible_hostname bench
access_log {access_log}
cache_mem 64 MB
memory_cache_shared off
pinger_enable off
dns_nameservers 127.0.0.1
hosts_file none
shutdown_lifetime 0 seconds
pid_filename {folder}/squid.pid
cache_log {folder}/squid.log
coredump_dir {folder}
"""


class Turn(NamedTuple):
    """One measurement.  lost: queries without an answer.  p99_us: of the time to answer, where it was taken."""

    per_s: float
    cpu_us: float
    lost: int
    hits: float
    median_us: float = 0.0
    p99_us: float = 0.0


def held_url(number: int) -> bytes:
    return b"http://%s:%d/held/%d" % (ORIGIN[0].encode(), ORIGIN[1], number)


def queries() -> list[bytes]:
    """Held and absent URLs in turns, each with its own number."""
    absent = b"http://%s:%d/absent/%%d" % (ORIGIN[0].encode(), ORIGIN[1])
    return [pack_query(n + 1, absent % n if n % 2 else held_url(n)) for n in range(URLS)]


async def serve() -> None:
    """Ours.  Runs until it is killed."""
    keys = {hashlib.md5(b"\1" + held_url(number)).digest() for number in range(0, URLS, 2)}
    answerer = Answerer(lambda url: hashlib.md5(b"\1" + url).digest() in keys, lambda source: True, rate_per_s=1e9, burst=10**9)
    await Service.start([OURS], answerer.answer)
    await asyncio.Event().wait()


def cpu_s(pid: int) -> float:
    """What this process has used so far."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def load(
    address: tuple[str, int], pid: int, seconds: float, *, under_way: int = UNDER_WAY, garbage: bool = False, wait_s: float = 0.5
) -> Turn:
    """Ask in a closed loop for `seconds`."""
    times: list[float] = []
    answers = lost = hits = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.connect(address)
        sock.settimeout(wait_s)
        send, receive, clock = sock.send, sock.recv, time.perf_counter
        upcoming = itertools.cycle(queries()).__next__
        for _ in range(under_way):
            send(upcoming())
        used, start = cpu_s(pid), clock()
        end = last = start
        while last < start + seconds:
            try:
                answer = receive(16384)
            except TimeoutError:
                lost += under_way
                for _ in range(under_way):
                    send(upcoming())
                last = clock()
                continue
            answers += 1
            hits += answer[0] == Opcode.HIT
            if garbage:
                send(GARBAGE)
            now = clock()
            if under_way == 1:
                times.append(now - last)
            send(upcoming())
            last = clock() if under_way == 1 else now
        end = clock()
        used = cpu_s(pid) - used
    times.sort()
    median, p99 = (times[len(times) // 2], times[len(times) * 99 // 100]) if times else (0.0, 0.0)
    return Turn(answers / (end - start), used / max(1, answers) * 1e6, lost, hits / max(1, answers), median * 1e6, p99 * 1e6)


def measure(targets: dict[str, tuple[tuple[str, int], int]], rounds: int, seconds: float) -> dict[str, dict[str, Turn]]:
    """The median of each figure over `rounds` turns, by scenario and name."""
    results: dict[str, dict[str, Turn]] = {}
    for scenario, options in SCENARIOS.items():
        turns: dict[str, list[Turn]] = {name: [] for name in targets}
        for _ in range(rounds):
            for name, (address, pid) in targets.items():
                turns[name].append(load(address, pid, seconds, **options))
        results[scenario] = {
            name: Turn(*(statistics.median(values) for values in zip(*some, strict=True))) for name, some in turns.items()
        }
    return results


SCENARIOS: dict[str, dict[str, Any]] = {
    "32 under way": {},
    "one at a time": {"under_way": 1},
    "with garbage": {"garbage": True},
}


def render(results: dict[str, dict[str, Turn]]) -> str:
    """A table, and the ratios that matter."""
    lines = [f"{'':16}{'':8}{'answers/s':>11}{'CPU us':>9}{'median us':>11}{'p99 us':>9}{'lost':>6}{'hits':>7}"]
    for scenario, rows in results.items():
        for name, turn in rows.items():
            times = f"{turn.median_us:11.0f}{turn.p99_us:9.0f}" if turn.median_us else f"{'-':>11}{'-':>9}"
            lines.append(f"{scenario:16}{name:8}{turn.per_s:11,.0f}{turn.cpu_us:9.2f}{times}{turn.lost:6.0f}{turn.hits:7.0%}")
        ours = rows["ours"]
        for name in sorted(rows.keys() - {"ours"}):
            other = rows[name]
            lines.append(f"{'':16}ours / {name}: rate {ours.per_s / other.per_s:.2f}, CPU {ours.cpu_us / other.cpu_us:.2f}")
    return "\n".join(lines)


class _Origin(BaseHTTPRequestHandler):
    """Everything is a small object that stays fresh for an hour."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Cache-Control", "max-age=3600")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def running(command: Sequence[str], address: tuple[str, int], log: Path) -> Iterator[int]:
    """The process id of `command` on CPU 0, once it answers ICP at `address`; killed at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(["taskset", "-c", "0", *command], stdout=output, stderr=output)
    try:
        end = time.monotonic() + READY_S
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > end:
                raise BenchError(f"{command[0]} does not answer on {address[0]}:{address[1]}: {log.read_text()[-500:]}")
        yield process.pid
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def origin() -> Iterator[None]:
    """Where the Squids get what they hold."""
    server = ThreadingHTTPServer(ORIGIN, _Origin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def squid(folder: Path, address: tuple[str, int], access_log: str) -> Iterator[int]:
    """The process id of a Squid that holds what it should."""
    folder.mkdir()
    config = folder / "squid.conf"
    values = {"folder": folder, "host": address[0], "icp_port": address[1], "http_port": HTTP_PORT}
    config.write_text(CONFIG.format(access_log=access_log.format(folder=folder), **values))
    if os.geteuid() == 0:  # Squid then is the user proxy
        shutil.chown(folder, "proxy")
    program = shutil.which("squid", path=SEARCH_PATH) or "squid"
    command = [program, "-N", "-n", f"bench{os.getpid()}{folder.name}", "-f", str(config)]
    with shared_files_removed(f"bench{os.getpid()}{folder.name}"), running(command, address, folder / "squid.out") as pid:
        for number in range(0, URLS, 2):
            with socket.create_connection((address[0], HTTP_PORT), 5) as sock:
                sock.sendall(b"GET %b HTTP/1.0\r\n\r\n" % held_url(number))
                while sock.recv(65536):
                    pass
        yield pid


@contextlib.contextmanager
def shared_files_removed(service: str) -> Iterator[None]:
    """A killed Squid leaves files behind."""
    yield
    for path in Path("/dev/shm").glob(f"{service}-cf__*.shm"):
        path.unlink()


def _answers(address: tuple[str, int]) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        sock.sendto(pack_query(1, b"http://127.0.4.3/"), address)
        try:
            parse_reply(sock.recv(16384))
        except (OSError, BadPacket):
            time.sleep(0.05)
            return False
    return True


def _run(options: argparse.Namespace) -> dict[str, dict[str, Turn]]:
    problem = missing([("taskset", "util-linux"), ("squid", "squid")])
    if problem:
        raise BenchError(problem)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    ours = [sys.executable, "-m", __spec__.name, "--serve"]
    with tempfile.TemporaryDirectory(prefix="cachelb-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        stack.enter_context(origin())
        logging = "daemon:{folder}/access.log squid"  # Debian's
        targets = {
            "ours": (OURS, stack.enter_context(running(ours, OURS, folder / "ours.out"))),
            "squid": (SQUID, stack.enter_context(squid(folder / "squid", SQUID, logging))),
            "silent": (SILENT, stack.enter_context(squid(folder / "silent", SILENT, "none"))),
        }
        return measure(targets, options.rounds, options.seconds)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; exit status 1 if it could not be."""
    parser = argparse.ArgumentParser(prog="python -m cachelb.tools.bench.icp", description="Our ICP service against Squid's.")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each in each scenario [3]")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn [2]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.serve:
        import uvloop  # not needed where only the table is rendered

        uvloop.run(serve())
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        results = _run(options)
    except (BenchError, OSError) as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({scenario: {name: turn._asdict() for name, turn in rows.items()} for scenario, rows in results.items()}))
    else:
        print(render(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
