"""The farm's one cache digest: kept up to date and handed to whoever serves it.

    merged = MergedDigest(index, publish)
    merged.configure(config.digest)
    merged.publish_empty()       before the first worker can be asked: a 404 would cost a child five minutes
    await merged.run()           until it is cancelled

It is built from keys, off the event loop (``builder``), when `rebuild_s` is over, and earlier when more than a tenth of what it
was built from has come or gone, or a node with all it holds.  A build that fails leaves the digest that there is; it is
tried again, and the operator is told.

Which objects are in it.  A child asks for the next digest 300 s after the last one has expired, so each is in use for
`rebuild_s` + 300 s.  Squid leaves out what will not be fresh for the whole of its own period: by default all that lives for
less than an hour.  But an object that is missing costs the child a fetch from the origin, some 50 ms, or one ICP query if it
uses both.  One that has gone stale since costs little: a parent fetches or renews it, as the child would have done; a
sibling answers 504 within a millisecond or two, and the child goes on.  At twenty to one, what stays fresh for a
twentieth of the time is worth its place.  That is 30 s at the default of 300 s: what ICP promises, too, and never less.

Left out: serving it (``relay``), and the way to the workers (``handover``).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from digest import Digest, geometry_for, pack_digest

from ..config import DigestConfig
from ..handover import Published
from ..snapshot import NodeView
from .build import Built
from .builder import Builder, BuildError, order_for
from .holdings import MARGIN_S, Holdings

# Between the end of a digest's life and the moment when a child asks for the next.  Source: Squid 5.7, peer_digest.cc,
# PeerDigestReqMinGap.
CHILD_LAG_S = 300
WORTH = 20  # times as dear is what is missing, compared with what is stale
LOOK_S = 1.0  # how often it is asked whether too much has changed
# Earlier than planned when so many records came or went, for at least 10 % of them ...
MOVED_SHARE = 0.1
# ... but no farm is so small that it is rebuilt all the time
MOVED_MIN = 100
# A build takes 0.1 s of CPU even if there are few keys, and a child comes every five minutes or more.
SOONEST_S = 15.0
# A tenth of one CPU at most, while a large farm fills.
REST_PER_BUILD = 10
# Few keys, or a node that came or went with them: after a part of the period.
LATER_SHARE = 0.1
# After a failure; doubled with each that follows it.
RETRY_S = 5.0
RETRY_MAX_S = 300.0

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

log = logging.getLogger("cachelb.digest")


class Index(Protocol):
    """What is needed of the index.  live: mask of the nodes that hold what is recorded of them."""

    @property
    def holdings(self) -> Holdings: ...

    @property
    def live(self) -> int: ...


def margin_s(rebuild_s: float) -> int:
    """For how long an object must stay fresh to be worth a place in a digest that lives so long."""
    return max(MARGIN_S, round((rebuild_s + CHILD_LAG_S) / WORTH))


def wait_s(before: Mapping[int, int], now: Mapping[int, int], rebuild_s: float, build_s: float) -> float:
    """How long after the last build the next one is due, as things are.

    Args:
        before: live node -> records, at the last build.
        now: the same, now.
        rebuild_s: the period.
        build_s: what the last build took.
    """
    total = sum(before.values())
    moved = sum(abs(now.get(node, 0) - before.get(node, 0)) for node in before.keys() | now.keys())
    came_or_went = any(before.get(node) or now.get(node) for node in before.keys() ^ now.keys())
    soonest = max(SOONEST_S, REST_PER_BUILD * build_s)
    later = max(soonest, LATER_SHARE * rebuild_s)
    if not total:  # not the time to be patient: whoever has an empty digest asks the origins for everything
        wait = later if not moved else soonest if moved < MOVED_MIN else REST_PER_BUILD * build_s
    elif moved > MOVED_SHARE * total or came_or_went:
        wait = soonest if moved >= MOVED_MIN else later
    else:
        wait = rebuild_s
    return min(wait, rebuild_s)


class MergedDigest:
    """Builds, publishes and remembers the digest.

    publish: is given each new one.  The descriptor stays ours, and is closed when `publish` has been given the next.
    """

    def __init__(self, index: Index, publish: Callable[[Published], None]) -> None:
        self._index = index
        self._publish = publish
        self._config = DigestConfig()
        self._names: dict[int, str] = {}
        self._builder = Builder()
        self._wake = asyncio.Event()
        self._published: Published | None = None
        self._built: Built | None = None  # what is in it
        self._bits_per_entry = 0  # as they were wanted for it
        self._before: dict[int, int] = {}  # live node -> records, when its building began
        self._build_s = 0.0
        self._since = 0.0  # monotonic: when the last build, or attempt, ended
        self._failures = 0
        self._problem = ""
        self._is_building = False

    def configure(self, config: DigestConfig) -> None:
        """Other settings from now on."""
        self._config = config
        self._wake.set()

    def place(self, views: Sequence[NodeView]) -> None:
        """The nodes; also called when only their states are others."""
        self._names = {view.slot: view.name for view in views}
        self._wake.set()

    async def run(self) -> None:
        """Keep the digest up to date until cancelled."""
        if self._published is None:
            self.publish_empty()
        self._builder.prepare()
        while True:
            await self._until_due()
            await self._renew()

    def publish_empty(self) -> None:
        """Publish a digest of nothing: a valid one, which no child keeps for long."""
        bits_per_entry = self._config.bits_per_entry
        digest = Digest.empty(geometry_for(0, bits_per_entry))
        data = pack_digest(digest)
        fd = _memory()
        try:
            os.write(fd, data)
            self._replace(fd, _nothing(digest, len(data)), {}, bits_per_entry)
        finally:
            os.close(fd)

    def close(self) -> None:
        """End the process and give up the descriptor; `run` must have ended."""
        self._builder.close()
        if self._published is not None:
            os.close(self._published.fd)
            self._published = None

    def status(self) -> dict[str, Any]:
        """What there is and what comes: for the operator.  Times are the wall clock's; empty: nothing is published yet."""
        published, built = self._published, self._built
        if published is None or built is None:
            return {}
        about = asdict(built)
        about["nodes"] = [
            {"name": self._names.get(node, f"slot {node}"), "keys": keys, "fill": fill} for node, keys, fill in built.nodes
        ]
        return about | {
            "built_at": published.modified_at,
            "expires_at": published.expires_at,
            "next_at": round(time.time() + max(0.0, self._left_s())),
            "is_building": self._is_building,
            "build_s": round(self._build_s, 3),
            "problem": self._problem,
        }

    async def _until_due(self) -> None:
        while True:
            self._wake.clear()
            left_s = self._left_s()
            if left_s <= 0.0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, LOOK_S)):
                    await self._wake.wait()

    def _left_s(self) -> float:
        """Until the next build is due, as things are."""
        if self._failures:
            wait = min(RETRY_S * 2.0 ** (self._failures - 1), RETRY_MAX_S)
        elif self._bits_per_entry != self._config.bits_per_entry:
            wait = 0.0
        else:
            wait = wait_s(self._before, self._records(), self._config.rebuild_s, self._build_s)
        return self._since + wait - time.monotonic()

    def _records(self) -> dict[int, int]:
        """Live node -> records."""
        holdings, live = self._index.holdings, self._index.live
        return {node: holdings.count(node) for node, _ in holdings.slots().values() if live >> node & 1}

    async def _renew(self) -> None:
        """Build and publish, or say why not."""
        before = self._records()
        began = time.monotonic()
        self._is_building = True
        try:
            if any(before.values()):
                await self._build(before)
                self._build_s = time.monotonic() - began
            else:
                self.publish_empty()
        except (BuildError, OSError) as exc:
            self._failures += 1
            self._since = time.monotonic()
            self._problem = str(exc)
            log.warning("the cache digest stays as it is; the next try follows in %.0f s: %s", self._left_s(), exc)
            return
        finally:
            self._is_building = False
        if self._failures:
            log.info("the cache digest is up to date again")
        self._failures, self._problem = 0, ""

    async def _build(self, before: dict[int, int]) -> None:
        config, holdings = self._config, self._index.holdings
        fresh_after = int(time.time()) + margin_s(config.rebuild_s)
        order = order_for(holdings, self._index.live, fresh_after, config.bits_per_entry)
        fd = _memory()
        try:
            built = await self._builder.build(holdings, order, fd)
            self._replace(fd, built, before, config.bits_per_entry)
        finally:
            os.close(fd)

    def _replace(self, fd: int, built: Built, before: dict[int, int], bits_per_entry: int) -> None:
        """Publish what is in the file `fd`, which must not be written to any more."""
        size = os.fstat(fd).st_size
        if size != built.size_bytes:
            raise BuildError(f"{size} bytes were written instead of {built.size_bytes}")
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        now = int(time.time())
        wait = wait_s(before, before, self._config.rebuild_s, self._build_s)
        # opened anew: Linux before 6.7 maps no sealed file for sharing if the descriptor could be written to
        readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        old, self._published = self._published, Published(readable, size, now, now + math.ceil(wait))
        self._built, self._before, self._bits_per_entry = built, before, bits_per_entry
        self._since = time.monotonic()
        try:
            self._publish(self._published)
        finally:
            if old is not None:
                os.close(old.fd)


def _memory() -> int:
    """A new file in memory that can be sealed."""
    return os.memfd_create("cachelb-digest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def _nothing(digest: Digest, size_bytes: int) -> Built:
    geometry = digest.geometry
    return Built(0, 0, geometry.capacity, geometry.bits_per_entry, size_bytes, 0.0, 0.0, [], 0.0, 0)
