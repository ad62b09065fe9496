"""What a worker answers for the whole farm: its cache digest, and purges.

The digest is a file in memory that the supervisor hands over.  It is mapped once and sent from there, so that a peer more
costs no memory here.  A newer one takes its place for later requests; the old one stays until the last answer made of it
is out.

A purge is the supervisor's to carry out: it knows who holds what.  The worker judges who may ask, asks, and waits.

Left out: what is a request of this kind (``routing.classify``), pages and their words (``pages``).
"""

from __future__ import annotations

import asyncio
import email.utils
import fcntl
import itertools
import mmap
import os
import re
import struct
import termios
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cachelb.control import Purge, Purged
from cachelb.errors import Reason
from cachelb.http.freshness import parse_date
from cachelb.relay import pages
from cachelb.relay.attempts import BODY, PURGING
from cachelb.relay.bodies import CLOSE
from cachelb.relay.manager import ManagerPages

if TYPE_CHECKING:
    from cachelb.handover import Published
    from cachelb.http.fields import RequestFields
    from cachelb.relay.engine import Engine
    from cachelb.relay.exchange import Exchange

# Every Squid up to 7.6 spoils the first 4 KiB of a digest's mask (bug 5510) unless the control block, which has 128 bytes,
# has come and been read before the mask.  Of 50 URLs in a digest of 5,000, Debian's 5.7 finds 7 without the pause, with it
# all of them (2026-11).
CONTROL_BYTES = 128
ACKNOWLEDGED_S = 3.0  # waited at most until a peer's kernel has the control block: a lost packet is sent again twice
EARLY_S = 0.001  # libuv counts whole milliseconds from when its loop last woke: a timer may come so much before its time
PIECE_BYTES = 1 << 18  # of a digest, handed to the kernel at once: what is logged is wrong by so much if the peer goes

PURGES_MAX = 1000  # on their way at the same time
PURGE_S = 5.0  # the supervisor gives the nodes less

_DIGEST = b"application/cache-digest"
_since = re.compile(rb"^if-modified-since:[ \t]*+([^\r]{1,40})\r$", re.IGNORECASE | re.MULTILINE).findall
_none_match = re.compile(rb"^if-none-match:", re.IGNORECASE | re.MULTILINE).search
_json_wanted = re.compile(rb"^accept:[^\r]*?\bapplication/json\b", re.IGNORECASE | re.MULTILINE).search
_out_queue = struct.Struct("i")


class Digest(NamedTuple):
    """The farm's digest as it is served: mapped memory, when it was made, and its field lines, each with CRLF."""

    body: memoryview
    modified_at: int
    fields: bytes


