"""How long a body is, and where a chunked one ends.

Lengths are numbers: n bytes, or one of the constants ``EMPTY`` (0), ``CHUNKED`` and ``UNTIL_CLOSE``.  ``ChunkScanner``
finds the end of a chunked body without keeping any of it::

    SIZE --size > 0--> DATA --all of it--> SIZE          SIZE --size 0--> TRAILER --empty line--> done

It is strict, since a body whose end two readers see in different places is how requests are smuggled: CRLF only, plain
hex sizes, bounded extensions and trailers.  The bytes that it has passed are relayed as they came.

Source: RFC 9112, sections 6.3 and 7.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

from cachelb.errors import BadRequest, CachelbError, Reason
from cachelb.http.fields import RequestFields
from cachelb.http.grammar import FIELD_START, MAX_LENGTH, TOKEN, VALUE
from cachelb.http.response import ResponseHead

EMPTY: Final = 0
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2

# One line of sizes and extensions.  4 KiB: what Apache and Squid's parser allow at most, far above any real use.
CHUNK_LINE_BYTES: Final = 4096
# Unfinished lines up to here are judged with every piece that arrives; longer ones only when they end, for the time that
# takes is the square of their length where the pieces are single bytes.
CRUMBS_BYTES: Final = 256
# Extension bytes beyond 16 per chunk and 2 per byte of data, over a whole body: Go's bound (CVE-2023-39326), against
# bodies that are all overhead.
EXCESS_BYTES: Final = 16384
# All trailer lines of one body; a quarter of what a head may have.
TRAILER_BYTES: Final = 16384

# As in the RFC, less its bad blanks.  What a node cannot read it drops without an answer, which looks like a dying node.
_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+'
_ONE_EXTENSION: Final = rb";[\t ]*+" + TOKEN + rb"++(?:=(?:" + TOKEN + rb"++|" + _QUOTED + rb'"))?(?=[;\r]|\Z)'
_EXTENSION: Final = rb"((?:" + _ONE_EXTENSION + rb")*)"
_EXTENSION_START: Final = _EXTENSION + rb"(?:;[\t ]*+(?:" + TOKEN + rb"++(?:=(?:" + _QUOTED + rb"\\?+)?)?)?|\r)?"
_first_size: Final = re.compile(rb"([0-9A-Fa-f]{1,16}+)" + _EXTENSION + rb"\r\n").match
_next_size: Final = re.compile(rb"\r\n([0-9A-Fa-f]{1,16}+)" + _EXTENSION + rb"\r\n").match
_first_start: Final = re.compile(rb"(?:[0-9A-Fa-f]{1,16}+" + _EXTENSION_START + rb")?").fullmatch
_next_start: Final = re.compile(rb"\r?+|\r\n(?:[0-9A-Fa-f]{1,16}+" + _EXTENSION_START + rb")?").fullmatch
# Fields that frame, route or guard may not come late (RFC 9110, section 6.5.1): another reader might merge them.
_trailer_line: Final = re.compile(
    rb"(?!(?i:content-length|transfer-encoding|host|connection|te|trailer|upgrade|expect|authorization"
    rb"|proxy-authorization|cookie|set-cookie|via|x-forwarded-for|cache-control|content-encoding|content-type"
    rb"|content-range|max-forwards):)" + TOKEN + rb"++:" + VALUE + rb"\r\n|(\r\n)"
).match
_trailer_start: Final = re.compile(FIELD_START).fullmatch


class ChunkError(CachelbError):
    """The bytes are not a chunked body; what exactly is wrong, in words."""


class FirstLine(Protocol):
    """What is asked of a first line: a RequestHead, or whatever the caller has made of one."""

    @property
    def method(self) -> bytes: ...

    @property
    def minor(self) -> int: ...


def request_body(head: FirstLine, fields: RequestFields) -> int:
    """The length of a request's body: EMPTY, CHUNKED or a number of bytes.

    Makes the checks that need head and fields together.

    Raises:
        BadRequest: BAD_REQUEST for HTTP/1.1 without Host; BAD_FRAMING for Transfer-Encoding in HTTP/1.0, or a body with
            CONNECT or TRACE, where what follows could be read as something else.

    Source: RFC 9112, sections 3.2, 6.1 and 6.3; RFC 9110, sections 9.3.6 and 9.3.8.
    """
    if fields.host is None and head.minor:
        raise BadRequest(Reason.BAD_REQUEST, "HTTP/1.1 without Host")
    length = fields.content_length
    if fields.chunked:
        if not head.minor:
            raise BadRequest(Reason.BAD_FRAMING, "Transfer-Encoding in HTTP/1.0")
        length = CHUNKED
    elif length <= 0:
        return EMPTY
    if head.method in (b"CONNECT", b"TRACE"):
        raise BadRequest(Reason.BAD_FRAMING, f"{head.method.decode()} with a body")
    return length


def response_body(request_method: bytes, head: ResponseHead) -> int:
    """The length of the body that follows an answer's head: EMPTY, CHUNKED, UNTIL_CLOSE or a number of bytes.

    Source: RFC 9112, section 6.3.
    """
    status = head.status
    if request_method == b"HEAD" or status < 200 or status == 304 or status == 204:
        return EMPTY
    if request_method == b"CONNECT" and status < 300:
        return EMPTY
    if head.chunked:
        return CHUNKED
    length = head.content_length
    return length if length >= 0 else UNTIL_CLOSE


def is_chunked_body(data: bytes, start: int, trailer_bytes: int) -> bool:
    """Whether ``data[start:]`` is one chunked body, whole, and nothing after it."""
    if not data.endswith(b"0\r\n\r\n"):  # a body with trailers is none of the usual ones
        return False
    scanner = ChunkScanner(trailer_bytes)
    try:
        return scanner.scan(data, start) == len(data) and scanner.done
    except ChunkError:
        return False


class ChunkScanner:
    """Finds the end of one chunked body; counts, and keeps nothing but an unfinished line.

    done: the body's last byte has been seen.
    end: index just past what the last ``scan`` or ``payload`` took.
    bytes_left_in_chunk: data bytes of the present chunk still to come; that many may be moved unseen and reported with
        ``skip``.
    payload_bytes: data bytes passed so far.
    """

    __slots__ = ("_excess", "_first", "_line", "_trailer_left", "_trailing", "bytes_left_in_chunk", "done", "end",
                 "payload_bytes")  # fmt: skip

    def __init__(self, trailer_bytes: int = TRAILER_BYTES) -> None:
        self.done = False
        self.end = 0
        self.bytes_left_in_chunk = 0
        self.payload_bytes = 0
        self._first = True
        self._trailing = False
        self._trailer_left = trailer_bytes
        self._excess = 0
        self._line = b""

    def scan(self, data: bytes | memoryview, start: int = 0) -> int:
        """Pass ``data[start:]``.

        Returns:
            The index just past what belongs to this body: ``len(data)`` while it is unfinished.

        Raises:
            ChunkError: The bytes are no chunked body, or overhead beyond the bounds.  The scanner is of no use then.
        """
        return self._walk(data, start, None)

    def payload(self, data: bytes | memoryview, start: int = 0) -> list[memoryview]:
        """Pass ``data[start:]`` as ``scan`` does, but return the spans that are payload; the index is in ``end``."""
        spans: list[tuple[int, int]] = []
        self._walk(data, start, spans)
        view = memoryview(data)
        return [view[begin:end] for begin, end in spans]

    def skip(self, count: int) -> None:
        """Note that ``count`` data bytes of the present chunk, at most ``bytes_left_in_chunk``, were moved unseen."""
        assert 0 <= count <= self.bytes_left_in_chunk
        self.bytes_left_in_chunk -= count
        self.payload_bytes += count

    def _walk(self, data: bytes | memoryview, start: int, spans: list[tuple[int, int]] | None) -> int:
        position = start
        size = len(data)
        while position < size and not self.done:
            left = self.bytes_left_in_chunk
            if left:
                taken = min(left, size - position)
                if spans is not None:
                    spans.append((position, position + taken))
                position += taken
                self.bytes_left_in_chunk = left - taken
                self.payload_bytes += taken
            elif self._trailing:
                position = self._trailer(data, position)
            else:
                position = self._size(data, position)
        self.end = position
        return position

    def _size(self, data: bytes | memoryview, position: int) -> int:
        """Take a size line, or as much of it as is there; return the index after it."""
        if self._line:
            return self._joined(data, position, self._size)
        match = (_first_size if self._first else _next_size)(data, position)
        if match is None:
            return self._keep(data, position, _first_start if self._first else _next_start)
        self._first = False
        size = int(match[1], 16)
        extension = match[2]
        end = match.end()
        if end - position > CHUNK_LINE_BYTES:
            raise ChunkError(f"chunk line of {end - position} bytes, limit {CHUNK_LINE_BYTES}")
        if extension:
            self._excess = max(0, self._excess + len(extension) - 16 - 2 * size)
            if self._excess > EXCESS_BYTES:
                raise ChunkError(f"more than {EXCESS_BYTES} bytes of chunk extensions")
        if size > MAX_LENGTH:
            raise ChunkError(f"chunk size {match[1].decode()}")
        self._trailing = size == 0
        self.bytes_left_in_chunk = size
        return end

    def _trailer(self, data: bytes | memoryview, position: int) -> int:
        """Take a trailer line or the empty line at the end; return the index after it."""
        if self._line:
            return self._joined(data, position, self._trailer)
        match = _trailer_line(data, position)
        if match is None:
            return self._keep(data, position, _trailer_start)
        end = match.end()
        if match[1] is not None:
            self.done = True
            return end
        self._trailer_left -= end - position
        if end - position > CHUNK_LINE_BYTES or self._trailer_left < 0:
            raise ChunkError("trailer section beyond its limit")
        return end

    def _joined(self, data: bytes | memoryview, position: int, take: Callable[[bytes, int], int]) -> int:
        """Let ``take`` read on behind the kept start of a line."""
        kept = self._line
        more = bytes(data[position : position + CHUNK_LINE_BYTES + 1])
        if CRUMBS_BYTES < len(kept) + len(more) <= CHUNK_LINE_BYTES and b"\n" not in more:
            self._line = kept + more
            return position + len(more)
        self._line = b""
        return position - len(kept) + take(kept + more, 0)

    def _keep(self, data: bytes | memoryview, position: int, is_start: Callable[[bytes], object]) -> int:
        """Keep an unfinished line, if it is the start of a valid one; return the index after it."""
        line = bytes(data[position : position + CHUNK_LINE_BYTES + 1])
        if is_start(line) is None:
            raise ChunkError(f"{'trailer' if self._trailing else 'chunk size'} line {line[:40]!r}")
        if len(line) > CHUNK_LINE_BYTES:
            raise ChunkError(f"line of more than {CHUNK_LINE_BYTES} bytes")
        self._line = line
        return position + len(line)
