"""The one screen: verdict, what is wrong, the farm, the nodes, the hot URLs.  Lines of styled text that fit the width.

Pure.  No colour says anything that a word or a mark does not say, too.  What comes from others is cleaned before it is shown.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from .farm import Farm, Node, listed, number, of
from .finding import BAD, NOTE, Finding, grouped_findings
from .table import MARKS, PLAIN_MARKS, STYLES, lay_out, order, row, titles
from .units import BARS, PLAIN_BARS, age, clean, count, fit, grouped, middle, millis, percent, right, size, sparkline
from .verdict import Verdict

TROUBLES, NOTES, ROWS, HOT, EVENTS = 6, 4, 12, 5, 3
LATELY_S = 900.0
TREND = 12
MIN_WIDTH = 40


@dataclass(frozen=True)
class Look:
    """How it is shown.  width: cells; is_plain: without UTF-8; every: all rows and findings."""

    width: int = 80
    is_plain: bool = False
    every: bool = False
    order: str = "worst"
    is_reversed: bool = False
    rows: int = ROWS
    hot: int = HOT

    @property
    def bars(self) -> str:
        return PLAIN_BARS if self.is_plain else BARS

    @property
    def more(self) -> str:
        return "." if self.is_plain else "…"

    @property
    def dot(self) -> str:
        return "|" if self.is_plain else "·"

    def mark(self, level: str) -> str:
        return (PLAIN_MARKS if self.is_plain else MARKS)[level]


def screen(farm: Farm, verdict: Verdict, look: Look) -> list[Text]:
    """All of it."""
    parts = [
        top(farm, verdict, look),
        figures(farm, look),
        nodes(farm, verdict, look),
        hot(farm, look),
        events(farm, look),
    ]
    lines: list[Text] = []
    for part in parts:
        lines += ([Text()] if lines and part else []) + part
    return lines


def top(farm: Farm, verdict: Verdict, look: Look) -> list[Text]:
    """The verdict, and each finding with the place to look at."""
    status = farm.status
    sign = {True: "OK" if look.is_plain else "✔", False: look.mark(BAD)}[verdict.is_well]
    words = f"{sign} {verdict.words()}"
    about = [clean(str(status.get("version", "?"))), f"up {age(number(status, 'uptime_s'))}", clean(farm.answers.where)]
    right_part = f" {look.dot} ".join(about)
    line = Text(words, style="bold green" if verdict.is_well else "bold red")
    room = look.width - cell_len(words) - 2
    if cell_len("cachelb " + right_part) <= room:
        right_part = "cachelb " + right_part
    if farm.answers.age_s > 2:
        right_part = f"{age(farm.answers.age_s)} old {look.dot} {right_part}"
    if room > 12:
        line.append("  " + right(middle(right_part, room, look.more), room), style="dim not bold default")
    return [line, *findings(verdict, look)]


def findings(verdict: Verdict, look: Look) -> list[Text]:
    """What is wrong, then what is worth knowing."""
    lines: list[Text] = []
    for found, most in ((grouped_findings(verdict.troubles), TROUBLES), (grouped_findings(verdict.notes), NOTES)):
        shown = found if look.every else found[:most]
        for finding in shown:
            lines += _finding(finding, look)
        if len(found) > len(shown):
            lines.append(Text(fit(f"  +{len(found) - len(shown)} more (--all)", look.width, look.more).rstrip(), style="dim"))
    return lines


def _finding(finding: Finding, look: Look) -> list[Text]:
    text = clean(finding.text)
    pieces = _wrapped(text, look.width - 4)
    if finding.kind in ("hot", "skew") and "://" in text and len(pieces) > 1:  # its end says more than another line
        head, _, url = text.rpartition(" ")
        pieces = [*_wrapped(head, look.width - 4), middle(url, look.width - 4, look.more)]
    lines = [Text(f"  {look.mark(finding.level)} ", style=STYLES[finding.level])]
    for at, piece in enumerate(pieces):
        if at:
            lines.append(Text("    "))
        lines[-1].append(piece, style=STYLES[finding.level] if finding.level == BAD else "")
    if finding.look and finding.level != NOTE:
        for at, piece in enumerate(_wrapped(f"look at: {clean(finding.look)}", look.width - 6)):
            lines.append(Text(("        " if at else "      ") + piece, style="dim"))
    return [_cut(line, look) for line in lines]


def figures(farm: Farm, look: Look) -> list[Text]:
    """The farm, what goes around it, and what peers see, in four lines or so."""
    now, rates = farm.now, farm.rate
    requests = now.requests
    busy = f" ({percent((rates('bypassed_per_s') or 0) / requests)} %)" if requests else ""
    status = farm.status
    one = of(status, "onecache")
    digest, index = of(one, "digest"), of(one, "index")
    rows: list[tuple[str, list[str]]] = [
        (
            "farm",
            [
                f"{count(requests)} req/s",
                f"hit {percent(now.hit_ratio)} %{_of_all(farm)}",
                f"{size(now.bytes)}B/s",
                f"p50 {millis(now.p50_ms)}",
                f"p99 {millis(now.p99_ms)}",
                f"{count(now.errors)} err/s",
            ],
        ),
        (
            "around",
            [
                f"bypass {count(rates('bypassed_per_s'))}/s{busy}",
                f"refused {count(rates('refused_per_s'))}/s",
                f"retries {count(rates('retries_per_s'))}/s",
                f"{count(farm.in_flight)} in flight",
                f"{count(number(of(status, 'farm'), 'clients_open'))} clients",
            ],
        ),
        ("peers", [*_peers(farm), *_digest(farm, digest, index)]),
        ("inside", _inside(farm)),
    ]
    room = min(TREND, look.width - 8 - 1 - sum(2 + cell_len(cell) for cell in rows[0][1]) + 2)
    if room >= TREND // 2:
        rows[0][1][0] += f" {sparkline(farm.trend.get('requests_per_s', ()), room, look.bars)}"
    return [line for name, cells in rows for line in _packed(name, cells, look)]


def _of_all(farm: Farm) -> str:
    """The hit ratio of all requests, where that is another one than the farm's: much goes around it."""
    bypassed, requests, ratio = farm.rate("bypassed_per_s") or 0.0, farm.now.requests or 0.0, farm.now.hit_ratio
    if ratio is None or bypassed < 0.05 * requests or not requests:
        return ""
    return f" ({percent(ratio * max(0.0, 1 - bypassed / requests))} of all)"


