"""What interception costs a worker, beside what a proxy's client costs it: the same requests, in turns."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from netbed import Bed

from cachelb.demo.director import Director
from cachelb.demo.origin import OriginProcess

# Many short turns, of which the median pair counts: what else the machine does disturbs both of a pair alike.
REQUESTS, ROUNDS = 150, 61
MOST = 1.10  # of the CPU per request of a proxy's client


def cpu_us(pid: int) -> float:
    """Of the process's first thread, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000


def ask_all(sock: socket.socket, request: bytes) -> None:
    """Each answer is read before the next request is sent."""
    for _ in range(REQUESTS):
        sock.sendall(request)
        data = sock.recv(65536)
        while b"\r\n\r\n" not in data or data.endswith(b"\r\n\r\n"):
            data += sock.recv(65536)


@pytest.mark.skipif("CACHELB_THOROUGH" not in os.environ, reason="it measures: for a quiet machine (CACHELB_THOROUGH=1)")
@pytest.mark.alone
def test_an_intercepted_request_costs_what_a_proxys_does(bed: Bed, start: Callable[..., Director]):
    nodes = []
    for space in bed.nodes:
        with space:
            nodes.append(OriginProcess(space.v4, 3128))
    director = start('[intercept]\nlisten = ["127.0.0.1:3129", "[::1]:3129"]\ninterfaces = ["client"]\n')
    with bed.router:
        [pid] = [worker["pid"] for worker in director.status()["workers"]]
    host = bed.origin.v4
    path = "/any/x?size=1"
    fields = f"Host: {host}\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\nAccept-Language: en\r\n\r\n"
    ways = {
        "proxy": (("10.77.1.1", 3128), f"GET http://{host}{path} HTTP/1.1\r\n{fields}".encode()),
        "intercepted": ((host, 80), f"GET {path} HTTP/1.1\r\n{fields}".encode()),
    }
    costs: dict[str, list[float]] = {way: [] for way in ways}
    socks = {}
    with bed.client:
        for way, (place, _) in ways.items():
            socks[way] = socket.create_connection(place, 10)
    for way, (_, request) in ways.items():
        socks[way].sendall(request)
        assert socks[way].recv(65536).startswith(b"HTTP/1.1 200")
    for _ in range(ROUNDS):
        for way, (_, request) in ways.items():
            before = cpu_us(pid)
            ask_all(socks[way], request)
            costs[way].append((cpu_us(pid) - before) / REQUESTS)
    for sock in socks.values():
        sock.close()
    for node in nodes:
        node.stop()
    usual = {way: median(values) for way, values in costs.items()}
    ratio = median(taken / proxy for taken, proxy in zip(costs["intercepted"], costs["proxy"], strict=True))
    print(f"CPU of the worker per request: proxy {usual['proxy']:.1f} us, intercepted {usual['intercepted']:.1f} us: {ratio:.3f}")
    assert ratio <= MOST