class Internal:
    """The pages of the farm, in one relay."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.digest: Digest | None = None
        self.purges: dict[int, Exchange] = {}
        self.manager = ManagerPages(engine)
        # Answers for a worker that has died come to the one in its place: they must not fit its own purges.
        self._numbers = itertools.count(time.monotonic_ns())

    def publish(self, published: Published) -> None:
        """Serve this digest from now on; its descriptor is closed.

        Raises:
            OSError, ValueError: It cannot be mapped; the one before stays.
        """
        try:
            if published.size_bytes < CONTROL_BYTES:  # 0 would map all there is
                raise ValueError(f"{published.size_bytes} bytes are no digest")
            # Private, though nobody writes: before Linux 6.7 a file that is sealed against writing cannot be mapped shared.
            memory = mmap.mmap(published.fd, published.size_bytes, mmap.MAP_PRIVATE, mmap.PROT_READ)
        finally:
            os.close(published.fd)
        modified_at = published.modified_at
        if self.digest is not None and self.digest.modified_at == modified_at:
            modified_at += 1  # two within a second must differ: who has the first one shall get the second
        modified, expires = _date(modified_at), _date(published.expires_at)
        fields = f"Content-Type: {_DIGEST.decode()}\r\nLast-Modified: {modified}\r\nExpires: {expires}\r\n"
        self.digest = Digest(memoryview(memory), modified_at, fields.encode())

    def close(self) -> None:
        """Let go of the digest."""
        self.digest = None

    # -- requests

    def answer(self, exchange: Exchange) -> None:
        """Answer a request that is for the director itself."""
        engine, line = self.engine, exchange.line
        engine.count("local")
        if exchange.body:
            exchange.keep = CLOSE  # nobody reads the body: it must not be taken for the next request
        if exchange.why == "digest" and self.digest is not None and line.method in (b"GET", b"HEAD"):
            self._answer_digest(exchange, self.digest)
        elif exchange.why == "manager":
            self.manager.ask(exchange)
        else:
            data = pages.local_answer(line, exchange.block, engine.planner.via_name, exchange.why, exchange.keep != CLOSE)
            exchange.answer_whole(data, int(data[9:12]))

    def _answer_digest(self, exchange: Exchange, digest: Digest) -> None:
        engine = self.engine
        date = f"Date: {email.utils.formatdate(usegmt=True)}\r\n".encode()
        tail = digest.fields + date + engine.tails[exchange.keep * 2]
        if not is_newer(digest.modified_at, exchange.block.block, time.time()):
            exchange.answer_whole(b"HTTP/1.1 304 Not Modified\r\n" + tail, 304, content_type=_DIGEST)
            return
        head = b"HTTP/1.1 200 Cache Digest OK\r\nContent-Length: %d\r\n" % len(digest.body) + tail
        if exchange.line.method == b"HEAD":
            exchange.answer_whole(head, 200, content_type=_DIGEST)
        else:
            Sending(exchange, digest.body, engine.config.digest.pause_s).begin(head)

    def purge(self, exchange: Exchange) -> None:
        """Have a URL forgotten by the farm, if the client may ask for that."""
        engine, client = self.engine, exchange.client
        if exchange.body:
            exchange.keep = CLOSE
        if not engine.door.may_purge(client.ip):
            exchange.fail(Reason.PURGE_DENIED, f"client {client.ip}")
            return
        if len(self.purges) >= PURGES_MAX:
            exchange.fail(Reason.PURGE_UNAVAILABLE, f"{PURGES_MAX} purges are on their way")
            return
        number = next(self._numbers)
        self.purges[number] = exchange
        exchange.undo = partial(self.purges.pop, number, None)
        exchange.phase = PURGING
        client.deadline = engine.now + PURGE_S
        purge = Purge(number, exchange.line.key, selecting_fields(exchange.block.fields))
        if engine.ask_purge is None or not engine.ask_purge(purge):
            exchange.fail(Reason.PURGE_UNAVAILABLE)

    def purged(self, purged: Purged) -> None:
        """A purge has come to its end: tell who asked for it, if they are still there."""
        exchange = self.purges.pop(purged.number, None)
        if exchange is None:
            return
        exchange.undo = None
        try:
            self._answer_purge(exchange, purged)
        except Exception as exc:
            exchange.client.crashed(exc)

    def _answer_purge(self, exchange: Exchange, purged: Purged) -> None:
        self.engine.count("purges")
        line, reason, status = exchange.line, Reason.DONE, 200 if purged.found else 404
        # A node that is known to be dead is told when it is back: that is said, and no failure while others were asked.
        if purged.confirmed < purged.asked or (purged.problems and not purged.asked):
            reason, status = Reason.PURGE_INCOMPLETE, Reason.PURGE_INCOMPLETE.value.status
            self.engine.report(exchange, reason, "; ".join(purged.problems))
        as_json = _json_wanted(exchange.block.block) is not None
        data = pages.purge_answer(status, line.key, *purged[1:], as_json=as_json, keep=exchange.keep != CLOSE, minor=line.minor)
        content_type = b"application/json" if as_json else b"text/plain"
        exchange.answer_whole(data, status, reason, content_type=content_type)


class Sending:
    """One digest on its way to one client: the control block, a pause, then the mask."""

    __slots__ = ("at", "body", "engine", "exchange", "pause_s", "timer", "wait_until")

    def __init__(self, exchange: Exchange, body: memoryview, pause_s: float) -> None:
        self.exchange = exchange
        self.engine = exchange.engine
        self.body = body
        self.at = 0
        self.pause_s = pause_s
        self.timer: asyncio.Handle | None = None
        self.wait_until = self.engine.clock() + ACKNOWLEDGED_S

    def begin(self, head: bytes) -> None:
        """Send what comes before the pause, or all of it where there is none."""
        exchange, engine = self.exchange, self.engine
        exchange.answered = True
        exchange.status = 200
        exchange.content_type = _DIGEST
        exchange.phase = BODY
        exchange.undo = self.stop
        exchange.client.deadline = engine.now + self.pause_s + engine.timeouts.idle_body_s
        if self.pause_s:
            head += self.body[:CONTROL_BYTES]
            self.at = CONTROL_BYTES
        exchange.bytes_out = len(head)
        try:
            sent = exchange.client.send(head)
        except OSError:
            exchange.client_gone()
            return
        if self.pause_s or sent:
            self._later(self.pause_s)
        else:
            exchange.client.drained = self._send_piece

    def stop(self) -> None:
        """The exchange ends before its time."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _later(self, wait_s: float) -> None:
        loop = self.engine.loop
        self.timer = loop.call_later(wait_s + EARLY_S, self._go_on) if wait_s else loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self.timer = None
        client = self.exchange.client
        try:
            if self.at == CONTROL_BYTES and self._lacks_control_block():
                self._later(self.pause_s)
            else:
                self._send_piece()
        except Exception as exc:
            client.crashed(exc)

    def _lacks_control_block(self) -> bool:
        """Whether the peer's kernel may lack the control block: it would be read together with the mask."""
        client = self.exchange.client
        return client.unsent is not None or (self.engine.clock() < self.wait_until and _unacknowledged(client.fd))

    def _send_piece(self) -> None:
        """Hand the kernel a piece, and let others have their turn before the next: 50 peers at once are 250 MB."""
        exchange, engine = self.exchange, self.engine
        client = exchange.client
        piece = self.body[self.at : self.at + PIECE_BYTES]
        if not piece:
            exchange.undo = None
            engine.count("digests_served")
            exchange.finish()
            return
        try:
            sent = client.send(piece)
        except OSError:
            exchange.client_gone()
            return
        self.at += len(piece)
        exchange.bytes_out += len(piece)
        if sent:
            self._later(0)
        else:
            client.deadline = engine.now + engine.timeouts.idle_body_s
            client.drained = self._send_piece


def _unacknowledged(fd: int) -> bool:
    """Whether the peer's kernel lacks some of what was sent."""
    (count,) = _out_queue.unpack(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(_out_queue.size)))
    return bool(count > 0)


def is_newer(modified_at: int, block: bytes, now: float) -> bool:
    """Whether what was modified then is to be sent: the client does not say that it has it (RFC 9110, section 13.1.3).

    Args:
        block: The request's field lines.
        now: Wall clock; later dates are not believed: it may have been put back since.
    """
    dates = _since(block)
    if len(dates) != 1 or _none_match(block):
        return True  # we give out no entity tags: none of theirs is ours
    since = parse_date(dates[0])  # -1 for nonsense, which is ignored
    return modified_at > since or since > now


def selecting_fields(fields: RequestFields) -> bytes:
    """The field lines of a request that a Vary may name, each with CRLF: without those about this hop or a body."""
    kept = []
    for line in fields.rest.split(b"\r\n"):
        name = line.partition(b":")[0].lower()
        if name and name != b"via" and name not in fields.connection_options and not name.startswith((b"content-", b"proxy-")):
            kept.append(line + b"\r\n")
    return b"".join(kept)


def _date(at: float) -> str:
    return email.utils.formatdate(at, usegmt=True)
