"""Charts of what ``simulate`` and ``plan`` found, as SVG or PNG by the file's ending.  The only importer of matplotlib here.

matplotlib is optional, the extra ``charts``.  An SVG follows the reader's light or dark mode; a PNG is as it was asked for.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from cachelb.errors import CommandError
from cachelb.simulate.plan import Load, Plan
from cachelb.simulate.replay import Outcome
from cachelb.simulate.report import Found

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".svg", ".png")
SHOWN_NODES = 24


class ChartError(CommandError):
    """No chart can be made; one sentence says why."""


class Palette(NamedTuple):
    """paper, ink, faint (lines of the grid), soft (what is not stressed); series: one colour per policy."""

    paper: str
    ink: str
    faint: str
    soft: str
    series: tuple[str, ...]


# Okabe and Ito's colours, which the colour-blind can tell apart, made lighter on dark paper.
LIGHT = Palette("#ffffff", "#1f2328", "#d8dee4", "#8c959f", ("#0072b2", "#d55e00", "#9a6700", "#a0408a"))
DARK = Palette("#0d1117", "#e6edf3", "#30363d", "#7d8590", ("#58b4f0", "#ff8c42", "#e3b341", "#e08fd0"))
# Where policies do alike, all of them are seen: thick below thin, dashed on top of solid.
_WIDTHS = (3.4, 2.2, 1.4, 1.4)
_STYLES = ("-", (0, (6, 2)), "-.", ":")


def check(path: Path) -> None:
    """Find out early whether a chart can be written.

    Raises:
        ChartError: The ending is none of ENDINGS, the folder is not there, or matplotlib is not installed.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ChartError(f"{path}: a chart is an {' or a '.join(ending[1:].upper() for ending in ENDINGS)} file; end its name so")
    if not path.parent.is_dir():
        raise ChartError(f"{path.parent}: there is no such folder")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ChartError("charts need the package matplotlib; install it with: pip install 'cachelb[charts]'") from None


def draw_simulation(found: Found, path: Path, theme: str = "light") -> None:
    """Write the chart of a simulation.  Raises ChartError."""
    _write(path, theme, lambda palette: _simulation(found, palette))


def draw_plan(plan: Plan, path: Path, theme: str = "light") -> None:
    """Write the chart of a plan.  Raises ChartError."""
    _write(path, theme, lambda palette: _plan(plan, palette))


def _write(path: Path, theme: str, make: Any) -> None:
    check(path)
    from matplotlib import rc_context

    is_svg = path.suffix.lower() == ".svg"
    palette = DARK if theme == "dark" and not is_svg else LIGHT
    with rc_context(cast("Any", _settings(palette))):
        buffer = io.BytesIO()
        # without a date, the same chart is the same file
        make(palette).savefig(buffer, format=path.suffix[1:].lower(), dpi=144, metadata={"Date": None} if is_svg else None)
    data = buffer.getvalue()
    try:
        path.write_bytes(_follow_mode(data) if is_svg else data)
    except OSError as exc:
        raise ChartError(f"{path}: {exc.strerror}") from exc


def _follow_mode(svg: bytes) -> bytes:
    """Add what replaces the light colours by the dark ones where the reader's mode is dark."""
    pairs = [*zip(LIGHT.series, DARK.series, strict=True), *((getattr(LIGHT, n), getattr(DARK, n)) for n in Palette._fields[:4])]
    rules = [f'[style*="{what}: {light}"]{{{what}:{dark} !important}}' for light, dark in pairs for what in ("fill", "stroke")]
    style = "<style>@media (prefers-color-scheme: dark){" + "".join(rules) + "}</style>"
    return svg.replace(b" <defs>", style.encode() + b"\n <defs>", 1)


def _settings(palette: Palette) -> dict[str, Any]:
    return {
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9, "svg.fonttype": "none",
        "svg.hashsalt": "cachelb", "figure.facecolor": palette.paper, "savefig.facecolor": palette.paper,
        "axes.facecolor": palette.paper, "axes.edgecolor": palette.faint, "axes.labelcolor": palette.ink,
        "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlecolor": palette.ink,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
        "grid.color": palette.faint, "grid.linewidth": 0.6, "text.color": palette.ink, "xtick.color": palette.ink,
        "ytick.color": palette.ink, "xtick.major.size": 0, "ytick.major.size": 0, "legend.frameon": False,
    }  # fmt: skip


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)  # inches around each chart
    return figure


def _simulation(found: Found, palette: Palette) -> Figure:
    has_change = found.case.added is not None and len(found.moments) > 1
    figure = _figure(9.5, 6.6 if has_change else 3.2)
    grid = figure.add_gridspec(2 if has_change else 1, 3, height_ratios=(1, 1.5) if has_change else None)
    outcomes = found.outcomes
    _ratios(figure.add_subplot(grid[0, 0]), outcomes, palette)
    _skews(figure.add_subplot(grid[0, 1]), outcomes, palette)
    _duplicates(figure.add_subplot(grid[0, 2]), outcomes, palette)
    if has_change:
        _dip(figure.add_subplot(grid[1, :]), found, palette)
    return figure


