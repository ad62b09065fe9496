"""Holdings are kept: loaded from the state directory at the start, saved from time to time and at the end.

A director that cannot keep them works all the same, and says once why: no such directory, not writable, or another director
keeps its own there (a lock that the system releases when its holder ends, however it ends).

A file that cannot be used is renamed to ``holdings.bad``, so that it is neither written over nor refused again at the next
start; the one before it with that name is lost.  The director begins with nothing, and learns.

A director that is about to be replaced hands its holdings over (``hand_over``): saves them, and the next one, which got the open
lock from it, loads them.  Where nothing is kept, they go by a directory that lives only for that.

Left out: the file (``saved``).
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cachelb.snapshot import NodeView
from cachelb.statefile import StateError

from .holdings import Holdings
from .saved import FILE_NAME, load, save, save_aside

if TYPE_CHECKING:
    from cachelb.config import IndexConfig

log = logging.getLogger("cachelb.keeper")

LOCK_NAME = "lock"
BAD_NAME = f"{FILE_NAME}.bad"
# For saving at the end.  5 million keys take half a second; a disk that needs longer than this must not hold up the end.
END_S = 15.0


def state_directory(configured: str, environment: Mapping[str, str]) -> Path | None:
    """Where to keep state: what is configured, else systemd's StateDirectory (the first, if it has several), else nowhere."""
    text = configured or environment.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(text) if text else None


class Legacy(NamedTuple):
    """What a director hands to the next: directory: where its holdings are, None: in the state directory; lock: see ``lock``."""

    directory: Path | None = None
    lock: int = -1


