"""One request and its answer, from the parsed head to the last byte.

An Exchange belongs to a client connection and is used again for every request on it.  It asks the planner what to do,
``Attempts`` gets it a connection, and Pumps move whatever does not fit into the first send.  Every ending goes through
``finish`` or ``fail`` and has one Reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachelb.counters import END_INDEX, FARM_INDEX, TOTAL_TIME, WHOLE_TIME, note_us
from cachelb.errors import BadRequest, Reason
from cachelb.http.framing import CHUNKED, ChunkScanner, request_body
from cachelb.relay.attempts import BODY, CONNECTING, IDLE, PURGING, RESOLVING, SCHEDULING, TUNNEL, WAITING
from cachelb.relay.bodies import CLOSE, KEEP, KEEP_10
from cachelb.relay.hot import LONG_BYTES
from cachelb.relay.pump import Pump
from cachelb.relay.upstream import BAD_RESPONSES, Link
from cachelb.relay.ways import Ways
from cachelb.routing.classify import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachelb.relay.client import Client
    from cachelb.relay.engine import Engine

# Looking a member up in its Enum, and hashing it, cost 0.1 us each: not on the usual way.
DONE: Final = Reason.DONE
_DONE: Final = END_INDEX[DONE]
_REQUESTS: Final = FARM_INDEX["requests"]
_HASHED: Final = FARM_INDEX["hashed"]
_BYTES_OUT: Final = FARM_INDEX["bytes_out"]


class Exchange(Ways):
    """The current request of one client connection.

    undo: what ends that an answer of our own still waits for; called once if the exchange ends before.
    """

    __slots__ = ("request_id", "started", "undo")

    def __init__(self, client: Client, engine: Engine) -> None:
        super().__init__(client, engine)
        self.started = 0.0
        self.request_id = ""
        self.undo: Callable[[], object] | None = None

    # -- the request

    def start(self) -> None:
        """Serve the request in ``line`` and ``block``, which the client connection has just set."""
        engine = self.engine
        line, block = self.line, self.block
        self.begin()
        engine.farm[_REQUESTS] += 1
        if not (line.plain and block.plain) or self.client.unusual or engine.draining:
            self._start_general()
            return
        self.keep = CLOSE if block.fields.close else KEEP
        self.upgrading = False
        if engine.learned.size:
            why = engine.learned.lookup(line.key, line.segment, engine.now)
            if why is not None:
                self.bypass(why)
                return
        self.why = "get"
        targets = line.targets
        if not targets:
            self.farm_dead()
            return
        self.targets = targets
        self.partial = line.partial
        engine.farm[_HASHED] += 1
        self.head = b"".join((line.head, block.pre, self.client.ip_bytes if block.ip else b"", block.post))
        idle = targets[0].idle
        if idle:
            self.tried = 1
            self.reuse(idle.pop())
        else:
            self.try_targets()

    def begin(self) -> None:
        """Forget the request before."""
        self.answered = False
        self.tried = 0
        self.attempt = 0
        self.bytes_out = 0
        self.status = 0
        self.first_byte_us = -1
        self.hit = None
        self.body = 0
        self.body_used = False
        self.interims = 0
        self.content_type = b"-"
        self.target = None
        self.request_id = ""
        self.why = ""
        self.rule = None
        self.started = self.engine.poller.woken_at

    def _start_general(self) -> None:
        line, block, engine = self.line, self.block, self.engine
        fields = block.fields
        minor = line.minor
        self.keep = CLOSE
        self.upgrading = False
        if self.client.denied and not (line.method == b"PURGE" and engine.door.may_purge(self.client.ip)):
            self.fail(Reason.ACCESS_DENIED, f"client {self.client.ip}")
            return
        try:
            self.body = request_body(line, fields)
        except BadRequest as exc:
            self.refuse(exc)
            return
        if minor and not fields.close and not engine.draining:
            self.keep = KEEP
        elif fields.keep and not fields.close and not engine.draining:
            self.keep = KEEP_10
        if block.loop:
            self.fail(Reason.LOOP, engine.planner.via_name)
            return
        verdict = engine.planner.classify(line, block, self.client.here() if line.internal else None)
        self.why = verdict.why
        if verdict.kind is Kind.REFUSE:
            self.fail(verdict.reason or Reason.BAD_REQUEST, verdict.why)
        elif verdict.kind is Kind.LOCAL:
            engine.internal.answer(self)
        elif verdict.kind is Kind.PURGE:
            engine.internal.purge(self)
        elif (line.rules or fields.session or self.client.pin is not None) and engine.steering.takes(self, verdict.kind):
            pass
        elif verdict.kind is Kind.TUNNEL:
            if line.method == b"CONNECT":
                self.tunnel()
            else:
                self.upgrading = line.minor == 1
                self.bypass(verdict.why)
        elif verdict.kind is Kind.BYPASS:
            self.bypass(verdict.why)
        else:
            why = self.taught()
            if why is not None:
                self.bypass(why)
            else:
                self.hash()

    # -- the request's body

    def head_sent(self, link: Link) -> None:
        """The request's head is out: send the body as it arrives."""
        if self.body == CHUNKED:
            scanner = ChunkScanner(self.engine.plans.limits.head_bytes)
            self.upload = Pump(self, self.client, link, self.engine.pipes, scanner=scanner)
        else:
            self.upload = Pump(self, self.client, link, self.engine.pipes, left=self.body)
        self.client.start_upload(self.upload)

    # -- endings

    def expired(self) -> None:
        """The deadline of the current phase has passed."""
        if self.phase == RESOLVING:
            self.fail(Reason.DNS_TIMEOUT, self.line.host.decode("latin-1"))
        elif self.phase == CONNECTING:
            self.connect_expired()
        elif self.phase == WAITING:
            if self.upload is not None and self.client.unread_body():
                self.keep = CLOSE
                self.fail(Reason.BODY_TIMEOUT)
            else:
                self.first_byte_expired()
        elif self.phase == TUNNEL:
            over = self.engine.now >= self.tunnel_end
            self.finish(Reason.TUNNEL_LIMIT if over else Reason.TUNNEL_IDLE)
        elif self.phase == SCHEDULING:
            self.fail(Reason.NO_NODE, "the supervisor does not say which")
        elif self.phase == PURGING:
            self.fail(Reason.PURGE_TIMEOUT if self.why == "purge" else Reason.MANAGER_UNAVAILABLE)
        elif self.target is None or self.client.unsent is not None or (self.download is not None and self.download.waiting):
            self.fail(Reason.CLIENT_STALLED)
        else:
            self.fail(Reason.BODY_STALLED, self.targets[self.attempt].name)

    def finish(self, reason: Reason = DONE) -> None:
        """End the exchange in good order and free its connection for others."""
        engine = self.engine
        link = self.link
        if link is not None:
            tally = link.target.tally
            tally.ended += 1
            tally.bytes += self.bytes_out
            # A long answer was not read beyond its end: what else the node has said must not answer another request.  And
            # where the answer came before all of the request was sent, the rest of that would begin the next one.
            is_done = self.reusable and link.unsent is None
            if is_done and (self.phase == WAITING or (self.phase == BODY and link.is_quiet())):
                self.link = None
                link.answering = False
                if not self.client.unusual or not engine.steering.pins.holds(self, link):
                    link.target.keep(link, engine.now)
            else:
                self._stop_pumps()
                self.drop_link(ended=False)
        self._end(reason)
        # Where the answer has overtaken the request's body, the client may still be sending that.
        self.client.next_request(self.keep != CLOSE, linger=self.body != 0)

    def fail(self, reason: Reason, detail: str = "") -> None:
        """End the exchange because of ``reason``: with an error page while that is possible, else by cutting the connection."""
        if self.phase == IDLE and self.answered:
            return
        is_partial = self.download is not None and not self.download.has_all()
        self._stop_pumps()
        if self.undo is not None:
            undo, self.undo = self.undo, None
            undo()
        answered = self.answered
        target = self.link.target if self.link is not None else None
        if target is not None:
            if is_partial and self.engine.tell_seen is not None:
                self.engine.sightings.broken(self, target)
            target.tally.bytes += self.bytes_out
            if answered and reason in (Reason.TRUNCATED, Reason.BAD_CHUNKED_ANSWER, Reason.AUDIT_FAILED):
                target.counts[BAD_RESPONSES] += 1
        self.drop_link()
        self.engine.report(self, reason, detail)
        row = reason.value
        if self.client.pin is not None and self.client.pin.link.closed:
            self.keep = CLOSE  # so that the client authenticates itself anew
        if answered or not row.status:
            self._end(reason)
            self.client.abort()
            return
        if not row.is_error:
            self.engine.count("refused")
        if self.body and self.keep != CLOSE:
            self.keep = CLOSE  # its body is still on the way
        data = self.engine.reports.error_page(self, reason, detail, self.keep != CLOSE)
        self.status = row.status
        self.answer_whole(data, row.status, reason)

    def refuse(self, exc: BadRequest) -> None:
        """Refuse what the client sent, and close: nothing after it can be trusted."""
        self.keep = CLOSE
        self.fail(exc.reason, exc.detail)

    def answer_whole(self, data: bytes, status: int, reason: Reason = DONE, content_type: bytes = b"text/html") -> None:
        """Send an answer of our own and end the exchange."""
        self.answered = True
        self.status = status
        self.content_type = content_type
        self.bytes_out = len(data)
        try:
            self.client.send(data)
        except OSError:
            self._end(Reason.CLIENT_GONE)
            self.client.abort()
            return
        self._end(reason)
        # Whatever the socket did not take is sent before the next request, or the end, for both wait for it.
        self.client.next_request(self.keep != CLOSE, linger=True)

    def _stop_pumps(self) -> None:
        if self.upload is not None:
            self.upload.stop()
            self.upload = None
        if self.download is not None:
            self.download.stop()
            self.download = None

    def _end(self, reason: Reason) -> None:
        engine = self.engine
        if reason is DONE:
            done = engine.farm[_DONE] = engine.farm[_DONE] + 1
            if done >= engine.hot.at or self.bytes_out >= LONG_BYTES:
                engine.hot.take(self, done)
        else:
            engine.farm[engine.ends[reason]] += 1
        engine.farm[_BYTES_OUT] += self.bytes_out
        if self.target is not None:
            if self.first_byte_us >= 0 and self.phase == WAITING:  # the answer was whole when its head was
                note_us(self.target.counts, WHOLE_TIME, self.first_byte_us)
            else:
                note_us(self.target.counts, TOTAL_TIME, int((engine.clock() - self.started) * 1e6))
        if engine.access_log is not None:
            engine.access_log.note(self, reason)
        self.download = None
        self.upload = None
        self.refusal = None
        self.phase = IDLE
