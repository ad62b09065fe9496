"""The plans of the requests that come in: remembered, or made by the planner in force.

The halves of a head repeat independently (see ``plan``), so each has a memo of its own.  What is not remembered, but usual, is
planned on a short way: a URL, or fields, that nobody has asked with before.  The general way takes whatever is left, and says
what is wrong with a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachelb.http.head import Limits, RequestHead, scan_request
from cachelb.http.octets import COMPILED
from cachelb.relay.memo import Memo

if TYPE_CHECKING:
    from cachelb.config import LimitsConfig
    from cachelb.relay.plan import BlockPlan, LinePlan, Planner
    from cachelb.relay.upstream import Target

MEMO_LINE_BYTES: Final = 1024  # longer first lines and blocks are judged anew each time: the memos' memory is bounded by these
MEMO_BLOCK_BYTES: Final = 2048
MEMO_BLOCKS: Final = 8192
# As how many entries longer ones count, for a plan holds some four copies of what it was made from.  With unique lines and
# blocks of the worst length a worker grows by 100 MiB, without this by 255 (2026-11).
LINE_UNIT_BYTES: Final = 192
BLOCK_UNIT_BYTES: Final = 768


class Plans:
    """Those of one relay.

    lines, blocks: by the first line without its CRLF, and by what follows it, with the empty line.  host_lines: of lines whose
        target is a path, with the Host field.
    """

    def __init__(self) -> None:
        self.planner: Planner[Target]
        self.limits = Limits()
        self.lines: Memo[bytes, LinePlan[Target]] = Memo(1)
        self.host_lines: Memo[tuple[bytes, bytes], LinePlan[Target]] = Memo(1)
        self.blocks: Memo[bytes, BlockPlan] = Memo(MEMO_BLOCKS, lambda key: 1 + len(key) // BLOCK_UNIT_BYTES)
        self._line_bytes, self._block_bytes = MEMO_LINE_BYTES, MEMO_BLOCK_BYTES

    def configure(self, limits: LimitsConfig) -> None:
        """Take limits over; what was remembered of blocks is forgotten."""
        self.limits = Limits(limits.head_bytes, limits.url_bytes, limits.fields)
        self._line_bytes = min(MEMO_LINE_BYTES, limits.url_bytes)
        # two remembered halves are no more than a head may have
        self._block_bytes = min(MEMO_BLOCK_BYTES, limits.head_bytes - self._line_bytes - 2)
        self.blocks.clear()
        self.lines = Memo(limits.memo_entries, lambda first: 1 + len(first) // LINE_UNIT_BYTES)
        self.host_lines = Memo(limits.memo_entries, lambda both: 1 + (len(both[0]) + len(both[1])) // LINE_UNIT_BYTES)

    def renew(self, planner: Planner[Target]) -> None:
        """Plan by this planner from now on: lines have other owners."""
        self.planner = planner
        self.lines.clear()
        self.host_lines.clear()

    def usual(
        self, first: bytes, rest: bytes, line: LinePlan[Target] | None, block: BlockPlan | None
    ) -> tuple[LinePlan[Target] | None, BlockPlan | None]:
        """Plans for a first line and what comes after its CRLF, where both are remembered or usual.

        Where one of them is None, neither is known to be right: ask ``of_head``.  Nothing is remembered of such a head here.

        Args:
            line, block: those of the two that are young.
        """
        block_is_met = block is None and self.blocks.met(rest)
        if block_is_met:
            block = self.blocks.get(rest)
        if block is None and not COMPILED:
            return line, None
        line_is_met = line is None and self.lines.met(first)
        if line_is_met:
            line = self.lines.get(first)
        new_line = new_block = None
        if line is None:
            new_line = line = self.planner.plan_usual_line(first) if len(first) <= self._line_bytes else None
            if line is None:
                return None, block
        if block is None:
            new_block = block = self._usual_block(rest, self.limits.head_bytes - len(first) - 2)
            if block is None:
                return line, None
        if new_line is not None:
            self.lines.keep(first, new_line, line_is_met)
        if new_block is not None and len(rest) <= self._block_bytes:
            self.blocks.keep(rest, new_block, block_is_met)
        return line, block

    def _usual_block(self, rest: bytes, most: int) -> BlockPlan | None:
        """The plan of a block of at most so many bytes, its empty line included."""
        if len(rest) > most or not rest.endswith(b"\r\n\r\n"):
            return None
        return self.planner.plan_usual_block(rest[:-2], self.limits.fields)

    def of_head(self, data: bytes, seen: int = 0) -> tuple[LinePlan[Target], BlockPlan, int] | None:
        """Plans for the request at the start of ``data`` and the size of its head; None when it is not whole.

        Args:
            seen: How many bytes of ``data`` were there the last time, so that a head in crumbs is not read again and
                again.

        Raises:
            BadRequest: It is malformed, ambiguous or too large.
        """
        head = scan_request(data, self.limits, seen)
        if head is None:
            return None
        block = self.of_block(head)
        return self._of_line(data, head, block.fields.host), block, head.size

    def of_block(self, head: RequestHead) -> BlockPlan:
        """The plan of a head's field block.  Raises BadRequest as ``of_head`` does."""
        rest = head.block + b"\r\n"
        block = self.blocks.get(rest)
        if block is None:
            block = self.planner.plan_block(head.block)
            if len(rest) <= self._block_bytes:
                self.blocks.offer(rest, block)
        return block

    def _of_line(self, data: bytes, head: RequestHead, host: bytes | None) -> LinePlan[Target]:
        origin_form = head.target.startswith(b"/")
        first = data[: data.find(b"\r\n")]
        known = self.host_lines.get((first, host or b"")) if origin_form else self.lines.get(first)
        if known is not None and first:
            return known
        line = self.planner.plan_line(head, host)
        if first and len(first) <= self._line_bytes:
            if origin_form:
                self.host_lines.offer((first, host or b""), line)
            else:
                self.lines.offer(first, line)
        return line
