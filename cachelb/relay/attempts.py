"""Getting a request to a node or an origin: which one, on which connection, and what to do when that fails.

States of one request, until the head of its answer is there (SCHEDULING: its client's template is asked for)::

    RESOLVING |
    SCHEDULING -> CONNECTING -> WAITING -> (answer)
        |            |  ^         |
        |            v  |         v
        +--------> next target <--+        a failed connect, or a connection that died before its first byte
                     |
                     v
                 error page                no target is left, or repeating is not allowed

Repeating is allowed while no byte of the request body has been used and the method is idempotent; a connect that failed may
always be repeated, for nothing was sent (RFC 9110, section 9.2.2).  A kept connection that the node had closed meanwhile says
nothing about the node, so its request goes to the same node again, on a fresh connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachelb.counters import CONNECT_TIME, note_time
from cachelb.errors import Reason
from cachelb.relay.race import Race
from cachelb.relay.upstream import (
    CONNECT_FAILURES,
    CONNECTS,
    RESETS,
    SHORTAGES,
    STALE,
    TIMEOUTS,
    Link,
    Target,
    open_link,
)
from cachelb.wire.proxy_protocol import make

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachelb.relay.client import Client
    from cachelb.relay.engine import Engine
    from cachelb.relay.plan import LinePlan
    from cachelb.relay.pump import Pump

IDLE: Final = 0
RESOLVING: Final = 1
CONNECTING: Final = 2
WAITING: Final = 3
BODY: Final = 4
TUNNEL: Final = 5
PURGING: Final = 6
SCHEDULING: Final = 7

TARGETS_MAX: Final = 3  # targets asked for one request: a request that kills caches must not walk through the whole farm


class Attempts:
    """The part of an exchange that finds a connection.  ``Exchange`` adds the request and the answer."""

    __slots__ = (
        "attempt", "body", "body_used", "client", "connect_began", "detail", "engine", "head", "last_reason", "line", "link",
        "partial", "phase", "race", "target", "targets", "tried", "upload",
    )  # fmt: skip

    def __init__(self, client: Client, engine: Engine) -> None:
        self.client = client
        self.engine = engine
        self.phase = IDLE
        self.line: LinePlan[Target]
        self.head = b""
        self.body = 0
        self.body_used = False
        self.targets: Sequence[Target] = ()
        self.partial = False  # targets is only the first of them
        self.attempt = 0
        self.tried = 0
        self.target: Target | None = None  # who was asked last
        self.link: Link | None = None
        self.race: Race | None = None
        self.upload: Pump | None = None
        self.last_reason = Reason.NO_NODE
        self.detail = ""
        self.connect_began = 0.0

    # -- what Exchange provides

    def fail(self, reason: Reason, detail: str = "") -> None:
        """End the exchange without an answer from a target."""
        raise NotImplementedError

    def head_sent(self, link: Link) -> None:
        """The request's head is out: its body may follow."""
        raise NotImplementedError

    def link_data(self, link: Link, data: bytes) -> None:
        """Bytes of the answer have arrived."""
        raise NotImplementedError

    def link_readable(self, link: Link) -> None:
        """The link has more of the body."""
        raise NotImplementedError

    def reschedule(self) -> None:
        """Find out who is asked instead of a node that has died, and ask."""
        raise NotImplementedError

    # -- choosing

    def try_targets(self, again: bool = True) -> None:
        """Ask the target whose turn it is, or give up with the last failure as the reason.

        again: if it is not the first one, the one before has failed.
        """
        while self.tried < TARGETS_MAX and (self.attempt < len(self.targets) or self._find_others()):
            target = self.targets[self.attempt]
            if self.engine.spoofing.active:
                target = self.engine.spoofing.target(target, self.client.ip)
            if self.tried and again:
                self.engine.count("retries")
                if self.attempt and target.is_node:
                    self.engine.count("failovers")
            if self.tried:
                self.line.told_until = 0.0  # that was about another node
            again = True
            self.tried += 1
            idle = target.idle
            # A request that must not be repeated is never put on a connection that may be stale.
            if idle and self.line.idempotent and not self.body:
                self.reuse(idle.pop())
                return
            if self.connect(target):
                return
            self.attempt += 1
        self.targets_failed()

    def _find_others(self) -> bool:
        """Find out who comes after the owner; False if nobody does, or that is known already."""
        if not self.partial:
            return False
        self.partial = False
        owners = self.engine.planner.line_owners(self.line)
        self.targets = (*self.targets, *(target for target in owners if target not in self.targets))
        return self.attempt < len(self.targets)

    def targets_failed(self) -> None:
        """Every target that may be asked has failed: the last failure is the reason."""
        self.fail(self.last_reason, self.detail)

    def reuse(self, link: Link) -> None:
        """Send the request on a kept connection."""
        link.used = True
        link.exchange = self
        self.link = link
        self.target = link.target
        link.target.tally.requests += 1
        if not link.target.is_node:
            self.engine.count("direct_reuses")
        self.send_head(link)

    def connect(self, target: Target) -> bool:
        """Begin to connect; False when it failed at once."""
        if self.engine.spoofing.active:
            target = self.engine.spoofing.target(target, self.client.ip)
        self.phase = CONNECTING
        self.target = target
        self.connect_began = self.engine.clock()
        self.client.deadline = self.engine.now + self.engine.timeouts.connect_s
        target.tally.requests += 1
        try:
            if not target.addresses:
                raise OSError("its name has no address")
            if len(target.addresses) > 1:
                self.race = Race(self, target, self.engine.poller)
                self.race.start()
            else:
                self.link = open_link(self.engine.poller, target, target.addresses[0])
                self.link.exchange = self
        except OSError as exc:
            self.race = None
            self._connect_failed(target, _blame(exc), str(exc))
            return False
        return True

    def _connect_failed(self, target: Target, reason: Reason, detail: str) -> None:
        if reason is not Reason.OVERLOADED:  # health listens: what we lack must not make the nodes look dead
            target.counts[CONNECT_FAILURES] += 1
        target.tally.ended += 1
        self.last_reason = reason
        self.detail = f"{target.name}: {detail}"

    # -- what links tell

    def link_ready(self, link: Link) -> None:
        """A fresh connection is open: use it."""
        self.race = None
        self.link = link
        link.target.counts[CONNECTS] += 1
        note_time(link.target.counts, CONNECT_TIME, self.engine.clock() - self.connect_began)
        if not link.target.is_node:
            self.engine.count("direct_connects")
        if link.target.send_proxy:
            ends = self.client.ends()
            if ends is None:  # without its name the request would be ours, and may be allowed more than the client's
                self.fail(Reason.CLIENT_GONE)
                return
            try:
                link.send(make(link.target.send_proxy, ends), more=True)
            except OSError:
                self.link_lost(link)
                return
        self.send_head(link)

    def send_head(self, link: Link) -> None:
        """Send the request's head on an open connection."""
        self.phase = WAITING
        self.client.deadline = self.engine.now + self.engine.timeouts.first_byte_s
        try:
            link.send(self.head)
        except OSError:
            self.link_lost(link)
            return
        if self.body:
            self.head_sent(link)

    def link_failed(self, error: OSError) -> None:
        """Connecting failed: the next target, if there is one."""
        target = self.targets[self.attempt]
        self.link = None
        self.race = None
        self._connect_failed(target, _blame(error), error.strerror or str(error))
        self.attempt += 1
        self.try_targets()

    def link_lost(self, link: Link) -> None:
        """The connection died before the answer's head was complete."""
        target = link.target
        begun = bool(link.inbuf)
        stale = link.used and not begun
        self.drop_link()
        if begun:
            self.fail(Reason.BAD_RESPONSE, f"{target.name}: the answer ended within its head")
            return
        if stale:
            target.counts[STALE] += 1
        elif not self.body:  # health listens, and a node may hang up on a body for reasons that are the client's
            target.counts[RESETS] += 1
        if self.client.pin is not None and self.client.pin.link is link:
            self.engine.steering.pins.lost(self)  # another connection knows nothing of the client
            return
        self.last_reason = Reason.RESET
        self.detail = f"{target.name}: closed the connection before the answer"
        if self.body_used or not self.line.idempotent:
            self.fail(Reason.RESET, self.detail)
        elif stale:
            self.engine.count("retries")
            if not self.connect(target):
                self.attempt += 1
                self.try_targets()
        else:
            self.attempt += 1
            self.try_targets()

    def crashed(self, exc: Exception) -> None:
        """A bug of ours showed on the way to a target."""
        self.client.crashed(exc)

    # -- what the clock and the supervisor tell

    def connect_expired(self) -> None:
        """Connecting took too long: the next target."""
        target = self.targets[self.attempt]
        self.drop_link(ended=False)
        self._connect_failed(target, Reason.CONNECT_TIMEOUT, f"no connection within {self.engine.timeouts.connect_s:g} s")
        self.attempt += 1
        self.try_targets()

    def first_byte_expired(self) -> None:
        """No answer began in time.  It is not asked for again: the origin may be what is slow."""
        if self.link is not None:
            self.link.target.counts[TIMEOUTS] += 1
            self.detail = f"{self.link.target.name}: nothing within {self.engine.timeouts.first_byte_s:g} s"
        self.fail(Reason.FIRST_BYTE_TIMEOUT, self.detail)

    def waits_for(self) -> Target | None:
        """The target that a connection or an answer is expected from; None when there is none."""
        if self.phase in (CONNECTING, WAITING) and self.attempt < len(self.targets):
            return self.targets[self.attempt]
        return None

    def target_died(self, targets: Sequence[Target] | None) -> None:
        """The node that this exchange waits for was declared dead: go to the new ``targets``, if repeating is allowed.

        targets: None: they have to be asked for (``reschedule``).
        """
        if self.phase not in (CONNECTING, WAITING) or self.body_used or not self.line.idempotent:
            return
        if self.link is not None and (self.link.inbuf or (self.client.pin is not None and self.client.pin.link is self.link)):
            return
        dead = self.targets[self.attempt]
        self.drop_link()
        self.engine.count("moved")
        self.last_reason = Reason.NODE_DEAD
        self.detail = f"{dead.name} was declared dead"
        self.partial = False
        self.attempt = 0
        self.tried = 0
        if targets is None:
            self.reschedule()
        else:
            self.targets = targets
            self.try_targets()

    # -- letting go

    def drop_link(self, ended: bool = True) -> None:
        """Close the connection, and whatever was being opened."""
        if self.upload is not None:
            self.upload.stop()
            self.upload = None
        if self.race is not None:
            self.race.stop()
            self.race = None
            if ended:
                self.targets[self.attempt].tally.ended += 1
        link, self.link = self.link, None
        if link is not None:
            link.exchange = None
            link.shut()
            if ended:
                link.target.tally.ended += 1


def _blame(error: OSError) -> Reason:
    """Whether a connect failed because of the target or because of us."""
    return Reason.OVERLOADED if error.errno in SHORTAGES else Reason.CONNECT_REFUSED
