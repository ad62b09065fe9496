"""Answers ICP by asking the URL's owner by ICP (``[icp] mode = "forward"``), and from the index where that gives nothing.

    Answerer(index.holds, allowed, ask=forward.ask)

Asked is the node to which the relay would send the URL now, in the form in which it stores it, and with a query of our own: a
raw one may kill it.  A Squid that asks us waits 5 ms and no more, so the owner has TIMEOUT_S.

An owner that has been late LATE_IN_A_ROW times is not asked for REST_S, then once: one that does not speak ICP costs nobody
time.  One that has more than UNDER_WAY queries to answer gets no more of them: its socket would lose them.

Left out: the socket (``icp.client``), which node is the owner (``owners``).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from icp import Opcode
from icp.client import IcpClient

if TYPE_CHECKING:
    from cachelb.snapshot import NodeView

    from .index import Index
    from .owners import Owners

# Squid's minimum_icp_query_timeout is 5 ms.  With uvloop, whose clock has milliseconds, this becomes 3.2 to 3.4 ms, and 2.5 to
# 3.5 while the loop is busy with other things for 0.3 ms at a time (2026-11).
TIMEOUT_S = 0.003
UNDER_WAY = 200  # of one node: a Squid's socket holds 256 queries (Debian's net.core.rmem_default)
LATE_IN_A_ROW = 20  # one burst that meets a Squid busy with its disk: then a second's answers come from the index
REST_S = 1.0
COMPLAIN_EVERY_S = 60.0

log = logging.getLogger("cachelb.cluster")


class _Node:
    """One node that answers ICP.

    under_way: queries.  late: queries in a row that got no answer in time.  rests_until: it is not asked before.
    """

    __slots__ = ("address", "late", "name", "quiet_until", "rests_until", "under_way")

    def __init__(self, name: str, address: tuple[str, int]) -> None:
        self.name = name
        self.address = address
        self.under_way = 0
        self.late = 0
        self.rests_until = 0.0
        self.quiet_until = 0.0

    def admits(self, now: float) -> bool:
        """Whether one more query may be sent to it."""
        if self.under_way >= UNDER_WAY or now < self.rests_until:
            return False
        if self.late >= LATE_IN_A_ROW:
            self.rests_until = now + REST_S  # this one query tells whether that must be
        return True

    def answered(self) -> None:
        self.late = 0
        self.rests_until = 0.0

    def missed(self, now: float) -> None:
        self.late += 1
        if self.late == LATE_IN_A_ROW:
            self.rests_until = now + REST_S


class Forward:
    """Asks owners.  All of it runs in one event loop.

    client: on whose sockets.
    """

    def __init__(self, index: Index, owners: Owners, clock: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._owners = owners
        self._clock = clock
        self.client = IcpClient()
        self._nodes: dict[int, _Node] = {}  # by slot
        self._counts: Counter[str] = Counter()

    def place(self, views: Sequence[NodeView]) -> None:
        """These nodes from now on."""
        before = {(node.name, node.address): node for node in self._nodes.values()}
        self._nodes = {}
        for view in views:
            if view.addresses and view.icp_port:
                address = view.addresses[0], view.icp_port
                self._nodes[view.slot] = before.get((view.name, address)) or _Node(view.name, address)

    async def ask(self, url: bytes) -> bool:
        """Whether the farm holds `url`, as `icp.Answerer` asks it.

        Raises:
            BadUrl: It is no URL.
        """
        held = await self._ask_owner(self._index.canonical(url))
        return self._index.holds(url) if held is None else held

    def counters(self) -> dict[str, int]:
        """How many there were.

        asked: queries sent; hit, miss, late, refused: what came back (refused: DENIED or ERR); skipped: answered from the
        index at once, for there is no owner, or it speaks no ICP, or has too many to answer, or rests.
        """
        return {word: self._counts[word] for word in ("asked", "hit", "miss", "late", "refused", "skipped")}

    def close(self) -> None:
        """Stop at once; whoever still waits is answered from the index."""
        self.client.close()

    async def _ask_owner(self, url: bytes) -> bool | None:
        """What the owner of a canonical URL says; None: nothing of use."""
        slots = self._owners.owners(url, 1)
        node = self._nodes.get(slots[0]) if slots else None
        if node is None or not node.admits(self._clock()):
            self._counts["skipped"] += 1
            return None
        node.under_way += 1
        try:
            answer = await self.client.query(node.address, url, TIMEOUT_S)
        except (OSError, ValueError):  # no socket; no packet can carry the URL
            self._counts["skipped"] += 1
            return None
        finally:
            node.under_way -= 1
        self._counts["asked"] += 1
        if answer is None:
            self._counts["late"] += 1
            node.missed(self._clock())
            return None
        node.answered()
        opcode = answer.reply.opcode
        if opcode is Opcode.HIT:
            self._counts["hit"] += 1
            return True
        if opcode is Opcode.MISS or opcode is Opcode.MISS_NOFETCH:
            self._counts["miss"] += 1
            return False
        self._counts["refused"] += 1
        self._complain(node, opcode)
        return None

    def _complain(self, node: _Node, opcode: Opcode) -> None:
        now = self._clock()
        if opcode is Opcode.DENIED and now >= node.quiet_until:
            node.quiet_until = now + COMPLAIN_EVERY_S
            log.warning("node %s denies ICP: allow it in squid.conf (icp_access allow director)", node.name)
