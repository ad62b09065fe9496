"""A progress bar on stderr, if that is a terminal: how much is done, how fast, how long it will take."""

from __future__ import annotations

import sys
import time
from typing import TextIO

WIDTH = 20
STEP_S = 0.2


class Progress:
    """One thing that takes its time.

    what: in a word or two.  total: of what ``at`` counts, 0 where it is not known.
    """

    def __init__(self, what: str, total: int, stream: TextIO | None = None) -> None:
        self.what, self.total = what, total
        self._stream = stream or sys.stderr
        self._is_shown = self._stream.isatty()
        self._begun = self._told = time.monotonic()
        self._width = 0

    def at(self, done: int, count: int, unit: str) -> None:
        """So much is `done` of the total, and `count` of `unit` have passed; shown five times a second at most."""
        now = time.monotonic()
        if not self._is_shown or now - self._told < STEP_S:
            return
        self._told = now
        self._write(render(self.what, done, self.total, count, unit, now - self._begun))

    def end(self) -> None:
        """Remove it."""
        if self._width:
            self._write("")

    def _write(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._width) + ("\r" if not text else ""))
        self._stream.flush()
        self._width = len(text)


def render(what: str, done: int, total: int, count: int, unit: str, elapsed_s: float) -> str:
    """One line, below 80 columns."""
    speed = count / elapsed_s * 60 if elapsed_s > 0 else 0.0
    text = f"{count / 1e6:.1f} M {unit}, {speed / 1e6:.1f} M a minute"
    if not total:
        return f"{what}: {text}"
    part = min(1.0, done / total)
    full = int(part * WIDTH)
    left = f", {_duration(elapsed_s / part - elapsed_s)} left" if part > 0.01 else ""
    return f"{what} [{'#' * full}{'.' * (WIDTH - full)}] {part:4.0%}  {text}{left}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
