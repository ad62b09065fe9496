"""The requests of all logs as numbers, in temporary files: 16 bytes a request, and each distinct URL once.

The files have no names: whatever ends this process, they are gone.  Logs of several nodes overlap in time; they are merged
by the second, so that the farm sees their requests as they came.
"""

from __future__ import annotations

import heapq
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from operator import itemgetter
from typing import BinaryIO, NamedTuple

from cachelb.simulate.reader import Requests

CHUNK = 1 << 16  # requests that are read at a time
_CODES = ("I", "Q", "I")  # of the columns of Requests


class Part(NamedTuple):
    """The requests of one log: from `first` to before `end`; the earliest and the latest second."""

    first: int
    end: int
    begins: int
    ends: int


class Trace:
    """Written once, then read, by processes that are forked, too.  A context manager.

    requests, urls: how many there are.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._columns = [self._new_file() for _ in _CODES]
        self._urls = self._new_file()
        self.requests = self.urls = 0
        self._parts: list[Part] = []
        self._first, self._begins, self._ends = 0, 1 << 32, 0

    def add(self, requests: Requests, urls: Iterable[bytes]) -> None:
        """Append requests of the present log, and the URLs that are new in them, in the order of their numbers."""
        if not requests.urls:
            return
        self._write(self._columns, requests)
        self.requests += len(requests.urls)
        self._begins = min(self._begins, min(requests.seconds))
        self._ends = max(self._ends, max(requests.seconds))
        new = [url + b"\n" for url in urls]
        self.urls += len(new)
        self._urls.write(b"".join(new))

    def end_log(self) -> None:
        """The present log has ended; what is added next is another one's."""
        if self.requests > self._first:
            self._parts.append(Part(self._first, self.requests, self._begins, self._ends))
        self._first, self._begins, self._ends = self.requests, 1 << 32, 0

    def finish(self) -> None:
        """All has been added: put logs that are not one after the other into the order of time.  1 us a request."""
        for file in (*self._columns, self._urls):
            file.flush()
        if all(part.ends <= following.begins for part, following in zip(self._parts, self._parts[1:], strict=False)):
            return
        rows = heapq.merge(*(self._rows(part) for part in self._parts), key=itemgetter(2))
        merged = [self._new_file() for _ in _CODES]
        while some := list(islice(rows, CHUNK)):
            columns = zip(*some, strict=True)
            self._write(merged, [array(code, column) for code, column in zip(_CODES, columns, strict=True)])
        for old, new in zip(self._columns, merged, strict=True):
            new.flush()
            old.close()
        self._columns = merged
        self._parts = [Part(0, self.requests, self._parts[0].begins, self._parts[0].ends)]

    def chunks(self, first: int = 0, end: int | None = None) -> Iterator[Requests]:
        """The requests from `first` to before `end`, CHUNK at a time."""
        end = self.requests if end is None else end
        for at in range(first, end, CHUNK):
            yield Requests(*(self._read(column, at, min(end, at + CHUNK)) for column in range(len(_CODES))))

    def second(self, index: int) -> int:
        """When the request at `index` was logged."""
        return int(self._read(2, index, index + 1)[0])

    def all_urls(self) -> Iterator[bytes]:
        """Every distinct URL, in the order of their numbers."""
        position = 0
        rest = b""
        while block := os.pread(self._urls.fileno(), 1 << 20, position):  # read() would move a position that forks share
            position += len(block)
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            yield from lines

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _new_file(self) -> BinaryIO:
        return self._stack.enter_context(tempfile.TemporaryFile(prefix="cachelb"))

    def _rows(self, part: Part) -> Iterator[tuple[int, int, int]]:
        for requests in self.chunks(part.first, part.end):
            yield from zip(*requests, strict=True)

    def _read(self, column: int, first: int, end: int) -> array[int]:
        values = array(_CODES[column])
        size = values.itemsize
        values.frombytes(os.pread(self._columns[column].fileno(), (end - first) * size, first * size))
        return values

    @staticmethod
    def _write(files: list[BinaryIO], columns: Iterable[array[int]]) -> None:
        for file, values in zip(files, columns, strict=True):
            values.tofile(file)
