"""The farm's digest as real children take it from a worker: around Squid's bug 5510, by path and by full URL."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from cachelb import control, handover
from cachelb.config import Config
from cachelb.counters import BLOCK_BYTES
from cachelb.demo.farm import Squid, SquidFarm, wait_until
from cachelb.demo.origin import OriginProcess
from cachelb.snapshot import NodeView, Snapshot
from digest import build, pack_digest, store_key

HELD = 5000  # at 8 bits a mask of 5 KB: the bug spoils nearly all of it
ASKED = 50
HOST = "127.0.3.2"
Front = Callable[..., tuple[str, int]]


@pytest.fixture
def start_front() -> Iterator[Front]:
    """``start_front(node, digest)``: a worker alone, in front of one node; host and port."""
    with ExitStack() as stack:

        def start(node: Squid, digest: bytes) -> tuple[str, int]:
            block_fd = os.memfd_create("block")
            os.ftruncate(block_fd, BLOCK_BYTES)
            listener = stack.enter_context(socket.create_server((HOST, 0)))
            (ours, theirs), (digests, taker) = socket.socketpair(), handover.pair()
            fds = [theirs.fileno(), block_fd, taker.fileno(), listener.fileno()]
            process = subprocess.Popen([sys.executable, "-m", "cachelb.worker", *map(str, fds)], pass_fds=fds)
            stack.callback(process.wait, 10)
            stack.enter_context(ours)
            stack.enter_context(digests)
            theirs.close()
            taker.close()
            os.close(block_fd)
            fd = os.memfd_create("digest")
            os.write(fd, digest)
            assert handover.send(digests, handover.Published(fd, len(digest), 1_795_000_000, 4_000_000_000))
            os.close(fd)
            config = Config.model_validate_json('{"relay": {"via": "front"}}')
            view = NodeView(node.name, 0, (node.host,), node.http_port, 1.0, "up")
            ours.sendall(control.pack(control.SNAPSHOT, Snapshot(1, config.model_dump_json(), (view,)).pack()))
            assert ours.recv(100) == control.pack(control.APPLIED, b"1")
            host, port = listener.getsockname()
            return str(host), int(port)

        yield start


def hits(child: Squid, urls: Sequence[str]) -> int:
    """Ask for each URL once; for how many the child's digest of its parent said yes."""
    for url in urls:
        assert child.exchange(f"GET {url} HTTP/1.0\r\n\r\n".encode()).startswith(b"HTTP/1.1 200 ")

    def seen() -> dict[str, str]:
        return {entry.url: entry.hierarchy for entry in child.access_log()}

    assert wait_until(lambda: set(urls) <= seen().keys(), 10)
    found = seen()
    return sum("CD_PARENT_HIT" in found[url] for url in urls)


@pytest.mark.parametrize("lines", [[], ["never_direct allow all"]], ids=["path", "full URL"])
def test_a_child_finds_in_the_digest_what_is_held(
    own_farm: Callable[..., SquidFarm], start_front: Front, origin: OriginProcess, unique: str, lines: list[str]
) -> None:
    farm = own_farm(1)
    held = [f"{origin.base}/static/{unique}h{number}" for number in range(HELD)]
    absent = [f"{origin.base}/static/{unique}a{number}" for number in range(ASKED)]
    host, port = start_front(farm.nodes[0], pack_digest(build(b"".join(store_key(url.encode()) for url in held), 8)))
    peer = f"cache_peer {host} parent {port} 0 name=front no-query no-netdb-exchange"
    child = farm.add_child((host, port), lines=[peer, "minimum_direct_rtt 0", "debug_options ALL,1 72,5", *lines])
    assert child.exchange(f"GET {origin.base}/static/{unique}first HTTP/1.0\r\n\r\n".encode()).startswith(b"HTTP/1.1 200 ")
    assert wait_until(lambda: "exiting after 'success'" in (child.directory / "cache.log").read_text("latin-1"), 10)
    assert hits(child, held[:: HELD // ASKED]) == ASKED
    assert hits(child, absent) <= ASKED * 0.1
