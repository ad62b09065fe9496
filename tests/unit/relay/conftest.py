"""Pairs of sockets under a loop that does nothing by itself, so that a test says when what is ready."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from cachelb.relay.ends import End


@dataclass
class Timer:
    """A call that is due later, until it is cancelled."""

    delay_s: float
    callback: Callable[[], object]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class HandLoop:
    """An event loop that a test turns by hand."""

    readers: dict[int, Callable[[], object]] = field(default_factory=dict)
    writers: dict[int, Callable[[], object]] = field(default_factory=dict)
    timers: list[Timer] = field(default_factory=list)

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> bool:
        return self.readers.pop(fd, None) is not None

    def add_writer(self, fd: int, callback: Callable[[], object]) -> None:
        self.writers[fd] = callback

    def remove_writer(self, fd: int) -> bool:
        return self.writers.pop(fd, None) is not None

    def forget(self, fd: int) -> None:
        self.remove_reader(fd)
        self.remove_writer(fd)

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        self.timers.append(Timer(delay_s, callback))
        return self.timers[-1]

    def call_soon(self, callback: Callable[[], object]) -> Timer:
        return self.call_later(0.0, callback)

    def fire(self) -> None:
        """Let the time of every timer come."""
        timers, self.timers = self.timers, []
        for timer in timers:
            if not timer.cancelled:
                timer.callback()

    def turn(self, wait_s: float = 0.0) -> bool:
        """Call back for what is ready; whether anything was."""
        poll = select.poll()
        for fd in {*self.readers, *self.writers}:
            poll.register(fd, (select.POLLIN if fd in self.readers else 0) | (select.POLLOUT if fd in self.writers else 0))
        ready = poll.poll(wait_s * 1000)
        for fd, events in ready:
            if events & ~select.POLLOUT and fd in self.readers:
                self.readers[fd]()
            if events & ~select.POLLIN and fd in self.writers:
                self.writers[fd]()
        return bool(ready)

    def run_until(self, is_true: Callable[[], object]) -> None:
        """Turn until a condition holds, ten seconds at most."""
        for _ in range(10_000):
            if is_true():
                return
            self.turn(0.001)
        raise AssertionError("in vain")


class FakeEnd(End):
    """An End that writes down what happens to it; ``feeds`` is the Pump that reads from it."""

    __slots__ = ("crashes", "feeds", "happened", "peer")

    def __init__(self, loop: HandLoop, sock: socket.socket, peer: socket.socket) -> None:
        super().__init__(loop, sock)  # type: ignore[arg-type]
        self.peer = peer
        self.feeds: Callable[[], None] | None = None
        self.happened: list[str] = []
        self.crashes: list[Exception] = []

    def readable(self) -> None:
        self.happened.append("readable")
        if self.feeds is not None:
            self.feeds()

    def broken(self) -> None:
        self.happened.append("broken")

    def crashed(self, exc: Exception) -> None:
        self.crashes.append(exc)


@pytest.fixture
def loop() -> HandLoop:
    return HandLoop()


@pytest.fixture
def make_end(loop: HandLoop) -> Iterator[Callable[..., FakeEnd]]:
    """Makes Ends; ``end.peer`` is the other side, which blocks.  small: tiny kernel buffers between the two."""
    ends: list[FakeEnd] = []

    def make(small: bool = False) -> FakeEnd:
        ours, theirs = socket.socketpair()
        if small:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        ours.setblocking(False)
        theirs.settimeout(10.0)
        ends.append(FakeEnd(loop, ours, theirs))
        return ends[-1]

    yield make
    for end in ends:
        end.shut()
        end.peer.close()
