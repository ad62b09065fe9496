"""The worker processes: started, told things, restarted when they die, drained.

Each worker has a control socket, a socket on which it is handed the farm's digests, a block of counters that survives it,
and its own listening sockets, which the supervisor keeps open.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import os
import socket
import sys
from collections.abc import Callable

from cachelb import children, control, handover
from cachelb.config import Config
from cachelb.counters import BLOCK_BYTES, FARM_INDEX, forget_gauges

log = logging.getLogger("cachelb.workers")

RESTART_S = 0.05  # before a dead worker is started again; doubled each time that it dies young
RESTART_MAX_S = 2.0  # its listeners stay open: who was put into its backlog waits for so long at most
YOUNG_S = 5.0
# A worker that has closed its control socket is about to end.  One that does not end is killed: longer than the time that
# it gives its exchanges when it believes that the supervisor has gone (worker.ORPHAN_DRAIN_S).
GOODBYE_S = 10.0
UNREAD_BYTES = 4 * control.MESSAGE_BYTES  # told, but not read yet; one that leaves more than this does nothing any more
# A worker that hangs keeps its listeners, and the connections that come to them.
PING_S = 5.0
SILENT_MAX = 6  # PINGs without an answer

_WORKERS_OWN = frozenset((control.APPLIED, control.DRAINED, control.PONG, control.SESSIONS))


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
        self.digests: socket.socket | None = None
        self.epoch = -1
        self.restarts = 0
        self.ready = asyncio.Event()
        self.drained: int | None = None
        self.ended = ""  # how its last process ended
        self.heard_at = 0.0  # when it answered a PING last; the event loop's clock
        self.silent = 0  # PINGs since then

    @property
    def pid(self) -> int:
        """Its process id; 0 while there is none."""
        return self.process.pid if self.process is not None and self.process.returncode is None else 0

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Tell the worker something; without effect while it is dead, for it is told everything when it starts."""
        if self.writer is None or self.writer.is_closing():
            return
        if self.writer.transport.get_write_buffer_size() > UNREAD_BYTES:
            log.error("worker %d reads nothing any more: killing it", self.number)
            self.writer.close()
            self.kill()
            return
        with contextlib.suppress(OSError):
            self.writer.write(control.pack(kind, payload))

    def hand_over(self) -> None:
        """Hand the farm's newest digest over, now or when the worker has taken those before it."""
        sock, published = self.digests, self.pool.digest
        if sock is None or published is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_writer(sock)
        try:
            if not handover.send(sock, published):
                loop.add_writer(sock, self.hand_over)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has died; the next one begins with this digest
        except OSError as exc:
            log.error("worker %d has to do without the farm's new digest: %s", self.number, exc)

    def ping(self) -> None:
        """Have it say that it is there; kill it if it has not for so long that it never will."""
        if self.epoch < 0 or not self.pid:
            return
        if self.silent < SILENT_MAX:
            self.silent += 1
            self.send(control.PING)
        else:
            log.error("worker %d has not answered for %g s: killing it", self.number, SILENT_MAX * PING_S)
            self.kill()

    def kill(self) -> None:
        """End the process at once, if there is one."""
        if self.pid and self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    @property
    def cut(self) -> int:
        """How many client connections its end has cut: what it said, or had open when it last counted."""
        return self.drained if self.drained is not None else self.block[FARM_INDEX["clients_open"]]

    async def live(self) -> None:
        """Run the process, again and again until the pool stops."""
        loop = asyncio.get_running_loop()
        wait = RESTART_S
        while not self.pool.stopping.is_set():
            born = loop.time()
            self.process, self.drained, self.silent = None, None, 0
            try:
                await self._run()
            except OSError as exc:
                log.error("cannot start worker %d: %s", self.number, exc)
            except Exception as exc:
                log.critical("internal error: worker %d: %r", self.number, exc, exc_info=exc)
            if self.pool.stopping.is_set():
                return
            code = self.process.returncode if self.process is not None else None
            self.ended = _how(code)
            self.restarts += 1
            self.epoch = -1
            wait = restart_wait(wait, loop.time() - born)
            log.error("worker %d ended (%s): its connections are lost; restarting", self.number, self.ended)
            forget_gauges(self.block)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.pool.stopping.wait(), wait)

    async def _run(self) -> None:
        ours, theirs = socket.socketpair()
        digests, taker = handover.pair()
        fds = [theirs.fileno(), self.block_fd, taker.fileno(), *(listener.fileno() for listener in self.listeners)]
        try:
            command = [sys.executable, "-m", "cachelb.worker", *map(str, fds)]
            self.process = await asyncio.create_subprocess_exec(
                *command, pass_fds=fds, stdin=asyncio.subprocess.DEVNULL, env=children.environment()
            )
        except BaseException:
            ours.close()
            digests.close()
            raise
        finally:
            theirs.close()
            taker.close()
        with digests:
            await self._attend(self.process, ours, digests)

    async def _attend(self, process: asyncio.subprocess.Process, sock: socket.socket, digests: socket.socket) -> None:
        reader, self.writer = await asyncio.open_unix_connection(sock=sock)
        self.digests = digests
        self.hand_over()  # before the Snapshot with which it begins to serve
        self.send(control.SNAPSHOT, self.pool.snapshot)
        if self.pool.stopping.is_set():  # while it was being started
            self.send(*self.pool.last_word)
        try:
            while (message := await control.receive(reader)) is not None:
                try:
                    self._told(*message)
                except Exception as exc:  # ours: it costs a message, not a worker with all its connections
                    log.critical("internal error: worker %d said %r: %r", self.number, message[0], exc, exc_info=exc)
        finally:
            self.writer.close()
            self.writer = None
            self.digests = None
            asyncio.get_running_loop().remove_writer(digests)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GOODBYE_S)
            self.kill()
            await process.wait()

    def _told(self, kind: bytes, payload: bytes) -> None:
        if kind == control.APPLIED:
            self.epoch = int(payload)
            self.ready.set()
        elif kind == control.DRAINED:
            self.drained = int(payload)
        elif kind == control.PONG:
            self.heard_at = asyncio.get_running_loop().time()
            self.silent = 0
        elif kind in (control.LESSONS, control.SESSIONS):
            for other in self.pool.workers:
                if other is not self:
                    other.send(kind, payload)
        if self.pool.heard is not None and kind not in _WORKERS_OWN:
            self.pool.heard(self, kind, payload)


