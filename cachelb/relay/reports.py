"""What one relay tells people: the access log, and events about exchanges that went wrong.

Events are limited per second, so that a dead node cannot fill a disk; what was left out is counted and said.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from cachelb.accesslog import Entry, formatter
from cachelb.errors import Reason
from cachelb.logfile import LogFile
from cachelb.relay import pages
from cachelb.relay.attempts import TUNNEL
from cachelb.relay.sightings import HASHED

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.relay.engine import Engine
    from cachelb.relay.exchange import Exchange
    from cachelb.relay.upstream import Target

log = logging.getLogger("cachelb.relay")

EVENTS_PER_S = 10

_DENIALS = frozenset((Reason.ACCESS_DENIED, Reason.PORT_DENIED, Reason.DESTINATION_DENIED, Reason.PURGE_DENIED, Reason.LOOP,
     Reason.MANAGER_DENIED))
_TIMEOUTS = frozenset(
    (
        Reason.CONNECT_TIMEOUT, Reason.FIRST_BYTE_TIMEOUT, Reason.BODY_STALLED, Reason.CLIENT_STALLED, Reason.BODY_TIMEOUT,
        Reason.PURGE_TIMEOUT,
    )
)  # fmt: skip
# By the first word of what classify, Learned and Exchange say.
_BYPASSES = {
    "authorization": "bypassed_authorization",
    "cache-control": "bypassed_no_store",
    "no-store": "bypassed_no_store",
    "method": "bypassed_method",
    "rule": "bypassed_rule",
    "learned": "bypassed_learned",
    "farm": "bypassed_farm_dead",
}
_FARMS = frozenset(("digest", "purge", "manager"))  # answered for the farm


class Reports:
    """The voice of one relay."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.file: LogFile | None = None
        self._path = ("", "")
        self._serial = 0
        self._said = 0
        self._left_out = 0
        self._dropped = 0  # of the file's lost lines, how many have been counted
        self._second = 0.0
        self._prefix = f"{os.getpid():x}-{int(time.time()) & 0xFFFFFF:x}"

    def configure(self, config: Config) -> None:
        """Open the access log that the configuration asks for."""
        wanted = (config.log.access, config.log.access_format)
        if wanted == self._path:
            return
        self.close()
        self._path = wanted
        if wanted[0]:
            self.file = LogFile(wanted[0], formatter(wanted[1]))
            self._dropped = 0
        self.engine.access_log = self.access if self.file is not None else None

    def reopen(self) -> None:
        """Open the access log anew, after it was rotated."""
        if self.file is not None:
            self.file.reopen()

    def request_id(self) -> str:
        """An id that a client can quote and the log has: worker, start and a number."""
        self._serial += 1
        return f"{self._prefix}-{self._serial:x}"

    def access(self, exchange: Exchange, reason: Reason) -> None:
        """Log one exchange that has ended."""
        assert self.file is not None
        engine = self.engine
        line, fields = exchange.line, exchange.block.fields
        elapsed = engine.clock() - exchange.started
        hierarchy, peer = "HIER_NONE", "-"
        if exchange.target is not None:
            hierarchy, peer = hierarchy_of(exchange, exchange.target), exchange.target.name
        self.file.append(
            Entry(
                at=time.time(),
                elapsed_ms=int(elapsed * 1000),
                client=exchange.client.ip,
                outcome=outcome_of(exchange, reason),
                status=exchange.status,
                bytes_out=exchange.bytes_out,
                method=line.method,
                url=line.key,
                hierarchy=hierarchy,
                peer=peer,
                content_type=exchange.content_type,
                referer=fields.referer,
                user_agent=fields.user_agent,
                request_id=exchange.request_id,
                reason=reason.label,
            )
        )

    def ended(self, exchange: Exchange, reason: Reason, detail: str) -> None:
        """Say that an exchange ended badly, and why."""
        if not (reason.value.is_error or reason.value.status):
            return
        if not exchange.request_id:
            exchange.request_id = self.request_id()
        level = logging.WARNING if reason.value.is_error else logging.INFO
        if log.isEnabledFor(level):
            url = exchange.line.key[:256].decode("latin-1")
            text = f"{reason.label}: {exchange.line.method.decode('latin-1')} {url} from {exchange.client.ip}"
            self.limited(f"{text}: {detail or reason.value.text} [{exchange.request_id}]", level)

    def limited(self, text: str, level: int = logging.WARNING) -> None:
        """Log ``text``, unless too much was logged this second already."""
        if self._said < EVENTS_PER_S:
            self._said += 1
            log.log(level, "%s", text.encode("ascii", "backslashreplace").decode())
        else:
            self._left_out += 1

    def tick(self, now: float) -> None:
        """A tick of the relay's clock: write what is due."""
        if now - self._second >= 1.0:
            self._second = now
            if self._left_out:
                log.warning("%d more events of exchanges were not logged", self._left_out)
            self._said = self._left_out = 0
        if self.file is not None:
            self.file.flush()
            self._count_dropped(self.file)

    def error_page(self, exchange: Exchange, reason: Reason, detail: str, keep: bool) -> bytes:
        """The error page for an exchange."""
        line = exchange.line
        exchange.request_id = exchange.request_id or self.request_id()
        return pages.error_page(
            reason,
            detail,
            line.target,
            exchange.request_id,
            self.engine.planner.via_name,
            keep=keep,
            head_only=line.method == b"HEAD",
            minor=line.minor,
        )

    def close(self) -> None:
        """Write what is left and close."""
        if self.file is not None:
            self.file.flush()
            self.file.close()
            self._count_dropped(self.file)
            self.file = None

    def _count_dropped(self, file: LogFile) -> None:
        self.engine.count("log_dropped", file.dropped - self._dropped)
        self._dropped = file.dropped


def outcome_of(exchange: Exchange, reason: Reason) -> str:
    """Squid's result code for the access log; its own digests and purges are TCP_MISS to it."""
    if exchange.phase == TUNNEL:
        return "TCP_TUNNEL"
    if reason in _DENIALS:
        return "TCP_DENIED"
    if exchange.target is None and exchange.why not in _FARMS:
        return "NONE_NONE"
    code = "TCP_HIT" if exchange.hit else "TCP_MISS"
    if reason is Reason.DONE:
        return code
    return code + ("_TIMEDOUT" if reason in _TIMEOUTS else "_ABORTED")


def bypass_counter(why: str) -> str:
    """Which counter counts a request that goes around the farm for this reason."""
    return _BYPASSES.get(why.partition(" ")[0].partition(":")[0].lower(), "bypassed_upgrade")


def hierarchy_of(exchange: Exchange, target: Target) -> str:
    """Squid's word for how the target was chosen, for the access log."""
    if not target.is_node:
        return "HIER_DIRECT"
    if exchange.why not in HASHED:
        return "ROUNDROBIN_PARENT"
    return "FIRSTUP_PARENT" if exchange.attempt else "CARP"
