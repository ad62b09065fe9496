"""The bodies of one exchange: what moves, when it is complete, what becomes of it when it is not; and tunnels.

A tunnel is two bodies whose ends nobody knows before.  ``Answer`` adds the head of the answer, ``Exchange`` the endings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachelb.errors import Reason
from cachelb.relay.attempts import BODY, TUNNEL, Attempts
from cachelb.relay.pump import Pump
from cachelb.relay.upstream import Link

if TYPE_CHECKING:
    from cachelb.relay.client import Client
    from cachelb.relay.engine import Engine

# How the client connection goes on after an answer: the index of Engine.tails.
KEEP: Final = 0
KEEP_10: Final = 1
CLOSE: Final = 2


class Bodies(Attempts):
    """The part of an exchange that has bytes on the way."""

    __slots__ = ("answered", "bytes_out", "download", "keep", "reusable", "status", "tunnel_end")

    def __init__(self, client: Client, engine: Engine) -> None:
        super().__init__(client, engine)
        self.download: Pump | None = None
        self.answered = False  # the head of an answer is out, or on its way
        self.keep = KEEP
        self.reusable = False  # the link may serve another exchange
        self.status = 0
        self.bytes_out = 0
        self.tunnel_end = 0.0

    def finish(self, reason: Reason = Reason.DONE) -> None:
        """End the exchange in good order.  Exchange provides it."""
        raise NotImplementedError

    # -- tunnels

    def link_ready(self, link: Link) -> None:
        if self.line.method == b"CONNECT" and not self.head:
            self.engine.count("direct_connects")
            self.race = None
            self.link = link
            self.status = 200
            self.open_tunnel(link, b"HTTP/1.1 200 Connection established\r\n\r\n", b"")
        else:
            super().link_ready(link)

    def open_tunnel(self, link: Link, answer: bytes, early: bytes) -> None:
        """From here on bytes go both ways until both sides have closed, or for too long nobody says anything."""
        engine, client = self.engine, self.client
        engine.count("tunnels")
        self.phase = TUNNEL
        self.answered = True
        self.keep = CLOSE
        self.reusable = False
        link.answering = True
        self.tunnel_end = engine.now + engine.timeouts.tunnel_total_s
        self.upload = Pump(self, client, link, engine.small_pipes)
        self.download = Pump(self, link, client, engine.small_pipes)
        self.bytes_out = len(answer)
        self._still_moving()
        try:
            client.send(answer)
        except OSError:
            self.client_gone()
            return
        link.resume()
        if early:
            self.download.feed(early)
        if self.download is not None and not self.download.ended:
            self.download.start(splice=True)
        if self.upload is not None:
            client.start_upload(self.upload, splice=True)

    def link_readable(self, link: Link) -> None:
        """The link has bytes of the body, or of the tunnel."""
        if self.download is not None and not self.download.ended:
            self.download.readable()
        else:
            link.pause()

    def pump_moved(self, pump: Pump, count: int) -> None:
        """Bytes have moved: nobody is stalled."""
        if pump is self.upload:
            self.body_used = True
            self.engine.count("bytes_in", count)
        else:
            self.bytes_out += count
        if pump.pipe is not None:
            self.engine.count("bytes_spliced", count)
        self._still_moving()

    def _still_moving(self) -> None:
        now, limits = self.engine.now, self.engine.timeouts
        if self.phase == TUNNEL:
            self.client.deadline = min(now + limits.tunnel_idle_s, self.tunnel_end)
        else:
            self.client.deadline = now + limits.idle_body_s

    def pump_done(self, pump: Pump) -> None:
        """One body, or one direction of a tunnel, is complete."""
        if self.phase == TUNNEL:
            self._half_closed(pump)
        elif pump is self.upload:
            self.client.upload_over(pump)
            self.upload = None
            self.client.deadline = self.engine.now + self.engine.timeouts.first_byte_s
        else:
            if pump.surplus:
                self.reusable = False
            if self.client.unsent is not None:
                self.wait_for_client()
            else:
                self.finish()

    def _half_closed(self, pump: Pump) -> None:
        other = self.download if pump is self.upload else self.upload
        pump.source.pause()
        if other is None or other.ended:
            self.finish()
        else:
            pump.sink.finish_writing()

    def pump_failed(self, pump: Pump, reason: Reason, at_source: bool) -> None:
        """A body cannot be completed."""
        if self.phase == TUNNEL:
            self.finish()
        elif pump is self.upload:
            self.upload = None
            self.body_used = True  # what was read and could not be sent is gone
            self.client.pause()
            if not at_source:
                # The target does not want the rest; it may have said why: its answer, or its end, comes next.
                self.keep = CLOSE
            elif reason is Reason.BAD_CHUNK:
                self.keep = CLOSE
                self.fail(Reason.BAD_CHUNK)
            else:
                self.client_gone()
        elif not at_source:
            self.client_gone()
        elif reason is Reason.BAD_CHUNK:
            self.fail(Reason.BAD_CHUNKED_ANSWER, self.targets[self.attempt].name)
        else:
            self.fail(Reason.TRUNCATED if reason is Reason.RESET else reason, self.targets[self.attempt].name)

    def wait_for_client(self) -> None:
        """The whole answer is with us, but the client has not taken all of it yet."""
        self.phase = BODY
        self.client.deadline = self.engine.now + self.engine.timeouts.idle_body_s
        self.client.drained = self.finish
        link = self.link
        if link is not None:
            # The request may not be out yet: if that fails now, it has been answered, and must not be repeated.
            self.reusable = self.reusable and link.unsent is None
            link.answering = True
            link.pause()

    def client_gone(self) -> None:
        """The client connection broke."""
        self.fail(Reason.CLIENT_GONE)
