"""What ``simulate`` found, as text and as plain values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cachelb.simulate.replay import Case, Outcome

CAVEATS = (
    "Objects are taken to stay fresh until they are pushed out: no log has lifetimes. Only where its result codes tell that",
    "an object was fetched anew (REFRESH_MODIFIED, CLIENT_REFRESH) is that a miss. So the true hit ratios are lower where",
    "answers are private, vary or expire: compare the policies with each other, and with what you measure today.",
)


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of the logs.

    sent: bytes.  bad: lines in no format; shown: the first of them.  left_out: lines by reason.
    begins, ends: seconds since 1970.  sample: part of the URLs that was looked at.  damages: logs that end early.
    """

    names: tuple[str, ...]
    lines: int
    requests: int
    urls: int
    sent: int
    bad: int
    shown: tuple[str, ...]
    left_out: dict[str, int]
    begins: int
    ends: int
    sample: float = 1.0
    damages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """All that is told.  moments: when each step of the outcomes ends, in seconds since 1970; change_at: the change."""

    read: Read
    case: Case
    outcomes: tuple[Outcome, ...]
    moments: tuple[int, ...] = ()
    change_at: int = 0

    def seconds_after_change(self, requests: int) -> int:
        """How long the change was ago when so many requests had come after it."""
        ends = self.outcomes[0].ends
        step = next((step for step, end in enumerate(ends) if end >= self.case.change + requests), len(ends) - 1)
        return max(0, self.moments[step] - self.change_at) if requests else 0


def text(found: Found) -> str:
    """For people."""
    parts = [_read(found.read), _farm(found), _policies(found)]
    if found.case.added is not None:
        parts.append(_change(found))
    return "\n".join([*parts, *CAVEATS, ""])


def _read(read: Read) -> str:
    lines = [
        f"{', '.join(read.names)}: {read.lines:,} lines, {_moment(read.begins)} to {_moment(read.ends)}",
        f"  {read.requests:,} requests of {read.urls:,} URLs, {amount(read.sent)}"
        + (f"; a sample: {read.sample:.4g} of the URLs, and stores in proportion" if read.sample < 1 else ""),
    ]
    lines += [f"  left out: {count:,} {reason}" for reason, count in read.left_out.items() if count]
    return "\n".join([*lines, *problems(read), ""])


def problems(read: Read) -> list[str]:
    """What could not be read."""
    lines = [f"  {damage}" for damage in read.damages]
    if read.bad:
        lines.append(f"  {read.bad:,} lines could not be read, the first:" if read.bad > 1 else "  1 line could not be read:")
        lines += [f"    {line}" for line in read.shown]
    return lines


def _farm(found: Found) -> str:
    case = found.case
    names = ", ".join(f"{node.name}{_detail(node.weight, node.state)}" for node in case.nodes[:8])
    more = f" and {len(case.nodes) - 8} more" if len(case.nodes) > 8 else ""
    size = amount(case.size_bytes) + (" for a weight of 1" if any(node.weight != 1 for node in case.nodes) else "")
    limits = f"objects up to {amount(case.limits.largest)}"
    if case.limits.smallest:
        limits = f"objects from {amount(case.limits.smallest)} to {amount(case.limits.largest)}"
    stores = f"least recently used goes first, filled to {case.fill:.0%}; {limits}"
    return f"{_plural(len(case.nodes), 'node')} of {size}: {names}{more}\n  {stores}\n"


def _detail(weight: float, state: str) -> str:
    parts = [*([f"weight {weight:g}"] if weight != 1 else []), *([state] if state != "up" else [])]
    return f" ({', '.join(parts)})" if parts else ""


def _policies(found: Found) -> str:
    rows = [("policy", "hit ratio", "of bytes", "requests", "bytes", "URLs", "duplicates", "pushed out")]
    rows += [
        (
            o.policy,
            f"{o.hit_ratio:.1%}",
            f"{o.byte_hit_ratio:.1%}",
            f"{o.skew(o.node_requests):.2f}",
            f"{o.skew(o.node_sent):.2f}",
            f"{o.skew(o.node_urls):.2f}",
            f"{o.duplicates:.1%}",
            f"{o.removed:,}",
        )
        for o in found.outcomes
    ]
    return (
        table(rows)
        + "  requests, bytes, URLs: the most loaded node against the mean; duplicates: stored on several nodes, of all bytes\n"
    )


