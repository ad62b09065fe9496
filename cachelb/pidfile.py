"""The file that says which process is the director (``[service] pid_file``).

Whoever holds it holds a lock on it, too, which the system releases when the holder ends, however it ends.  So a file that was
left behind is known for what it is, and nobody sends a signal to a process that got the number later.  In an upgrade the new
director inherits the open file, and the lock with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from pathlib import Path

from cachelb.errors import CachelbError

log = logging.getLogger("cachelb")


class PidFileError(CachelbError):
    """The file cannot be had; the message is a sentence for the operator."""


class PidFile:
    """Ours, until ``close``.  fd: what the next director inherits."""

    def __init__(self, path: Path, inherited: int = -1) -> None:
        """Take the file; ``inherited``: the descriptor of the director before us, for the same file or another one.

        Raises:
            PidFileError: Another director has it, or the system does not let us.
        """
        self.path = path
        self.fd = -1
        if inherited >= 0 and _is_file(inherited, path):
            self.fd = inherited
            return
        if inherited >= 0:
            os.close(inherited)
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            number = _number(self.fd)
            os.close(self.fd)
            raise PidFileError(f"[service] pid_file {path}: another director has it, process {number}") from None
        except OSError as exc:
            raise PidFileError(f"[service] pid_file {path}: {exc.strerror}") from exc

    def write(self) -> None:
        """Say that this process is the director.  After an upgrade there is no other: if it cannot be said, that is no end."""
        data = b"%d\n" % os.getpid()
        try:
            os.pwrite(self.fd, data, 0)
            os.ftruncate(self.fd, len(data))
        except OSError as exc:
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, 0)  # rather nobody's number than that of a process that ends
            log.error("[service] pid_file %s: %s; nobody can tell by it who the director is", self.path, exc.strerror)

    def leave(self) -> None:
        """It is the next director's, who has it open."""
        os.close(self.fd)

    def close(self) -> None:
        """Remove it, unless it is the next director's."""
        if _number(self.fd) in (0, os.getpid()):
            try:
                self.path.unlink()
            except OSError:  # after a change of user, of a directory that is not that user's: so it stays, but says nothing
                with contextlib.suppress(OSError):
                    os.ftruncate(self.fd, 0)
        os.close(self.fd)


def running(path: Path) -> int | None:
    """Process id of the director that holds the file; None when none does.

    Raises:
        PidFileError: It cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise PidFileError(f"{path}: {exc.strerror}") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _number(fd) or None
    finally:
        os.close(fd)
    return None


def _number(fd: int) -> int:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _is_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False
