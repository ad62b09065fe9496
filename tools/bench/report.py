"""Figures for people (a table per scenario) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from .load import Scenario
from .measure import Figures, Run
from .steps import StepTime


def table(scenario: Scenario, base: str, rows: Mapping[str, Figures]) -> str:
    """One scenario: a line per front end."""
    head = f"  {'front':9}{'us/request':>12}{f'vs {base}':>12}{'requests/s':>12}{'p50':>10}{'p99':>10}  notes"
    return "\n".join([scenario.title, head, *(_row(name, row) for name, row in rows.items())])


def _row(name: str, row: Figures) -> str:
    answers = row.middle.answers
    notes = "; ".join([f"{row.bad} bad answers"] * bool(row.bad) + list(row.errors))
    if row.us is None:
        notes = "; ".join(filter(None, ["no request was answered", notes]))
    text = (
        f"  {name:9}{_number(row.us):>12}{_number(row.ratio):>12}{answers.rps:12.0f}"
        f"{answers.p50:>10}{answers.p99:>10}  {notes}"
    )
    return text.rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def as_json(base: str, rows: Mapping[str, Figures], runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """One scenario: per front end the figures, and the runs that they come from."""
    return {
        name: {
            "us": row.us,
            f"vs_{base}": row.ratio,
            "rps": row.middle.answers.rps,
            "bad": row.bad,
            "runs": [{"us": run.us, **run.answers._asdict()} for run in runs[name]],
        }
        for name, row in rows.items()
    }


def steps_table(times: Sequence[StepTime]) -> str:
    """The microbenchmarks: what each step costs and what it may cost."""
    lines = ["steps inside cachelb", f"  {'step':46}{'us':>8}{'target':>8}"]
    for time in times:
        target = f"{time.target_us:.1f}" if time.target_us is not None else "-"
        if time.us is None:
            lines.append(f"  {time.name:46}{'-':>8}{target:>8}  {time.problem}")
        else:
            late = "  above target" if time.target_us is not None and time.us > time.target_us else ""
            lines.append(f"  {time.name:46}{time.us:8.2f}{target:>8}{late}")
    return "\n".join(lines)


class Progress:
    """Says on stderr what is being measured: one line that is overwritten on a terminal, nothing elsewhere."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self._total = total
        self._stream = stream
        self._done = 0

    def step(self, what: str) -> None:
        """``what`` begins."""
        self._done += 1
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K[{self._done}/{self._total}] {what}")
            self._stream.flush()

    def clear(self) -> None:
        """Make room for the table."""
        if self._stream.isatty():
            self._stream.write("\r\x1b[K")
            self._stream.flush()
