"""The table of nodes: which columns fit, in which order the rows come, what each cell says.

Pure.  Worst first is the usual order: who looks wants to see what is abnormal without looking for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from .farm import Node
from .finding import BAD, NOTE, WARN
from .units import BARS, clean, count, fit, millis, percent, right, size, sparkline
from .verdict import Verdict

NAME_MIN, NAME_MAX = 8, 24
TREND_MIN, TREND_MAX = 6, 30
MARKS = {BAD: "✖", WARN: "!", NOTE: "·", "": " "}
PLAIN_MARKS = {BAD: "X", WARN: "!", NOTE: "-", "": " "}
STYLES = {BAD: "bold red", WARN: "yellow", NOTE: "cyan", "": ""}


@dataclass(frozen=True)
class Column:
    """One column.  need: the higher, the sooner it goes where the terminal is narrow; is_text: to the left.

    key: by what rows are sorted, None last; down: the largest first.
    """

    name: str
    title: str
    width: int
    need: int
    cell: Callable[[Node], str]
    key: Callable[[Node], object]
    down: bool = True
    is_text: bool = False


def state(node: Node) -> str:
    """The state in a word of at most seven letters."""
    if node.state == "up" and node.returning < 1:
        return f"up{percent(node.returning):>3}%"
    if node.state == "drain" and node.drain and node.drain.get("done") is True:
        return "drained"
    return node.state


COLUMNS = (
    Column("name", "node", NAME_MIN, 0, lambda n: n.name, lambda n: n.name, down=False, is_text=True),
    Column("state", "state", 7, 0, state, lambda n: n.state, down=False, is_text=True),
    Column("requests", "req/s", 5, 1, lambda n: count(n.now.requests), lambda n: n.now.requests),
    Column("part", "req%", 4, 5, lambda n: percent(n.part), lambda n: n.part),
    Column("keys", "key%", 4, 6, lambda n: percent(n.keys), lambda n: n.keys),
    Column("hits", "hit%", 4, 3, lambda n: percent(n.now.hit_ratio), lambda n: n.now.hit_ratio),
    Column("bytes", "B/s", 5, 7, lambda n: size(n.now.bytes), lambda n: n.now.bytes),
    Column("p50", "p50", 5, 8, lambda n: millis(n.now.p50_ms), lambda n: n.now.p50_ms),
    Column("p99", "p99", 5, 4, lambda n: millis(n.now.p99_ms), lambda n: n.now.p99_ms),
    Column("errors", "err/s", 5, 2, lambda n: count(n.now.errors), lambda n: n.now.errors),
    Column("flying", "open", 5, 3, lambda n: count(n.in_flight), lambda n: n.in_flight),
)
BY_NAME = {column.name: column for column in COLUMNS}
ORDERS = ("worst", *BY_NAME)


def order(nodes: Sequence[Node], verdict: Verdict, by: str = "worst", is_reversed: bool = False) -> list[Node]:
    """The nodes as they are to be shown."""
    if by == "worst":
        rank = {finding.node: at for at, finding in reversed(list(enumerate(verdict.findings)))}
        last = len(verdict.findings)
        found = sorted(nodes, key=lambda node: (rank.get(node.name, last), -(node.now.requests or 0.0)))
        return found[::-1] if is_reversed else found
    column = BY_NAME[by]
    there = [node for node in nodes if column.key(node) is not None]
    rest = [node for node in nodes if column.key(node) is None]
    return sorted(there, key=column.key, reverse=column.down != is_reversed) + rest  # type: ignore[arg-type]


@dataclass(frozen=True)
class Layout:
    """The columns that fit into a width, with the widths of those that grow; trend: 0 where there is no room for it."""

    columns: tuple[Column, ...]
    name: int
    trend: int

    def width_of(self, column: Column) -> int:
        return self.name if column.name == "name" else column.width


def lay_out(width: int, nodes: Sequence[Node]) -> Layout:
    """What fits.  Two cells go to the mark; the name grows first, then the trend."""
    columns = list(COLUMNS)

    def taken(name: int) -> int:
        return 1 + sum(1 + (name if column.name == "name" else column.width) for column in columns)

    while taken(NAME_MIN) > width and any(column.need for column in columns):
        columns.remove(max(columns, key=lambda column: column.need))
    longest = max((cell_len(clean(node.name)) for node in nodes), default=NAME_MIN)
    spare = width - taken(NAME_MIN)
    wanted = min(NAME_MAX, max(NAME_MIN, longest)) - NAME_MIN
    grow = max(0, min(wanted, spare))
    if wanted and spare - grow < TREND_MIN + 1 <= spare - (grow * 2 // 3):
        grow = max(0, spare - TREND_MIN - 1)  # a name may lose its end before the trend goes
    spare -= grow
    trend = min(TREND_MAX, spare - 1) if spare > TREND_MIN else 0
    return Layout(tuple(columns), NAME_MIN + grow, trend)


def titles(layout: Layout) -> str:
    """The line above the rows."""
    cells = [
        fit(column.title, layout.width_of(column)) if column.is_text else right(column.title, column.width)
        for column in layout.columns
    ]
    return "  " + " ".join(cells) + (f" {fit('trend', layout.trend, '')}" if layout.trend else "")


def row(layout: Layout, node: Node, level: str, bars: str = BARS, more: str = "…") -> str:
    """One line."""
    marks = MARKS if bars == BARS else PLAIN_MARKS
    cells = []
    for column in layout.columns:
        text = column.cell(node)
        cells.append(fit(text, layout.width_of(column), more) if column.is_text else right(text, column.width, more))
    trend = f" {sparkline(node.trend, layout.trend, bars)}" if layout.trend else ""
    return f"{marks[level]} " + " ".join(cells) + trend
