"""The access log's file: lines are collected and written in batches.

Several worker processes append to one file.  Each batch is one ``write`` of whole lines to a descriptor opened with
O_APPEND, so lines of different processes do not mix.  Pipes promise that only up to PIPE_BUF bytes: smaller batches.

Nothing that goes wrong with the file reaches the relay.  While it cannot be written, lines are kept up to a bound, then
dropped and counted; trouble is said once when it begins and once when it ends.

Left out: what a line looks like (``accesslog``), and rotation itself: somebody moves the file and calls ``reopen``.
"""

from __future__ import annotations

import logging
import os
import select
import stat
from typing import Final

log = logging.getLogger("cachelb.log")

BATCH_BYTES: Final = 65536  # of one write
PENDING_BYTES: Final = 4 << 20  # kept while the file cannot be written: about 30,000 lines, or two seconds of a busy worker
STDOUT: Final = 1


class LogFile:
    """An access log.

    Attributes:
        dropped: lines lost since the start.
        errors: attempts to open or write that failed since the start.
    """

    def __init__(self, path: str, pending_bytes: int = PENDING_BYTES) -> None:
        """Open ``path`` for appending; "-" is standard output.  If it cannot be opened, every ``flush`` tries again."""
        self.path = path
        self.dropped = 0
        self.errors = 0
        self._limit = pending_bytes
        self._lines: list[bytes] = []
        self._size = 0
        self._fd = -1
        self._is_file = False
        self._torn = False  # the file ends in the middle of a line of ours
        self._trouble = ""
        self._dropped_before = 0
        self._opened()

    def append(self, line: bytes) -> None:
        """Take one line, with its line feed, to be written by the next ``flush``."""
        size = self._size + len(line)
        if size > self._limit:
            self.dropped += 1
            return
        self._size = size
        self._lines.append(line)

    def flush(self) -> None:
        """Write what was appended, as far as the file takes it.  Cheap when there is nothing."""
        if not self._lines:
            return
        if not self._is_usable() and not self._opened():
            return
        data = self._lines[0] if len(self._lines) == 1 else b"".join(self._lines)
        rest = data[self._write(data) :]
        self._lines = [rest] if rest else []
        self._size = len(rest)

    def reopen(self) -> None:
        """Write what is pending and open the path anew, after the file was moved; failing that, keep the old one."""
        self.flush()
        if not self._is_usable():
            self._opened()
            return
        try:
            self._open()
        except (OSError, ValueError) as exc:
            self.errors += 1
            log.error("access log %s cannot be opened anew, so the old file stays in use: %s", self.path, _words(exc))

    def close(self) -> None:
        """Close the file.  What ``flush`` could not write is lost, and counted."""
        self.dropped += sum(line.count(b"\n") for line in self._lines)
        self._lines, self._size = [], 0
        self._drop_fd()

    def _open(self) -> None:
        if self.path == "-":
            fd = STDOUT
        else:
            # O_NONBLOCK: a FIFO without a reader, or with a slow one, must not stop the relay.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
            fd = os.open(self.path, flags, 0o640)  # what people looked at is nobody else's business
        self._drop_fd()
        self._fd = fd
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._torn = False

    def _opened(self) -> bool:
        try:
            self._open()
        except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
            self._failed("opened", exc)
            return False
        return True

    def _drop_fd(self) -> None:
        if self._fd > STDOUT:
            os.close(self._fd)
        self._fd = -1

    def _is_usable(self) -> bool:
        """Whether the descriptor still leads to something that a person can read."""
        if self._fd < 0:
            return False
        return not self._is_file or os.fstat(self._fd).st_nlink > 0 or self._fd == STDOUT

    def _write(self, data: bytes) -> int:
        """Write batches of whole lines; return how much of ``data`` is settled, always at the start of a line."""
        done = 0
        limit = BATCH_BYTES if self._is_file else select.PIPE_BUF
        while done < len(data):
            end = _batch_end(data, done, limit)
            batch = data[done:end]
            if self._torn:
                batch = b"\n" + batch
            try:
                if not self._is_file and not self._has_room():
                    return done
                sent = os.write(self._fd, batch)
            except BlockingIOError:
                return done  # a slow reader is no error; the bound takes care of it
            except OSError as exc:
                self._failed("written", exc)
                return done
            if sent < len(batch):
                self._failed("written", OSError(f"only {sent} of {len(batch)} bytes were taken"))
                return done + self._cut(batch, sent)
            self._torn = False
            done = end
        self._recovered()
        return done

    def _cut(self, batch: bytes, sent: int) -> int:
        """Only ``sent`` bytes were taken, as by a disk that is nearly full: return how many bytes of lines are settled.

        A line that was cut is written again, whole and on a line of its own; if only its line feed is missing, that is
        what the next write begins with.
        """
        if not sent:
            return 0
        whole = batch.rfind(b"\n", 0, sent) + 1
        settled = sent + 1 if batch[sent : sent + 1] == b"\n" else whole
        extra = 1 if self._torn else 0  # the line feed in front
        self._torn = whole < sent
        return settled - extra

    def _has_room(self) -> bool:
        """Whether PIPE_BUF bytes can be written without waiting, also where the descriptor is a blocking one."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(0))

    def _failed(self, what: str, exc: Exception) -> None:
        self.errors += 1
        if not self._trouble:
            self._trouble = what
            self._dropped_before = self.dropped
            kept = f"up to {self._limit} bytes of it are kept, more is dropped"
            log.error("access log %s cannot be %s: %s (%s)", self.path, what, _words(exc), kept)

    def _recovered(self) -> None:
        if self._trouble:
            lost = self.dropped - self._dropped_before
            log.warning("access log %s is written again; %d lines were dropped", self.path, lost)
            self._trouble = ""


def _words(exc: Exception) -> str:
    """What went wrong, without the path, which is said already."""
    return (isinstance(exc, OSError) and exc.strerror) or str(exc)


def _batch_end(data: bytes, start: int, limit: int) -> int:
    """Where a batch from ``start`` ends: after the last line that fits into ``limit`` bytes, at least after one."""
    if len(data) - start <= limit:
        return len(data)
    return (data.rfind(b"\n", start, start + limit) + 1) or (data.find(b"\n", start) + 1) or len(data)
