"""A picture of what a request costs by the size of its answer, for every front end, as SVG and PNG.

Below it the same as multiples of the first front end, HAProxy: differences that a scale of microseconds cannot show.

Colours and lines are readable on a white page and on a dark one: the background is transparent, the text a middle grey.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .processes import BenchError

SCENARIOS = ("small", "8k", "64k", "1m", "10m")
COLOURS = {"haproxy": "#3b82c4", "nginx": "#2e9e5b", "squid": "#b06fc0", "cachelb": "#e2702b"}
MARKERS = {"haproxy": "s", "nginx": "^", "squid": "D", "cachelb": "o"}
OTHER_COLOURS = ("#c9a227", "#8a8f98", "#2aa5a0")
INK = "#7d8590"
DPI = 144


class Line(NamedTuple):
    """One front end.  points: bytes of the answer, us per request."""

    front: str
    points: tuple[tuple[int, float], ...]


def lines_of(tables: Mapping[str, Any]) -> list[Line]:
    """The lines, from the JSON of a run; what was not measured is left out."""
    points: dict[str, list[tuple[int, float]]] = {}
    for name in SCENARIOS:
        for front, row in tables.get(name, {}).items():
            if row["us"] is not None:
                points.setdefault(front, []).append((row["bytes"], row["us"]))
    return [Line(front, tuple(of)) for front, of in points.items()]


def size(count: float) -> str:
    """400 as "400 B", 65,536 as "64 KiB"."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:g} {name}"
    return f"{count:g} B"


def library() -> tuple[Any, Any]:
    """matplotlib and its Figure; imported when needed, for the rest goes without.

    Raises:
        BenchError: It is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise BenchError("the chart needs matplotlib: pip install 'cachelb[charts]'") from exc
    return mpl, Figure


def draw(lines: list[Line], below: str, paths: list[Path]) -> None:
    """Write the picture to each path, in the format that its name says.  below: a line on machine and date.

    Raises:
        BenchError: matplotlib is not installed.
    """
    mpl, figure_type = library()
    quiet = {"axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "text.color": INK}
    with mpl.rc_context({**quiet, "svg.hashsalt": "cachelb", "font.size": 10.5, "svg.fonttype": "path"}):
        figure = figure_type(figsize=(8, 7), layout="constrained")
        costs, ratios = figure.subplots(2, 1, sharex=True, height_ratios=(5, 3))
        _plot(costs, lines)
        costs.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        costs.set_ylabel("microseconds")
        costs.legend(frameon=False, loc="upper left")
        _plot(ratios, relative(lines))
        ratios.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ratios.set_yticks([0.5, 1, 2, 5, 10])
        ratios.set_ylabel(f"times {lines[0].front}")
        ratios.set_xlabel("body of the answer")
        figure.suptitle("CPU time of a front end's core for each relayed request", fontsize=13, fontweight="bold")
        figure.supxlabel(below, fontsize=8)
        for path in paths:
            dates = {"Date": None} if path.suffix == ".svg" else {}
            figure.savefig(path, dpi=DPI, transparent=True, metadata=dates)


def relative(lines: list[Line]) -> list[Line]:
    """The same, as multiples of the first front end."""
    base = dict(lines[0].points)
    return [Line(line.front, tuple((count, us / base[count]) for count, us in line.points if count in base)) for line in lines]


def _plot(axes: Any, lines: list[Line]) -> None:
    spare = iter(OTHER_COLOURS * 3)
    for line in lines:
        ours = line.front.startswith("cachelb")
        axes.plot(
            *zip(*line.points, strict=True),
            color=COLOURS.get(line.front) or next(spare),
            marker=MARKERS.get(line.front, "v"),
            linewidth=2.6 if ours else 1.7,
            markersize=7 if ours else 5.5,
            zorder=3 if ours else 2,
            label="squid (carp)" if line.front == "squid" else line.front,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = sorted({count for line in lines for count, _ in line.points})
    axes.set_xticks(sizes, [size(count) for count in sizes])
    axes.minorticks_off()
    axes.grid(color=INK, alpha=0.25, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
