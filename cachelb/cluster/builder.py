"""Has digests built by another process while the event loop goes on: the director's side of ``build``.

    builder = Builder()
    built = await builder.build(holdings, order_for(holdings, live, fresh_after, bits_per_entry), fd)
    builder.close()

The process is started once and stays: 13 MB that do nothing, nice, and a fork of theirs for each build.  Why:

- a thread would hold up the event loop for 5 ms again and again (see ``digest.merge``);
- fork() of the director takes 15 ms at 3 million keys, which is how uvloop starts programs, and then copies what changes;
- vfork() takes 1 ms, but as long as the new program waits for a CPU, the event loop does too: 30 ms on a busy machine.

The records are sent in slices that keep the event loop for 0.4 ms, and a pause at least as long follows each.  5 million keys:
2.8 s, 118 MB for so long, 0.3 s of the director's CPU; no ICP answer takes more than 1.7 ms, 0.14 ms at the 99th percentile
(without a build: 0.12 ms; 2026-11, tools/bench/digest.py).

Left out: what the process does (``build``), when (``merged``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from array import array
from dataclasses import asdict

from .. import children
from ..errors import CachelbError
from . import build
from .build import ALIKE, Built, Order
from .holdings import Holdings
from .record import BUCKETS, RECORD

# One slice of the stream keeps the event loop for 0.4 ms (2026-11): 1,024 buckets at 5 million keys, 0.4 MB.
SLICE_WORK = 26_000  # records, and 6 for each bucket
_BUCKET_WORK = 6
_PAUSE_MIN_S = 0.001  # uvloop does not wait for less
# 40 times what it takes on an idle machine: 5 million keys, 3 s.
LIMIT_S = 120.0
_LIMIT_RECORD_S = LIMIT_S / 5_000_000
NICE = 10  # more than a worker: the director itself may have asked for less (``priority``), which children do not inherit
_SAID_LIMIT_BYTES = 1 << 20  # 4,096 nodes take a third of it


class BuildError(CachelbError):
    """No digest: the process could not be started, failed, was killed or took too long."""


def order_for(holdings: Holdings, live: int, fresh_after: int, bits_per_entry: int) -> Order:
    """The order for a digest of what the nodes in `live` hold (see ``holdings.mask_of``)."""
    nodes = [[slot, node] for slot, (node, _) in holdings.slots().items() if live >> node & 1]
    work = holdings.count() / BUCKETS + _BUCKET_WORK
    step = ALIKE
    while 2 * step * work <= SLICE_WORK:
        step *= 2
    return Order(bits_per_entry, fresh_after, nodes, step)


class Builder:
    """The process that builds.  One build at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None

    def prepare(self) -> None:
        """Start the process ahead of the first build.

        The first requests bring that about, and would share a CPU with Python's start: on one CPU, at 10,000 requests a second,
        99 % of their answers came within 2.8 ms instead of 1.4 (medians of nine starts, 2026-11).
        """
        if self._process is None:
            try:
                self._start()
            except OSError:  # the build tries again, and says why not
                self.close()

    async def build(self, holdings: Holdings, order: Order, fd: int) -> Built:
        """Have a digest built and written to the open file `fd`.

        Raises:
            BuildError: What `fd` contains is then of no use.
        """
        limit_s = max(LIMIT_S, holdings.count() * _LIMIT_RECORD_S)
        try:
            async with asyncio.timeout(limit_s):
                return _judged(await _exchange(holdings, order, self._ordered(fd)))
        except TimeoutError:
            self.close()
            raise BuildError(f"not built within {limit_s:.0f} s") from None
        except OSError as exc:
            self.close()
            raise BuildError(f"the process that builds: {exc.strerror or exc}") from exc
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """End the process, whatever it does; the next build starts another."""
        if self._orders is not None:
            self._orders.close()
            self._orders = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _ordered(self, fd: int) -> socket.socket:
        """The director's end of a new stream.  Raises OSError."""
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._orders is None:
            self._start()
        assert self._orders is not None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._orders, [b"build"], [theirs.fileno(), fd])
            except BaseException:
                ours.close()
                raise
        return ours

    def _start(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # a group of its own: Ctrl-C is for the director, and with one call all of it can be killed
            self._process = subprocess.Popen(
                [sys.executable, "-m", build.__name__], stdin=theirs.fileno(), process_group=0, env=children.environment()
            )
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, os.getpriority(os.PRIO_PROCESS, self._process.pid) + NICE)


async def _exchange(holdings: Holdings, order: Order, sock: socket.socket) -> bytes:
    """Send everything; what the process says then, or nothing."""
    try:
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=_SAID_LIMIT_BYTES)
    except BaseException:
        sock.close()
        raise
    writer.transport.set_write_buffer_limits(0)  # each slice is gone before the next is made
    try:
        writer.write(json.dumps(asdict(order)).encode() + b"\n")
        for first in range(0, BUCKETS, order.step):
            if writer.is_closing():  # lost meanwhile; uvloop's write() would be a RuntimeError
                return b""
            began = time.perf_counter()
            writer.write(frame(holdings, first, order.step))
            spent = time.perf_counter() - began
            await writer.drain()
            await asyncio.sleep(max(_PAUSE_MIN_S, spent))  # for others, half of the time at least
        writer.write_eof()
        return await reader.readline()
    except ConnectionError:  # it was killed
        return b""
    finally:
        writer.transport.abort()


def _judged(said: bytes) -> Built:
    if not said.endswith(b"\n"):
        raise BuildError("the process that builds ended early")
    try:
        about = json.loads(said)
        if "problem" not in about:
            about["nodes"] = [tuple(node) for node in about["nodes"]]
            return Built(**about)
    except (ValueError, TypeError):
        raise BuildError(f"the process that builds said: {said[:200].decode('utf-8', 'replace').strip()}") from None
    raise BuildError(f"the process that builds failed: {about['problem']}")


def frame(holdings: Holdings, first: int, step: int) -> bytes:
    """Slice of the stream: `step` buckets from bucket `first` on."""
    buckets = holdings.buckets(first, step)
    return b"".join((array("I", [len(bucket) // RECORD.size for bucket in buckets]), *buckets))
