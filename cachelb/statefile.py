"""A file of the state directory while it is written: under another name, brought to the disk, and only then put in its place.

Who reads it finds the old one or the new one, whole.  Left out: what is in it (``cluster.saved``, ``affinity.saved``).
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from cachelb.errors import CachelbError

CHECKSUM_BYTES = 16


class StateError(CachelbError):
    """The state cannot be saved or read: what the operating system said about the file."""


class BadState(StateError):
    """The saved file is not one that can be used; nothing of it is."""


def cannot(verb: str, path: Path, exc: OSError) -> str:
    """The text of a StateError."""
    return f"cannot {verb} {path}: {exc.strerror or exc}"


class StateFile:
    """The new file: a header of a fixed size, and behind that whatever is written.

    Any of it may raise OSError; then ``abandon`` it.
    """

    def __init__(self, directory: Path, name: str, header_bytes: int) -> None:
        self._path = directory / name
        self._aside = directory / f"{name}.new"
        self._header_bytes = header_bytes
        self._body = blake2b(digest_size=CHECKSUM_BYTES)
        self._file: BinaryIO = io.BytesIO()  # until it is opened

    def open(self) -> None:
        """Begin."""
        # Who asked for which URL, and which client goes where, is nobody else's business.
        fd = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(fd, "wb")
        os.fchmod(fd, 0o600)  # one that was left behind may have had other rights
        self._file.write(bytes(self._header_bytes))

    def write(self, data: bytes) -> None:
        """Go on."""
        self._body.update(data)
        self._file.write(data)

    def finish(self, header: Callable[[bytes], bytes]) -> None:
        """Put the header in front, bring everything to the disk, and the file to its name.

        Args:
            header: Is given the digest (BLAKE2b) of what was written.
        """
        self._file.seek(0)
        self._file.write(header(self._body.digest()))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._aside, self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the new name, too
        finally:
            os.close(directory)

    def abandon(self) -> None:
        """Leave nothing behind, as far as the disk allows."""
        with contextlib.suppress(OSError):  # what was not written yet, to a full disk
            self._file.close()
        with contextlib.suppress(OSError):
            self._aside.unlink()
