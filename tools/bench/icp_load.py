"""Asks a service by ICP in a closed loop, and takes what the kernel charges the service for it.

It receives and sends in batches (``icp.batch``) and looks only at the first byte of each answer, so that what is measured is the
service: a C program that sends every query back was asked 150,000 times a second, at 5.5 us of our CPU, and a load generator in
C came no further (2026-11).

Left out: whom to ask, and in which turns (``icp``, ``icp_http``).
"""

from __future__ import annotations

import select
import socket
import time
from pathlib import Path
from typing import NamedTuple

from icp.batch import Batch
from icp.packet import Opcode, pack_query

from .processes import BenchError

URLS = 1000
UNDER_WAY = 32
# version 1: a version 3 query is the end of Debian's Squid 5.7
GARBAGE = b"\1\x01" + pack_query(1, b"http://www.example.com/absent/0")[2:]


class Turn(NamedTuple):
    """One measurement.

    cpu_us: the service's, per answer.  lost: queries without an answer.  median_us, p99_us: of the time to answer, where one
    query was under way.  load_us: our own CPU time per answer, where we slept while nothing came.
    """

    per_s: float
    cpu_us: float
    lost: int
    hits: float
    median_us: float = 0.0
    p99_us: float = 0.0
    load_us: float = 0.0


def held_url(number: int) -> bytes:
    return b"http://www.site%d.example.com/images/held/%d.gif" % (number % 97, number)


def queries() -> list[bytes]:
    """Held and absent URLs in turns, each with its own number."""
    urls = [held_url(number) for number in range(URLS)]
    return [pack_query(n + 1, url.replace(b"held", b"absent") if n % 2 else url) for n, url in enumerate(urls)]


def cpu_s(pid: int) -> float:
    """What this process has used so far."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def load(
    address: tuple[str, int],
    pid: int,
    seconds: float,
    *,
    under_way: int = UNDER_WAY,
    garbage: bool = False,
    sleeps: bool = True,
    wait_s: float = 0.5,
) -> Turn:
    """Keep `under_way` queries under way for `seconds`.

    Args:
        garbage: Send one packet of an unknown version before each query.
        sleeps: False: look for answers all the time, so that the service need never wake us up.
        wait_s: After this time without an answer all that is under way is lost.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        return _Loop(sock, address, under_way, garbage).run(pid, seconds, sleeps, wait_s)


class _Loop:
    def __init__(self, sock: socket.socket, address: tuple[str, int], under_way: int, garbage: bool) -> None:
        batch = Batch.of(sock)
        if batch is None:
            raise BenchError("the load generator needs recvmmsg and sendmmsg, which are Linux's")
        self._batch = batch
        self._socket = sock
        self._address = address
        self._under_way = under_way
        self._garbage = garbage
        self._queries = queries() * 2  # so that any slice of a batch's length is there
        self._next = 0

    def run(self, pid: int, seconds: float, sleeps: bool, wait_s: float) -> Turn:
        times: list[float] = []
        answered = lost = hits = 0
        receive, reply, clock = self._batch.receive, self._reply, time.perf_counter
        is_single = self._under_way == 1
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        own, used, start = time.process_time(), cpu_s(pid), clock()
        end = start + seconds
        self._begin()
        last = clock()
        while True:
            answers = receive()
            now = clock()
            if answers:
                answered += len(answers)
                hits += [answer[0] for answer in answers].count(Opcode.HIT)
                if is_single:
                    times.append(now - last)
                if now >= end:
                    break
                reply(len(answers))
                last = clock() if is_single else now
            elif now >= last + wait_s:
                lost += self._under_way
                if now >= end:
                    break
                self._begin()
                last = clock()
            elif sleeps:
                poll.poll(wait_s * 1000)
        used, own = cpu_s(pid) - used, time.process_time() - own
        times.sort()
        median, p99 = (times[len(times) // 2], times[len(times) * 99 // 100]) if times else (0.0, 0.0)
        total = max(1, answered)
        rates = answered / (now - start), used / total * 1e6, lost, hits / total
        return Turn(*rates, median * 1e6, p99 * 1e6, own / total * 1e6 if sleeps else 0.0)

    def _begin(self) -> None:
        for query in self._upcoming(self._under_way):
            self._socket.sendto(query, self._address)

    def _reply(self, count: int) -> None:
        """To so many answers, with as many queries."""
        if self._garbage:
            self._batch.send([GARBAGE] * count)
        self._batch.send(self._upcoming(count))

    def _upcoming(self, count: int) -> list[bytes]:
        at = self._next
        self._next = (at + count) % URLS
        return self._queries[at : at + count]
