"""The digest package against real Squids: theirs is read by us, ours is read by them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cachelb.demo.farm import Squid, SquidFarm, wait_until
from cachelb.demo.origin import OriginProcess, body
from cachelb.demo.traffic import Errand, run_errands
from digest import (
    CONTROL_BYTES,
    DIGEST_PATH,
    NOT_MODIFIED,
    NOT_READY,
    Digest,
    Fetched,
    Outcome,
    build,
    fetch_digest,
    pack_digest,
    parse_digest,
    store_key,
)

HELD = 10_000
ASKED = 200
# Squids up to 7.6 spoil the first 4 KB of a mask that comes together with the control block (their bug 5510)
PAUSE_S = 0.15
REBUILD_S = 10  # digest_rebuild_period of the farm's nodes


def fetched(node: Squid, if_modified_since: str = "") -> Fetched | Outcome:
    return asyncio.run(fetch_digest(node.host, node.http_port, if_modified_since=if_modified_since))


def contained(answer: Fetched | Outcome, urls: list[str]) -> list[bool]:
    assert isinstance(answer, Fetched)
    mask = parse_digest(answer.body).mask
    return [mask.contains(store_key(url.encode())) for url in urls]


class Parent:
    """A parent cache on 127.0.3.1 that serves one digest, and answers every other request with its own 200.

    pause_s: how long it waits between the control block and the mask; None sends both at once.
    """

    def __init__(self, digest: bytes, pause_s: float | None) -> None:
        self._digest = digest
        self._pause_s = pause_s
        self._listener = socket.create_server(("127.0.3.1", 0), backlog=128)
        self.host, self.port = self._listener.getsockname()
        self.digest_requests = 0
        self.other_requests = 0
        self._thread = threading.Thread(target=self._serve_all, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        self._thread.join(5)

    def _serve_all(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.settimeout(5)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            data = client.recv(65536)
            if not data:
                return  # Squid probes its parents with connections that say nothing
            request += data
        if DIGEST_PATH.encode() not in request.split(b"\r\n", 1)[0]:
            self.other_requests += 1
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
            return
        self.digest_requests += 1
        expires = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3600))
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/cache-digest\r\nContent-Length: {len(self._digest)}\r\n"
            f"Expires: {expires}\r\nConnection: close\r\n\r\n"
        ).encode()
        if self._pause_s is None:
            client.sendall(head + self._digest)
            return
        client.sendall(head + self._digest[:CONTROL_BYTES])
        time.sleep(self._pause_s)
        client.sendall(self._digest[CONTROL_BYTES:])


@pytest.fixture
def start_parent() -> Iterator[Callable[..., Parent]]:
    """``start_parent(digest, pause_s)``: a running ``Parent``."""
    with contextlib.ExitStack() as stack:

        def start(digest: bytes, pause_s: float | None = PAUSE_S) -> Parent:
            parent = Parent(digest, pause_s)
            stack.callback(parent.close)
            return parent

        yield start


def child_of(parent: Parent, farm: SquidFarm) -> Squid:
    """A downstream Squid that knows its parent's holdings by the digest alone."""
    lines = [
        f"cache_peer {parent.host} parent {parent.port} 0 name=front no-query no-netdb-exchange",
        "minimum_direct_rtt 0",
        "minimum_direct_hops 0",
        "debug_options ALL,1 72,5",
    ]
    return farm.add_child((parent.host, parent.port), lines=lines)


def ask(child: Squid, url: str) -> None:
    head = child.exchange(f"GET {url} HTTP/1.0\r\n\r\n".encode())
    assert head.startswith(b"HTTP/1.1 200 "), head[:200]


def ways(child: Squid, urls: list[str]) -> list[str]:
    """Ask for each URL once; how the child reached each, from its log."""
    for url in urls:
        ask(child, url)

    def seen() -> dict[str, str]:
        return {entry.url: entry.hierarchy.partition("/")[0] for entry in child.access_log()}

    assert wait_until(lambda: set(urls) <= seen().keys(), 10)
    found = seen()
    return [found[url] for url in urls]


def digest_is_used(child: Squid) -> bool:
    """Whether the child has read the digest whole and believes it (its debugging section 72)."""
    log = (child.directory / "cache.log").read_text("latin-1")
    return "exiting after 'success'" in log


def test_a_real_digest_contains_what_the_node_was_made_to_fetch(
    own_farm: Callable[..., SquidFarm], origin: OriginProcess, unique: str
):
    (node,) = own_farm(1).nodes
    first = fetched(node)
    assert first is NOT_READY or isinstance(first, Fetched)
    paths = [f"/static/{unique}x{number}" for number in range(60)]
    urls = [f"{origin.base}{path}?size=500" for path in paths]
    errands = [Errand("", f"{path}?size=500", body(path, 500)) for path in paths]
    results = run_errands((node.host, node.http_port), (origin.host, origin.port), errands)
    assert [result.problem for result in results] == [""] * 60

    assert wait_until(lambda: all(contained(fetched(node), urls)), 2.5 * REBUILD_S, step_s=0.5)
    answer = fetched(node)
    assert isinstance(answer, Fetched)
    digest = parse_digest(answer.body)
    assert pack_digest(digest) == answer.body
    assert digest.geometry.bits_per_entry == 5
    strangers = contained(answer, [f"{origin.base}/nobody/{number}" for number in range(2000)])
    assert sum(strangers) / 2000 == pytest.approx(digest.mask.false_positives, abs=0.04)

    assert 0 < answer.fresh_s <= REBUILD_S
    again = fetched(node, answer.last_modified)
    assert again is NOT_MODIFIED or (isinstance(again, Fetched) and again.last_modified != answer.last_modified)


def test_a_node_without_cache_dir_is_not_ready(own_farm: Callable[..., SquidFarm]):
    farm = own_farm(0)
    child = farm.add_child(("127.0.3.1", 1))  # a Squid without a cache_dir
    assert fetched(child) is NOT_READY


@pytest.mark.parametrize("bits_per_entry", [5, 8, 16])
def test_a_real_child_accepts_our_digest_and_finds_what_we_hold(
    bits_per_entry: int,
    own_farm: Callable[..., SquidFarm],
    start_parent: Callable[..., Parent],
    origin: OriginProcess,
    unique: str,
):
    held = [f"{origin.base}/static/{unique}h{number}" for number in range(HELD)]
    absent = [f"{origin.base}/static/{unique}a{number}" for number in range(ASKED)]
    digest: Digest = build(b"".join(store_key(url.encode()) for url in held), bits_per_entry)
    parent = start_parent(pack_digest(digest))
    child = child_of(parent, own_farm(0))
    ask(child, f"{origin.base}/static/{unique}first")  # makes the child fetch the digest
    assert wait_until(lambda: digest_is_used(child), 10), child.log_tail(40)
    asked_before = parent.other_requests

    assert ways(child, held[:: HELD // ASKED]) == ["CD_PARENT_HIT"] * ASKED
    assert parent.other_requests - asked_before == ASKED
    false_hits = ways(child, absent).count("CD_PARENT_HIT")
    expected = sum(digest.mask.contains(store_key(url.encode())) for url in absent)
    assert false_hits == expected
    assert false_hits <= ASKED * {5: 0.14, 8: 0.09, 16: 0.035}[bits_per_entry]  # 5.4, 2.4, 0.24 % and five standard deviations
    assert parent.digest_requests == 1
