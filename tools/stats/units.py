"""Numbers and names in few cells: what is shown fits its column, whatever comes.

Pure.  A cell is a column of the terminal; letters of some scripts take two.  URLs and names come from others: what a terminal
might obey is never written as it came.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from rich.cells import cell_len, set_cell_size

UNKNOWN = "-"
BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-=+*#@"  # where the terminal speaks no UTF-8
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def count(value: float | None) -> str:
    """At most five cells: 0, 0.5, 12, 9999, 12.3k, 456M."""
    if value is None:
        return UNKNOWN
    if value < 9999.5:
        return f"{value:.1f}" if 0 < value < 9.95 and round(value, 1) != int(value) else f"{value:.0f}"
    power = 0
    while value >= 999.5 and power < len(_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    if value >= 999.5:
        return ">999E"
    return f"{value:.1f}{_PREFIXES[power]}" if value < 99.95 else f"{value:.0f}{_PREFIXES[power]}"


def size(value: float | None) -> str:
    """Bytes, at most five cells, by thousands: 0, 512, 1.2k, 9.1M."""
    if value is None:
        return UNKNOWN
    return f"{value / 1000:.1f}k" if 999.5 <= value < 9999.5 else count(value)


def millis(value: float | None) -> str:
    """Milliseconds, at most five cells: 0.4ms, 31ms, 1.2s, 67s, 12min."""
    if value is None:
        return UNKNOWN
    if value < 9.95:
        return f"{value:.1f}ms"
    if value < 999.5:
        return f"{value:.0f}ms"
    seconds = value / 1000
    if seconds < 99.5:
        return f"{seconds:.1f}s" if seconds < 9.95 else f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}min" if seconds < 5970 else ">99m"


def percent(part: float | None) -> str:
    """A share without its sign, at most three cells: 0, <1, 33, 100; never 0 for a little and never 100 for almost."""
    if part is None:
        return UNKNOWN
    if 0 < part < 0.01:
        return "<1"
    return "99" if 0.99 < part < 1 else f"{100 * part:.0f}"


def age(seconds: float | None) -> str:
    """How long, in words: 12 s, 3 min, 2 h 05 min, 4 d 3 h."""
    if seconds is None:
        return UNKNOWN
    whole = int(max(0, seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def grouped(value: float) -> str:
    """A whole number for a sentence: 240,000."""
    return f"{value:,.0f}" if value < 1e12 else count(value)


def clean(text: str) -> str:
    """Without what a terminal would obey, or what would turn its text around."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)


def fit(text: str, width: int, more: str = "…") -> str:
    """``text`` in exactly so many cells; what is too long ends with ``more``."""
    text = clean(text)
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, max(0, width - len(more))) + more[:width]


def right(text: str, width: int, more: str = "…") -> str:
    """The same, moved to the right."""
    missing = width - cell_len(clean(text))
    return " " * missing + clean(text) if missing >= 0 else fit(text, width, more)


def middle(text: str, width: int, more: str = "…") -> str:
    """At most so many cells; of what is too long, the middle goes: host and file name stay."""
    text = clean(text)
    if cell_len(text) <= width:
        return text
    if width <= len(more):
        return more[: max(0, width)]
    head = (width - len(more) + 1) // 2
    tail, room = "", width - len(more) - head
    for char in reversed(text):
        if cell_len(char + tail) > room:
            break
        tail = char + tail
    return set_cell_size(text, head).rstrip() + more + tail


def sparkline(values: Sequence[float | None], width: int, bars: str = BARS) -> str:
    """The last values as bars from zero to the largest; exactly so many cells, a blank where nothing is known.

    More values than cells: each cell is the largest of its part, so that no peak is lost.
    """
    if width <= 0:
        return ""
    cells = [_largest(part) for part in _parts(values, width)]
    top = max((value for value in cells if value is not None), default=0.0)
    drawn = "".join(" " if value is None else bars[_level(value, top, len(bars))] for value in cells)
    return drawn.rjust(width)


def _level(value: float, top: float, levels: int) -> int:
    if value <= 0 or top <= 0:
        return 0
    return min(levels - 1, max(1, round(value / top * (levels - 1))))


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _parts(values: Sequence[float | None], width: int) -> list[Sequence[float | None]]:
    if len(values) <= width:
        return [values[i : i + 1] for i in range(len(values))]
    edges = [len(values) * i // width for i in range(width + 1)]
    return [values[a:b] for a, b in pairwise(edges)]
