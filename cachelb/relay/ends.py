"""One socket under the event loop: what client connections and links to nodes have in common.

An End knows whether it is being read, and keeps at most one unsent piece.  It decides nothing: who reads, what is sent and
what a failure means is for its subclasses and their exchange.  The reader is registered once and stays: each change is a
system call.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

Buffer = bytes | memoryview


class Loop(Protocol):
    """What an End needs of its loop; ``forget`` is for a descriptor that is closed next."""

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None: ...

    def remove_reader(self, fd: int) -> bool: ...

    def add_writer(self, fd: int, callback: Callable[[], object]) -> None: ...

    def remove_writer(self, fd: int) -> bool: ...

    def forget(self, fd: int) -> None: ...

    def call_soon(self, callback: Callable[[], object]) -> asyncio.Handle: ...

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> asyncio.TimerHandle: ...


class End:
    """A non-blocking stream socket that the event loop watches.

    Attributes:
        unsent: what the socket did not take yet; at most one piece, so bounded by what was sent last.
        drained: called once when ``unsent`` has gone out.
    """

    __slots__ = ("closed", "drained", "fd", "loop", "reading", "sock", "unsent")

    def __init__(self, loop: Loop, sock: socket.SocketType) -> None:
        self.loop = loop
        self.sock = sock
        self.fd = sock.fileno()
        self.reading = False
        self.closed = False
        self.unsent: memoryview | None = None
        self.drained: Callable[[], None] | None = None

    def readable(self) -> None:
        """The loop says that the socket has bytes, or its end."""
        raise NotImplementedError

    def broken(self) -> None:
        """Sending what was left failed: the peer has gone."""
        raise NotImplementedError

    def crashed(self, exc: Exception) -> None:
        """A bug of ours showed in a callback: whoever uses this End ends, and nobody else."""
        raise NotImplementedError

    def resume(self) -> None:
        """Read from the socket when it has something."""
        if not self.reading and not self.closed:
            self.reading = True
            self.loop.add_reader(self.fd, self.readable)

    def pause(self) -> None:
        """Leave what arrives in the kernel, so that the peer is slowed down."""
        if self.reading:
            self.reading = False
            self.loop.remove_reader(self.fd)

    def send(self, data: Buffer, more: bool = False) -> bool:
        """Send ``data``, or what the socket takes of it and the rest later.

        Args:
            more: the next piece is sent at once: it may travel with this one.

        Returns:
            True when all of it is out; otherwise ``drained`` is called when it is.

        Raises:
            OSError: The peer has gone.
        """
        if self.unsent is not None:
            # Only what follows an interim answer, and pumps of a few bytes, come here: everything else waits for ``drained``.
            self.unsent = memoryview(bytes(self.unsent) + bytes(data))
            return False
        try:
            sent = self.sock.send(data, socket.MSG_MORE) if more else self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return True
        self._keep(memoryview(data)[sent:])
        return False

    def send_parts(self, parts: Sequence[Buffer]) -> bool:
        """Send several pieces with one system call; as ``send`` otherwise."""
        if self.unsent is not None:
            return self.send(b"".join(parts))
        try:
            sent = self.sock.sendmsg(parts)
        except BlockingIOError:
            sent = 0
        for i, part in enumerate(parts):
            if sent < len(part):
                rest = memoryview(part)[sent:] if i == len(parts) - 1 else b"".join([part[sent:], *parts[i + 1 :]])
                self._keep(memoryview(rest))
                return False
            sent -= len(part)
        return True

    def _keep(self, rest: memoryview) -> None:
        self.unsent = rest
        self.loop.add_writer(self.fd, self._flush)

    def _flush(self) -> None:
        try:
            self._send_unsent()
        except Exception as exc:
            self.crashed(exc)

    def _send_unsent(self) -> None:
        assert self.unsent is not None
        try:
            sent = self.sock.send(self.unsent)
        except BlockingIOError:
            return
        except OSError:
            self.loop.remove_writer(self.fd)
            self.unsent = None
            self.broken()
            return
        self.progressed(sent)
        self.unsent = self.unsent[sent:]
        if not self.unsent:
            self.unsent = None
            self.loop.remove_writer(self.fd)
            drained, self.drained = self.drained, None
            if drained is not None:
                drained()

    def progressed(self, count: int) -> None:
        """``count`` bytes of what was left have gone out: whoever keeps time may note it."""

    def finish_writing(self) -> bool:
        """Tell the peer that nothing more will come; False when it has gone."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return True

    def shut(self) -> None:
        """Close the socket and forget it.  Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        self.reading = False
        self.loop.forget(self.fd)  # a pump may have a writer on it, too
        self.unsent = None
        self.drained = None
        self.sock.close()