def _peers(farm: Farm) -> Iterator[str]:
    one = of(farm.status, "onecache")
    kinds = {listener.get("kind") for listener in listed(farm.status, "listeners")}
    mode = of(one, "icp").get("mode", "?")
    if "icp" not in kinds and "htcp" not in kinds:
        yield "ICP, HTCP off"
    if "icp" in kinds:
        yield f"ICP {count(farm.rate('icp_per_s'))}/s ({clean(str(mode))})"
    if "htcp" in kinds:
        yield f"HTCP {count(farm.rate('htcp_per_s'))}/s"


def _digest(farm: Farm, digest: Mapping[str, Any], index: Mapping[str, Any]) -> Iterator[str]:
    built, now = number(digest, "built_at"), number(farm.status, "now")
    if built and now:
        entries = number(digest, "entries") or number(digest, "count")
        holds = f" of {grouped(entries)} keys" if entries is not None else ""
        yield f"digest{holds} {age(now - built)} old, {percent(number(digest, 'fill'))} % full"
    else:
        yield "no digest yet"
    if (keys := number(index, "keys")) is not None:
        yield f"index {count(keys)} keys"


def _inside(farm: Farm) -> list[str]:
    workers = listed(farm.status, "workers")
    running = sum(1 for worker in workers if number(worker, "pid"))
    lag = max((number(worker, "loop_lag_ms") or 0.0 for worker in workers), default=None)
    config = of(farm.status, "config")
    in_force = f"configuration {clean(str(config.get('digest', '?')))[:8]}, {count(number(farm.status, 'reloads'))} reloads"
    return [f"{running} of {len(workers)} workers", f"late by {millis(lag)}", in_force]


def nodes(farm: Farm, verdict: Verdict, look: Look) -> list[Text]:
    """The table; of a large farm the worst, and how many more there are."""
    if not farm.nodes:
        return [Text("no nodes", style=STYLES[BAD])]
    found = order(farm.nodes, verdict, look.order, look.is_reversed)
    unwell = sum(1 for node in found if verdict.of_node(node.name) in (BAD, "warn"))
    most = len(found) if look.every or len(found) <= look.rows + 1 else max(look.rows, min(unwell, 2 * look.rows))
    shown, rest = found[:most], found[most:]
    layout = lay_out(look.width, shown)
    lines = [Text(titles(layout)[: look.width].rstrip(), style="bold")]
    for node in shown:
        level = verdict.of_node(node.name)
        lines.append(Text(row(layout, node, level, look.bars, look.more).rstrip(), style=STYLES[level]))
    if rest:
        lines.append(Text(fit(_rest(rest, verdict), look.width, look.more).rstrip(), style="dim"))
    return lines


