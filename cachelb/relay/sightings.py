"""What answers tell about the nodes' stores, gathered for the supervisor, who keeps the index of the farm.

An answer that was a hit says that the node has the URL; one that was a miss, that it has it now or, where it cannot be
stored, that it has not.  ``http.freshness`` says until when.

Hits come again and again, so each LinePlan remembers when its next one is worth reading, and the relay asks only that, which
takes 0.04 us.  For a miss a node has fetched something: beside that the 2 us for reading the head again are little (2026-11).
Answers that nobody could get from a cache (misses, with nothing fresh about them) are told once a minute, too: farms see
many of them.

A node without X-Cache and Cache-Status tells nothing about hits: its answers are read as misses, as often as hits are.

Left out: requests that are not hashed, whose answers are not stored, and those whose URL is too long for ICP.
"""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING, Final

from cachelb.control import Seen
from cachelb.http.freshness import MARGIN_S, held_until, stored_until

if TYPE_CHECKING:
    from cachelb.http.response import ResponseHead
    from cachelb.relay.answer import Answer
    from cachelb.relay.engine import Engine
    from cachelb.relay.upstream import Target

# What a worker tells in 0.2 s at most: at 4 us each that is a tenth of the supervisor's time (2026-11).
SEEN_PER_TICK: Final = 4096
BYTES_PER_TICK: Final = 1 << 20
# Of hits, which are told to confirm what is known, fewer: with 10 million URLs, each asked for once in a while, they would
# cost more than relaying does.  What is passed over is told at its next hit; store logs and digests say it anyway.
HITS_PER_TICK: Final = 256
URL_BYTES_MAX: Final = 8191  # Squid's MAX_URL: nobody can ask for more by ICP
AGAIN_S: Final = 60.0  # how often what did not change is told: the index may have lost it, or another worker said otherwise
AGAIN_MIN_S: Final = 5.0  # of what is stale already, or nearly so
STORED_AGAIN_S: Final = 5.0  # of a miss: the index does not believe it while it may be older than a purge (cluster/index.py)

ONLY_IF_CACHED: Final = "only-if-cached"
HASHED: Final = frozenset(("get", ONLY_IF_CACHED))
# Answers with which Squid drops what it had, whatever becomes of the new one (http.cc, httpMaybeRemovePublic).
_REPLACING: Final = frozenset((200, 203, 300, 301, 302, 303, 403, 404, 405, 410))
# A client that insists on the origin: what the node answers does not say that it had nothing.
_reload: Final = re.compile(rb"(?im)^(?:cache-control|pragma):[^\r\n]*(?:no-cache|max-age=0)").search


class Sightings:
    """What one relay saw since the last tick."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clock = time.time
        self.seen: list[Seen] = []
        self._bytes = 0
        self._hits = 0

    def answered(self, exchange: Answer, target: Target, head: ResponseHead) -> None:
        """A node has answered: a miss, or a hit that is to be told again."""
        if head.hit and self._hits >= HITS_PER_TICK:
            return
        line = exchange.line
        if exchange.why not in HASHED or len(line.key) > URL_BYTES_MAX:
            return
        is_get = line.method == b"GET"
        now, wall = self.engine.now, int(self.clock())
        if head.hit:
            self._hits += 1
            # A HEAD is answered from an object of its own, too, for which nobody asks.
            until = held_until(head.status, head.head, wall) if is_get else 0
            line.told_until = now + min(max(until - wall, AGAIN_MIN_S), AGAIN_S) if is_get else math.inf
            if until:
                self._tell(target, until, line.key)
            return
        if now < line.vain_until and not head.storable:
            return
        until = 0
        if is_get and not head.uncacheable:
            delay_s = 0 if head.hit is None else int(self.engine.clock() - exchange.started)
            until = stored_until(head.status, head.head, wall, delay_s)
        if until > wall + MARGIN_S:
            line.told_until = now + min(until - wall, AGAIN_S if head.hit is None else STORED_AGAIN_S)
            line.vain_until = 0.0
        elif now < line.vain_until or not (until or _is_gone(exchange, head)):
            return
        else:
            line.told_until = 0.0
            line.vain_until = now + AGAIN_S
        self._tell(target, until, line.key)

    def missed(self, exchange: Answer, target: Target) -> None:
        """A node has said that it does not have what only a cache was asked for."""
        line = exchange.line
        line.told_until = 0.0
        line.vain_until = self.engine.now + AGAIN_S
        if len(line.key) <= URL_BYTES_MAX:
            self._tell(target, 0, line.key)

    def broken(self, exchange: Answer, target: Target) -> None:
        """An answer has ended too early: if it was told to be stored, it is not."""
        line = exchange.line
        if not exchange.hit and line.told_until and exchange.why in HASHED and line.method == b"GET":
            line.told_until = 0.0
            self._tell(target, 0, line.key)

    def flush(self) -> None:
        """Tell what was seen; a new tick begins."""
        self._hits = 0
        if not self.seen:
            return
        seen, self.seen, self._bytes = self.seen, [], 0
        if self.engine.tell_seen is not None:
            self.engine.tell_seen(seen)

    def _tell(self, target: Target, until: int, url: bytes) -> None:
        if len(self.seen) < SEEN_PER_TICK and self._bytes < BYTES_PER_TICK:
            self.seen.append(Seen(target.slot, until, url))
            self._bytes += len(url)
        else:
            self.engine.count("sightings_dropped")


def _is_gone(exchange: Answer, head: ResponseHead) -> bool:
    """Whether a miss that is not stored says that the node has nothing fresh for the URL."""
    if head.squid_error is not None:
        return False  # of the node's own making
    if head.hit is None:
        return head.status in _REPLACING and exchange.line.method == b"GET"
    return head.status in _REPLACING or _reload(exchange.block.block) is None
