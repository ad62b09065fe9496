"""A connection that its client believes to have with a server.

It is a client connection like any other, but for the start of each request: the address that the client has connected to is
where the request was meant to go, and ``GET /path`` with a Host field becomes ``GET http://host/path``, which the nodes are then
asked for as by any proxy's client.  That is done only where Host leads to that address (``interception``); what does not is asked
of that address itself, past every cache.  The address is also where requests go that are not for caches.

What does not begin as HTTP is tunnelled to that address, or refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cachelb.counters import FARM_INDEX
from cachelb.errors import BadRequest, Reason
from cachelb.http.framing import request_body
from cachelb.http.head import RequestHead, scan_request
from cachelb.relay.attempts import IDLE, RESOLVING
from cachelb.relay.bodies import CLOSE, KEEP, KEEP_10
from cachelb.relay.client import BUSY, READING, UNKNOWN_BLOCK, UNKNOWN_LINE, Client
from cachelb.relay.exchange import Exchange
from cachelb.relay.interception import Place
from cachelb.relay.plan import BlockPlan, LinePlan
from cachelb.routing.classify import INTERNAL_PREFIX, Kind

if TYPE_CHECKING:
    import socket

    from cachelb.relay.engine import Engine
    from cachelb.relay.upstream import Link, Target

UNVERIFIED: Final = "unverified"
NOT_HTTP: Final = "not-http"

_REQUESTS: Final = FARM_INDEX["requests"]
_BEGIN_BYTES: Final = 32  # of a method with a space and the first byte of a path; longer ones are nobody's
# what a server may be asked: a path, or "*"; absolute URLs and CONNECT are for a proxy, which this then is not
_is_http: Final = re.compile(rb"(?:\r\n){0,2}(?!PRI \* HTTP/2)[A-Z][A-Z-]*+ [/*]").match
_may_be_http: Final = re.compile(rb"(?:\r\n?){0,2}(?:[A-Z][A-Z-]*+ ?)?").fullmatch


class Intercepted(Client):
    """An intercepted connection.  place: where the client has connected to."""

    __slots__ = ("is_http", "place")

    def __init__(self, engine: Engine, sock: socket.SocketType, ip: str, denied: bool) -> None:
        super().__init__(engine, sock, ip, denied)
        self.exchange = InterceptedExchange(self, engine)
        self.is_http = False  # until its first request has begun
        host, port = sock.getsockname()[:2]
        self.place = Place(host, port)

    @property
    def own(self) -> InterceptedExchange:
        """Its exchange, as what it is."""
        exchange = self.exchange
        assert isinstance(exchange, InterceptedExchange)
        return exchange

    def local_address(self) -> str:
        """None of ours: the client has not connected to us."""
        return ""

    def here(self) -> tuple[bytes, int]:
        """Nowhere: internal pages are ours by our own names only."""
        return b"", 0

    # -- requests

    def take(self, data: bytes) -> None:
        """Begin the request at the start of ``data``, if its head is whole."""
        if not self.is_http:
            if _is_http(data) is not None:
                self.is_http = True
            elif len(data) > _BEGIN_BYTES or _may_be_http(data) is None:
                self._pass_on(data)
                return
        try:
            self._take(data)
        except BadRequest as exc:
            self.inbuf = b""
            self._refuse_unread(exc)

    def _take(self, data: bytes) -> None:
        engine = self.engine
        first, _, rest = data.partition(b"\r\n")
        block = engine.plans.blocks.young.get(rest)  # known: then the head is whole, and nothing comes after it
        parts = first.split(b" ")
        if block is None or block.fields.host is None or len(parts) != 3 or not parts[1].startswith(b"/"):
            head = scan_request(data, engine.plans.limits, len(self.inbuf) if self.begun else 0)
            if head is None:
                self.inbuf = data
                if not self.begun:
                    self.begun = True
                    self.deadline = engine.now + engine.timeouts.head_s
                return
            block = engine.plans.of_block(head)
            parts = [head.method, head.target, b"HTTP/1.%d" % head.minor]
            rest = data[head.size - len(head.block) - 2 :]
        authority = self._authority(block, parts)
        if authority is None:
            self._wait(data, block)
        elif not authority:
            self._straight(data)
        else:
            self.inbuf = b""
            self.begun = False
            known = block if len(rest) == len(block.block) + 2 else None
            self.take_with(b"%s http://%s%s %s\r\n%s" % (parts[0], authority, parts[1], parts[2], rest), known)

    def _authority(self, block: BlockPlan, parts: list[bytes]) -> bytes | None:
        """As ``Interception.authority``; what is not for the farm at all has none."""
        if not parts[1].startswith(b"/") or parts[1].startswith(INTERNAL_PREFIX):
            return b""
        host = block.fields.host
        if host is None:
            if parts[2] == b"HTTP/1.0":
                return self.place.authority
            raise BadRequest(Reason.BAD_REQUEST, "a path without a Host field")
        return self.engine.interception.authority(host, self.place)

    def _wait(self, data: bytes, block: BlockPlan) -> None:
        """Until DNS has said whether Host leads to where the client has connected to."""
        exchange, interception = self.own, self.engine.interception
        self.state = BUSY
        self.inbuf = data
        self.begun = False
        exchange.line, exchange.block = UNKNOWN_LINE, block
        exchange.begin()
        exchange.keep = CLOSE  # if that is not known in time, for the request is read again when it is
        exchange.phase = RESOLVING
        exchange.serial += 1
        self.deadline = self.engine.now + interception.wait_s
        serial = exchange.serial

        def known() -> None:
            if exchange.is_resolving(serial):
                try:
                    self._taken_up(exchange)
                except Exception as exc:
                    self.crashed(exc)

        assert block.fields.host is not None
        interception.find_out(block.fields.host, self.place, known)

    def _taken_up(self, exchange: InterceptedExchange) -> None:
        exchange.phase = IDLE
        self.state = READING
        data, self.inbuf = self.inbuf, b""
        self.take(data)

    def _straight(self, data: bytes) -> None:
        """Ask the address that the client has connected to."""
        engine, exchange = self.engine, self.own
        head = scan_request(data, engine.plans.limits)
        assert head is not None
        self.state = BUSY
        self.inbuf = data[head.size :]
        self.begun = False
        exchange.block = engine.plans.of_block(head)
        exchange.line = _line_of(engine, head, exchange.block.fields.host or self.place.authority)
        exchange.start_straight()

    def _pass_on(self, data: bytes) -> None:
        """What is not HTTP."""
        self.state = BUSY
        self.inbuf = data
        self.begun = False
        self.own.line = LinePlan(b"CONNECT", self.place.authority, 1, "authority")
        self.own.block = UNKNOWN_BLOCK
        self.own.start_tunnel()


def _line_of(engine: Engine, head: RequestHead, host: bytes) -> LinePlan[Target]:
    """A plan of its own, for what only one server is asked.  Nothing is learned from the answer: it may not be the host's."""
    line = engine.planner.plan_line(head, host)
    line.targets = ()
    line.no_lessons()
    return line


