"""One connection of a TCP service: a client's, relayed to a node as it is.

States::

    HELLO --> CHOOSING --> CONNECTING --> RELAYING --> over, for one Reason
      |                      |  ^           |  each direction ends by itself; then both are over
      |  TLS only            v  |           v
      v                    next node      one side has reset its connection, or nobody said anything for too long
    no hello in time, or a bad one

Health does not hear of connects that fail: which port is asked for may be the client's choice (FTP), and nobody outside shall
make nodes look dead.  Probes find out.

Left out: who may call and which node is asked (``services``).
"""

from __future__ import annotations

import socket
from socket import SocketType
from typing import TYPE_CHECKING, Final

from cachelb.counters import CONNECT_TIME, FARM_INDEX, NODE_INDEX, note_time
from cachelb.errors import Reason
from cachelb.relay.guests import RESET, Guest
from cachelb.relay.pump import Pump
from cachelb.relay.race import Race
from cachelb.relay.upstream import BYTES, CONNECTS, ENDED, REQUESTS, SHORTAGES, Link, Target, open_link
from cachelb.wire.client_hello import HELLO_BYTES, Hello, HelloReader
from cachelb.wire.proxy_protocol import Ends, is_header, make
from cachelb.wire.server_hello import SessionReader
from cachelb.wire.tls import BadTlsError

if TYPE_CHECKING:
    from cachelb.relay.engine import Engine
    from cachelb.relay.services import Service
    from cachelb.relay.templates import Entry

HELLO: Final = 0
CHOOSING: Final = 1
CONNECTING: Final = 2
RELAYING: Final = 3

CHOOSE_S: Final = 10.0  # for a node to be chosen: what is asked gives up long before
_PEEK_BYTES: Final = 32  # enough to see that somebody begins with a PROXY header
_BYTES_IN: Final = FARM_INDEX["tcp_bytes_in"]
_BYTES_OUT: Final = FARM_INDEX["tcp_bytes_out"]
_SPLICED: Final = FARM_INDEX["bytes_spliced"]
_CONNECT_FAILURES: Final = NODE_INDEX["tcp_connect_failures"]
_CONNECTIONS: Final = NODE_INDEX["tcp_connections"]
# What ends before anything was relayed is closed, and what both sides ended; the rest is reset, so that it does not look whole.
_IN_ORDER: Final = frozenset((Reason.TCP_CLOSED,))


