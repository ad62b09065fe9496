"""The answer to one request: its head, its body, and tunnels.

States, after ``attempts`` found a connection::

    WAITING --whole answer in one read--> finished
       |----1xx--> WAITING
       |----head, body still coming--> BODY --> finished | cut
       `----101, or CONNECT--> TUNNEL --> finished

The usual answer arrives in one read and leaves in one send.  Everything longer is a Pump's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachelb.counters import FARM_INDEX, FIRST_BYTE_TIME, note_us
from cachelb.errors import BadMessage, BadResponse, Reason
from cachelb.http.framing import CHUNKED, UNTIL_CLOSE, ChunkScanner, is_chunked_body, response_body
from cachelb.http.response import ResponseHead, scan_response
from cachelb.relay.attempts import BODY
from cachelb.relay.bodies import CLOSE, Bodies
from cachelb.relay.pump import Pump
from cachelb.relay.refusals import REFUSAL_BYTES, Refusal
from cachelb.relay.sightings import ONLY_IF_CACHED
from cachelb.relay.upstream import BAD_RESPONSES, ORIGIN_ERRORS, READ_BYTES, Link

if TYPE_CHECKING:
    from cachelb.relay.client import Client
    from cachelb.relay.engine import Engine
    from cachelb.relay.plan import BlockPlan

# A head and a body up to this are joined and sent as one piece; above, copying costs more than a second piece.
JOIN_BYTES: Final = 4096

_HITS: Final = FARM_INDEX["hits"]
INTERIMS_MAX: Final = 100  # each gives the node new time; nobody has use for so many


class Answer(Bodies):
    """The part of an exchange that relays the answer.  ``Exchange`` adds the request and the endings."""

    __slots__ = ("block", "content_type", "first_byte_us", "hit", "interims", "refusal", "upgrading")

    started: float  # Exchange's
    why: str  # that of Ways

    def __init__(self, client: Client, engine: Engine) -> None:
        super().__init__(client, engine)
        self.block: BlockPlan
        self.refusal: tuple[ResponseHead, bytes] | None = None  # the last 504 of a node that does not have the URL
        self.first_byte_us = -1  # how long the head of the answer took to come
        self.hit: bool | None = None
        self.content_type = b"-"
        self.interims = 0  # 1xx answers so far
        self.upgrading = False  # the request's Upgrade was passed on

    # -- the answer

    def link_data(self, link: Link, data: bytes) -> None:
        """Bytes of the answer have arrived: when its head is whole, begin to answer."""
        engine = self.engine
        try:
            head = scan_response(data, engine.plans.limits, len(link.inbuf))
        except BadResponse as exc:
            self._bad_answer(exc)
            return
        if head is None:
            link.inbuf = data
            return
        link.inbuf = b""
        if head.status < 200:
            self._interim(link, head, data)
            return
        if head.status == 504 and self._is_second_chance(link, head, data):
            return
        self._count(link, head)
        if self.client.unusual or head.status == 401:
            engine.steering.answered(self.client.exchange, link, head)
        length = response_body(self.line.method, head)
        if length == 0 and self.line.method == b"CONNECT" and head.status < 300:
            self._note_first_byte()
            self.open_tunnel(link, head.head + engine.via_line + b"\r\n", data[head.size :])
            return
        size = head.size
        have = len(data) - size
        if length == CHUNKED and self.line.minor and is_chunked_body(data, size, engine.plans.limits.head_bytes):
            length = have  # all of it is here: as good as a known length
        if 0 <= length <= have and self.upload is None:
            # The usual case: the whole answer is here.
            # After a read that took all it could there may be more, which must not answer another request.
            self.reusable = head.keep_alive and have == length and (len(data) < READ_BYTES or link.is_quiet())
            short = length <= JOIN_BYTES
            self._whole_answer(head, data[size : size + length] if short else memoryview(data)[size : size + length])
        else:
            self._long_answer(link, head, length, memoryview(data)[size:])

    def _count(self, link: Link, head: ResponseHead) -> None:
        """Note what an answer's head says."""
        engine = self.engine
        counts, tally = link.target.counts, link.target.tally
        tally.responses += 1
        self.first_byte_us = int((engine.poller.woken_at - self.started) * 1e6)
        self.status = head.status
        self.content_type = head.content_type
        if head.hit:
            self.hit = True
            tally.hits += 1
            engine.farm[_HITS] += 1
        elif head.hit is False:
            self.hit = False
            tally.misses += 1
        if engine.tell_seen is not None and (self.line.told_until <= engine.now or head.hit is False):
            engine.sightings.answered(self, link.target, head)
        learned = engine.learned
        if head.squid_error is not None:
            counts[ORIGIN_ERRORS] += 1
        elif head.uncacheable or learned.size or learned.runs:
            engine.observe(self, head)

    # -- only-if-cached

    def _is_second_chance(self, link: Link, head: ResponseHead, data: bytes) -> bool:
        """Whether a 504 is a node's word that it does not have what only a cache may answer, and another may have it."""
        if self.why != ONLY_IF_CACHED:
            return False
        head.hit = False  # Squid says HIT where it has the URL, but stale
        if self.engine.tell_seen is not None:
            self.engine.sightings.missed(self, link.target)
        length = response_body(self.line.method, head)
        if self.body or self.attempt + 1 >= len(self.targets) or self.client.unusual:
            return False
        body = data[head.size :]
        if len(body) < length <= REFUSAL_BYTES:
            link.exchange = Refusal(self, head, body, length)
        else:
            self.passed_over(link, head, body, length)
        return True

    def passed_over(self, link: Link, head: ResponseHead, body: bytes, length: int) -> None:
        """Ask the next node; keep the connection if all of the 504, and nothing else, was read from it."""
        target = link.target
        target.tally.responses += 1
        target.tally.ended += 1
        self.engine.count("second_chances")
        self.link = None
        if 0 <= length <= len(body):
            self.refusal = head, body[:length]
        if head.keep_alive and len(body) == length and link.unsent is None and link.is_quiet():
            target.keep(link, self.engine.now)
        else:
            link.exchange = None
            link.shut()
        self.attempt += 1
        self.try_targets(again=False)

    def pass_on(self, head: ResponseHead, body: bytes) -> None:
        """Answer with the 504 of a node that was passed over."""
        self.status = head.status
        self.content_type = head.content_type
        self._whole_answer(head, body)

    def _whole_answer(self, head: ResponseHead, body: bytes | memoryview) -> None:
        """Answer with a body that is here as a whole: one send."""
        start = head.head + self.engine.tails[self.keep * 2 + (head.chunked and self.line.minor)]
        self.answered = True
        self.bytes_out = len(start) + len(body)
        try:
            sent = self.client.send(start + body) if isinstance(body, bytes) else self.client.send_parts((start, body))
        except OSError:
            self.client_gone()
            return
        if sent:
            self.finish()
        else:
            self._note_first_byte()
            self.wait_for_client()

    def _note_first_byte(self) -> None:
        """Of an answer that ends later than it begins; the time of others is counted once, at their end."""
        if self.link is not None:
            note_us(self.link.target.counts, FIRST_BYTE_TIME, self.first_byte_us)

    def _long_answer(self, link: Link, head: ResponseHead, length: int, body: memoryview) -> None:
        """Answer with a body that is not here yet as a whole, or while the request is still being sent."""
        self._note_first_byte()
        self.reusable = head.keep_alive and length != UNTIL_CLOSE
        chunked = head.chunked
        dechunk = length == CHUNKED and self.line.minor == 0
        if length == UNTIL_CLOSE or dechunk:
            self.keep = CLOSE
            chunked = chunked and not dechunk
        if self.upload is not None:
            # The answer overtakes the request: what is left of that is of no use to anybody.
            self.upload.stop()
            self.upload = None
            self.keep = CLOSE
            self.reusable = False
        self.answered = True
        self.phase = BODY
        link.answering = True
        out = head.head + self.engine.tails[self.keep * 2 + chunked]
        scanner = ChunkScanner(self.engine.plans.limits.head_bytes) if length == CHUNKED else None
        pump = self.download = Pump(self, link, self.client, self.engine.pipes, length if length >= 0 else -1, scanner, dechunk)
        self.bytes_out = len(out)
        self.client.deadline = self.engine.now + self.engine.timeouts.idle_body_s
        try:
            if scanner is not None:
                self.client.send(out, more=len(body) > 0 and not dechunk)
            elif body and length:
                count = len(body) if length < 0 else min(len(body), length)
                if count < len(body):
                    self.reusable = False
                self.client.send_parts((out, body[:count]))
                pump.skip(count)
                self.bytes_out += count
                body = body[:0]
            else:
                self.reusable = self.reusable and not body
                self.client.send(out)
                body = body[:0]
        except OSError:
            self.client_gone()
            return
        if body:
            pump.feed(body)
        if not pump.ended:
            if length == 0 or pump.left == 0:
                pump.stop()
                self.pump_done(pump)
            else:
                pump.start()

    def _interim(self, link: Link, head: ResponseHead, data: bytes) -> None:
        """1xx: 101 opens a tunnel, the others are passed on (RFC 9110, section 15.2)."""
        if head.status == 101:
            if not self.upgrading or self.upload is not None:
                self._bad_answer(BadResponse(Reason.BAD_RESPONSE, "101 without an Upgrade in the request"))
                return
            if self.client.unusual:
                self.engine.steering.answered(self.client.exchange, link, head)
            out = head.head + self.engine.via_line + b"Connection: Upgrade\r\n\r\n"
            self.status = 101
            self.open_tunnel(link, out, data[head.size :])
            return
        self.interims += 1
        if self.interims > INTERIMS_MAX:
            self._bad_answer(BadResponse(Reason.BAD_RESPONSE, f"more than {INTERIMS_MAX} interim answers"))
            return
        if self.line.minor:
            out = head.head + b"\r\n"
            self.bytes_out += len(out)
            try:
                self.client.send(out)
            except OSError:
                self.client_gone()
                return
        self.client.deadline = self.engine.now + self.engine.timeouts.first_byte_s
        rest = data[head.size :]
        if rest:
            self.link_data(link, rest)

    def _bad_answer(self, exc: BadMessage) -> None:
        link = self.link
        name = ""
        if link is not None:
            link.target.counts[BAD_RESPONSES] += 1
            name = f"{link.target.name}: "
        self.fail(exc.reason, f"{name}{exc.detail}")
