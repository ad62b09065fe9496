"""Connections that belong to one client: NTLM and Negotiate authenticate a connection, not a request.

The messages of such a handshake have to arrive on one connection, and what comes on it afterwards is taken for the same user's.
So a request with credentials of that kind ties the connection that it went on to its client's connection: later requests for
the same origin go on it, with credentials or without, and nobody else's ever do.  It ends with the client's connection.  When it
ends before, the client's connection is closed, without an answer if one is waited for: that is what makes a client begin anew,
and what Squid does.  Nothing is repeated elsewhere.

Credentials for a proxy (Proxy-Authorization) are the node's matter, and all requests of the client follow them there.

Left out: TLS, where tunnels have none of these problems.

Source: RFC 4559, section 6; [MS-NTHT], section 3.1.5.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cachelb.counters import FARM_INDEX
from cachelb.errors import Reason
from cachelb.http.fields import ORIGIN_SESSION, PROXY_SESSION
from cachelb.relay.bodies import CLOSE
from cachelb.routing.classify import Kind
from cachelb.routing.rules import first_that_takes

if TYPE_CHECKING:
    from cachelb.http.response import ResponseHead
    from cachelb.relay.attempts import Attempts
    from cachelb.relay.client import Client
    from cachelb.relay.engine import Engine
    from cachelb.relay.exchange import Exchange
    from cachelb.relay.upstream import Link

OUT_OF_USE: Final = frozenset(("dead", "down", "gone"))  # states of a node; one that drains keeps whom it has
_OPEN: Final = FARM_INDEX["pinned_open"]
_challenge = re.compile(rb"(?im)^www-authenticate:(?:[^\r\n]*,)?[\t ]*(?:ntlm|negotiate|kerberos)[\t ,\r]").search
_supported = re.compile(rb"(?im)^proxy-support:").search
SUPPORT: Final = b"Proxy-Support: Session-Based-Authentication\r\n"


class Pin:
    """A connection to a node or an origin that is one client's; while it is idle, who listens to it.

    origin: host and port of the only requests that go on it; None: all do.
    config: that was in force when it was opened: an origin that was allowed then may not be now.
    """

    __slots__ = ("client", "config", "link", "origin", "pins")

    def __init__(self, pins: Pins, client: Client, link: Link, origin: tuple[bytes, int] | None) -> None:
        self.pins = pins
        self.client = client
        self.link = link
        self.origin = origin
        self.config = pins.engine.config

    def rest(self) -> None:
        """The connection is idle: notice when it ends."""
        self.link.exchange = self
        self.link.used = True
        self.link.resume()

    def is_usable(self) -> bool:
        """Whether a request may be sent on it."""
        target = self.link.target.everybodys()
        if self.link.closed:
            return False
        return target.state not in OUT_OF_USE if target.is_node else self.config is self.pins.engine.config

    def release(self) -> None:
        """Close the connection: the client has gone, or has another."""
        if self.client.pin is self:
            self.client.pin = None
            self.pins.engine.farm[_OPEN] -= 1
            if self.link.exchange is self:
                self.link.exchange = None
            self.link.shut()

    # -- what an idle link tells

    def link_ready(self, link: Link) -> None:
        """It has long been open."""

    def link_failed(self, error: OSError) -> None:
        """It has long been open."""

    def link_readable(self, link: Link) -> None:
        """Something that nobody asked for."""
        self.link_lost(link)

    def link_data(self, link: Link, data: bytes) -> None:
        """Something that nobody asked for."""
        self.link_lost(link)

    def link_lost(self, link: Link) -> None:
        """It has ended: so does the client's connection, once nothing is under way on it."""
        link.exchange = None
        link.shut()
        client = self.client
        if client.is_idle():
            self.pins.engine.farm[self.pins.engine.ends[Reason.PIN_LOST]] += 1
            client.close()
        else:
            client.announce_end()

    def crashed(self, exc: Exception) -> None:
        """A bug of ours: it ends this client's connection."""
        self.client.crashed(exc)


class Pins:
    """The pinned connections of one relay: at most one for each client connection."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        engine.farm[_OPEN] = 0  # of a worker that was restarted

    def takes(self, exchange: Exchange, kind: Kind) -> bool:
        """Send a request on its client's pinned connection; False where it goes as it would without.

        Args:
            kind: HASH, BYPASS or TUNNEL.
        """
        client, line = exchange.client, exchange.line
        client.unusual = True
        pin = client.pin
        if pin is None or (pin.origin is not None and (line.method == b"CONNECT" or pin.origin != (line.host, line.port))):
            return False
        rule = first_that_takes(line.rules, exchange.block.block, client.ip)
        if rule is not None and rule.action.refuse:
            return False
        if not pin.is_usable():
            self.lost(exchange)
            return True
        link = pin.link
        if not link.target.is_node and line.url is None:
            return False
        if exchange.block.fields.session & ORIGIN_SESSION:
            pin.origin = line.host, line.port  # a node has its own pins: what is sent for others would fail
        exchange.why = "pinned"
        exchange.upgrading = kind is Kind.TUNNEL and line.method != b"CONNECT" and line.minor == 1
        if link.target.is_node:
            if rule is not None:
                self.engine.steering.read_cookies(exchange, rule)
            exchange.head = self.engine.steering.node_head(exchange)
        else:
            upgrade = exchange.upgrading
            exchange.head = self.engine.planner.origin_head(line, exchange.block, client.ip_bytes, upgrade=upgrade)
        exchange.targets = (link.target,)
        exchange.partial = False
        exchange.tried = 1
        self.engine.count("pinned_requests")
        exchange.reuse(link)
        return True

    def holds(self, exchange: Exchange, link: Link) -> bool:
        """Keep a connection for its client, if its requests have made it the client's; False if anybody may have it."""
        client = exchange.client
        pin = client.pin
        if pin is not None and pin.link is link:
            pin.rest()
            return True
        wanted = exchange.block.fields.session & (ORIGIN_SESSION | PROXY_SESSION if link.target.is_node else ORIGIN_SESSION)
        if not wanted:
            return False
        if pin is not None:
            pin.release()
        line = exchange.line
        client.pin = Pin(self, client, link, (line.host, line.port) if wanted & ORIGIN_SESSION else None)
        client.pin.rest()
        self.engine.count("pinned")
        self.engine.farm[_OPEN] += 1
        return True

    def answered(self, exchange: Exchange, link: Link, head: ResponseHead) -> None:
        """See to it that a client can authenticate itself, and learns when it has to do so anew."""
        pin = exchange.client.pin
        is_session = exchange.block.fields.session or (pin is not None and pin.link is link)
        if (is_session and not head.keep_alive) or (pin is not None and pin.link.closed):
            exchange.keep = CLOSE
        if head.status == 401 and exchange.line.form == "absolute" and _challenge(head.head) and not _supported(head.head):
            head.head += SUPPORT  # clients do not try through a proxy that does not say so

    def lost(self, exchange: Attempts) -> None:
        """A request was to go, or went, on a connection that has ended: close the client's without an answer."""
        exchange.client.exchange.keep = CLOSE
        exchange.client.exchange.finish(Reason.PIN_LOST)