class Keeper:
    """Of one table, from start to end.

    directory: None: nothing is kept.  saved_at: wall clock; 0 = not yet.  problem: why it is not kept, or "".

    Args:
        settings: ``[index]``; a change of anything but save_s needs a restart.
        slots: of the nodes that are configured, by name.
        clock: wall clock.
        legacy: what the director before this one handed over.
    """

    def __init__(
        self,
        settings: IndexConfig,
        slots: Mapping[str, int],
        clock: Callable[[], float] = time.time,
        legacy: Legacy | None = None,
    ) -> None:
        self.directory = state_directory(settings.state, os.environ)
        self.problem = ""
        self.saved_at = 0
        self._settings = settings
        self._slots = dict(slots)
        self._clock = clock
        self._holdings = Holdings(1)
        self._changes = 0  # the holdings' number when they were saved last
        self._lock = -1
        self._legacy = legacy or Legacy()
        self._given = False  # to the next director: what is there now is not ours to write over
        self._saving = asyncio.Lock()

    def load(self) -> Holdings:
        """What was kept, or an empty table.  Called once, before all else."""
        kept = self._handed_over()
        if kept is not None:
            if self.directory is not None:
                self._take(self.directory)
        elif self.directory is not None and self._take(self.directory):
            try:
                kept = load(self.directory, self._slots, self._settings.keys)
            except StateError as exc:
                log.error("%s: beginning with nothing (the file becomes %s)", exc, BAD_NAME)
                self._set_aside(self.directory)
        elif self.directory is None:
            if self._legacy.lock >= 0:
                os.close(self._legacy.lock)
            log.info("what the nodes hold is not kept over a restart: no [index] state is configured")
        self._holdings = Holdings(self._settings.keys) if kept is None else kept
        self._changes = self._holdings.changes
        if kept is not None:
            log.info("%s: %s objects of the nodes are known", self.directory or "handed over", f"{kept.count():,}")
        return self._holdings

    def _handed_over(self) -> Holdings | None:
        """What came by a directory of its own, which is removed."""
        directory = self._legacy.directory
        if directory is None:
            return None
        try:
            return load(directory, self._slots, self._settings.keys)
        except StateError as exc:
            log.error("what the director before this one knew is lost: %s", exc)
            return None
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    async def hand_over(self) -> Path | None:
        """Save for the next director, and write no more; the directory where it is if the state directory is not used."""
        async with self._saving:
            self._given = True
            if self._lock >= 0:
                if self._holdings.changes != self._changes:
                    await self._save_aside(self.directory)
                return None
            directory = Path(tempfile.mkdtemp(prefix="cachelb-"))
            await self._save_aside(directory)
            return directory

    def take_back(self) -> None:
        """There is no next director: go on saving."""
        self._given = False

    @property
    def lock(self) -> int:
        """The descriptor whose lock says that the state directory is ours; -1: it is not, or there is none."""
        return self._lock

    @property
    def save_s(self) -> float:
        """Seconds between savings."""
        return self._settings.save_s

    def configure(self, settings: IndexConfig) -> None:
        """Another ``save_s``."""
        self._settings = self._settings.model_copy(update={"save_s": settings.save_s})

    def place(self, views: Iterable[NodeView]) -> None:
        """Other nodes: under which names they are saved."""
        self._slots = {view.name: view.slot for view in views}

    def status(self) -> dict[str, Any]:
        """directory (None: not kept), saved_at (wall clock, 0: not yet), problem ("": none)."""
        return {
            "directory": None if self.directory is None else str(self.directory),
            "saved_at": self.saved_at,
            "problem": self.problem,
        }

    async def run(self) -> None:
        """Save every ``save_s`` seconds if there is something new; until cancelled."""
        while True:
            await asyncio.sleep(self._settings.save_s)
            if self._is_due:
                async with self._saving:
                    await self._save_aside(self.directory)

    async def close(self) -> None:
        """Save for the last time, which takes END_S at most, and let others have the directory."""
        async with self._saving:  # one that was cancelled just now has cleaned up
            if self._is_due:
                # a thread, for only a thread can be left alone with a disk that hangs
                thread = threading.Thread(target=self._save, name="keeper", daemon=True)
                thread.start()
                thread.join(END_S)
                if thread.is_alive():  # the lock stays until this process has ended
                    self._tell(f"saving {self.directory} took more than {END_S:g} s: what is there is older")
                    return
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    @property
    def _is_due(self) -> bool:
        return self._lock >= 0 and not self._given and self._holdings.changes != self._changes

    async def _save_aside(self, directory: Path | None) -> None:
        assert directory is not None
        changes, now = self._holdings.changes, int(self._clock())
        try:
            await save_aside(directory, self._holdings, self._names(), now)
        except StateError as exc:
            self._tell(str(exc))
        else:
            self._saved(changes, now)

    def _save(self) -> None:
        assert self.directory is not None
        changes, now = self._holdings.changes, int(self._clock())
        try:
            save(self.directory, self._holdings, self._names(), now)
        except StateError as exc:
            self._tell(str(exc))
        else:
            self._saved(changes, now)

    def _saved(self, changes: int, now: int) -> None:
        if self.problem:
            log.info("%s is saved again", self.directory)
        self._changes, self.saved_at, self.problem = changes, now, ""

    def _tell(self, problem: str) -> None:
        """Once, as long as it stays the same."""
        if problem != self.problem:
            log.error("%s", problem)
        self.problem = problem

    def _names(self) -> dict[int, str]:
        return {slot: name for name, slot in self._slots.items()}

    def _take(self, directory: Path) -> bool:
        """Take the lock.  False: what the nodes hold is not kept, and the operator was told why."""
        if self._is_locked_by_legacy(directory):
            return True
        try:
            self._lock = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1
                why = "another director keeps its state there"
            else:
                why = "no such directory" if isinstance(exc, FileNotFoundError | NotADirectoryError) else f"{exc.strerror}"
            self._tell(f"[index] state {directory}: {why}: what the nodes hold is not kept over a restart")
        return self._lock >= 0

    def _is_locked_by_legacy(self, directory: Path) -> bool:
        """Whether the lock that was handed over is this directory's; it is used then, and closed if it is another one's."""
        lock, self._legacy = self._legacy.lock, Legacy()
        if lock < 0:
            return False
        try:
            if os.path.samestat(os.fstat(lock), os.stat(directory / LOCK_NAME)):
                self._lock = lock
                return True
        except OSError:
            pass
        os.close(lock)
        return False

    def _set_aside(self, directory: Path) -> None:
        try:
            os.replace(directory / FILE_NAME, directory / BAD_NAME)
        except OSError as exc:
            log.error("%s cannot be renamed: %s", directory / FILE_NAME, exc.strerror)
