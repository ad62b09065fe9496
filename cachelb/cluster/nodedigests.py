"""The nodes' digests: fetched when each node makes a new one, and what is recorded of the node is tried by it (``trial``).

Not kept: when a digest has been tried, its judgement stays in force until the next one, and its mask is thrown away.  One
that cannot be had or is not sound changes nothing; the operator is told once for each kind of problem.

A node's process may be another one when the store log says so (``ask_now``) and when the node comes back from the dead: what
was recorded until then is OLD, the digest is asked for at once, and settles what has become of it.  Digests do not
survive a restart, so one that is the same as before proves that there was none.  The director's own restart is treated
likewise: a digest that was made after the state was saved settles what was loaded, an older one proves that its node
has been there all the time.  A node that has moved to another address or port may be another machine, which may have been
running for a while: any digest that is not the same as before settles what is recorded of it.

A node without a digest (404: no cache_dir, memory only) is forgotten whole after a restart: its memory is gone.  Where it is
not known yet that it has none, that takes ten minutes.  With [index] node_digests off, nothing of this happens, and what a
restarted node has lost is noticed as it expires.

Left out: when exactly (``schedule``), what a digest says (``trial``), how it is fetched (``digest.fetch``).
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from cachelb.snapshot import NodeView
from cachelb.wire.proxy_protocol import own_header
from digest import (
    CONTROL_BYTES,
    MASK_LIMIT_BYTES,
    NOT_READY,
    DigestError,
    Fetched,
    FetchError,
    Outcome,
    fetch_digest,
)

from .index import Index
from .schedule import PERIOD_S, Schedule
from .sweep import Sweep
from .trial import MARGIN_S, ReadDigest, Terms, Trial, Verdict, read_digest

log = logging.getLogger("cachelb.digests")

FETCHES = 4  # at once
PAUSE_S = 0.1  # at least, between two looks at what is due: there may be a thousand nodes
IN_HAND = 8  # digests that are being fetched or tried: their masks are in memory
# The largest mask: 16 bits for each key that the index may hold; Squid's default has 5.
MASK_KEY_BYTES = 2
MASK_LEAST_BYTES = 1 << 20
TIMEOUT_S = 30.0  # of one fetch: 10 MB from a busy node on a slow line
NOTICED_S = 10.0  # so long after it happened a restart is noticed, by probes or by what the store log tells
LOADED_S = 2.0  # what was loaded was recorded up to so long after the time in the file
DATE_S = 1.0  # HTTP's dates have whole seconds
# A node has no digest when it has answered 404 for so long: while it was running; after a restart, when it may be busy
# finding out what is on a large disk.
NONE_RUNNING_S, NONE_RESTARTED_S = 60.0, 600.0

_digits = re.compile("[0-9]+")


@dataclass(eq=False, slots=True)
class _Node:
    """What is known of one node's digests.

    settles_after: wall clock; a digest made later is of a process that was started after the OLD records were made.  None: no
    restart is to be settled.  restarted_at, none_since: monotonic; when it came back, and since when there has been 404 and
    never a digest.  turns: how often it was restarted.  tried_at: wall clock; when the last trial ended.
    is_turned_again: that happened during a trial.  is_moved: it has moved, which the next turn must take into account.
    at: the addresses and port that it had last.  seal: of the digest that was tried last.
    """

    view: NodeView
    schedule: Schedule
    tried_at: float
    settles_after: float | None = None
    restarted_at: float | None = None
    none_since: float | None = None
    turns: int = 0
    is_turned_again: bool = False
    is_moved: bool = False
    at: tuple[tuple[str, ...], int] = ((), 0)
    has_digest: bool = False
    is_away: bool = False
    is_busy: bool = False
    is_trusted: bool = False
    is_mute: bool = False
    last_modified: str = ""
    seal: bytes = b""
    problem: str = ""
    shown: dict[str, Any] = field(default_factory=dict)

    def look(self, view: NodeView) -> bool:
        """Take over its view; returns whether it has moved.  One that has lost or got an address, but kept one, has not."""
        self.view = view
        if not view.addresses:
            return False
        (addresses, port), self.at = self.at, (view.addresses, view.port)
        return bool(addresses) and (port != view.port or set(addresses).isdisjoint(view.addresses))


class NodeDigests:
    """Fetches digests and tries the index by them.

    Args:
        index: its clock is used, and its holdings are tried.
        enabled: [index] node_digests.
    """

    def __init__(self, index: Index, enabled: bool = True) -> None:
        self._index = index
        self._holdings = index.holdings
        self._enabled = enabled
        self._nodes: dict[int, _Node] = {}
        self._sweep = Sweep(index.holdings)
        self._wake = asyncio.Event()
        self._busy = 0  # nodes that are asked, or whose digests are tried
        self._fetching = asyncio.Semaphore(FETCHES)
        keys = MASK_KEY_BYTES * self._holdings.keys_limit
        self._mask_limit_bytes = min(MASK_LIMIT_BYTES, max(MASK_LEAST_BYTES, keys))

    # -- what the supervisor calls

    def configure(self, enabled: bool) -> None:
        """Whether to do anything at all."""
        self._enabled = enabled
        self._wake.set()

    def place(self, views: Iterable[NodeView]) -> None:
        """Other nodes, or other states of nodes."""
        views = tuple(views)
        names = {view.slot: view.name for view in views}
        for slot, node in list(self._nodes.items()):
            if names.get(slot) != node.view.name:
                del self._nodes[slot]
                self._sweep.end(slot)
        for view in views:
            node = self._nodes.get(view.slot) or self._new(view, len(views))
            has_moved = node.look(view)
            was_away, node.is_away = node.is_away, view.state not in ("up", "drain") or not view.addresses
            if has_moved:
                node.is_moved = True
            if has_moved or (node.is_away and not was_away):
                self._turn(node)
            if not node.is_away and (has_moved or was_away):
                self._returned(node)
        self._wake.set()

    def ask_now(self, slot: int) -> None:
        """The node's process is another one than before: what does it have?"""
        node = self._nodes.get(slot)
        if node is not None:
            self._turn(node)
            self._returned(node)

    def status(self) -> list[dict[str, Any]]:
        """What is known, for each node.

        node, problem ("": none), has_digest, next_s; of its last digest: fetched_at (wall clock), entries (as the node says),
        bytes, fill and false_positives (0 to 1), and when it was tried: verdict, share (of what should be in it, 0 to 1),
        confirmed, missing, removed (records).
        """
        now = time.monotonic()
        return [
            {
                "node": node.view.name,
                "problem": node.problem,
                "has_digest": node.has_digest,
                "next_s": round(max(0.0, node.schedule.due - now), 1),
                **node.shown,
            }
            for node in self._nodes.values()
        ]

    async def run(self) -> None:
        """Until cancelled."""
        self._busy = 0
        for node in self._nodes.values():
            node.is_busy = False
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep.run())
            while True:
                self._wake.clear()
                idle = [node for node in self._nodes.values() if not (node.is_busy or node.is_away)] if self._enabled else []
                for node in self._due(idle):
                    node.is_busy = True
                    self._busy += 1
                    group.create_task(self._ask(node))
                await self._sleep(idle)
                await asyncio.sleep(PAUSE_S)

    # -- when

    def _due(self, idle: list[_Node]) -> list[_Node]:
        """The nodes to ask now, those that were restarted first."""
        now = time.monotonic()
        due = [node for node in idle if node.schedule.due <= now]
        due.sort(key=lambda node: (not node.schedule.is_hurried(now), node.schedule.due))
        return due[: IN_HAND - self._busy]

    async def _sleep(self, idle: list[_Node]) -> None:
        """Until something is due and can be done, or has changed."""
        wait_s = None
        if self._busy < IN_HAND:  # else nothing can be done before one of them ends
            next_due = min((node.schedule.due for node in idle if not node.is_busy), default=math.inf)
            wait_s = max(0.0, next_due - time.monotonic()) if next_due < math.inf else None
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _new(self, view: NodeView, count: int) -> _Node:
        node = _Node(view, Schedule(view.name, time.monotonic(), count), self._index.clock())
        if self._holdings.as_of and self._holdings.count(view.slot):
            node.settles_after = self._holdings.as_of + LOADED_S
        self._nodes[view.slot] = node
        return node

    def _turn(self, node: _Node) -> None:
        """What is recorded of the node so far may be of another process than what comes."""
        node.turns += 1
        if self._sweep.has(node.view.slot):
            node.is_turned_again = True
            return
        if node.restarted_at is None:
            node.restarted_at = time.monotonic()
            if node.settles_after is None:  # else what was loaded is OLD, and stays that
                self._holdings.turn(node.view.slot)
                node.settles_after = self._index.clock() - NOTICED_S
        if node.is_moved:
            node.is_moved, node.last_modified, node.settles_after = False, "", 0.0

    def _returned(self, node: _Node) -> None:
        """It is there, after a restart or what may have been one."""
        now = time.monotonic()
        if node.none_since is not None and now - node.none_since >= NONE_RUNNING_S:
            self._forget(node)
        elif node.restarted_at is not None:
            node.restarted_at = now
        node.schedule.hurry(now)
        self._wake.set()

    def _settled(self, node: _Node) -> None:
        node.settles_after = node.restarted_at = None

    def _forget(self, node: _Node) -> None:
        """It was restarted, and has no digest: it has no disk."""
        count = self._holdings.count(node.view.slot)
        self._holdings.forget_node(node.view.slot)
        self._settled(node)
        log.info("node %s was restarted and has no digest: %s objects forgotten", node.view.name, f"{count:,}")

    # -- fetching

    async def _ask(self, node: _Node) -> None:
        try:
            await self._asked(node)
        except DigestError as exc:
            self._failed(node, str(exc))
        except Exception as exc:
            log.critical("internal error: %r", exc, exc_info=exc)
            self._failed(node, "internal error")
        finally:
            node.is_busy = False
            self._busy -= 1
            self._wake.set()

    async def _asked(self, node: _Node) -> None:
        turns = node.turns
        is_routine = not node.schedule.is_hurried(time.monotonic()) and not node.is_mute
        answer, wall = await self._fetched(node.view, node.last_modified if is_routine else "")
        read = await asyncio.to_thread(read_digest, answer.body, self._mask_limit_bytes) if isinstance(answer, Fetched) else None
        now = time.monotonic()
        if self._nodes.get(node.view.slot) is not node or node.turns != turns:
            return  # it may be another node's, or another process's; that one is asked next
        if answer is NOT_READY:
            self._not_ready(node, now)
            return
        node.has_digest, node.none_since = True, None
        if not isinstance(answer, Fetched) or read is None:
            node.schedule.same(now)
            self._is_same(node)
            return
        node.schedule.got(answer.fresh_s, now)
        node.shown |= {"fetched_at": wall, "entries": read.digest.count, "bytes": read.digest.mask.size_bytes}
        node.shown |= {"fill": round(read.fill, 4), "false_positives": read.false_positives}
        if read.seal + answer.last_modified.encode() == node.seal and not (node.is_mute and node.settles_after is not None):
            self._is_same(node)
        else:
            await self._try(node, answer, read, wall)

    async def _fetched(
        self, view: NodeView, since: str
    ) -> tuple[Fetched | Literal[Outcome.NOT_MODIFIED, Outcome.NOT_READY], float]:
        """From the first of the node's addresses that answers; and when that was asked (wall clock)."""
        problem = FetchError("no address")
        limit_bytes = CONTROL_BYTES + self._mask_limit_bytes
        async with self._fetching:
            for place in view.addresses:
                wall = self._index.clock()
                try:
                    return await fetch_digest(
                        place,
                        view.port,
                        if_modified_since=since,
                        limit_bytes=limit_bytes,
                        timeout_s=TIMEOUT_S,
                        first=own_header(view.send_proxy),
                    ), wall
                except FetchError as exc:
                    problem = exc
        raise problem

    def _failed(self, node: _Node, problem: str) -> None:
        now = time.monotonic()
        is_there = self._nodes.get(node.view.slot) is node and not node.is_away
        if is_there and not node.schedule.is_hurried(now):
            self._tell(node, problem)
        node.schedule.failed(now)

    def _not_ready(self, node: _Node, now: float) -> None:
        if node.restarted_at is not None and now - node.restarted_at >= NONE_RESTARTED_S:
            self._forget(node)
        if node.has_digest and not node.schedule.is_hurried(now):
            self._tell(node, "there is none any more (404)")
        elif not node.has_digest and node.none_since is None:
            node.none_since = now
        node.schedule.failed(now)

    def _tell(self, node: _Node, problem: str) -> None:
        """Tell the operator, if it is something new."""
        if _digits.sub("#", problem) != _digits.sub("#", node.problem):
            log.warning("node %s: no use can be made of its digest: %s", node.view.name, problem)
        node.problem = problem

    def _is_well(self, node: _Node) -> None:
        if node.problem:
            log.info("node %s: its digest is used again", node.view.name)
            node.problem = ""

    def _is_same(self, node: _Node) -> None:
        """The digest that was tried last is still there, and so is the process that made it."""
        if node.settles_after is not None:
            self._holdings.turn(node.view.slot)  # back
            self._settled(node)
        if not node.is_mute:
            self._is_well(node)

    # -- trying

    async def _try(self, node: _Node, answer: Fetched, read: ReadDigest, wall: float) -> None:
        period_s = answer.period_s or answer.fresh_s or PERIOD_S
        made_at = wall - (answer.age_s if answer.last_modified else period_s) - DATE_S
        slot = node.view.slot
        terms = Terms(
            fresh_after=made_at + DATE_S + period_s + MARGIN_S,
            follows=made_at > node.tried_at,
            settles=node.settles_after is not None and made_at > node.settles_after,
            spares_log=self._index.log_is_live(slot),
            is_trusted=node.is_trusted,
        )
        self._settled(node)
        trial = Trial(read.digest.mask, read.false_positives, terms)
        await self._sweep.make(slot, trial)
        if self._nodes.get(slot) is not node:
            return
        node.seal, node.last_modified = read.seal + answer.last_modified.encode(), answer.last_modified
        node.tried_at = self._index.clock()
        self._judged(node, trial)
        if node.is_turned_again:
            node.is_turned_again = False
            self._turn(node)
            if not node.is_away:
                self._returned(node)

    def _judged(self, node: _Node, trial: Trial) -> None:
        verdict = trial.verdict or Verdict.KEPT
        node.is_trusted, node.is_mute = trial.is_trusted, verdict is Verdict.MUTE
        node.shown |= {"verdict": verdict.value, "share": round(trial.share, 3)}
        node.shown |= {"confirmed": trial.confirmed, "missing": trial.missing, "removed": trial.removed}
        if verdict is Verdict.MUTE:
            self._tell(
                node,
                f"it contains {trial.share:.0%} of what the node is known to hold (is it on a rock disk, or"
                " digest_rebuild_period above digest_rewrite_period?)",
            )
            return
        self._is_well(node)
        if verdict is Verdict.EMPTIED:
            log.warning("node %s was emptied: %s objects forgotten", node.view.name, f"{trial.removed:,}")
