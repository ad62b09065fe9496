"""What a client's connection takes: memory of the front end's processes before and with 5,000 of them, divided by them.

    idle     has had one answer and waits
    active   has had the first part of an answer of 1 MiB, and reads no further

Memory is what is resident, shared pages in part (PSS), of all processes of the front end.  Each is started anew for each
of the two and first answers 1,000 requests on 32 connections, so that what it needs without clients does not count.  The
kernel's own buffers are in no process; how much TCP holds altogether, clients, nodes and the load's side, is beside it.
"""

from __future__ import annotations

import contextlib
import re
import resource
import select
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .compare import Turns, wrk
from .farm import Farm
from .fronts import LOCAL, USUAL
from .load import SCENARIOS
from .processes import BenchError
from .report import Measured, Progress
from .resident import pss_kib

CLIENTS = 5000
SOURCES = 16  # addresses that they come from
RECEIVE_BYTES = 4096  # a client's buffer: it fills at once
WARM_S = 1
WAIT_S = 30.0
SETTLED_S = 1.0
SETTING = USUAL._replace(clients=CLIENTS + 1000)
STATES = ("idle", "active")


class Held(NamedTuple):
    """clients: how many there were.  before, after: KiB of the front end's.  kernel: KiB of TCP, what was added."""

    clients: int
    before_kib: int
    after_kib: int
    kernel_kib: int

    @property
    def each_kib(self) -> float:
        """KiB for each client."""
        return (self.after_kib - self.before_kib) / self.clients


def estimate_s(fronts: Sequence[str], turns: Turns) -> float:
    """About how long it takes."""
    return len(fronts) * len(STATES) * 10.0


def run(fronts: Sequence[str], turns: Turns, farm: Farm, progress: Progress) -> Measured:
    """Measure it."""
    result: dict[str, Any] = {}
    lines = [f"memory of a client's connection, of {CLIENTS:,}"]
    lines.append(f"  {'front':15}{'idle KiB':>10}{'active KiB':>12}{'kernel KiB':>22}")
    for front in fronts:
        held = {}
        for state in STATES:
            progress.step(f"memory: {front}, {state}")
            held[state] = _hold(front, state, farm)
        result[front] = {state: {**item._asdict(), "each_kib": item.each_kib} for state, item in held.items()}
        kernel = " and ".join(f"{item.kernel_kib / item.clients:.1f}" for item in held.values())
        lines.append(f"  {front:15}{held['idle'].each_kib:10.1f}{held['active'].each_kib:12.1f}{kernel:>22}")
    return Measured("\n".join(lines), result)


def _hold(front: str, state: str, farm: Farm) -> Held:
    started = farm.front(front, SETTING)
    try:
        wrk(started.port, SCENARIOS["small"], WARM_S, farm.script)
        before, kernel = pss_kib(started.pid), tcp_kib()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(started.port, number)) for number in range(CLIENTS)]
            name = "small" if state == "idle" else "1m"
            for number, client in enumerate(clients):
                host = f"www.site{number % 97}.example.com"
                head = f"GET http://{host}/{name}/obj{number}.gif HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\n\r\n"
                client.sendall(head.encode())
                if state == "idle":
                    client.recv(RECEIVE_BYTES)
            answered(clients if state == "active" else [])
            time.sleep(SETTLED_S)
            farm.check()
            after = settled(lambda: pss_kib(started.pid))
            return Held(len(clients), before, after, tcp_kib() - kernel)
    finally:
        farm.stop(front, SETTING)


def connect(port: int, number: int) -> socket.socket:
    """The client with this number, from one of several addresses."""
    client = socket.socket()
    client.settimeout(WAIT_S)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    client.bind((f"127.0.3.{1 + number % SOURCES}", 0))
    try:
        client.connect((LOCAL, port))
    except OSError:
        client.close()
        raise
    return client


def answered(clients: Sequence[socket.socket]) -> None:
    """Wait until each has had the beginning of an answer, and leave it unread.

    Raises:
        BenchError: Some have not, or were closed.
    """
    poll, waiting = select.poll(), {client.fileno(): client for client in clients}
    for number in waiting:
        poll.register(number, select.POLLIN)
    end = time.monotonic() + WAIT_S
    while waiting:
        if time.monotonic() > end:
            raise BenchError(f"{len(waiting)} of {len(clients)} clients have had no answer in {WAIT_S:.0f} s")
        for number, _ in poll.poll(1000):
            start = waiting.pop(number).recv(12, socket.MSG_PEEK)
            if start != b"HTTP/1.1 200":
                raise BenchError(f"a client was answered {start!r}")
            poll.unregister(number)


def settled(measure: Callable[[], int], pause_s: float = SETTLED_S, tries: int = 10) -> int:
    """The figure, once it no longer grows by more than 1 %."""
    value = measure()
    for _ in range(tries):
        time.sleep(pause_s)
        last, value = value, measure()
        if value <= last * 1.01:
            break
    return value


def tcp_kib() -> int:
    """KiB that TCP's buffers hold on this machine."""
    return tcp_of(Path("/proc/net/sockstat").read_text(), resource.getpagesize())


def tcp_of(sockstat: str, page_bytes: int) -> int:
    """KiB, from the text of /proc/net/sockstat."""
    match = re.search(r"^TCP:.* mem (\d+)", sockstat, re.MULTILINE)
    return int(match[1]) * page_bytes // 1024 if match else 0