class InterceptedExchange(Exchange):
    """A request on such a connection.  What goes around the farm goes to where the client wanted to go."""

    __slots__ = ()

    @property
    def _place(self) -> Place:
        assert isinstance(self.client, Intercepted)
        return self.client.place

    def start_straight(self) -> None:
        """Serve the request in ``line`` and ``block`` from the address that the client has connected to."""
        engine, line, fields = self.engine, self.line, self.block.fields
        self.begin()
        engine.farm[_REQUESTS] += 1
        self.keep, self.upgrading = CLOSE, False
        if self.client.denied:
            self.fail(Reason.ACCESS_DENIED, f"client {self.client.ip}")
            return
        try:
            self.body = request_body(line, fields)
        except BadRequest as exc:
            self.refuse(exc)
            return
        if not fields.close and not engine.draining:
            self.keep = KEEP if line.minor else KEEP_10 if fields.keep else CLOSE
        if self.block.loop:
            self.fail(Reason.LOOP, engine.planner.via_name)
        elif line.url is None:
            engine.internal.answer(self)  # OPTIONS *
        else:
            self.upgrading = bool(line.minor) and engine.planner.classify(line, self.block).kind is Kind.TUNNEL
            self.why = UNVERIFIED
            engine.count("bypassed")
            engine.count("bypassed_unverified")
            self.go_direct()

    def go_direct(self) -> None:
        target = self.engine.interception.target(self._place)
        if isinstance(target, str):
            self.origin_denied(target)
        else:
            self.origin_found(target)

    def start_tunnel(self) -> None:
        """Pass on what is not HTTP, both ways."""
        engine = self.engine
        self.begin()
        engine.farm[_REQUESTS] += 1
        self.keep, self.upgrading = CLOSE, False
        self.answered = True  # by what we cannot speak: errors are cut connections
        self.phase = RESOLVING
        self.why = NOT_HTTP
        target = engine.interception.target(self._place)
        if self.client.denied:
            self.fail(Reason.ACCESS_DENIED, f"client {self.client.ip}")
        elif not engine.interception.tunnels:
            self.fail(Reason.NOT_HTTP, f"client {self.client.ip}")
        elif isinstance(target, str):
            self.fail(Reason.DESTINATION_DENIED, target)
        else:
            engine.count("intercepted_tunnels")
            self.origin_found(target)

    def link_ready(self, link: Link) -> None:
        if self.why == NOT_HTTP:
            self.engine.count("direct_connects")
            self.race = None
            self.link = link
            self.status = 200
            self.open_tunnel(link, b"", b"")
        else:
            super().link_ready(link)
