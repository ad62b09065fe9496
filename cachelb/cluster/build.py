"""One digest of what all nodes hold, built in a process of its own: what that process does.

The director (``builder``) streams its records as they lie in memory; the process keeps the keys that count, by node, and when
it knows how many there are, it chooses a geometry, unites one mask for each node, and writes the digest to a file that
it was given::

    director -> process    one line of JSON: the ``Order``
                           again and again: records in each of the next buckets (u32 each), then these records
    process -> director    one line of JSON: what was ``Built``, or {"problem": "..."}

What changes while it streams may be in the digest or not, as if it had been built a moment earlier or later; each record is
whole.

``python -m cachelb.cluster.build`` waits for orders and forks for each, so that what a build takes of memory is given back.
An order is a message on its standard input with two descriptors, the stream and the file.

Left out: when to build, and what is done with the digest (``merged``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from digest import CONTROL_BYTES, Digest, build_union, geometry_for, pack_control

from .record import BUCKETS, KEY_BYTES, RECORD, SLOTS, head_of

ALIKE = BUCKETS >> 16  # buckets whose keys have the same first two bytes
COUNT_BYTES = array("I").itemsize
# Records have a tag: the slot, and above it what does not matter here.
_TAGS = 1 << 16


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
        counts = array("I", _exactly(source, order.step * COUNT_BYTES))
        data = memoryview(_exactly(source, sum(counts) * RECORD.size))
        records += sum(counts)
        at = 0
        for number in range(0, order.step, ALIKE):
            end = at + sum(counts[number : number + ALIKE]) * RECORD.size
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


def work(sock: socket.socket, fd: int) -> None:
    """Do one order: read it from `sock`, write the digest to the file `fd`, say what was done."""
    with sock, sock.makefile("rb") as source:
        try:
            order = Order(**json.loads(source.readline()))
            digest, built = unite(order, *gather(source, order))
            with open(fd, "wb", closefd=False) as file:
                file.write(pack_control(digest))
                file.write(digest.mask.to_bytes())
            said = asdict(built)
        except Exception as exc:
            said = {"problem": f"{type(exc).__name__}: {exc}"}
            while source.read(1 << 18):  # what nobody reads would make the system discard what is said
                pass
        sock.sendall(json.dumps(said).encode() + b"\n")


def main() -> int:
    """Wait for orders, until the director is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they end
    with socket.socket(fileno=sys.stdin.fileno()) as orders:
        while True:
            message, fds, _, _ = socket.recv_fds(orders, 16, 2)
            if not message:
                return 0
            if os.fork() == 0:
                with contextlib.suppress(OSError):  # the director has gone, or does not want it any more
                    work(socket.socket(fileno=fds[0]), fds[1])
                os._exit(0)
            for fd in fds:
                os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
