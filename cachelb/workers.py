"""The worker processes: started, told things, restarted when they die, drained.

Each worker has a control socket, a block of counters that survives it, and its own listening sockets, which the
supervisor keeps open.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import os
import socket
import sys

from cachelb import control
from cachelb.counters import BLOCK_BYTES, FARM_INDEX, NODE_INDEX, NODE_SLOTS, node_offset

log = logging.getLogger("cachelb.workers")

RESTART_S = 0.05  # before a dead worker is started again; doubled each time that it dies young
RESTART_MAX_S = 5.0
YOUNG_S = 5.0


class Worker:
    """One worker process and what outlives it."""

    def __init__(self, number: int, listeners: list[socket.socket], pool: Workers) -> None:
        self.number = number
        self.listeners = listeners
        self.pool = pool
        self.block_fd = os.memfd_create(f"cachelb-counters-{number}")
        os.ftruncate(self.block_fd, BLOCK_BYTES)
        self.block = memoryview(mmap.mmap(self.block_fd, BLOCK_BYTES)).cast("Q")
        self.process: asyncio.subprocess.Process | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.epoch = -1
        self.restarts = 0
        self.ready = asyncio.Event()
        self.drained: int | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 while there is none."""
        return self.process.pid if self.process is not None and self.process.returncode is None else 0

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Tell the worker something; without effect while it is dead, for it is told everything when it starts."""
        if self.writer is not None and not self.writer.is_closing():
            with contextlib.suppress(OSError):
                self.writer.write(control.pack(kind, payload))

    async def live(self) -> None:
        """Run the process, again and again until the pool stops."""
        loop = asyncio.get_running_loop()
        wait = RESTART_S
        while not self.pool.stopping:
            born = loop.time()
            try:
                await self._run()
            except OSError as exc:
                log.error("cannot start worker %d: %s", self.number, exc)
            if self.pool.stopping:
                return
            code = self.process.returncode if self.process is not None else None
            self.restarts += 1
            wait = min(wait * 2, RESTART_MAX_S) if loop.time() - born < YOUNG_S else RESTART_S
            log.error("worker %d ended (%s): its connections are lost; restarting", self.number, _how(code))
            self._forget_gauges()
            await asyncio.sleep(wait)

    async def _run(self) -> None:
        ours, theirs = socket.socketpair()
        fds = [theirs.fileno(), self.block_fd, *(listener.fileno() for listener in self.listeners)]
        try:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cachelb.worker", *map(str, fds), pass_fds=fds, stdin=asyncio.subprocess.DEVNULL
            )
        finally:
            theirs.close()
        reader, self.writer = await asyncio.open_unix_connection(sock=ours)
        self.send(control.SNAPSHOT, self.pool.snapshot)
        try:
            while (message := await control.receive(reader)) is not None:
                self._told(*message)
        finally:
            self.writer.close()
            self.writer = None
            await self.process.wait()

    def _told(self, kind: bytes, payload: bytes) -> None:
        if kind == control.APPLIED:
            self.epoch = int(payload)
            self.ready.set()
        elif kind == control.DRAINED:
            self.drained = int(payload)
        elif kind == control.LESSONS:
            for other in self.pool.workers:
                if other is not self:
                    other.send(control.LESSONS, payload)

    def _forget_gauges(self) -> None:
        """What the dead process had open is closed."""
        self.block[FARM_INDEX["clients_open"]] = 0
        for slot in range(NODE_SLOTS):
            start = node_offset(slot)
            requests, ended = start + NODE_INDEX["requests"], start + NODE_INDEX["ended"]
            if self.block[requests] != self.block[ended]:
                self.block[ended] = self.block[requests]
            self.block[start + NODE_INDEX["idle"]] = 0


class Workers:
    """All workers of a director."""

    def __init__(self, listeners: list[list[socket.socket]], snapshot: bytes) -> None:
        """Args: listeners: for each worker its sockets; snapshot: what they begin with."""
        self.snapshot = snapshot
        self.stopping = False
        self.workers = [Worker(i + 1, sockets, self) for i, sockets in enumerate(listeners)]
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def blocks(self) -> list[memoryview]:
        """The counters of every worker."""
        return [worker.block for worker in self.workers]

    async def start(self) -> None:
        """Start all; returns when every one of them accepts connections."""
        self.tasks = [asyncio.create_task(worker.live()) for worker in self.workers]
        await asyncio.gather(*(worker.ready.wait() for worker in self.workers))

    def apply(self, snapshot: bytes) -> None:
        """Send a Snapshot to all, and to those that start later."""
        self.snapshot = snapshot
        self.tell(control.SNAPSHOT, snapshot)

    def tell(self, kind: bytes, payload: bytes = b"") -> None:
        """Send a message to all."""
        for worker in self.workers:
            worker.send(kind, payload)

    async def drain(self, deadline_s: float, hurry: asyncio.Event) -> int:
        """Let all finish, at most ``deadline_s`` seconds or until ``hurry``; return how many exchanges were cut."""
        self.stopping = True
        self.tell(control.DRAIN, b"%f" % deadline_s)
        for worker in self.workers:
            for listener in worker.listeners:
                listener.close()
        ended = asyncio.create_task(asyncio.wait(self.tasks))
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait({ended, hurried}, timeout=deadline_s + 2.0, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for worker in self.workers:
            if worker.pid and worker.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.kill()
        await asyncio.wait({ended}, timeout=5.0)
        return sum(worker.drained or 0 for worker in self.workers)


def _how(code: int | None) -> str:
    if code is None:
        return "never began"
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def split_listeners(per_address: list[list[socket.socket]]) -> list[list[socket.socket]]:
    """Sockets by address -> sockets by worker."""
    return [list(sockets) for sockets in zip(*per_address, strict=True)]


def passive_totals(blocks: list[memoryview], slot: int) -> tuple[int, int]:
    """What traffic has said about a node so far: failures that the node caused, and answers."""
    start = node_offset(slot)

    def total(name: str) -> int:
        return sum(block[start + NODE_INDEX[name]] for block in blocks)

    return total("connect_failures") + total("resets"), total("responses")
