"""One digest of what all nodes hold, built by a process of its own: both of its ends.

    built = await build_aside(holdings, order, fd)         the director's
    python -m cachelb.cluster.build FD                     the other

The director streams its records as they lie in memory; the process keeps the keys that count, by node, and when it knows how
many there are, it chooses a geometry, unites one mask for each node, and writes the digest to FD::

    director -> process    one line of JSON: the ``Order``
                           again and again: records in each of the next buckets (u32 each), then these records
    process -> director    one line of JSON: what was ``Built``; on failure, whatever Python has to say

What changes while it streams may be in the digest or not, as if it had been built a moment earlier or later; each record is
whole.  A slice keeps the event loop for 0.4 ms, and a pause at least as long follows it.

Why a process: a thread would hold up the event loop for 5 ms again and again (see ``digest.merge``).  Why it is sent the
records: fork() would give it all, but holds up the loop for 15 ms at 3 million keys, and then copies what changes.

Left out: when to build, and what is done with the digest (``merged``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from digest import CONTROL_BYTES, Digest, build_union, geometry_for, pack_control

from ..errors import CachelbError
from .holdings import Holdings
from .record import BUCKETS, KEY_BYTES, RECORD, SLOTS, head_of

# One slice of the stream keeps the event loop for 0.4 ms (2026-11): 1,024 buckets at 5 million keys, 0.4 MB.
SLICE_WORK = 26_000  # records, and 6 for each bucket
_BUCKET_WORK = 6
# 40 times what it takes on an idle machine: 5 million keys, 3 s.
LIMIT_S = 120.0
_LIMIT_RECORD_S = LIMIT_S / 5_000_000
NICE = 10  # more than the director
_PAUSE_MIN_S = 0.001  # uvloop does not wait for less

# Buckets whose keys have the same first two bytes.
_ALIKE = BUCKETS >> 16
# Records have a tag: the slot, and above it the source, which does not matter here.
_TAGS = 1 << 16
_COUNT_BYTES = array("I").itemsize


class BuildError(CachelbError):
    """No digest: the process could not be started, failed, was killed or took too long."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to build.

    bits_per_entry: 1 to 127; fewer are used where so many keys would make a mask that no Squid can read.
    fresh_after: what becomes stale later, by the wall clock, is in the digest; so is what nobody knows this of.
    nodes: [slot of the records, number of the node]: whose records count.
    step: buckets in a slice of the stream.
    """

    bits_per_entry: int
    fresh_after: int
    nodes: list[list[int]]
    step: int


@dataclass(frozen=True, slots=True)
class Built:
    """What was built.

    records: that were looked at; keys: that are in the digest; one of two nodes counts twice.
    fill, false_positives: 0 to 1.  nodes: [number, keys, fill of its mask or null if it had none of its own].
    cpu_s, peak_bytes: of the process.
    """

    records: int
    keys: int
    capacity: int
    bits_per_entry: int
    size_bytes: int
    fill: float
    false_positives: float
    nodes: list[tuple[int, int, float | None]]
    cpu_s: float
    peak_bytes: int


def order_for(holdings: Holdings, live: int, fresh_after: int, bits_per_entry: int) -> Order:
    """The order for a digest of what the nodes in `live` hold (see ``holdings.mask_of``)."""
    nodes = [[slot, node] for slot, (node, _) in holdings.slots().items() if live >> node & 1]
    work = holdings.count() / BUCKETS + _BUCKET_WORK
    step = _ALIKE
    while 2 * step * work <= SLICE_WORK:
        step *= 2
    return Order(bits_per_entry, fresh_after, nodes, step)


async def build_aside(holdings: Holdings, order: Order, fd: int) -> Built:
    """Have a digest built and written to the open file `fd`, while the event loop goes on.

    Raises:
        BuildError: What `fd` contains is then of no use.
    """
    limit_s = max(LIMIT_S, holdings.count() * _LIMIT_RECORD_S)
    try:
        async with asyncio.timeout(limit_s):
            return await _build(holdings, order, fd)
    except TimeoutError:
        raise BuildError(f"not built within {limit_s:.0f} s") from None
    except OSError as exc:
        raise BuildError(f"the process that builds: {exc.strerror or exc}") from exc


async def _build(holdings: Holdings, order: Order, fd: int) -> Built:
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = await _started(theirs, fd)
    except BaseException:
        ours.close()
        raise
    ending = asyncio.ensure_future(asyncio.to_thread(process.communicate))
    try:
        with contextlib.suppress(ConnectionError):  # it ended early, and says why
            await _stream(holdings, order, ours)
        said, _ = await asyncio.shield(ending)
        return _judged(process.returncode, said)
    finally:
        process.kill()  # without effect on one that has ended
        await asyncio.wait([ending])


async def _started(stdin: socket.socket, fd: int) -> subprocess.Popen[bytes]:
    # uvloop's own way is fork(), which holds up the loop for 15 ms at 3 million keys; this is vfork(): 1 ms (2026-11)
    starting = asyncio.ensure_future(asyncio.to_thread(_start, stdin, fd))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):  # then there is none to be ended
            process = await starting
            process.kill()
            await asyncio.to_thread(process.communicate)
        raise


def _start(stdin: socket.socket, fd: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", __name__, str(fd)]
    process = subprocess.Popen(command, stdin=stdin.fileno(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=[fd])
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
    return process


async def _stream(holdings: Holdings, order: Order, sock: socket.socket) -> None:
    """Send everything; closes `sock`."""
    try:
        _, writer = await asyncio.open_unix_connection(sock=sock)
    except BaseException:
        sock.close()
        raise
    writer.transport.set_write_buffer_limits(0)  # so that nothing is left to be sent when it is closed
    try:
        writer.write(json.dumps(asdict(order)).encode() + b"\n")
        for first in range(0, BUCKETS, order.step):
            if writer.is_closing():  # it was lost meanwhile; uvloop's write() would be a RuntimeError
                return
            began = time.perf_counter()
            writer.write(frame(holdings, first, order.step))
            spent = time.perf_counter() - began
            await writer.drain()
            await asyncio.sleep(max(_PAUSE_MIN_S, spent))  # for others, half of the time at least
    except BaseException:
        writer.transport.abort()
        raise
    writer.close()


def _judged(status: int, said: bytes) -> Built:
    lines = said.decode("utf-8", "replace").splitlines()
    last = lines[-1] if lines else "nothing"
    if status:
        how = f"was killed by signal {-status}" if status < 0 else f"failed with exit status {status}"
        raise BuildError(f"the process that builds {how} and said: {last[:200]}")
    try:
        return Built(**json.loads(last))
    except (ValueError, TypeError):
        raise BuildError(f"the process that builds said: {last[:200]}") from None


def frame(holdings: Holdings, first: int, step: int) -> bytes:
    """Slice of the stream: `step` buckets from bucket `first` on."""
    buckets = holdings.buckets(first, step)
    return b"".join((array("I", [len(bucket) // RECORD.size for bucket in buckets]), *buckets))


def gather(source: BinaryIO, order: Order) -> tuple[int, dict[int, bytearray]]:
    """Read the frames of all buckets.

    Returns:
        How many records there were, and by node the keys of those that count.

    Raises:
        EOFError: The stream ended early.
    """
    kept: dict[int, list[bytes]] = {node: [] for _, node in order.nodes}
    keys = {node: bytearray() for node in kept}
    nowhere: Callable[[bytes], object] = deque[bytes](maxlen=0).append
    keep = [nowhere] * _TAGS
    for slot, node in order.nodes:
        for source_bits in range(0, _TAGS, SLOTS):
            keep[source_bits | slot] = kept[node].append
    records = 0
    for first in range(0, BUCKETS, order.step):
        counts = array("I", _exactly(source, order.step * _COUNT_BYTES))
        data = memoryview(_exactly(source, sum(counts) * RECORD.size))
        records += sum(counts)
        at = 0
        for number in range(0, order.step, _ALIKE):
            end = at + sum(counts[number : number + _ALIKE]) * RECORD.size
            head = head_of(first + number)
            # 0.25 us a record; columns cut out with strides and `compress` took as long (2026-11)
            for rest, expires, tag in RECORD.iter_unpack(data[at:end]):
                if expires > order.fresh_after or not expires:
                    keep[tag](head + rest)
            at = end
        for node, found in kept.items():
            keys[node] += b"".join(found)
            found.clear()
    return records, keys


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise EOFError(f"the stream ended {size - len(data)} bytes early")
    return data


def unite(order: Order, records: int, keys: Mapping[int, bytes | bytearray]) -> tuple[Digest, Built]:
    """The digest of what was gathered, and what there is to say of it."""
    count = sum(map(len, keys.values())) // KEY_BYTES
    digest, fills = build_union(keys, _bits_per_entry(count, order.bits_per_entry))
    built = Built(
        records=records,
        keys=count,
        capacity=digest.geometry.capacity,
        bits_per_entry=digest.geometry.bits_per_entry,
        size_bytes=CONTROL_BYTES + digest.geometry.mask_bytes,
        fill=digest.mask.fill,
        false_positives=digest.mask.false_positives,
        nodes=[(node, len(some) // KEY_BYTES, fills.get(node)) for node, some in keys.items()],
        cpu_s=time.process_time(),
        peak_bytes=_peak_bytes(),
    )
    return digest, built


def _bits_per_entry(count: int, wanted: int) -> int:
    """As many as are wanted, or as the largest mask has room for."""
    for bits_per_entry in range(wanted, 1, -1):
        with contextlib.suppress(ValueError):
            return geometry_for(count, bits_per_entry).bits_per_entry
    return 1


def _peak_bytes() -> int:
    """The most memory that this process ever had resident; getrusage() would tell that of its parent, if it was more."""
    found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def main() -> int:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the director, which ends this one
    source = sys.stdin.buffer
    order = Order(**json.loads(source.readline()))
    digest, built = unite(order, *gather(source, order))
    with open(int(sys.argv[1]), "wb", closefd=False) as file:
        file.write(pack_control(digest))
        file.write(digest.mask.to_bytes())
    print(json.dumps(asdict(built)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
