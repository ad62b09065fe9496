"""Bodies of every length and framing arrive as they were sent, to fast and slow readers, in little memory.

A body is compared with what it must be while it is read, so that no test holds more than a block of it.
"""

from __future__ import annotations

import hashlib
import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes import Answer, Peer, chunk, get, parse_answer_head

from cachelb.demo.director import Director
from cachelb.demo.farm import SquidFarm, wait_until
from cachelb.demo.origin import OriginProcess, body_blocks

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = (0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB)
FRAMINGS = ("large", "chunked", "close")  # the origin's words for: with a length, chunked, until it closes
DIRECT = "Cache-Control: no-store"  # makes a request go around the farm, so that the origin's own framing is relayed
SLOW_BYTES = 8 * KIB  # what a slow reader takes at a time
MEMORY_LIMIT_KIB = 150 * KIB
CONNECTIONS = 1000
STALLED = 15  # of them within a body of 1 GiB, reading nothing: that costs the kernel some 16 MiB each


class Wrong(AssertionError):
    """A body is not what it must be."""


def read_pieces(peer: Peer, answer: Answer, slow: bool) -> Iterator[bytes]:
    """The body of `answer`, without its framing."""
    most = SLOW_BYTES if slow else 256 * KIB

    def exactly(count: int) -> Iterator[bytes]:
        while count:
            piece = peer.read_exactly(min(count, most))
            count -= len(piece)
            yield piece
            if slow:
                time.sleep(0.0005)  # this is what makes it slow

    if answer.fields.get(b"transfer-encoding") == b"chunked":
        while size := int(peer.read_until(b"\r\n").partition(b";")[0], 16):
            yield from exactly(size)
            assert peer.read_exactly(2) == b"\r\n"
        while peer.read_until(b"\r\n") != b"\r\n":
            pass  # trailers
    elif b"content-length" in answer.fields:
        yield from exactly(int(answer.fields[b"content-length"]))
    else:
        while data := peer.read_some():
            yield data


def compare(pieces: Iterator[bytes], name: str, size: int, stop: int = -1) -> None:
    """Read and compare the body `name` of `size` bytes, or its first `stop` bytes.  Raises Wrong."""
    blocks = body_blocks(name, size)
    rest = b""
    at = 0
    for piece in pieces:
        view = memoryview(piece)
        while view:
            if not rest:
                rest = next(blocks, b"")
                if not rest:
                    raise Wrong(f"{name}: more than {size} bytes")
            count = min(len(view), len(rest))
            if view[:count] != rest[:count]:
                raise Wrong(f"{name}: differs after byte {at}")
            view, rest, at = view[count:], rest[count:], at + count
        if 0 <= stop <= at:
            return
    if at != size:
        raise Wrong(f"{name}: {at} bytes, not {size}")


def connect(director: Director, receive_bytes: int = 0) -> Peer:
    """A client.  receive_bytes: its kernel's buffer, where that shall not swallow what it does not read."""
    sock = socket.socket()
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.settimeout(30)
    sock.connect(director.http)
    return Peer(sock)


def fetch(peer: Peer, origin: OriginProcess, path: str, size: int, *fields: str, slow: bool = False) -> Answer:
    """Ask for the `size` bytes of `path` and compare them; the answer's head."""
    peer.send(get(f"{origin.base}{path}?size={size}", *fields))
    answer = parse_answer_head(peer.read_head())
    assert answer.status == 200
    compare(read_pieces(peer, answer, slow), path, size)
    return answer


def peak_kib(pid: int) -> int:
    """The most memory that a process ever had resident, KiB."""
    (line,) = (x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1])


