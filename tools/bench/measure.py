"""From runs to figures: CPU time per request, medians over rounds, ratios within rounds.

A ratio is taken inside each round, and then the median of them, so that a slow moment of the machine, which hits all
front ends of its round, does not move it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .load import Answers


class Run(NamedTuple):
    """One front end under one scenario in one round.  us: CPU microseconds per request; None without requests."""

    us: float | None
    answers: Answers


class Figures(NamedTuple):
    """One front end under one scenario, over all rounds.

    us: median.  ratio: to the base, median of the rounds; None without a base.  middle: the run with the median cost.
    """

    us: float | None
    ratio: float | None
    middle: Run
    bad: int
    errors: tuple[str, ...]


def busy_s(stat: str, cpu: int, ticks_per_s: int) -> float:
    """Seconds that a CPU was not idle since boot, from the text of /proc/stat.

    User, nice, system, irq, softirq and stolen time count; idle and iowait do not, guest time is in user already.

    Raises:
        LookupError: There is no such CPU.
    """
    for line in stat.splitlines():
        name, *fields = line.split()
        if name == f"cpu{cpu}":
            ticks = [int(field) for field in fields[:8]]
            return (sum(ticks) - ticks[3] - ticks[4]) / ticks_per_s
    raise LookupError(f"no cpu{cpu} in /proc/stat")


def measure(load: Callable[[], Answers], clock: Callable[[], float]) -> Run:
    """Run ``load`` and charge what ``clock``, a CPU's busy time, has advanced."""
    before = clock()
    answers = load()
    busy = clock() - before
    return Run(busy / answers.requests * 1e6 if answers.requests else None, answers)


def figures(runs: Sequence[Run], base: Sequence[Run] | None) -> Figures:
    """Sum up the rounds of one front end; ``base`` are those of the one that it is compared with, in the same order."""
    costs = [run.us for run in runs if run.us is not None]
    ratios = [a.us / b.us for a, b in zip(runs, base or (), strict=False) if a.us is not None and b.us]
    by_cost = sorted(runs, key=lambda run: (run.us is None, run.us or 0.0))
    return Figures(
        us=statistics.median(costs) if costs else None,
        ratio=statistics.median(ratios) if ratios else None,
        middle=by_cost[len(by_cost) // 2],
        bad=sum(run.answers.bad for run in runs),
        errors=tuple(dict.fromkeys(run.answers.errors for run in runs if run.answers.errors)),
    )
