"""A load generator with a fixed rate: ``python -m cachelb.tools.bench.open_loop HOST PORT RATE SECONDS`` prints JSON.

A request is due every 1/RATE seconds.  It is sent on a connection that is free, or waits for one; its time begins when it
was due.  The loop asks the kernel for what has come without waiting, and when there is nothing lets others run: sleeping
would be too coarse (epoll counts in ms), and the nodes are on the same CPU.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
from collections import deque
from typing import Any

from .latency import percentile

CONNECTIONS = 64
WARM_SHARE = 0.1  # of the time, at its beginning, that does not count: connections to nodes are made
DRAIN_S = 2.0  # after the last was due: what has not come by then counts as that late
READ_BYTES = 65536


def requests() -> list[bytes]:
    """A thousand, as wrk sends them."""
    return [
        (
            f"GET http://www.site{k % 97}.example.com/small/obj{k}.gif HTTP/1.1\r\nHost: www.site{k % 97}.example.com\r\n"
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:109.0)\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
            f"Via: 1.1 child.example.com (squid/5.7)\r\nX-Forwarded-For: 10.0.0.{k % 50}\r\n"
            "Cache-Control: max-age=259200\r\nConnection: keep-alive\r\n\r\n"
        ).encode()
        for k in range(1, 1001)
    ]


def length_of(answer: bytes) -> int:
    """Bytes of a whole answer, from its head.

    Raises:
        ValueError: It is not 200 with a length.
    """
    end = answer.find(b"\r\n\r\n")
    at = answer.lower().find(b"\r\ncontent-length:", 0, end)
    if not answer.startswith(b"HTTP/1.1 200 ") or at < 0:
        raise ValueError(f"answered {answer[:60]!r}")
    return end + 4 + int(answer[at + 17 : answer.index(b"\r\n", at + 17)])


def run(address: tuple[str, int], rate: float, seconds: float) -> tuple[list[float], list[float], float]:
    """Ask for this long.

    Returns: For each request of the part that counts: seconds from when it was due to the end of its answer; seconds from
    then until it was sent; and how many were answered per second.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(address)) for _ in range(CONNECTIONS)]
        poll = stack.enter_context(select.epoll())
        by_number = {}
        for sock in sockets:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            poll.register(sock, select.EPOLLIN)
            by_number[sock.fileno()] = sock
        return _loop(by_number, poll, rate, seconds)


def _loop(sockets: dict[int, socket.socket], poll: Any, rate: float, seconds: float) -> tuple[list[float], list[float], float]:
    clock, messages, total = time.perf_counter, requests(), int(rate * seconds)
    skip = int(total * WARM_SHARE)
    free, busy = deque(sockets), {}
    got = dict.fromkeys(sockets, b"")
    times, lates, done, sent = [], [], 0, 0
    start = clock()
    end = start + seconds + DRAIN_S
    while done < total:
        now = clock()
        if now > end:
            break
        while sent < total and free and start + sent / rate <= now:
            number = free.popleft()
            sockets[number].send(messages[sent % 1000])
            busy[number] = sent
            if sent >= skip:
                lates.append(clock() - start - sent / rate)
            sent += 1
        ready = poll.poll(0, 64)
        if not ready:
            os.sched_yield()
            continue
        for number, _ in ready:
            answer = got[number] + sockets[number].recv(READ_BYTES)
            if not answer:
                raise ValueError("a connection was closed")
            if len(answer) < length_of(answer):
                got[number] = answer
                continue
            got[number] = b""
            which = busy.pop(number)
            if which >= skip:
                times.append(clock() - start - which / rate)
            done += 1
            free.append(number)
    passed = max(seconds, clock() - start)
    missing = [which for which in (*busy.values(), *range(sent, total)) if which >= skip]
    return times + [passed - which / rate for which in missing], lates, done / passed


def main(argv: list[str]) -> None:
    """Run and print."""
    host, port, rate, seconds = argv
    times, lates, per_s = run((host, int(port)), float(rate), float(seconds))
    times.sort()
    lates.sort()
    p50, p99 = (percentile(times, percent) * 1e6 for percent in (50, 99))
    late = percentile(lates or [float(seconds)], 50) * 1e6  # none: not even the part that does not count was sent
    print(json.dumps({"p50_us": p50, "p99_us": p99, "per_s": per_s, "late_us": late}))


if __name__ == "__main__":
    main(sys.argv[1:])
