"""Kernel pipes for ``splice``, pooled and bounded.

A body goes socket -> pipe -> socket without visiting this process.  Pipes of 1 MiB make that cheaper than HAProxy's
(which use the default 64 KiB); creating and sizing one costs some 20 us, so they are kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

PIPE_BYTES = 1 << 20  # the largest that an unprivileged process may ask for (/proc/sys/fs/pipe-max-size)
LEAST_BYTES = 65536  # the usual size; over the user's budget (pipe-user-pages-soft) one holds two pages: copying is cheaper
PIPES_MAX = 128  # a slow reader may hold a full pipe in kernel memory: 128 MiB a worker at the very most, then bodies are copied
IDLE_MAX = 32


class Pipe:
    """One pipe: ``r`` and ``w`` are its descriptors, ``size`` its capacity in bytes, ``held`` the bytes in it now."""

    __slots__ = ("held", "r", "size", "w")

    def __init__(self, size: int) -> None:
        self.r, self.w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.held = 0
        self.size = fcntl.fcntl(self.w, fcntl.F_GETPIPE_SZ)
        if size != self.size:
            with contextlib.suppress(OSError):  # over the user's pipe budget
                self.size = fcntl.fcntl(self.w, fcntl.F_SETPIPE_SZ, size)

    def close(self) -> None:
        os.close(self.r)
        os.close(self.w)


class Pipes:
    """Hands out empty pipes and takes them back."""

    def __init__(self, most: int = PIPES_MAX, size: int = PIPE_BYTES) -> None:
        self.size = size
        self.most = most
        self.used = 0
        self.idle: list[Pipe] = []

    def take(self) -> Pipe | None:
        """An empty pipe, or None when there are too many in use, or no descriptors or no room for one left: copy then."""
        if self.used >= self.most:
            return None
        try:
            pipe = self.idle.pop() if self.idle else Pipe(self.size)
        except OSError:
            return None
        if pipe.size < min(LEAST_BYTES, self.size):
            pipe.close()
            return None
        self.used += 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Take a pipe back.  One that still holds bytes is closed: they must never reach another exchange."""
        self.used -= 1
        if pipe.held == 0 and len(self.idle) < IDLE_MAX:
            self.idle.append(pipe)
        else:
            pipe.close()

    def close(self) -> None:
        """Close all that are idle."""
        while self.idle:
            self.idle.pop().close()
