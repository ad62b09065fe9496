"""TLS in the clear: what the record layer and handshake messages of both sides have in common.

Records cut messages where they like: a message may be spread over many, and a record may hold several.  ``Handshake`` puts them
together again, from bytes that come in any pieces, in time that is linear in their number.

Left out: what messages say (``client_hello``, ``server_hello``).  Source: RFC 5246, sections 6.2.1 and 7.4; RFC 8446, 5.1.
"""

from __future__ import annotations

from typing import Final

HANDSHAKE: Final = 22
RECORD_BYTES: Final = 16384  # of plaintext


class BadTlsError(ValueError):
    """The bytes are not the TLS that was expected; the text says what is wrong, in a few words."""


class Handshake:
    """The handshake messages of one side, as long as they are not encrypted.

    ended: the content type of the first record that is no handshake, behind which nothing is read; 0: none so far.
    """

    __slots__ = ("_head", "_left", "_messages", "_most", "_problem", "ended")

    def __init__(self, most: int) -> None:
        """most: bytes of a message, its header included."""
        self._most = most
        self._head = b""  # of the record that comes next, as far as it is here
        self._left = 0  # bytes of the present record that are still to come
        self._messages = bytearray()  # what has not been taken yet
        self._problem = ""  # with what comes behind the messages
        self.ended = 0

    def feed(self, data: bytes) -> None:
        """Take more bytes of the stream.  What is wrong with them, ``next`` says when it is their turn."""
        at = 0
        while at < len(data) and not self.ended and not self._problem:
            if self._left:
                piece = data[at : at + self._left]
                self._messages += piece
                self._left -= len(piece)
                at += len(piece)
                continue
            missing = 5 - len(self._head)
            self._head += data[at : at + missing]
            at += missing
            self._check_head()

    def _check_head(self) -> None:
        head = self._head
        if head[0] != HANDSHAKE:
            self.ended = head[0]
            if not head[0]:
                self._problem = "a record of type 0"
        elif len(head) > 1 and head[1] != 3:
            self._problem = f"a record of version {head[1]}"
        elif len(head) == 5:
            size = int.from_bytes(head[3:5], "big")
            if not 1 <= size <= RECORD_BYTES:  # empty ones are forbidden: they would cost time and say nothing
                self._problem = f"a handshake record of {size} bytes"
            self._left = size
            self._head = b""

    def next(self) -> tuple[int, bytes] | None:
        """The next whole message: type and body; None when it is not here yet.

        Raises:
            BadTlsError: It is larger than the limit, or the bytes are no TLS.
        """
        messages = self._messages
        size = 4 + int.from_bytes(messages[1:4], "big") if len(messages) >= 4 else 4
        if size > self._most:
            raise BadTlsError(f"a message of {size} bytes, more than {self._most}")
        if len(messages) < size:
            if self._problem:
                raise BadTlsError(self._problem)
            return None
        kind, body = messages[0], bytes(messages[4:size])
        del messages[:size]
        return kind, body


class Fields:
    """Reads the fields of a message one after the other."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that have not been read."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """So many bytes.

        Raises:
            BadTlsError: There are fewer.
        """
        if count > self.left:
            raise BadTlsError(f"a field of {count} bytes where {self.left} are left")
        start = self._at
        self._at += count
        return self._data[start : self._at]

    def number(self, size: int) -> int:
        """A number of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Bytes behind their number, which has ``size`` bytes."""
        return self.take(self.number(size))


def extensions(fields: Fields) -> dict[int, bytes]:
    """The extensions at the end of a hello, which may have none.

    Raises:
        BadTlsError: They are malformed, or one comes twice.
    """
    found: dict[int, bytes] = {}
    if not fields.left:
        return found
    inner = Fields(fields.vector(2))
    if fields.left:
        raise BadTlsError(f"{fields.left} bytes behind the extensions")
    while inner.left:
        kind = inner.number(2)
        if kind in found:
            raise BadTlsError(f"extension {kind} twice")
        found[kind] = inner.vector(2)
    return found