def test_the_comparison_notices_what_is_wrong():
    right = b"".join(body_blocks("x", 100_000))
    compare(iter([right[:70_000], right[70_000:]]), "x", 100_000)
    for wrong in (right[:-1], right + b"x", right[:80_000] + b"?" + right[80_001:]):
        with pytest.raises(Wrong):
            compare(iter([wrong]), "x", 100_000)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_length_arrives_whole(
    squid_farm: SquidFarm,
    origin: OriginProcess,
    start_director: Callable[..., Director],
    unique: str,
    framing: str,
):
    director = start_director(squid_farm)
    for size in SIZES:
        path = f"/{framing}/{unique}-{size}"
        for slow in (False, True):
            peer = connect(director, 4 * KIB if slow else 0)
            fetch(peer, origin, path, size, slow=slow)  # from the origin through a Squid
            fetch(peer, origin, path, size, slow=slow)  # from the Squid
            answer = fetch(peer, origin, path, size, DIRECT, slow=slow)
            if framing == "chunked":
                assert answer.fields[b"transfer-encoding"] == b"chunked"
            if framing == "close":
                assert b"content-length" not in answer.fields
                assert peer.is_closed()
            peer.close()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_client_of_http_1_0_gets_every_length(
    squid_farm: SquidFarm,
    origin: OriginProcess,
    start_director: Callable[..., Director],
    unique: str,
    framing: str,
):
    director = start_director(squid_farm)
    path = f"/{framing}/{unique}"
    for size in SIZES:
        for fields in ((), (DIRECT,)):
            peer = connect(director)
            peer.send(get(f"{origin.base}{path}?size={size}", *fields, version="1.0"))
            answer = parse_answer_head(peer.read_head())
            assert b"transfer-encoding" not in answer.fields
            compare(read_pieces(peer, answer, False), path, size)
            assert peer.is_closed()
            peer.close()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_hundred_mebibytes(
    squid_farm: SquidFarm,
    origin: OriginProcess,
    start_director: Callable[..., Director],
    unique: str,
    framing: str,
):
    director = start_director(squid_farm)
    for fields in ((), (DIRECT,)):
        peer = connect(director)
        fetch(peer, origin, f"/{framing}/{unique}", 100 * MIB, *fields)
        peer.close()
    (worker,) = director.status()["workers"]
    assert peak_kib(worker["pid"]) < MEMORY_LIMIT_KIB


@pytest.fixture
def many_files() -> Iterator[None]:
    """A thousand sockets are more than the usual limit of a process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * CONNECTIONS)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_a_worker_with_a_thousand_connections_and_bodies_of_a_gibibyte_stays_small(
    squid_farm: SquidFarm, origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    director = start_director(squid_farm)
    peers = [connect(director, 4 * KIB) for _ in range(CONNECTIONS)]
    for peer in peers:
        fetch(peer, origin, f"/static/{unique}", 1000)
    stalled = []
    for n, peer in enumerate(peers[:STALLED]):
        framing = FRAMINGS[n % 3]
        path = f"/{framing}/{unique}-{n}"
        fields = (DIRECT,) if n % 2 else ()
        peer.send(get(f"{origin.base}{path}?size={GIB}", *fields))
        stalled.append((peer, path, parse_answer_head(peer.read_head())))

    def whole(framing: str, *fields: str) -> None:
        peer = connect(director)
        fetch(peer, origin, f"/{framing}/{unique}", GIB, *fields)
        peer.close()

    with ThreadPoolExecutor(3) as pool:
        began = time.monotonic()
        for done in [pool.submit(whole, *what) for what in (("large",), ("chunked", DIRECT), ("close", DIRECT))]:
            done.result()
    took_s = time.monotonic() - began
    for peer, path, answer in stalled:
        compare(read_pieces(peer, answer, False), path, GIB, stop=2 * MIB)
    assert wait_until(lambda: director.status()["farm"]["clients_open"] == CONNECTIONS, 5)
    (worker,) = director.status()["workers"]
    peak = peak_kib(worker["pid"])
    print(f"{peak / KIB:.0f} MiB at most; 3 bodies of 1 GiB took {took_s:.1f} s")
    for peer in peers:
        peer.close()
    assert peak < MEMORY_LIMIT_KIB
    assert worker["restarts"] == 0


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_uploads_arrive_whole(
    squid_farm: SquidFarm,
    origin: OriginProcess,
    start_director: Callable[..., Director],
    unique: str,
    coding: str,
):
    director = start_director(squid_farm)
    for size in (0, 1, 64 * KIB, 64 * KIB + 1, 64 * MIB):
        digest = hashlib.sha256()
        peer = connect(director)
        url = f"{origin.base}/upload/{unique}"
        framing = f"Content-Length: {size}" if coding == "length" else "Transfer-Encoding: chunked"
        peer.send(get(url, framing, method="POST"))
        for block in body_blocks(unique, size):
            digest.update(block)
            peer.send(block if coding == "length" else chunk(block, len(block))[: -len(b"0\r\n\r\n")])
        if coding == "chunked":
            peer.send(b"0\r\n\r\n")
        answer = peer.read_answer()
        assert answer.status == 200
        assert json.loads(answer.body) == {"length": size, "sha256": digest.hexdigest()}
        assert fetch(peer, origin, f"/static/{unique}", 100).status == 200  # the connection is still good
        peer.close()
    (worker,) = director.status()["workers"]
    assert peak_kib(worker["pid"]) < MEMORY_LIMIT_KIB
