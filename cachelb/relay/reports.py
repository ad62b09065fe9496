"""What one relay tells people: events about exchanges that went wrong, error pages; it opens the access log (``access``).

Events are limited per second, so that a dead node cannot fill a disk; what was left out is counted and said.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from cachelb.errors import Reason
from cachelb.relay import pages
from cachelb.relay.access import AccessLog

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.logfile import LogFile
    from cachelb.relay.callers import Caller
    from cachelb.relay.engine import Engine
    from cachelb.relay.exchange import Exchange

log = logging.getLogger("cachelb.relay")

EVENTS_PER_S = 10

_NOTEWORTHY = frozenset((Reason.BAD_HELLO, Reason.HELLO_TIMEOUT, Reason.BAD_PROXY_HEADER))

# By the first word of what classify, Learned and Exchange say.
_BYPASSES = {
    "authorization": "bypassed_authorization",
    "cache-control": "bypassed_no_store",
    "no-store": "bypassed_no_store",
    "method": "bypassed_method",
    "rule": "bypassed_rule",
    "learned": "bypassed_learned",
    "farm": "bypassed_farm_dead",
    "unverified": "bypassed_unverified",
}


class Reports:
    """The voice of one relay."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.access: AccessLog | None = None
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
            self.access = AccessLog(self.engine, wanted[0], wanted[1])
            self._dropped = 0
        self.engine.access_log = self.access

    def reopen(self) -> None:
        """Open the access log anew, after it was rotated."""
        if self.access is not None:
            self.access.file.reopen()

    def request_id(self) -> str:
        """An id that a client can quote and the log has: worker, start and a number."""
        self._serial += 1
        return f"{self._prefix}-{self._serial:x}"

    def ended(self, exchange: Exchange, reason: Reason, detail: str) -> None:
        """Say that an exchange ended badly, and why."""
        if not (reason.value.is_error or reason.value.status):
            return
        if not exchange.request_id:
            exchange.request_id = self.request_id()
        level = logging.WARNING if reason.value.is_error else logging.INFO
        if log.isEnabledFor(level):
            url = exchange.line.asked[:256].decode("latin-1")
            text = f"{reason.label}: {exchange.line.method.decode('latin-1')} {url} from {exchange.client.ip}"
            self.limited(f"{text}: {detail or reason.value.text} [{exchange.request_id}]", level)

    def called(self, caller: Caller, reason: Reason, detail: str) -> None:
        """Say how a connection of a TCP service ended, if that is worth a line."""
        if reason.value.is_error:
            level = logging.WARNING
        elif reason.value.status or reason in _NOTEWORTHY:
            level = logging.INFO
        else:
            return
        if log.isEnabledFor(level):
            self.limited(f"{reason.label}: {caller.place} from {caller.ip}: {detail or reason.value.text}", level)

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
        if self.access is not None:
            self.access.file.flush()
            self._count_dropped(self.access.file)

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
        if self.access is not None:
            self.access.file.flush()
            self.access.file.close()
            self._count_dropped(self.access.file)
            self.access = self.engine.access_log = None

    def _count_dropped(self, file: LogFile) -> None:
        self.engine.count("log_dropped", file.dropped - self._dropped)
        self._dropped = file.dropped


def bypass_counter(why: str) -> str:
    """Which counter counts a request that goes around the farm for this reason."""
    return _BYPASSES.get(why.partition(" ")[0].partition(":")[0].lower(), "bypassed_upgrade")
