"""A relay worker process: ``python -m cachelb.worker CONTROL BLOCK LISTENER...`` (descriptors), started by the
supervisor.

It does what the control socket says and lives only as long as the supervisor: when that goes, it finishes and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import mmap
import signal
import socket
import sys

import uvloop

from cachelb import control
from cachelb.counters import BLOCK_BYTES
from cachelb.eventlog import setup
from cachelb.relay.engine import Engine
from cachelb.routing.learned import Lesson
from cachelb.snapshot import BadSnapshot

log = logging.getLogger("cachelb.worker")

ORPHAN_DRAIN_S = 5.0


class Worker:
    """Carries out the supervisor's messages on one Engine."""

    def __init__(self, engine: Engine, listeners: list[socket.socket], writer: asyncio.StreamWriter) -> None:
        self.engine = engine
        self.listeners = listeners
        self.writer = writer
        self.started = False
        self.stopping = False
        engine.teach = self._teach

    def _teach(self, lessons: list[Lesson]) -> None:
        self.writer.write(control.pack(control.LESSONS, control.pack_lessons(lessons)))

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Until told to drain, or until the supervisor has gone."""
        while not self.stopping:
            message = await control.receive(reader)
            if message is None:
                log.warning("the supervisor has gone: finishing")
                await self.engine.drain(ORPHAN_DRAIN_S)
                return
            kind, payload = message
            if kind == control.SNAPSHOT:
                self._apply(payload)
            elif kind == control.LESSONS:
                self.engine.learn(control.unpack_lessons(payload))
            elif kind == control.REOPEN:
                self.engine.reports.reopen()
            elif kind == control.DRAIN:
                await self.drain(float(payload))

    def _apply(self, payload: bytes) -> None:
        try:
            epoch = self.engine.apply(payload)
        except BadSnapshot as exc:
            log.error("the supervisor sent a bad snapshot: %s", exc)
            return
        config = self.engine.config
        setup(config.log.events, config.log.level)
        if not self.started:
            self.started = True
            self.engine.start(self.listeners)
            # What is there now stays: the collector need not walk it again and again.
            gc.collect()
            gc.freeze()
        self.writer.write(control.pack(control.APPLIED, b"%d" % epoch))

    async def drain(self, deadline_s: float) -> None:
        """Finish what runs, at most for ``deadline_s`` seconds, then end."""
        if self.stopping:
            return
        self.stopping = True
        cut = await self.engine.drain(deadline_s)
        with contextlib.suppress(OSError):
            self.writer.write(control.pack(control.DRAINED, b"%d" % cut))
            await self.writer.drain()


async def serve(control_fd: int, block_fd: int, listener_fds: list[int]) -> None:
    """Run a worker on inherited descriptors."""
    loop = asyncio.get_running_loop()
    block = memoryview(mmap.mmap(block_fd, BLOCK_BYTES))
    listeners = [socket.socket(fileno=fd) for fd in listener_fds]
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=control_fd))
    worker = Worker(Engine(loop, block), listeners, writer)
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(ignored, signal.SIG_IGN)  # meant for the supervisor, sent to the whole group by a terminal
    ended = loop.create_task(worker.run(reader))

    def stop() -> None:
        drained = loop.create_task(worker.drain(worker.engine.timeouts.drain_s if worker.started else 0.0))
        drained.add_done_callback(lambda _: ended.cancel())

    loop.add_signal_handler(signal.SIGTERM, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await ended
    writer.close()


def main() -> int:
    """Entry of a worker process."""
    numbers = [int(argument) for argument in sys.argv[1:]]
    setup("text", "info")
    uvloop.run(serve(numbers[0], numbers[1], numbers[2:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
