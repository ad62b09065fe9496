"""Asks for all that one screen shows, and keeps what it had when there is no answer.

The status is what everything stands on.  The rest may be late or missing: then the screen says so, and shows the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .client import Admin, Down, Refused
from .farm import Answers, Farm, listed, read

MANY = 64  # nodes; of more a shorter history is asked for
HISTORY_S, SHORT_HISTORY_S = 300, 60
HOT_MINUTES = 2  # what is hot now, not what was
EXTRAS_EVERY_S = 2.0  # hot URLs, history and events change more slowly than rates do


class Poller:
    """One director, asked again and again.  clock: seconds, monotonic."""

    def __init__(self, admin: Admin, clock: Callable[[], float]) -> None:
        self.admin = admin
        self.problem = ""  # why the last look failed; "": it did not
        self._clock = clock
        self._status: Mapping[str, Any] | None = None
        self._before: Mapping[str, Any] | None = None
        self._at = 0.0
        self._extras: dict[str, Any] = {}
        self._missing: dict[str, str] = {}
        self._extras_at = float("-inf")

    def farm(self, hot: int = 10) -> Farm:
        """Look now.  Raises Down, Refused: what was known stays, see ``last``."""
        try:
            status = self.admin.get("/status")
        except (Down, Refused) as problem:
            self.problem = str(problem)
            raise
        self.problem = ""
        self._before, self._status, self._at = self._status, status, self._clock()
        if self._at - self._extras_at >= EXTRAS_EVERY_S:
            self._ask_for_the_rest(hot, len(listed(status, "nodes")))
        return self._read(0.0)

    def last(self) -> Farm | None:
        """What was known last, with its age; None: nothing ever was."""
        return None if self._status is None else self._read(self._clock() - self._at)

    def _ask_for_the_rest(self, hot: int, nodes: int) -> None:
        seconds = HISTORY_S if nodes <= MANY else SHORT_HISTORY_S
        self._missing = {}
        questions: dict[str, dict[str, Any]] = {
            "history": {"seconds": seconds, "nodes": "*"},
            "hot": {"limit": max(1, hot), "minutes": HOT_MINUTES},
            "events": {},
        }
        for name, query in questions.items():
            if self._missing:
                break  # it is late: whoever waits for the verdict should not wait for all of them
            try:
                self._extras[name] = self.admin.get(f"/{name}", **query)
            except (Down, Refused) as problem:
                self._missing[name] = str(problem)
        self._extras_at = self._clock()

    def _read(self, age_s: float) -> Farm:
        assert self._status is not None
        events = [event for event in listed(self._extras.get("events"), "events") if isinstance(event, dict)]
        return read(
            Answers(
                self._status,
                self._extras.get("history"),
                self._extras.get("hot"),
                events,
                dict(self._missing),
                self._before,
                age_s,
                self.admin.where,
                self.problem,
            )
        )
