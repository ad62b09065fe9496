"""Figures for people (a table per scenario) and for programs (JSON)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

from .measure import Figures, Run
from .steps import StepTime, warm_us
from .tables import Table

LABEL = 15


class Measured(NamedTuple):
    """What came out, for people and for programs."""

    text: str
    figures: dict[str, Any]


def table(title: str, against: str, rows: Mapping[str, Figures], memory: Mapping[str, int]) -> str:
    """One table: a line per case.  memory: KiB, by case, where that is shown."""
    width = max(LABEL, *(len(label) for label in rows))
    head = f"  {'front':{width}}{'us/request':>12}{f'vs {against}':>12}{'requests/s':>12}{'p50':>10}{'p99':>10}"
    head += f"{'MiB':>8}" * bool(memory) + "  notes"
    lines = [_row(f"  {label:{width}}", row, memory.get(label)) for label, row in rows.items()]
    return "\n".join([title, head, *lines])


def _row(label: str, row: Figures, memory_kib: int | None) -> str:
    answers = row.middle.answers
    notes = "; ".join([f"{row.bad} bad answers"] * bool(row.bad) + list(row.errors))
    if row.us is None:
        notes = "; ".join(filter(None, ["no request was answered", notes]))
    text = (
        f"{label}{number(row.us):>12}{number(row.ratio):>12}{answers.rps:12.0f}{answers.p50:>10}{answers.p99:>10}"
        + ("" if memory_kib is None else f"{memory_kib / 1024:8.1f}")
        + f"  {notes}"
    )
    return text.rstrip()


def number(value: float | None) -> str:
    """With two decimals, or a dash for what was not measured."""
    return "-" if value is None else f"{value:.2f}"


def as_json(
    table: Table, rows: Mapping[str, Figures], runs: Mapping[str, Sequence[Run]], memory: Mapping[str, int]
) -> dict[str, Any]:
    """One table: per case the figures, and the runs that they come from."""
    return {
        case.label: {
            "us": (row := rows[case.label]).us,
            "ratio": row.ratio,
            "to": case.base,
            "rps": row.middle.answers.rps,
            "bad": row.bad,
            "bytes": case.scenario.bytes,
            "pss_kib": memory.get(case.label),
            "runs": [{"us": run.us, **run.answers._asdict()} for run in runs[case.label]],
        }
        for case in table.cases
    }


def steps_table(times: Sequence[StepTime]) -> str:
    """The microbenchmarks: what each step costs and what it may cost."""
    lines = ["steps inside cachelb", f"  {'step':46}{'us':>8}{'target':>8}"]
    for step in times:
        target = f"{step.target_us:.1f}" if step.target_us is not None else "-"
        if step.us is None:
            lines.append(f"  {step.name:46}{'-':>8}{target:>8}  {step.problem}")
        else:
            late = "  above target" if step.target_us is not None and step.us > step.target_us else ""
            lines.append(f"  {step.name:46}{step.us:8.2f}{target:>8}{late}")
    if (whole := warm_us(times)) is not None:
        lines.append(f"  {'a request on warm connections takes of these':46}{whole:8.2f}")
    return "\n".join(lines)


class Progress:
    """Says on stderr what is being measured: one line that is overwritten on a terminal, nothing elsewhere."""

    def __init__(self, total_s: float, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._total_s = total_s
        self._stream = stream
        self._clock = clock
        self._began = clock()

    def step(self, what: str) -> None:
        """``what`` begins."""
        if self._stream.isatty():
            passed = self._clock() - self._began
            self._stream.write(f"\r\x1b[K[{passed / 60:.1f} of about {self._total_s / 60:.1f} minutes] {what}")
            self._stream.flush()

    def clear(self) -> None:
        """Make room for the table."""
        if self._stream.isatty():
            self._stream.write("\r\x1b[K")
            self._stream.flush()
