"""One client connection: requests in, one exchange at a time, answers in order.

States::

    READING --a whole head--> BUSY --the exchange is over--> READING | LINGER | closed

While BUSY, the socket is still read: for the body of the request, for its end, or for pipelined requests, of which a bounded
number of bytes is kept.  LINGER: everything has been said, but the client may still be sending; closing now would make its
kernel throw our last answer away (RFC 9112, section 9.6).
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

from cachelb.errors import BadRequest, Reason
from cachelb.relay.attempts import IDLE
from cachelb.relay.bodies import CLOSE
from cachelb.relay.ends import End
from cachelb.relay.exchange import Exchange
from cachelb.relay.guests import ends_of
from cachelb.relay.plan import NO_FIELDS, BlockPlan, LinePlan
from cachelb.relay.upstream import Target

if TYPE_CHECKING:
    from cachelb.relay.engine import Engine
    from cachelb.relay.pinning import Pin
    from cachelb.relay.pump import Pump
    from cachelb.relay.templates import Entry
    from cachelb.wire.proxy_protocol import Ends

READING: Final = 0
BUSY: Final = 1
LINGER: Final = 2

READ_BYTES: Final = 16384  # heads are a few hundred bytes; larger ones take a few reads
AHEAD_BYTES: Final = 65536  # of pipelined requests, before the client is no longer read: one head of the largest size
LINGER_S: Final = 2.0  # Apache's MAX_SECS_TO_LINGER is 30 s, nginx's lingering_timeout 5 s: all we protect is one error page
LINGER_BYTES: Final = 1 << 20  # read and thrown away at most

_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 s: close() sends RST

UNKNOWN_LINE: Final[LinePlan[Target]] = LinePlan(b"NONE", b"error:invalid-request", 1)
UNKNOWN_BLOCK: Final = BlockPlan(b"", NO_FIELDS)


class Client(End):
    """A client connection and its current exchange.  told: its ends, where a proxy before us may have said them.

    Closed in good order, it has no exchange any more: the two hold each other, and the collector would have to find them.
    """

    __deletable__ = ("exchange",)

    __slots__ = (
        "begun", "deadline", "denied", "engine", "eof", "exchange", "held", "inbuf", "ip", "ip_bytes", "lingered", "pin", "state",
        "told", "unusual",
    )  # fmt: skip

    def __init__(self, engine: Engine, sock: socket.SocketType, ip: str, denied: bool) -> None:
        super().__init__(engine.poller, sock)
        self.engine = engine
        self.ip = ip
        self.ip_bytes = ip.encode("ascii")
        self.denied = denied
        self.held: dict[str, Entry] | None = None  # templates that do not expire while it lives, by group
        self.unusual = denied or engine.spoofing.nodes  # its requests do not go the short way
        self.told: Ends | None = None
        self.pin: Pin | None = None  # the connection that its credentials were sent on
        self.inbuf = b""
        self.state = READING
        self.eof = False
        self.begun = False  # part of a head is in inbuf
        self.lingered = 0
        self.deadline = engine.now + engine.timeouts.keep_alive_s
        self.exchange = Exchange(self, engine)

    # -- reading

    def readable(self) -> None:
        if self.closed:
            return
        try:
            if self.state == READING:
                try:
                    data = self.sock.recv(READ_BYTES)
                except BlockingIOError:
                    return
                except OSError:
                    data = b""
                if data:
                    self.take(self.inbuf + data if self.inbuf else data)
                else:
                    self._read_end()
            elif self.state == BUSY:
                upload = self.exchange.upload
                if upload is not None and not upload.ended:
                    upload.readable()
                else:
                    self._read_ahead()
            else:
                self._throw_away()
        except Exception as exc:  # ours: nothing else may suffer from it
            self.crashed(exc)

    def _read_end(self) -> None:
        """Between requests the client has said its last word, or has gone."""
        self.eof = True
        if self.inbuf and not self.begun:
            self.pause()  # the last request is here already, and about to be taken
        else:
            self.close()

    def take(self, data: bytes) -> None:
        """Begin the request at the start of ``data``, if its head is whole."""
        self.take_with(data, None)

    def take_with(self, data: bytes, block: BlockPlan | None) -> None:
        """As ``take``; block: the plan of all that comes after the first line, where that is known already."""
        exchange = self.exchange
        first, _, rest = data.partition(b"\r\n")
        plans = self.engine.plans
        line = plans.lines.young.get(first)
        if block is None:
            block = plans.blocks.young.get(rest)  # known: then the head is whole, and nothing comes after it
        size = len(data)
        if line is None or block is None:
            line, block = plans.usual(first, rest, line, block)
        if line is None or block is None:
            try:
                found = plans.of_head(data, len(self.inbuf) if self.begun else 0)
            except BadRequest as exc:
                self.inbuf = b""
                self._refuse_unread(exc)
                return
            if found is None:
                self.inbuf = data
                if not self.begun:
                    self.begun = True
                    self.deadline = self.engine.now + self.engine.timeouts.head_s
                return
            line, block, size = found
        self.state = BUSY
        self.inbuf = data[size:] if len(data) > size else b""
        exchange.line = line
        exchange.block = block
        exchange.start()

    def _refuse_unread(self, exc: BadRequest) -> None:
        """Refuse what is no request, as if it were one."""
        self.state = BUSY
        self.exchange.line = UNKNOWN_LINE
        self.exchange.block = UNKNOWN_BLOCK
        self.exchange.begin()
        self.exchange.refuse(exc)

    def _read_ahead(self) -> None:
        """While an exchange runs: keep what is pipelined, notice the end."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.broken()
            return
        if not data:
            # Half a close is a normal way to say "that was my last request": the answer is still wanted.
            self.eof = True
            self.pause()
            return
        self.inbuf += data
        if len(self.inbuf) >= AHEAD_BYTES:
            self.pause()

    def _throw_away(self) -> None:
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.lingered += len(data)
        if not data or self.lingered > LINGER_BYTES:
            self.close()

    # -- bodies

    def start_upload(self, pump: Pump, splice: bool | None = None) -> None:
        """Feed ``pump`` with what has been read already, and let it read the rest."""
        data, self.inbuf = self.inbuf, b""
        if data:
            pump.feed(data)
        if not pump.ended:
            pump.start(splice)

    def upload_over(self, pump: Pump) -> None:
        """The request's body is complete: what came after it is the next request."""
        self.inbuf = pump.surplus + self.inbuf
        self.resume()

    def unread_body(self) -> bool:
        """Whether it is the client who is waited for."""
        return self.reading

    def is_idle(self) -> bool:
        """Nothing has been asked since the last answer, and that is out."""
        return self.state == READING and not self.inbuf and self.unsent is None

    # -- after an exchange

    def announce_end(self) -> None:
        """The director is about to end: an answer that has not begun says that it is the last, unless another is asked for."""
        if self.state == BUSY and not self.exchange.answered and not self.inbuf:
            self.exchange.keep = CLOSE

    def next_request(self, keep: bool, linger: bool = False) -> None:
        """Go on with the next request, or end the connection, once everything is sent."""
        if self.closed:
            return
        if self.unsent is not None:
            self.deadline = self.engine.now + self.engine.timeouts.idle_body_s
            self.drained = lambda: self.next_request(keep, linger)
            return
        if not keep:
            if linger or self.inbuf:
                self._linger()
            else:
                self.close()
            return
        self.state = READING
        self.begun = False
        self.deadline = self.engine.now + self.engine.timeouts.keep_alive_s
        if self.inbuf:
            self.loop.call_soon(self._next_pipelined)
        elif self.eof or self.engine.closing:
            self.close()
        elif not self.reading:
            self.resume()

    def _next_pipelined(self) -> None:
        if self.state == READING and not self.closed and self.inbuf:
            data, self.inbuf = self.inbuf, b""
            try:
                self.take(data)
            except Exception as exc:
                self.crashed(exc)
                return
            if self.state == READING:  # half a head: the rest is on its way, or never comes
                if self.eof:
                    self.close()
                else:
                    self.resume()

    def _linger(self) -> None:
        self.inbuf = b""
        if self.eof:
            self.close()
            return
        self.state = LINGER
        self.deadline = self.engine.now + LINGER_S
        if self.finish_writing():
            self.resume()
        else:
            self.close()

    # -- endings

    def expired(self) -> None:
        """The deadline has passed: what that means depends on the state."""
        if self.closed:
            return  # by another one's, just now
        if self.state == BUSY and self.exchange.phase != IDLE:
            self.exchange.expired()
        elif self.state == READING and self.begun and self.unsent is None:
            self._refuse_unread(BadRequest(Reason.HEAD_TIMEOUT, f"no whole head within {self.engine.timeouts.head_s:g} s"))
        elif self.state == BUSY:
            self.abort()  # it does not take the end of an answer
        else:
            self.close()

    def broken(self) -> None:
        if self.closed:
            return
        if self.state == BUSY and self.exchange.phase != IDLE:
            self.exchange.client_gone()
        else:
            self.close()

    def progressed(self, count: int) -> None:
        if self.state == BUSY:
            self.deadline = self.engine.now + self.engine.timeouts.idle_body_s

    def crashed(self, exc: Exception) -> None:
        """A bug of ours showed in this connection: end it, keep everything else."""
        self.engine.crashed(exc)
        if self.closed:
            return
        exchange = self.exchange
        try:
            if self.state == BUSY and not (exchange.phase == IDLE and exchange.answered):
                exchange.fail(Reason.INTERNAL, type(exc).__name__)
            else:
                self.abort()
        except Exception as again:
            self.engine.crashed(again)
            self.abort()
            exchange.drop_link()

    def cut(self) -> None:
        """End the connection because the director stops."""
        if self.state == BUSY and not self.closed:
            self.exchange.keep = CLOSE
            self.exchange.fail(Reason.SHUTDOWN)
        if not self.closed:
            self.abort()

    def local_address(self) -> str:
        """The address of ours that the client connected to; empty when it has gone."""
        try:
            return str(self.sock.getsockname()[0])
        except OSError:
            return ""

    def here(self) -> tuple[bytes, int]:
        """The address and port of ours that the client connected to, as a URL has them; empty and 0 when it has gone."""
        try:
            host, port = self.sock.getsockname()[:2]
        except OSError:
            return b"", 0
        return host.removeprefix("::ffff:").partition("%")[0].encode("ascii"), port

    def ends(self) -> Ends | None:
        """Whose connection it is, and where to, as nodes are told; None when it has gone."""
        try:
            return self.told or ends_of(self.sock, *self.sock.getpeername()[:2])
        except OSError:
            return None

    def abort(self) -> None:
        """Close at once with a reset, so that a cut answer cannot be taken for a whole one."""
        if not self.closed:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except OSError:
                pass  # it has gone already
            self.close()

    def close(self) -> None:
        """Close and forget the connection."""
        if not self.closed:
            self.engine.forget(self)
            self.shut()
            if self.exchange.phase == IDLE:
                del self.exchange
