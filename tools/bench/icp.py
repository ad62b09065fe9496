"""ICP answers per second and CPU per query: our service against Debian's Squid, the same queries in the same run.

    python -m cachelb.tools.bench.icp [--rounds 3] [--seconds 2] [--json]

Each is asked in turns, alone on CPU 0, by a loop on CPU 1 (``icp_load``); half of the URLs are held.  CPU is what the kernel
charged the process (schedstat), so it does not depend on who else is busy; the rate does.

    32 under way    asked by one who sleeps until answers come, as peers do
    pushed          by one who never sleeps, so that no answer costs us a wake-up of his
    256, pushed     the same with more under way: what a service can do at most
    one at a time   gives the times to answer, wake-ups included
    with garbage    the first one, and one packet of an unknown version per query; only answers count

Our lookup is the director's own (``cluster.index``), with 100,000 keys.  "squid" logs every query, as it does unless told
otherwise; its log's helper process is not charged.  "silent" logs nothing, as we do.

2026-11, Squid 5.7 of Debian 12, ratios to "squid" / to "silent", medians of 5 rounds:

                     rate           CPU
    32 under way     1.52 / 1.09    0.71 / 0.89
    pushed           1.58 / 1.25    0.70 / 0.80
    256, pushed      2.18 / 1.65    0.50 / 0.61
    one at a time    0.77 / 0.95    1.16 / 1.10
    with garbage     2.16 / 1.50    0.49 / 0.66    CPU per answer 0 %, of the Squids +37 and +54 %

178,000 answers a second at 5.6 us, of which the kernel takes half, answering 1.2, the lookup's 0.65 included; up to 225,000 at
4.4 us when nobody else uses the machine.  Uncompiled answering takes 2.1 us.

Left out: HTTP load at the same time (``icp_http``), forward mode.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
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
from typing import Any

from cachelb.cluster.holdings import Holdings, Source
from cachelb.cluster.index import Index
from digest.key import store_key
from icp import sieve
from icp.answer import Answerer
from icp.errors import BadPacket
from icp.packet import pack_query, parse_reply
from icp.service import Service

from .icp_load import URLS, Turn, held_url, load
from .processes import SEARCH_PATH, BenchError, missing

OURS, SQUID, SILENT = ("127.0.4.1", 23130), ("127.0.4.2", 23130), ("127.0.4.4", 23130)
ORIGIN = ("127.0.4.3", 23180)
HTTP_PORT = 23128
KEYS = 100_000
READY_S = 20.0

CONFIG = """http_port {host}:{http_port}
icp_port {icp_port}
udp_incoming_address {host}
icp_access allow all
http_access allow all
visible_hostname bench
access_log {access_log}
cache_mem 64 MB
memory_cache_shared off
cache_peer {origin_host} parent {origin_port} 0 no-query no-digest originserver
never_direct allow all
pinger_enable off
dns_nameservers 127.0.0.1
hosts_file none
shutdown_lifetime 0 seconds
pid_filename {folder}/squid.pid
cache_log {folder}/squid.log
coredump_dir {folder}
"""


def index() -> Index:
    """Holds the even ones of the URLs, and many others; two nodes have them."""
    made = Index(Holdings(2 * KEYS), time.time)
    made.live = 0b11
    for number in range(0, URLS, 2):
        made.holdings.add(store_key(held_url(number)), number // 2 % 2, int(time.time()) + 86400, Source.STORE_LOG)
    for number in range(KEYS):
        made.holdings.add(store_key(b"http://elsewhere/%d" % number), number % 2, int(time.time()) + 86400, Source.STORE_LOG)
    return made


async def serve() -> None:
    """Ours.  Runs until it is killed."""
    made = index()
    answerer = Answerer(made.holds, lambda source: True, holds_all=made.holds_all, rate_per_s=0)
    await Service.start([OURS], answerer.answer, answerer.answer_all, sieve.ICP)
    await asyncio.Event().wait()


SCENARIOS: dict[str, dict[str, Any]] = {
    "32 under way": {},
    "pushed": {"sleeps": False},
    "256, pushed": {"under_way": 256, "sleeps": False},
    "one at a time": {"under_way": 1},
    "with garbage": {"garbage": True},
}
Results = dict[str, dict[str, list[Turn]]]  # by scenario and name, one per round


def measure(targets: dict[str, tuple[tuple[str, int], int]], rounds: int, seconds: float) -> Results:
    """Let them take turns: in each round every scenario, in each scenario every one of `targets` (address, process id)."""
    results: Results = {scenario: {name: [] for name in targets} for scenario in SCENARIOS}
    for _ in range(rounds):
        for scenario, options in SCENARIOS.items():
            for name, (address, pid) in targets.items():
                results[scenario][name].append(load(address, pid, seconds, **options))
    return results


def middle(turns: Sequence[Turn]) -> Turn:
    """The median of each figure."""
    return Turn(*(statistics.median(values) for values in zip(*turns, strict=True)))


def ratio(turns: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios within each round, which a slow moment of the machine does not move."""
    return statistics.median(turn / other if other else 0.0 for turn, other in zip(turns, others, strict=True))


def render(results: Results) -> str:
    """A table, and the ratios that matter."""
    lines = [f"{'':16}{'':8}{'answers/s':>11}{'CPU us':>9}{'median us':>11}{'p99 us':>9}{'load us':>9}{'lost':>6}{'hits':>7}"]
    for scenario, rows in results.items():
        for name, turns in rows.items():
            turn = middle(turns)
            times = f"{turn.median_us:11.0f}{turn.p99_us:9.0f}" if turn.median_us else f"{'-':>11}{'-':>9}"
            load_us = f"{turn.load_us:9.2f}" if turn.load_us else f"{'-':>9}"
            line = f"{scenario:16}{name:8}{turn.per_s:11,.0f}{turn.cpu_us:9.2f}{times}{load_us}{turn.lost:6.0f}{turn.hits:7.0%}"
            if "garbage" in scenario:
                before = [turn.cpu_us for turn in results["32 under way"][name]]
                line += f"   CPU {ratio([turn.cpu_us for turn in turns], before) - 1:+.0%}"
            lines.append(line)
        ours = rows["ours"]
        for name in sorted(rows.keys() - {"ours"}):
            rate, cpu_us = (
                ratio([getattr(turn, field) for turn in ours], [getattr(turn, field) for turn in rows[name]])
                for field in ("per_s", "cpu_us")
            )
            lines.append(f"{'':16}ours / {name}: rate {rate:.2f}, CPU {cpu_us:.2f}")
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
    values |= {"origin_host": ORIGIN[0], "origin_port": ORIGIN[1]}
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


def _run(options: argparse.Namespace) -> Results:
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
        print(
            json.dumps(
                {
                    scenario: {name: [turn._asdict() for turn in turns] for name, turns in rows.items()}
                    for scenario, rows in results.items()
                }
            )
        )
    else:
        print(render(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
