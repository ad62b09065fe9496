"""A relay worker process: ``python -m cachelb.worker CONTROL BLOCK DIGESTS LISTENER...`` (descriptors), started by the
supervisor.

It does what the control socket says and lives only as long as the supervisor: when that goes, it finishes and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import mmap
import os
import signal
import socket
import sys

import uvloop

from cachelb import control, handover
from cachelb.counters import BLOCK_BYTES
from cachelb.eventlog import setup
from cachelb.relay import sessions
from cachelb.relay.engine import Engine
from cachelb.routing.learned import Lesson
from cachelb.snapshot import BadSnapshot

log = logging.getLogger("cachelb.worker")

ORPHAN_DRAIN_S = 5.0
# Requests leave no cycles behind, only connections do, a few objects each; plans come and go by the thousand.  With Python's
# own thresholds (700, 10, 10) a tenth of the time for URLs that are not remembered went into looking for cycles (2026-11).
GC_THRESHOLDS = (20_000, 50, 100)
UNREAD_BYTES = 1 << 20  # lessons that the supervisor has not read; they are hints, so more are not kept for it


class Worker:
    """Carries out the supervisor's messages on one Engine."""

    def __init__(
        self, engine: Engine, listeners: list[socket.socket], writer: asyncio.StreamWriter, digests: socket.socket
    ) -> None:
        self.engine = engine
        self.listeners = listeners
        self.writer = writer
        self.digests = digests
        self.started = False
        self._drain: asyncio.Task[None] | None = None
        self._patient = False
        self._drained = asyncio.Event()
        engine.teach = self._teach
        engine.ask_purge = self._ask_purge
        engine.tell_seen = self._tell_seen
        engine.hot.tell = self._tell_hot
        engine.steering.templates.ask = lambda finds: self._ask(control.FIND, control.pack_finds(finds))
        engine.steering.templates.tell = lambda used: self._ask(control.USED, control.pack_used(used))
        engine.internal.manager.ask_supervisor = self._ask_report
        engine.door.services.tell_sessions = self._tell_sessions

    def _teach(self, lessons: list[Lesson]) -> None:
        if self.writer.transport.get_write_buffer_size() < UNREAD_BYTES:
            self._say(control.LESSONS, control.pack_lessons(lessons))

    def _tell_sessions(self, learned: list[sessions.Session]) -> None:
        if self.writer.transport.get_write_buffer_size() < UNREAD_BYTES:
            self._say(control.SESSIONS, sessions.pack(learned))

    def _ask_purge(self, purge: control.Purge) -> bool:
        return self._ask(control.PURGE, control.pack_purge(purge))

    def _tell_seen(self, seen: list[control.Seen]) -> None:
        if self.writer.transport.get_write_buffer_size() < UNREAD_BYTES:
            self._say(control.SEEN, control.pack_seen(seen))
        else:
            self.engine.count("sightings_dropped", len(seen))

    def _tell_hot(self, samples: list[control.Sample]) -> None:
        if self.writer.transport.get_write_buffer_size() < UNREAD_BYTES:
            self._say(control.HOT, control.pack_samples(samples))

    def _ask_report(self, ask: control.Ask) -> bool:
        return self._ask(control.ASK, control.pack_ask(ask))

    def _ask(self, kind: bytes, payload: bytes) -> bool:
        if self.writer.is_closing() or self.writer.transport.get_write_buffer_size() >= UNREAD_BYTES:
            return False
        self._say(kind, payload)
        return True

    def _say(self, kind: bytes, payload: bytes) -> None:
        if not self.writer.is_closing():
            self.writer.write(control.pack(kind, payload))

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Until it is drained: because it was told to, by message or by signal, or because the supervisor has gone."""
        listening = asyncio.create_task(self._listen(reader))
        drained = asyncio.create_task(self._drained.wait())
        await asyncio.wait({listening, drained}, return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            listening.result()
        await drained
        listening.cancel()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while (message := await control.receive(reader)) is not None:
            kind, payload = message
            if kind == control.SNAPSHOT:
                self._apply(payload)
            elif kind == control.LESSONS:
                self.engine.learn(control.unpack_lessons(payload))
            elif kind == control.SESSIONS:
                self.engine.door.services.take(list(sessions.unpack(payload)))
            elif kind == control.REOPEN:
                self.engine.reports.reopen()
            elif kind == control.PURGED:
                self.engine.purged(control.unpack_purged(payload))
            elif kind == control.REPORT:
                self.engine.internal.manager.told(control.unpack_report(payload))
            elif kind == control.FOUND:
                self.engine.steering.templates.found(control.unpack_found(payload))
            elif kind == control.FORGET:
                self.engine.steering.templates.forget(list(control.unpack_used(payload)))
            elif kind == control.LOADS:
                self.engine.take_loads(control.unpack_loads(payload))
            elif kind == control.PING:
                self._say(control.PONG, b"")
            elif kind in (control.DRAIN, control.LEAVE):
                self.drain(float(payload), patient=kind == control.LEAVE)
        if self._drain is None:
            log.warning("the supervisor has gone: finishing")
            self.drain(ORPHAN_DRAIN_S)

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
            self._take_digests()  # handed over before the Snapshot: no peer shall be told that there is none
            self.engine.start(self.listeners)
            # What is there now stays: the collector need not walk it again and again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
        self._say(control.APPLIED, b"%d" % epoch)

    def watch_digests(self) -> None:
        """Take what is handed over from now on."""
        asyncio.get_running_loop().add_reader(self.digests, self._take_digests)

    def _take_digests(self) -> None:
        """Serve the newest digest of those that have been handed over."""
        newest = None
        try:
            while (published := handover.receive(self.digests)) is not None:
                if newest is not None:
                    os.close(newest.fd)
                newest = published
        except EOFError:
            asyncio.get_running_loop().remove_reader(self.digests)
        except OSError as exc:
            log.error("a digest of the farm is lost: %s", exc)
        if newest is not None:
            self._publish(newest)

    def _publish(self, published: handover.Published) -> None:
        try:
            self.engine.publish_digest(published)
        except (OSError, ValueError) as exc:
            log.error("a digest of the farm cannot be served: %s", exc)

    def terminate(self) -> None:
        """SIGTERM: from an operator, or from an init system that sends it to all processes of a service."""
        self.drain(self.engine.timeouts.drain_s if self.started else 0.0)

    def drain(self, deadline_s: float, *, patient: bool = False) -> None:
        """Begin to finish what runs, within ``deadline_s`` seconds; then ``run`` returns.

        Who says so first, decides; but whoever is not patient ends the patience.
        """
        if self._drain is None:
            self._patient = patient
            self._drain = asyncio.create_task(self._finish(deadline_s))
        elif self._patient and not patient:
            self._patient = False
            asyncio.get_running_loop().call_soon(self.engine.hasten, deadline_s)  # after the drain has begun

    async def _finish(self, deadline_s: float) -> None:
        try:
            cut = await self.engine.drain(deadline_s, patient=self._patient)
            with contextlib.suppress(OSError):
                self._say(control.DRAINED, b"%d" % cut)
                await self.writer.drain()
        finally:
            self._drained.set()


async def serve(control_fd: int, block_fd: int, digests_fd: int, listener_fds: list[int]) -> None:
    """Run a worker on inherited descriptors."""
    loop = asyncio.get_running_loop()
    block = memoryview(mmap.mmap(block_fd, BLOCK_BYTES))
    listeners = [socket.socket(fileno=fd) for fd in listener_fds]
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=control_fd))
    worker = Worker(Engine(loop, block), listeners, writer, socket.socket(fileno=digests_fd))
    worker.watch_digests()
    loop.add_signal_handler(signal.SIGTERM, worker.terminate)
    await worker.run(reader)
    writer.close()


def main() -> int:
    """Entry of a worker process."""
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)  # meant for the supervisor, sent to the whole group by a terminal
    control_fd, block_fd, digests_fd, *listener_fds = map(int, sys.argv[1:])
    setup("text", "info")
    uvloop.run(serve(control_fd, block_fd, digests_fd, listener_fds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
