"""Moves one body from one End to another, counted.

Three ways to know the end of a body (RFC 9112, section 6.3)::

    left >= 0    so many bytes are still to come
    scanner      chunked: the scanner says where the body ends
    neither      until the source closes

Bodies that are known to be long, and tunnels, go through a pipe (``splice``) and never enter this process; the rest is
received and sent.  Back-pressure is one rule: while the sink has something unsent, the source is not read.  Every pump
audits itself: a spliced body is done only when bytes in, bytes out and the declared length are equal.
"""

from __future__ import annotations

import os
from typing import Final, Protocol

from cachelb.errors import Reason
from cachelb.http.framing import ChunkError, ChunkScanner
from cachelb.relay.ends import Buffer, End
from cachelb.relay.pipes import Pipe, Pipes

READ_BYTES: Final = 65536  # one read of a body that is copied
# Bodies with at least so much to come are spliced; below, two more system calls cost more than the copy.
SPLICE_BYTES: Final = 65536
SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Owner(Protocol):
    """Who is told how a pump fared."""

    def pump_moved(self, pump: Pump, count: int) -> None:
        """``count`` bytes have gone out to the sink, or into its buffer."""

    def pump_done(self, pump: Pump) -> None:
        """The whole body is out."""

    def pump_failed(self, pump: Pump, reason: Reason, at_source: bool) -> None:
        """The body cannot be completed; ``at_source`` says which End is to blame."""


