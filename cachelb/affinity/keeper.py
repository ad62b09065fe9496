"""Templates are kept: loaded at the start, saved from time to time and at the end, in the directory of ``[index] state``.

Whether that directory is ours, the index's keeper knows (``cluster.keeper``), which holds its lock.  A file that cannot be used
is renamed to ``templates.bad``, and the director begins without templates.  The one that takes over in an upgrade reads what the
one before it has just saved.

Left out: the file (``saved``).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cachelb.affinity.saved import FILE_NAME, load, save, save_aside
from cachelb.statefile import StateError

if TYPE_CHECKING:
    from cachelb.affinity.register import Register
    from cachelb.cluster.keeper import Keeper as IndexKeeper

log = logging.getLogger("cachelb.affinity")

BAD_NAME = f"{FILE_NAME}.bad"
IDLE_S = 60.0
END_S = 15.0  # for saving at the end, as the index has


class Keeper:
    """Of one register.

    Args:
        slots: Of the nodes that are configured, by name; kept up to date.
        wall: Wall clock.
    """

    def __init__(self, register: Register, slots: Mapping[str, int], wall: Callable[[], float] = time.time) -> None:
        self.register = register
        self.problem = ""
        self._slots = slots
        self._wall = wall
        self._index: IndexKeeper | None = None
        self._loaded = False
        self._changes = 0  # the register's number when it was saved last
        self._given = False  # to the next director: what is there now is not ours to write over

    def follow(self, index: IndexKeeper) -> None:
        """Keep templates where, and as often as, the index is kept; load them from there if they were not handed over."""
        self._index = index
        if not self._loaded:
            self.load(self._directory())

    def _directory(self) -> Path | None:
        """Where to save; None: nowhere, for there is no directory, or it is another director's."""
        return self._index.directory if self._index is not None and self._index.lock >= 0 else None

    def load(self, directory: Path | None) -> None:
        """Take over what is in a directory, before anybody asks for it; None: nothing."""
        register = self.register
        self._loaded = directory is not None
        if directory is None or not register.templates.shelves:
            return
        try:
            count = load(directory, register.templates, self._slots, register.clock(), self._wall())
        except StateError as exc:
            log.error("%s: beginning without templates (the file becomes %s)", exc, BAD_NAME)
            try:
                os.replace(directory / FILE_NAME, directory / BAD_NAME)
            except OSError as problem:
                log.error("%s cannot be renamed: %s", directory / FILE_NAME, problem.strerror)
        else:
            if count:
                log.info("%s: the nodes of %s clients are known", directory / FILE_NAME, f"{count:,}")
        self._changes = register.changes

    async def hand_over(self, directory: Path | None) -> None:
        """Save for the next director, and write no more; directory: None: where it is always saved."""
        self._given = True
        where = directory if directory is not None else self._directory()
        if where is not None and self.register.templates.shelves:
            await self._save_aside(where)

    def take_back(self) -> None:
        """There is no next director: go on saving."""
        self._given = False

    async def run(self) -> None:
        """For ever: save from time to time."""
        while True:
            await asyncio.sleep(self._index.save_s if self._index is not None else IDLE_S)
            directory = self._due()
            if directory is not None:
                await self._save_aside(directory)

    def close(self) -> None:
        """Save for the last time, which takes END_S at most."""
        directory = self._due()
        if directory is not None:
            thread = threading.Thread(target=self._save, args=(directory,), name="templates", daemon=True)
            thread.start()
            thread.join(END_S)
            if thread.is_alive():
                log.error("saving %s took more than %g s: what is there is older", directory / FILE_NAME, END_S)

    def _due(self) -> Path | None:
        return None if self._given or self.register.changes == self._changes else self._directory()

    def _names(self) -> dict[int, str]:
        return {slot: name for name, slot in self._slots.items()}

    async def _save_aside(self, directory: Path) -> None:
        register, changes = self.register, self.register.changes
        try:
            await save_aside(directory, register.templates, self._names(), register.clock(), self._wall())
        except StateError as exc:
            self._tell(str(exc))
        else:
            self._changes, self.problem = changes, ""

    def _save(self, directory: Path) -> None:
        register, changes = self.register, self.register.changes
        try:
            save(directory, register.templates, self._names(), register.clock(), self._wall())
        except StateError as exc:
            self._tell(str(exc))
        else:
            self._changes, self.problem = changes, ""

    def _tell(self, problem: str) -> None:
        """Once, as long as it stays the same."""
        if problem != self.problem:
            log.error("%s", problem)
        self.problem = problem