class Caller(Guest):
    """The client's end.

    target: who was asked last; hello: what a TLS client has said; bytes_in, bytes_out: from and to the client so far.
    started: when it called, on the engine's clock.
    """

    __slots__ = (
        "_attempt", "_connect_began", "_detail", "_early", "_hello_reader", "_last_reason", "_learning", "_link", "_race",
        "_targets", "_unchecked", "bytes_in", "bytes_out", "download", "ends", "held", "hello", "over", "service", "started",
        "state", "target", "upload",
    )  # fmt: skip

    def __init__(self, engine: Engine, sock: SocketType, service: Service, ends: Ends) -> None:
        super().__init__(engine, sock, ends.source)
        self.service = service
        self.ends = ends
        self.state = HELLO
        self.started = engine.clock()
        self.hello: Hello | None = None
        self.target: Target | None = None
        self.upload: Pump | None = None
        self.download: Pump | None = None
        self.bytes_in = self.bytes_out = 0
        self.over = False
        self.held: Entry | None = None  # the client's template, which does not expire meanwhile
        self._hello_reader: HelloReader | None = HelloReader() if service.settings.tls else None
        self._learning: SessionReader | None = SessionReader() if service.settings.tls == "session" else None
        self._early = b""  # what the client has said before there was a connection
        self._unchecked = service.checks_proxy and not service.settings.tls
        self._targets: tuple[Target, ...] = ()
        self._attempt = 0
        self._link: Link | None = None
        self._race: Race | None = None
        self._connect_began = 0.0
        self._last_reason = Reason.NO_NODE
        self._detail = "no node of the pool is in service"

    @property
    def place(self) -> str:
        """What was called: service, port, and the name that a TLS client has asked for."""
        name = self.hello.name.decode("latin-1") if self.hello is not None else ""
        return f"{self.service.settings.name}:{self.ends.destination_port}" + (f"/{name}" if name else "")

    def start(self, allowed: bool) -> None:
        """Begin.  allowed: the client may call at all."""
        try:
            self.deadline = self.engine.now + self.service.settings.hello_s
            if not allowed:
                self.end(Reason.ACCESS_DENIED)
                return
            self.held = self.engine.door.services.hold(self.service, self.ip)
            if self._hello_reader is not None:
                self.resume()
            else:
                self._route()
        except Exception as exc:  # ours: nothing else may suffer from it
            self.crashed(exc)

    # -- the client

    def readable(self) -> None:
        try:
            if self.upload is not None:
                if self._unchecked and self._speaks_proxy():
                    self.end(Reason.BAD_PROXY_HEADER, "from a client that is no trusted proxy")
                    return
                self.upload.readable()
            elif self.state == HELLO:
                self._read_hello()
        except Exception as exc:  # ours: nothing else may suffer from it
            self.crashed(exc)

    def _speaks_proxy(self) -> bool:
        self._unchecked = False
        try:
            return is_header(self.sock.recv(_PEEK_BYTES, socket.MSG_PEEK))
        except OSError:
            return False  # the pump finds out

    def _read_hello(self) -> None:
        assert self._hello_reader is not None
        try:
            data = self.sock.recv(HELLO_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end(Reason.CLIENT_GONE)
            return
        self._early += data
        try:
            self.hello = self._hello_reader.feed(data)
        except BadTlsError as exc:
            self.end(Reason.BAD_HELLO, str(exc))
            return
        if self.hello is not None:
            self._hello_reader = None
            self.pause()
            self._route()

    # -- finding a node

    def _route(self) -> None:
        self.state = CHOOSING
        self.deadline = self.engine.now + CHOOSE_S
        targets = self.engine.door.services.choose(self.service, self.ip, self.hello, self._chosen)
        if targets is not None:
            self._connect_to(targets)

    def _chosen(self, targets: tuple[Target, ...]) -> None:
        """It is known now whom to connect to."""
        if self.state == CHOOSING and not self.over:
            try:
                self._connect_to(targets)
            except Exception as exc:
                self.crashed(exc)

    def _connect_to(self, targets: tuple[Target, ...]) -> None:
        self.state = CONNECTING
        self._targets = targets
        self._attempt = 0
        self._try()

    def _try(self) -> None:
        while self._attempt < min(len(self._targets), self.service.most):
            if self._connect(self._targets[self._attempt]):
                return
            self._attempt += 1
        self.end(self._last_reason, self._detail)

    def _connect(self, target: Target) -> bool:
        engine = self.engine
        self.target = target
        self._connect_began = engine.clock()
        self.deadline = engine.now + engine.timeouts.connect_s
        target.counts[REQUESTS] += 1
        port = self.service.settings.port or self.ends.destination_port
        try:
            if not target.addresses:
                raise OSError("its name has no address")
            if len(target.addresses) > 1:
                self._race = Race(self, target, engine.poller, port)
                self._race.start()
            else:
                self._link = open_link(engine.poller, target, target.addresses[0], port)
                self._link.exchange = self
        except OSError as exc:
            self._race = None
            self._connect_failed(exc)
            return False
        return True

    def _connect_failed(self, error: OSError) -> None:
        reason = Reason.OVERLOADED if error.errno in SHORTAGES else Reason.CONNECT_REFUSED
        self._attempt_failed(reason, error.strerror or str(error))

    def _attempt_failed(self, reason: Reason, detail: str) -> None:
        target = self.target
        assert target is not None
        target.counts[_CONNECT_FAILURES] += 1
        target.counts[ENDED] += 1
        self._last_reason = reason
        self._detail = f"{target.name}: {detail}"

    def link_failed(self, error: OSError) -> None:
        """Connecting failed: the next node, if there is one."""
        self._link = self._race = None
        self._connect_failed(error)
        self._attempt += 1
        self._try()

    def link_ready(self, link: Link) -> None:
        """The connection is open: relay."""
        engine, counts = self.engine, link.target.counts
        self._race = None
        self._link = link
        counts[CONNECTS] += 1
        counts[_CONNECTIONS] += 1
        note_time(counts, CONNECT_TIME, engine.clock() - self._connect_began)
        self.state = RELAYING
        self.deadline = engine.now + self.service.settings.idle_s
        self.upload = Pump(self, self, link, engine.small_pipes)
        self.download = Pump(self, link, self, engine.small_pipes)
        first, self._early = self._early, b""
        if self.service.settings.send_proxy:
            first = make(self.service.settings.send_proxy, self.ends) + first
        if first:
            try:
                link.send(first)
            except OSError:
                self.end(Reason.TCP_RESET, link.target.name)
                return
        if self._learning is None:
            link.answering = True
            self.download.start(splice=True)
        self.upload.start(splice=True)

    # -- what links tell

    def link_data(self, link: Link, data: bytes) -> None:
        """A TLS node's first words, which are read on their way to the client."""
        download, learning = self.download, self._learning
        if download is None or learning is None:
            return
        learning.feed(data)
        if learning.done:
            self._learned(link.target, learning)
        download.feed(data)
        if not download.ended and learning.done:
            link.answering = True
            download.start(splice=True)

    def _learned(self, target: Target, learning: SessionReader) -> None:
        self._learning = None
        if self.hello is not None:
            self.engine.door.services.learn(self.service, self.hello, target, learning.session, learning.ticket)

    def link_readable(self, link: Link) -> None:
        """The node has bytes."""
        if self.download is not None and not self.download.ended:
            self.download.readable()
        else:
            link.pause()

    def link_lost(self, link: Link) -> None:
        """The node has closed while it was still being listened to, or sending its first bytes has failed."""
        link.answering = True
        self.link_readable(link)

    # -- relaying

    def pump_moved(self, pump: Pump, count: int) -> None:
        """Bytes have moved: nobody is idle."""
        engine = self.engine
        if pump is self.upload:
            self.bytes_in += count
            engine.farm[_BYTES_IN] += count
        else:
            self.bytes_out += count
            engine.farm[_BYTES_OUT] += count
        if pump.pipe is not None:
            engine.farm[_SPLICED] += count
        self.deadline = engine.now + self.service.settings.idle_s

    def pump_done(self, pump: Pump) -> None:
        """One direction has ended: the other side is told, and goes on for as long as it likes."""
        other = self.download if pump is self.upload else self.upload
        pump.source.pause()
        if other is None or other.ended:
            self.end(Reason.TCP_CLOSED)
        else:
            pump.sink.finish_writing()

    def pump_failed(self, pump: Pump, reason: Reason, at_source: bool) -> None:
        """One of the two has reset its connection, and so is the other's."""
        is_client = at_source == (pump is self.upload)
        self.end(Reason.TCP_RESET, "the client" if is_client else self.target.name if self.target is not None else "")

    def broken(self) -> None:
        self.end(Reason.TCP_RESET, "the client")

    # -- what the clock and the supervisor tell

    def expired(self) -> None:
        if self.state == HELLO:
            self.end(Reason.HELLO_TIMEOUT)
        elif self.state == CONNECTING:
            self._drop_link()
            self._attempt_failed(Reason.CONNECT_TIMEOUT, f"no connection within {self.engine.timeouts.connect_s:g} s")
            self._attempt += 1
            self._try()
        elif self.state == CHOOSING:
            self.end(Reason.NO_NODE, "none was chosen in time")
        else:
            self.end(Reason.TCP_IDLE)

    def nodes_died(self, died: set[Target]) -> None:
        target = self.target
        if self.state == CONNECTING and target is not None and target in died:
            self._drop_link()
            self._attempt_failed(Reason.NODE_DEAD, "was declared dead")
            self.engine.count("moved")
            self._route()

    def cut(self) -> None:
        self.end(Reason.SHUTDOWN)

    # -- the end

    def _drop_link(self, reset: bool = False) -> None:
        """Close the connection to the node, and whatever was being opened."""
        if self._race is not None:
            self._race.stop()
            self._race = None
        link, self._link = self._link, None
        if link is not None:
            link.exchange = None
            if reset:
                try:
                    link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                except OSError:
                    pass
            link.shut()

    def end(self, reason: Reason, detail: str = "") -> None:
        """End it."""
        if self.over:
            return
        self.over = True
        engine, target = self.engine, self.target
        for pump in (self.upload, self.download):
            if pump is not None:
                pump.stop()
        was_asked = self._link is not None or self._race is not None
        is_cut = self.state == RELAYING and reason not in _IN_ORDER
        self._drop_link(is_cut)
        if target is not None and was_asked:
            target.counts[ENDED] += 1
            target.counts[BYTES] += self.bytes_out
        engine.farm[engine.ends[reason]] += 1
        engine.reports.called(self, reason, detail)
        if engine.access_log is not None:
            engine.access_log.note_call(self, reason)
        if is_cut:
            self.abort()
        else:
            self.close()

    def crashed(self, exc: Exception) -> None:
        """A bug of ours showed in this connection: end it, keep everything else."""
        self.engine.crashed(exc)
        try:
            self.end(Reason.INTERNAL, type(exc).__name__)
        except Exception as again:
            self.engine.crashed(again)
            self.abort()