def _change(found: Found) -> str:
    case = found.case
    assert case.added is not None
    rows = [(f"+ {case.added.name}", "moves", "worst dip", "hits lost", "recovered after", "", "duplicates")]
    for o in found.outcomes:
        dip = o.dip(case.change)
        if dip is None:
            continue
        after = found.seconds_after_change(dip.after)
        when = (duration(after), f"{dip.after:,} requests") if dip.recovered else ("not within the log", "")
        rows.append(
            (o.policy, f"{o.moved:.1%}", f"{100 * dip.depth:.1f} points", f"{dip.lost:,}", *when, f"{o.duplicates_changed:.1%}")
        )
    at = f"{_moment(found.change_at)}, before request {case.change:,}"
    what = f"  added {at}; against the same farm without it; recovered: within 1 point\n"
    return table(rows) + what


def as_dict(found: Found) -> dict[str, Any]:
    """For JSON: plain values, ratios from 0 to 1, bytes and seconds."""
    read, case = found.read, found.case
    return {
        "log": {
            "names": list(read.names), "lines": read.lines, "requests": read.requests, "urls": read.urls, "bytes": read.sent,
            "bad_lines": read.bad, "first_bad_lines": list(read.shown), "left_out": read.left_out, "begins": read.begins,
            "ends": read.ends, "sample": read.sample, "damages": list(read.damages),
        },
        "farm": {
            "nodes": [node._asdict() for node in case.nodes], "size_bytes": case.size_bytes, "fill": case.fill,
            "replacement": "lru", "smallest_bytes": case.limits.smallest, "largest_bytes": case.limits.largest,
        },
        "change": None if case.added is None else {
            "added": case.added._asdict(), "request": case.change, "at": found.change_at,
        },
        "moments": list(found.moments),
        "policies": [_outcome(found, outcome) for outcome in found.outcomes],
        "caveats": " ".join(CAVEATS),
    }  # fmt: skip


def _outcome(found: Found, o: Outcome) -> dict[str, Any]:
    dip = o.dip(found.case.change) if found.case.added is not None else None
    return {
        "policy": o.policy, "requests": o.requests, "hits": o.hits, "hit_ratio": o.hit_ratio, "bytes": o.sent,
        "hit_bytes": o.hit_bytes, "byte_hit_ratio": o.byte_hit_ratio, "duplicates": o.duplicates, "pushed_out": o.removed,
        "skew": {
            "requests": o.skew(o.node_requests), "bytes": o.skew(o.node_sent), "urls": o.skew(o.node_urls),
        },
        "nodes": [
            {"name": name, "requests": requests, "bytes": sent, "urls": urls, "stored_objects": objects, "stored_bytes": room}
            for name, requests, sent, urls, objects, room in zip(
                o.names, o.node_requests, o.node_sent, o.node_urls, o.node_objects, o.node_bytes, strict=True
            )
        ],
        "steady": o.steady,
        "changed": o.changed,
        "dip": None if dip is None else {
            "moved": o.moved, "depth": dip.depth, "hits_lost": dip.lost, "requests_until_recovered": dip.after,
            "seconds_until_recovered": found.seconds_after_change(dip.after), "recovered": dip.recovered,
            "duplicates": o.duplicates_changed,
        },
    }  # fmt: skip


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns below each other; numbers to the right, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "".join(line.rstrip() + "\n" for line in lines)


def amount(size: float) -> str:
    """Bytes, as squid.conf counts them: a KB is 1,024."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.3g} TB"


def duration(seconds: float) -> str:
    """In the unit that suits."""
    for limit, size, unit in ((100, 1, "s"), (6000, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"


def _moment(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S") if second else "?"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
