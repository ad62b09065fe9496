"""What the access log says of an exchange that has ended.

Left out: what a line looks like (``accesslog``), the file (``logfile``), when it is opened and written (``reports``).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cachelb.accesslog import LINE_BYTES, Entry, SquidLines, formatter, visible_url
from cachelb.errors import Reason
from cachelb.logfile import LogFile
from cachelb.relay.attempts import TUNNEL, WAITING
from cachelb.relay.sightings import HASHED

if TYPE_CHECKING:
    from cachelb.relay.callers import Caller
    from cachelb.relay.engine import Engine
    from cachelb.relay.exchange import Exchange
    from cachelb.relay.upstream import Target

_DENIALS: Final = frozenset(
    (
        Reason.ACCESS_DENIED, Reason.PORT_DENIED, Reason.DESTINATION_DENIED, Reason.PURGE_DENIED, Reason.LOOP,
        Reason.MANAGER_DENIED,
    )
)  # fmt: skip
_TIMEOUTS: Final = frozenset(
    (
        Reason.CONNECT_TIMEOUT, Reason.FIRST_BYTE_TIMEOUT, Reason.BODY_STALLED, Reason.CLIENT_STALLED, Reason.BODY_TIMEOUT,
        Reason.PURGE_TIMEOUT,
    )
)  # fmt: skip
_FARMS: Final = frozenset(("digest", "purge", "manager"))  # answered for the farm
_DONE: Final = Reason.DONE
_HIERARCHIES: Final = {"client": "SOURCEHASH_PARENT", "host": "CARP"}  # of TCP services


class AccessLog:
    """The access log of one relay.

    file: where its lines go.

    Args:
        path: of the file; "-" = standard output.
        form: squid, combined or json.
    """

    def __init__(self, engine: Engine, path: str, form: str) -> None:
        self.file = LogFile(path)
        self._engine = engine
        self._squid = SquidLines() if form == "squid" else None
        self._line = formatter(form)
        self._at = 0.0  # when the latest exchange has ended, on the wall clock
        self._woken_at = 0.0  # to which turn of the poller that belongs; 0: to none

    def note(self, exchange: Exchange, reason: Reason) -> None:
        """Take the line of an exchange that has ended."""
        line = exchange.line
        target = exchange.target
        if target is None:
            hierarchy, peer = "HIER_NONE", "-"
        else:
            hierarchy, peer = hierarchy_of(exchange, target), target.name
        outcome = outcome_of(exchange, reason)
        squid = self._squid
        elapsed_ms = self._stamp(exchange)
        if squid is not None and line.method == b"GET":  # a request in Squid's format takes a third less so (2026-11)
            if not line.logged:
                line.logged = visible_url(line.asked)
            text = squid.put(
                elapsed_ms, exchange.client.ip, outcome, exchange.status, exchange.bytes_out,
                b"GET", line.logged, hierarchy, peer, exchange.content_type,
            )  # fmt: skip
            if len(text) <= LINE_BYTES:
                self.file.append(text)
                return
        fields = exchange.block.fields
        self.file.append(
            self._line(
                Entry(
                    at=self._at,
                    elapsed_ms=elapsed_ms,
                    client=exchange.client.ip,
                    outcome=outcome,
                    status=exchange.status,
                    bytes_out=exchange.bytes_out,
                    method=line.method,
                    url=line.asked,
                    hierarchy=hierarchy,
                    peer=peer,
                    content_type=exchange.content_type,
                    referer=fields.referer,
                    user_agent=fields.user_agent,
                    request_id=exchange.request_id,
                    reason=reason.label,
                )
            )
        )

    def _stamp(self, exchange: Exchange) -> int:
        """Note when an exchange ends, and return how long it took, in ms.

        One that ends as its answer comes, as most do, ends when the poller woke up: no look at any clock.
        """
        engine = self._engine
        if exchange.first_byte_us >= 0 and exchange.phase == WAITING:
            woken_at = engine.poller.woken_at
            if woken_at != self._woken_at:
                self._woken_at = woken_at
                self._at = woken_at + engine.ticker.wall_offset
                if self._squid is not None:
                    self._squid.stamp(self._at)
            return exchange.first_byte_us // 1000
        self._woken_at = 0.0
        self._at = time.time()
        if self._squid is not None:
            self._squid.stamp(self._at)
        return int((engine.clock() - exchange.started) * 1000)

    def note_call(self, caller: Caller, reason: Reason) -> None:
        """Take the line of a TCP service's connection that has ended: method TCP, no status, the service for a URL."""
        target, scheduler = caller.target, caller.service.settings.scheduler
        self.file.append(
            self._line(
                Entry(
                    at=time.time(),
                    elapsed_ms=int((self._engine.clock() - caller.started) * 1000),
                    client=caller.ip,
                    outcome="TCP_DENIED" if reason in _DENIALS else "TCP_TUNNEL" if caller.upload is not None else "NONE_NONE",
                    status=0,
                    bytes_out=caller.bytes_out,
                    method=b"TCP",
                    url=caller.place.encode("utf-8", "replace"),
                    hierarchy="HIER_NONE" if target is None else _HIERARCHIES.get(scheduler, "ROUNDROBIN_PARENT"),
                    peer="-" if target is None else target.name,
                    content_type=b"-",
                    referer=b"",
                    user_agent=b"",
                    request_id="",
                    reason=reason.label,
                )
            )
        )


def outcome_of(exchange: Exchange, reason: Reason) -> str:
    """Squid's result code for the access log; its own digests and purges are TCP_MISS to it."""
    if exchange.phase == TUNNEL:
        return "TCP_TUNNEL"
    if reason is not _DONE and reason in _DENIALS:
        return "TCP_DENIED"
    if exchange.target is None and exchange.why not in _FARMS:
        return "NONE_NONE"
    code = "TCP_HIT" if exchange.hit else "TCP_MISS"
    if reason is _DONE:
        return code
    return code + ("_TIMEDOUT" if reason in _TIMEOUTS else "_ABORTED")


def hierarchy_of(exchange: Exchange, target: Target) -> str:
    """Squid's word for how the target was chosen, for the access log."""
    if not target.is_node:
        return target.hierarchy
    if exchange.why not in HASHED:
        return "ROUNDROBIN_PARENT"
    return "FIRSTUP_PARENT" if exchange.attempt else "CARP"