def _rest(rest: Sequence[Node], verdict: Verdict) -> str:
    unwell = sum(1 for node in rest if verdict.of_node(node.name) in (BAD, "warn"))
    well = len(rest) - unwell
    parts = ([f"+{unwell} more NOT well"] if unwell else []) + ([f"+{well} more well"] if well else [])
    requests = sum(node.now.requests or 0.0 for node in rest)
    return f"  {', '.join(parts)}: {count(requests)} req/s together (--all)"


def hot(farm: Farm, look: Look, kind: str = "urls_by_requests") -> list[Text]:
    """What is asked for most."""
    found = farm.answers.hot
    entries = listed(found, kind)[: look.hot]
    window = number(found or {}, "window_s") or 0.0
    if not entries or not window:
        return []
    by_bytes = kind.endswith("bytes")
    names = [clean(_owner(entry, kind.startswith("urls"))) for entry in entries]
    owner = min(14, max(5, *(cell_len(name) for name in names)))
    room = look.width - 2 - 4 - 1 - 6 - 1 - 4 - 1 - owner - 1
    title = f"of the last {age(window)}, by {'bytes' if by_bytes else 'requests'}"
    unit = "B/s" if by_bytes else "req/s"
    what = {"urls": "URL", "around": "around the farm", "hosts": "host"}[kind.partition("_")[0]]
    head = f"   hot% {unit:>5} hit% {fit('owner', owner)} {what} {title}"
    lines = [Text(fit(head, look.width, look.more).rstrip(), style="bold")]
    for entry, name in zip(entries, names, strict=True):
        part = number(entry, "bytes_share" if by_bytes else "requests_share")
        amount = (number(entry, "bytes" if by_bytes else "requests") or 0.0) / window
        is_hot = (part or 0.0) >= 0.2
        line = (
            f"{look.mark(NOTE) if is_hot else ' '} {right(percent(part), 5)}"
            f" {right(size(amount) if by_bytes else count(amount), 5)}"
            f" {right(percent(number(entry, 'hit_ratio')), 4)} {fit(name, owner, look.more)} "
        )
        line += middle(str(entry.get("name", "?")), max(8, room), look.more)
        lines.append(Text(fit(line, look.width, look.more).rstrip(), style=STYLES["note"] if is_hot else ""))
    return lines


def _owner(entry: Mapping[str, Any], is_url: bool) -> str:
    if (number(entry, "bypassed_share") or 0.0) > 0.5:
        return "(around)"
    nodes = of(entry, "nodes")
    if not is_url:
        return f"{len(nodes)} nodes" if len(nodes) > 1 else next(iter(nodes), "-")
    return str(entry.get("owner") or max(nodes, key=lambda name: number(nodes, name) or 0.0, default="-"))


def events(farm: Farm, look: Look, most: int = EVENTS) -> list[Text]:
    """The last warnings: what has changed lately."""
    now = number(farm.status, "now") or 0.0
    loud = [
        event
        for event in farm.answers.events
        if event.get("level") in ("warning", "error") and now - (number(event, "at") or now) <= LATELY_S
    ][-most:]
    if not loud:
        return []
    lines = [Text("lately", style="bold")]
    ages = [age(max(0.0, now - (number(event, "at") or now))) for event in loud]
    width = max(map(len, ages))
    for event, ago in zip(reversed(loud), reversed(ages), strict=True):
        lines.append(Text(fit(f"  {right(ago, width)} ago: {event.get('text', '')}", look.width, look.more).rstrip()))
    return lines


def _packed(name: str, cells: Sequence[str], look: Look) -> list[Text]:
    """Cells with room between them, on as many lines as they need."""
    lines: list[Text] = []
    for cell in cells:
        if lines and lines[-1].cell_len + 2 + cell_len(cell) <= look.width:
            lines[-1].append(f"  {cell}")
        else:
            lines.append(Text(fit("" if lines else name, 8), style="bold").append(cell, style="not bold"))
    return [_cut(line, look) for line in lines]


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of words; what has wide letters is cut a little early."""
    width = max(10, width)
    found = textwrap.wrap(text, width, break_on_hyphens=False) or [""]
    if all(cell_len(line) <= width for line in found):
        return found
    return textwrap.wrap(text, max(5, width // 2), break_on_hyphens=False)


def _cut(line: Text, look: Look) -> Text:
    if line.cell_len > look.width:
        line.truncate(look.width, overflow="crop")
    return line