class Pump:
    """One direction of an exchange or a tunnel."""

    __slots__ = (
        "dechunk", "ended", "left", "moved", "owner", "pipe", "pipes", "scanner", "sink", "source", "surplus", "total",
        "waiting",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        source: End,
        sink: End,
        pipes: Pipes,
        left: int = -1,
        scanner: ChunkScanner | None = None,
        dechunk: bool = False,
    ) -> None:
        self.owner = owner
        self.source = source
        self.sink = sink
        self.pipes = pipes
        self.left = left
        self.scanner = scanner
        self.dechunk = dechunk
        self.total = left
        self.moved = 0
        self.pipe: Pipe | None = None
        self.ended = False
        self.waiting = False  # for the sink, with bytes in the pipe
        self.surplus = b""  # what the source sent beyond a chunked body

    # -- starting and stopping

    def start(self, splice: bool | None = None) -> None:
        """Begin to move.  ``splice`` decides how; None leaves it to the length."""
        if splice is None:
            splice = self.scanner is None and self.left >= SPLICE_BYTES
        if splice:
            self.pipe = self.pipes.take()
        if self.sink.unsent is not None:
            self.source.pause()
            self.sink.drained = self.go_on
        else:
            self.source.resume()

    def stop(self) -> None:
        """Let go of the pipe; no more callbacks."""
        self.ended = True
        if self.waiting:
            self.waiting = False
            self.sink.loop.remove_writer(self.sink.fd)
        if self.pipe is not None:
            self.pipes.give(self.pipe)
            self.pipe = None

    def skip(self, count: int) -> None:
        """``count`` bytes of the body have been sent by somebody else."""
        if self.left >= 0:
            self.left -= count
        self.moved += count

    def go_on(self) -> None:
        """The sink has taken everything: read on."""
        if not self.ended:
            if self.has_all():
                self._finish()
            else:
                self.source.resume()

    def has_all(self) -> bool:
        """Whether the source has given everything, as far as that can be known before its end."""
        return self.left == 0 or (self.scanner is not None and self.scanner.done)

    # -- moving

    def readable(self) -> None:
        """The source has bytes: move some.  Called by the source End."""
        if self.pipe is not None:
            self._splice_in(self.pipe)
            return
        want = READ_BYTES if self.left < 0 else min(self.left, READ_BYTES)
        try:
            data = self.source.sock.recv(want)
        except BlockingIOError:
            return
        except OSError:
            self._fail(Reason.RESET, True)
            return
        if data:
            self.feed(data)
        else:
            self._source_ended()

    def feed(self, data: Buffer) -> None:
        """Move body bytes that have been received already."""
        try:
            pieces = self._measure(data)
        except ChunkError:
            self._fail(Reason.BAD_CHUNK, True)
            return
        sent = True
        count = 0
        try:
            for piece in pieces:
                count += len(piece)
                sent = self.sink.send(piece)
        except OSError:
            self._fail(Reason.RESET, False)
            return
        self.moved += count
        self.owner.pump_moved(self, count)
        if self.ended:
            return
        if not sent:
            self.source.pause()
            self.sink.drained = self.go_on
        elif self.left == 0 or (self.scanner is not None and self.scanner.done):
            self._finish()

    def _measure(self, data: Buffer) -> list[Buffer]:
        """What of ``data`` belongs to this body, in pieces for the sink; the rest becomes ``surplus``."""
        if self.scanner is not None:
            if self.dechunk:
                # In one piece: a send for each of 12,000 chunks of a byte would keep everybody waiting.
                payload = b"".join(self.scanner.payload(data))
                if self.scanner.done:
                    self.surplus = bytes(data[self.scanner.end :])
                return [payload] if payload else []
            end = self.scanner.scan(data)
            if end < len(data):
                self.surplus = bytes(data[end:])
                return [data[:end]]
            return [data]
        if self.left >= 0:
            if len(data) > self.left:
                self.surplus = bytes(data[self.left :])
                data = data[: self.left]
            self.left -= len(data)
        return [data]

    def _source_ended(self) -> None:
        if self.scanner is not None or self.left > 0:
            self._fail(Reason.TRUNCATED, True)
        else:
            self._finish()

    # -- splicing

    def _splice_in(self, pipe: Pipe) -> None:
        room = pipe.size - pipe.held
        want = room if self.left < 0 else min(self.left, room)
        if want == 0:
            self.source.pause()
            return
        try:
            count = os.splice(self.source.fd, pipe.w, want, flags=SPLICE_FLAGS)
        except BlockingIOError:
            # Either nothing has arrived, or the pipe's slots are full of small pieces: then wait for the sink.
            if pipe.held:
                self.source.pause()
            return
        except OSError:
            self._fail(Reason.RESET, True)
            return
        if count == 0:
            if self.left > 0:
                self._fail(Reason.TRUNCATED, True)
                return
            self.left = 0  # until close: what is in the pipe is the rest
        elif self.left > 0:
            self.left -= count
        pipe.held += count
        if not self.waiting:
            self._splice_out()

    def _sink_writable(self) -> None:
        try:
            self._splice_out()
        except Exception as exc:
            self.sink.crashed(exc)

    def _splice_out(self) -> None:
        """Pipe to sink, as much as it takes."""
        pipe = self.pipe
        if pipe is None:
            return
        count = 0
        if pipe.held:
            try:
                count = os.splice(pipe.r, self.sink.fd, pipe.held, flags=SPLICE_FLAGS)
            except BlockingIOError:
                pass
            except OSError:
                self._fail(Reason.RESET, False)
                return
        pipe.held -= count
        self.moved += count
        self.owner.pump_moved(self, count)
        if self.ended:
            return
        if pipe.held:
            if not self.waiting:
                self.waiting = True
                self.sink.loop.add_writer(self.sink.fd, self._sink_writable)
            if pipe.held > pipe.size // 2 or self.left == 0:
                self.source.pause()
            return
        if self.waiting:
            self.waiting = False
            self.sink.loop.remove_writer(self.sink.fd)
        if self.left == 0:
            self._finish()
        else:
            self.source.resume()

    # -- ending

    def _finish(self) -> None:
        if self.ended:
            return
        if self.pipe is not None and self.total >= 0 and (self.moved != self.total or self.pipe.held):
            self._fail(Reason.AUDIT_FAILED, True)
            return
        self.stop()
        self.owner.pump_done(self)

    def _fail(self, reason: Reason, at_source: bool) -> None:
        if not self.ended:
            self.stop()
            self.owner.pump_failed(self, reason, at_source)