def _bars(
    axes: Axes, outcomes: Sequence[Outcome], rows: Sequence[tuple[str, Sequence[float]]], palette: Palette, form: str
) -> None:
    """Bars to the right, a group per policy; each row is (label, value of each policy)."""
    height = 0.8 / len(rows)
    for number, (label, values) in enumerate(rows):
        places = [at - 0.4 + height * (number + 0.5) for at in range(len(outcomes))]
        alphas = 1.0 - 0.32 * number
        bars = axes.barh(places, list(values), height * 0.9, color=palette.series[: len(outcomes)], label=label)
        for bar, value in zip(bars, values, strict=True):
            bar.set_alpha(alphas)
            text = f"{form.format(value)} {label}"
            axes.annotate(
                text, (value, bar.get_y() + bar.get_height() / 2), (3, 0), textcoords="offset points", va="center", size=7.5
            )
    axes.set_yticks(range(len(outcomes)), [outcome.policy for outcome in outcomes])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.margins(x=0)
    axes.set_xlim(0, max(1e-9, *(value for _, values in rows for value in values)) * 1.45)


def _ratios(axes: Axes, outcomes: Sequence[Outcome], palette: Palette) -> None:
    axes.set_title("Hit ratio")
    rows = [("of requests", [100 * o.hit_ratio for o in outcomes]), ("of bytes", [100 * o.byte_hit_ratio for o in outcomes])]
    _bars(axes, outcomes, rows, palette, "{:.1f} %")


def _skews(axes: Axes, outcomes: Sequence[Outcome], palette: Palette) -> None:
    axes.set_title("Most loaded node, mean = 1")
    loads = (("requests", "node_requests"), ("bytes", "node_sent"), ("URLs", "node_urls"))
    rows = [(label, [o.skew(getattr(o, name)) for o in outcomes]) for label, name in loads]
    _bars(axes, outcomes, rows, palette, "{:.2f}")


def _duplicates(axes: Axes, outcomes: Sequence[Outcome], palette: Palette) -> None:
    axes.set_title("Stored more than once")
    _bars(axes, outcomes, [("of bytes", [100 * o.duplicates for o in outcomes])], palette, "{:.1f} %")
    axes.set_xlim(0, max(10.0, axes.get_xlim()[1]))


def _dip(axes: Axes, found: Found, palette: Palette) -> None:
    from matplotlib import dates

    assert found.case.added is not None
    moments: list[Any] = [datetime.fromtimestamp(moment, UTC) for moment in found.moments]
    by_time = found.moments[-1] > found.moments[0]
    places = moments if by_time else list(found.outcomes[0].ends)
    for number, outcome in enumerate(found.outcomes):
        color = palette.series[number % len(palette.series)]
        axes.plot(places, [100 * r for r in outcome.steady], color=color, linewidth=0.8, alpha=0.45)
        axes.plot(
            places,
            [100 * r for r in outcome.changed],
            color=color,
            linewidth=_WIDTHS[number % 4],
            linestyle=_STYLES[number % 4],
            label=outcome.policy,
        )
    change: Any = datetime.fromtimestamp(found.change_at, UTC) if by_time else found.case.change
    axes.axvline(change, color=palette.soft, linewidth=1)
    axes.annotate(
        f"{found.case.added.name} comes",
        (change, 1),
        (4, -10),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        size=8,
    )
    if by_time:
        locator = dates.AutoDateLocator(maxticks=9)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_title(f"Hit ratio in %, {len(found.case.nodes)} nodes and one more (thin: without it)")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.legend(loc="lower right", ncols=len(found.outcomes))


def _plan(plan: Plan, palette: Palette) -> Figure:
    places = plan.places[:SHOWN_NODES]
    figure = _figure(8.5, 1.5 + 0.34 * len(places))
    axes = figure.add_subplot()
    total = plan.total
    is_weighed = total.requests > 0

    def share(urls: int, requests: int) -> float:
        return 100 * (requests / total.requests if is_weighed else urls / max(1, total.urls))

    kept, leaves, comes = [], [], []
    for place in places:
        stays = plan.flows.get((place, place), Load())
        old, new = plan.held(place, after=False), plan.held(place, after=True)
        kept.append(share(stays.urls, stays.requests))
        leaves.append(share(old.urls, old.requests) - kept[-1])
        comes.append(share(new.urls, new.requests) - kept[-1])
    at = list(range(len(places)))
    blue, orange = palette.series[0], palette.series[1]
    axes.barh(at, kept, 0.62, color=palette.soft, label="stays")
    axes.barh(at, comes, 0.62, left=kept, color=blue, label="comes")
    axes.barh(at, [-value for value in leaves], 0.62, color=orange, label="goes")
    for row, (stay, go, come) in enumerate(zip(kept, leaves, comes, strict=True)):
        axes.annotate(
            f"{stay + go:.1f} -> {stay + come:.1f}", (stay + come, row), (4, 0), textcoords="offset points", va="center", size=8
        )
    axes.axvline(0, color=palette.ink, linewidth=0.8)
    axes.set_yticks(at, places)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    what, moved = ("requests", plan.moved.requests) if is_weighed else ("URLs", plan.moved.urls)
    part = moved / max(1, total.requests if is_weighed else total.urls)
    axes.set_title(f"{part:.1%} of the {what} move; share of each node in %")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3)
    if len(plan.places) > SHOWN_NODES:
        axes.set_xlabel(f"{len(plan.places) - SHOWN_NODES} more nodes are not shown")
    return figure
