"""Has a URL forgotten by every node that may have it, and by the index.

    purged = await purger.purge(b"http://a.com/x", b"Accept-Encoding: gzip\\r\\n")

Asked are the nodes that hold it as far as the index knows, its owners, and the owners of quiet times.  A node that gives no
answer, or is not in service, is told when it is back (``Backlog``): its disk may still have the object.

What a Squid does with a PURGE (5.7, tests/squid/test_purge.py): 200 when it had the object and has it no longer, 404 when it had
not, 403 when its squid.conf has no rule that allows PURGE.  GET's and HEAD's object go together.  Of an object with Vary it
forgets the variant that fits the fields and the marker beside it, so that no variant is found until the marker is made anew;
without one of the fields that vary it answers 404 and goes on serving.

The index forgets at once, so that nobody is sent to what is about to go, and for each node again when that confirms, for until
then the old object may have been logged again.  What is logged after that is a new object's and stays: the RELEASE of the old
one was logged before the answer was sent.

Left out: who may purge; the exchange with a node (``nodes.purges``).
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cachelb.control import Purged
from cachelb.errors import BadRequest
from cachelb.http.grammar import FIELD
from cachelb.http.url import parse_absolute
from cachelb.nodes.purges import NoAnswer, PurgeLines
from cachelb.wire.proxy_protocol import own_header
from digest import store_key
from icp import BadUrl

from .backlog import Backlog, Purge

if TYPE_CHECKING:
    from cachelb.snapshot import NodeView

    from .index import Index
    from .owners import Owners

OWNERS = 3  # as many as the relay tries (relay.attempts.TARGETS_MAX)
MAX_UNDER_WAY = 2_000  # purges: as many as a Squid answers in 1.3 s (2026-11); what waits for longer than 3 s fails
FIELDS_BYTES = 16_384  # of one purge
REPEATED_AT_ONCE = 16  # of one node: half of what it is asked at once, so that new ones are not kept waiting
STUCK_AFTER = 8  # times without an answer in a row: then only its backlog asks it, so that a hung node keeps nobody waiting
PAUSE_S = 5.0  # after a node that is alive gave no answer; doubled up to
PAUSE_MAX_S = 60.0
COMPLAIN_EVERY_S = 60.0

_is_plain = re.compile(rb"[!-~\x80-\xff]+").fullmatch
_is_fields = re.compile(
    rb"(?:(?!(?i:host|content-length|transfer-encoding|connection|keep-alive|proxy-connection|expect|te|upgrade):)"
    + FIELD
    + rb")*"
).fullmatch

log = logging.getLogger("cachelb.cluster")


class _Told(NamedTuple):
    """What one node said.  confirmed: it does not have the object now; found: it had it; again: it is to be asked again."""

    confirmed: bool
    found: bool
    again: bool
    problem: str


def _reached_by(view: NodeView) -> tuple[object, ...]:
    return view.addresses, view.port, view.send_proxy


def _lines(view: NodeView) -> PurgeLines:
    return PurgeLines(view.addresses, view.port, own_header(view.send_proxy))


class _Node:
    """One node.  repeating: what tells it of its backlog.  unanswered: PURGEs in a row."""

    def __init__(self, view: NodeView) -> None:
        self.view = view
        self.lines = _lines(view)
        self.repeating: asyncio.Task[None] | None = None
        self.unanswered = 0
        self.quiet_until: dict[str, float] = {}

    @property
    def is_live(self) -> bool:
        return self.view.state in ("up", "drain") and bool(self.view.addresses)

    @property
    def absence(self) -> str:
        """Why it cannot be asked now; empty if it can."""
        if not self.is_live:
            return "is down" if self.view.state == "down" else "is dead"
        return "does not answer" if self.unanswered >= STUCK_AFTER and self.repeating is not None else ""

    def complain(self, about: str, now: float, text: str) -> None:
        """Log `text`, but `about` one thing at most once a minute."""
        if now >= self.quiet_until.get(about, 0.0):
            self.quiet_until[about] = now + COMPLAIN_EVERY_S
            log.warning("%s", text)


class Purger:
    """Purges, one independent of the other.  All of it runs in one event loop."""

    def __init__(self, index: Index, owners: Owners, clock: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._owners = owners
        self._clock = clock
        self._nodes: dict[int, _Node] = {}  # by slot
        self._backlog = Backlog()
        self._counts: Counter[str] = Counter()
        self._under_way = 0

    def place(self, views: Sequence[NodeView]) -> None:
        """These nodes from now on.  Those that are live again are told what they have missed (``returned``)."""
        before = {node.view.name: node for node in self._nodes.values()}
        self._nodes = {}
        back = []
        for view in views:
            node = before.pop(view.name, None)
            was_live = node is not None and node.is_live
            if node is None:
                node = _Node(view)
            elif _reached_by(node.view) != _reached_by(view):
                node.lines.close()
                node.lines = _lines(view)
            node.view = view
            self._nodes[view.slot] = node
            if node.is_live and not was_live:
                back.append(view.slot)
        for node in before.values():
            node.lines.close()
            if node.repeating is not None:
                node.repeating.cancel()
        for slot in back:
            self.returned(slot)
        self._backlog.expire(self._clock())

    async def purge(self, url: bytes, fields: bytes = b"") -> Purged:
        """Have `url` forgotten everywhere; takes as long as the slowest node, ``nodes.purges.TIMEOUT_S`` at most.

        Args:
            url: as a client wrote it.
            fields: field lines of the client's request, each with CRLF, without Host and those that frame a message: by
                them a Squid chooses among the variants of an object.

        Returns:
            asked: nodes that were sent a PURGE; confirmed: those that do not have it now; found: those that had it.
            problems: why not all is done, or will be later.
        """
        try:
            return await self._purge(url, fields)
        except BadUrl as problem:
            return _refused(f"the URL cannot be understood: {problem}")

    async def clear(self, url: bytes) -> int | None:
        """``purge`` as ``icp.answer_htcp`` wants it: how many nodes had it; None: some that may have it have not confirmed.

        Raises:
            BadUrl: It cannot be understood.
        """
        purged = await self._purge(url, b"")
        is_done = purged.confirmed == purged.asked and (purged.asked or not purged.problems)
        return purged.found if is_done else None

    def returned(self, slot: int) -> None:
        """The node in `slot` answers again: tell it at once what it has missed."""
        node = self._nodes.get(slot)
        if node is not None and self._backlog.count(node.view.name):
            self._repeat_soon(node, 0.0)

    def counters(self) -> dict[str, int]:
        """How many there were.

        purges: asked for; refused: of these, because of too many; found, absent, unconfirmed: answers of nodes, and none;
        repeated: unconfirmed ones that were later; dropped: those that never were; waiting (now): those to be repeated.
        """
        words = ("purges", "refused", "found", "absent", "unconfirmed", "repeated")
        return {word: self._counts[word] for word in words} | {
            "dropped": self._backlog.dropped,
            "waiting": len(self._backlog),
        }

    def close(self) -> None:
        """Stop at once."""
        for node in self._nodes.values():
            node.lines.close()
            if node.repeating is not None:
                node.repeating.cancel()
        self._nodes.clear()

    async def _purge(self, url: bytes, fields: bytes) -> Purged:
        self._counts["purges"] += 1
        purge = Purge(self._index.canonical(url), fields)
        request = _request(purge)
        if len(fields) > FIELDS_BYTES or _is_fields(fields) is None:
            return _refused("the request has fields that a PURGE cannot carry")
        if self._under_way >= MAX_UNDER_WAY:
            self._counts["refused"] += 1
            return _refused("too many purges under way")
        key = store_key(purge.url)
        targets = self._targets(purge.url)
        self._index.forget_url(purge.url)
        asked = [node for node in targets if not node.absence]
        problems = [problem for node in targets if (problem := self._remember_absent(node, purge))]
        self._under_way += 1
        try:
            told = await asyncio.gather(*[self._tell_first(node, purge, key, request) for node in asked])
        finally:
            self._under_way -= 1
        problems += [answer.problem for answer in told if answer.problem]
        if not told and not problems:
            problems.append("there is no node in service")
        confirmed = sum(answer.confirmed for answer in told)
        return Purged(0, len(told), confirmed, sum(answer.found for answer in told), tuple(problems))

    def _targets(self, url: bytes) -> list[_Node]:
        """Who may have it: also who had it before its owners changed, or while they were dead."""
        slots = dict.fromkeys(self._index.holders(url))
        slots |= dict.fromkeys(self._owners.may_have(url, OWNERS))
        return [self._nodes[slot] for slot in slots if slot in self._nodes]

    def _remember_absent(self, node: _Node, purge: Purge) -> str:
        """A sentence if `node` cannot be asked now.  Of one that the operator took down nobody needs to be told."""
        if not node.absence:
            return ""
        self._remember(node, purge)
        return "" if node.view.state == "down" else f"{node.view.name} {node.absence}: will be purged when it is back"

    def _remember(self, node: _Node, purge: Purge) -> None:
        now = self._clock()
        if not self._backlog.add(node.view.name, purge, now):
            text = f"node {node.view.name} has missed more purges than are remembered: it may come back with old objects"
            node.complain("dropped", now, text)

    async def _tell(self, node: _Node, purge: Purge, key: bytes, request: bytes) -> _Told:
        """Ask one node, and count what it says."""
        name = node.view.name
        slot = node.view.slot
        try:
            told = _judge(name, await node.lines.ask(request))
            node.unanswered = 0
        except NoAnswer as problem:
            node.unanswered += 1
            told = _Told(False, False, True, f"{name} has not confirmed ({problem}): will be purged when it is back")
        if told.confirmed:
            self._counts["found" if told.found else "absent"] += 1
            self._index.holdings.remove(key, slot)
            self._counts["repeated"] += self._backlog.done(name, purge)
        else:
            self._counts["unconfirmed"] += 1
            if not told.again:
                node.complain("refused", self._clock(), told.problem)
        return told

    async def _tell_first(self, node: _Node, purge: Purge, key: bytes, request: bytes) -> _Told:
        """The same, and remember it if it must be repeated."""
        told = await self._tell(node, purge, key, request)
        if told.again and self._has(node):
            self._remember(node, purge)
            if node.repeating is None:
                self._repeat_soon(node, PAUSE_S)
        return told

    def _has(self, node: _Node) -> bool:
        """Whether `node` has not left."""
        return self._nodes.get(node.view.slot) is node

    def _repeat_soon(self, node: _Node, wait_s: float) -> None:
        if node.repeating is not None:
            node.repeating.cancel()
        task = node.repeating = asyncio.get_running_loop().create_task(self._repeat(node, wait_s))

        def ended(done: asyncio.Task[None]) -> None:
            if node.repeating is task:
                node.repeating = None
            if not done.cancelled() and (problem := done.exception()) is not None:
                log.critical("internal error: %r", problem, exc_info=problem)

        task.add_done_callback(ended)

    async def _repeat(self, node: _Node, wait_s: float) -> None:
        """Tell `node` all that it has missed, until nothing is left or it is not live any more."""
        await asyncio.sleep(wait_s)
        while self._has(node) and node.is_live and (purges := self._backlog.oldest(node.view.name, REPEATED_AT_ONCE)):
            requests = [self._tell(node, purge, store_key(purge.url), _request(purge)) for purge in purges]
            answers = await asyncio.gather(*requests)
            for purge, told in zip(purges, answers, strict=True):
                if not told.again:
                    self._backlog.done(node.view.name, purge)
            wait_s = min(max(2 * wait_s, PAUSE_S), PAUSE_MAX_S) if any(told.again for told in answers) else 0.0
            await asyncio.sleep(wait_s)
            self._backlog.expire(self._clock())


def _judge(name: str, status: int) -> _Told:
    if status in (200, 404):
        return _Told(True, status == 200, False, "")
    if status == 403:
        rule = "acl purge method PURGE; http_access allow purge director"
        return _Told(False, False, False, f"node {name} refuses PURGE: allow it in squid.conf ({rule})")
    return _Told(False, False, False, f"node {name} answered PURGE with {status}")


def _request(purge: Purge) -> bytes:
    """The request for a canonical URL.

    Raises:
        BadUrl: No request can carry it.
    """
    url, fields = purge
    if _is_plain(url) is None:
        raise BadUrl("it has blanks or control characters")
    try:
        host = parse_absolute(url).authority
    except BadRequest as problem:
        raise BadUrl(problem.detail) from problem
    return b"PURGE %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (url, host, fields)


def _refused(problem: str) -> Purged:
    return Purged(0, 0, 0, 0, (problem,))