class Workers:
    """All workers of a director."""

    def __init__(
        self,
        listeners: list[list[socket.socket]],
        snapshot: bytes,
        heard: Callable[[Worker, bytes, bytes], None] | None = None,
    ) -> None:
        """Begin with none running.

        Args:
            listeners: For each worker its sockets.
            snapshot: What they begin with.
            heard: Is given the messages that are not about workers: from whom, kind and payload.
        """
        self.snapshot = snapshot
        self.heard = heard
        self.digest: handover.Published | None = None
        self.stopping = asyncio.Event()
        self.last_word = control.DRAIN, b"0"
        self._until = 0.0  # while draining: when it is over; the event loop's clock
        self._hastened = asyncio.Event()
        self.workers = [Worker(i + 1, sockets, self) for i, sockets in enumerate(listeners)]
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def blocks(self) -> list[memoryview]:
        """The counters of every worker."""
        return [worker.block for worker in self.workers]

    def start(self) -> None:
        """Start all."""
        self.tasks = [asyncio.create_task(worker.live()) for worker in self.workers]

    async def ready(self) -> None:
        """Return when every one of them has accepted connections, which may be never."""
        await asyncio.gather(*(worker.ready.wait() for worker in self.workers))

    def apply(self, snapshot: bytes) -> None:
        """Send a Snapshot to all, and to those that start later."""
        self.snapshot = snapshot
        self.tell(control.SNAPSHOT, snapshot)

    def publish_digest(self, published: handover.Published) -> None:
        """Hand a digest to all, and to those that start later.  Its descriptor stays the caller's."""
        before, self.digest = self.digest, published._replace(fd=os.dup(published.fd))
        for worker in self.workers:
            worker.hand_over()
        if before is not None:
            os.close(before.fd)

    def tell(self, kind: bytes, payload: bytes = b"") -> None:
        """Send a message to all."""
        for worker in self.workers:
            worker.send(kind, payload)

    def ping(self) -> None:
        """Have all say that they are there."""
        self.tell(control.PING)

    async def watch(self) -> None:
        """Look after them for ever.  Counted, not timed: when this process was stopped for a while, nobody else is to blame."""
        while True:
            for worker in self.workers:
                worker.ping()
            await asyncio.sleep(PING_S)

    def heard_at(self) -> float:
        """When the one that answered last did so; the event loop's clock."""
        return max(worker.heard_at for worker in self.workers)

    def hasten(self, deadline_s: float) -> None:
        """While draining patiently: no more patience, and only so many seconds from now."""
        self._say_end(control.DRAIN, deadline_s)
        self._hastened.set()

    def _say_end(self, kind: bytes, deadline_s: float) -> None:
        self.last_word = kind, b"%f" % deadline_s
        self._until = asyncio.get_running_loop().time() + deadline_s + 2.0
        self.tell(*self.last_word)

    async def drain(self, deadline_s: float, hurry: asyncio.Event, *, patient: bool = False) -> int:
        """Let all finish, at most ``deadline_s`` seconds or until ``hurry``; return how many connections were cut.

        patient: Another director accepts on the same sockets; see ``relay.base``.
        """
        self.stopping.set()
        self._say_end(control.LEAVE if patient else control.DRAIN, deadline_s)
        for worker in self.workers:
            for listener in worker.listeners:
                listener.close()
        ended: asyncio.Future[object] = asyncio.ensure_future(asyncio.wait(self.tasks))
        hurried: asyncio.Future[object] = asyncio.ensure_future(hurry.wait())
        hastened: asyncio.Future[object] = asyncio.ensure_future(self._hastened.wait())
        waiting = {ended, hurried, hastened}
        while not ended.done() and not hurried.done() and (left := self._until - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if hastened.done():
                waiting.discard(hastened)
        hurried.cancel()
        hastened.cancel()
        for worker in self.workers:
            worker.kill()
        await asyncio.wait({ended}, timeout=5.0)
        if self.digest is not None:
            os.close(self.digest.fd)
            self.digest = None
        return sum(worker.cut for worker in self.workers)


def restart_wait(before_s: float, lived_s: float) -> float:
    """How long to wait before a worker that lived so long is started again; ``before_s``: how long the last time."""
    return min(before_s * 2, RESTART_MAX_S) if lived_s < YOUNG_S else RESTART_S


def _how(code: int | None) -> str:
    if code is None:
        return "never began"
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def worker_count(config: Config) -> int:
    """How many workers there are on this machine."""
    return config.relay.worker_count(len(os.sched_getaffinity(0)))
