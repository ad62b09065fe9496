"""Access logs from files and standard input, plain, gzip or zstd, as batches of lines.

What a file is compressed with is told by its first bytes, not by its name.  Nothing is sought in, so pipes do as well.  zstd
needs the package ``zstandard``, the extra ``zstd``; no other module imports it.
"""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from cachelb.errors import CommandError
from cachelb.simulate.reader import LINE_BYTES

BLOCK_BYTES = 1 << 20
STDIN = "-"

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


class LogError(CommandError):
    """A log cannot be read; one sentence says why."""


class Source:
    """One log.  size: bytes in the file, 0 where that is not known; damage: why reading ended early, or "".

    A context manager.
    """

    def __init__(self, name: str) -> None:
        """Open it; "-" is standard input.

        Raises:
            LogError: It is not there, may not be read, is a directory, or needs a package that is not installed.
        """
        self.name = "standard input" if name == STDIN else name
        self.damage = ""
        try:
            # buffered, so that the first bytes can be looked at and stay
            file = sys.stdin.buffer if name == STDIN else open(name, "rb")  # noqa: SIM115  # closed by __exit__
            self._raw = _Counted(file)
            self.size = _size_of(file)
            self._stream = _decoded(self._raw, self.name)
        except OSError as exc:
            raise LogError(f"{self.name}: {exc.strerror or exc}") from exc

    @property
    def position(self) -> int:
        """Bytes read of the file, compressed as they are."""
        return self._raw.count

    def batches(self) -> Iterator[list[bytes]]:
        """Lines without their line feeds.  One that is longer than LINE_BYTES comes cut there, so that it is no line.

        A file that is damaged in the middle ends there.
        """
        rest = b""
        while block := self._read():
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            if len(rest) > LINE_BYTES:
                rest = rest[: LINE_BYTES + 1]
            yield lines
        if rest:
            yield [rest]

    def _read(self) -> bytes:
        try:
            return self._stream.read(BLOCK_BYTES)
        except (EOFError, zlib.error, OSError, ValueError) as exc:
            self.damage = f"{self.name}: the rest cannot be read: {exc}"
        except Exception as exc:
            if type(exc).__name__ != "ZstdError":  # its package may not be there
                raise
            self.damage = f"{self.name}: the rest cannot be read: {exc}"
        return b""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.file.close()


class _Counted(io.RawIOBase):
    """A file that counts what has been read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.count = 0

    def readable(self) -> bool:
        return True

    def peek(self, size: int) -> bytes:
        return cast("io.BufferedReader", self.file).peek(size)

    def read(self, size: int = -1) -> bytes:
        # read1: a pipe hands over what it has
        data = cast("io.BufferedReader", self.file).read1(size)
        self.count += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _size_of(file: BinaryIO) -> int:
    """Of a regular file; 0 for a pipe, which cannot be sought in."""
    if not file.seekable():
        return 0
    here = file.tell()
    size = file.seek(0, io.SEEK_END) - here
    file.seek(here)
    return size


def _decoded(raw: _Counted, name: str) -> BinaryIO:
    start = raw.peek(4)
    if start.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=raw))
    if start.startswith(_ZSTD):
        try:
            import zstandard
        except ImportError:
            raise LogError(
                f"{name} is compressed with zstd; install the package zstandard (pip install 'cachelb[zstd]'), "
                f"or use: zstd -dc FILE | cachelb ... --log -"
            ) from None
        return cast("BinaryIO", zstandard.ZstdDecompressor().stream_reader(cast("BinaryIO", raw), read_across_frames=True))
    return cast("BinaryIO", raw)
