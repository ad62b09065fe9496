"""The usual answer's head, read byte by byte: for compiled code (see ``octets``).

Left out: all that is not usual.  Repeated fields of meaning, rare ones, what is malformed or not whole yet are left to
``response``, which reads everything and explains refusals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachelb.http.grammar import Limits
from cachelb.http.octets import COLON, CR, DELETE, IN_TOKEN, LF, SPACE, TAB, ZERO, is_word, places, trimmed
from cachelb.http.responsehead import ResponseHead, kept

if TYPE_CHECKING:
    from mypy_extensions import i64

# Fields of meaning.  Behind the first nine come those whose heads are left to others.
_CONNECTION: Final = 1
_LENGTH: Final = 2
_TYPE: Final = 3
_CONTROL: Final = 4
_CACHE_STATUS: Final = 5
_VARY: Final = 6
_EXPIRES: Final = 7
_X_CACHE: Final = 8
_CODING: Final = 9
_NAMES: Final = [
    b"", b"connection", b"content-length", b"content-type", b"cache-control", b"cache-status", b"vary", b"expires", b"x-cache",
    b"transfer-encoding", b"te", b"close", b"upgrade", b"keep-alive", b"x-squid-error", b"proxy-connection",
]  # fmt: skip
_NAME_BYTES_MAX: Final = 17
_PLACES: Final = places(_NAMES)
assert len(_PLACES) == (_NAME_BYTES_MAX + 1) * 32
_DIGITS_MAX: Final = 18


class _Values:
    """What fields of one head say, as far as that is taken down; begin and end of lines that are not sent on, or -1."""

    __slots__ = (
        "cache_status", "close", "coding", "coding_end", "connection", "connection_end", "content_type", "control", "expires",
        "length", "seen", "vary", "x_cache",
    )  # fmt: skip

    def __init__(self) -> None:
        self.seen: i64 = 0  # a bit for each kind
        self.length: i64 = -1
        self.content_type = b"-"
        self.control: bytes | None = None
        self.cache_status: bytes | None = None
        self.vary: bytes | None = None
        self.expires: bytes | None = None
        self.x_cache: bytes | None = None
        self.close = False
        self.connection: i64 = -1
        self.connection_end: i64 = -1
        self.coding: i64 = -1
        self.coding_end: i64 = -1

    def take(self, kind: i64, data: bytes, line: i64, begin: i64, end: i64) -> bool:
        """Take down the value from ``begin`` to ``end`` in the line that begins at ``line``; False: it is not usual."""
        bit: i64 = 1 << kind
        if self.seen & bit:
            return False
        self.seen |= bit
        if kind == _LENGTH:
            return self._take_length(data, begin, end)
        if kind == _TYPE:
            self.content_type = trimmed(data, begin, end) or b"-"
        elif kind == _CONNECTION:
            self.connection, self.connection_end = line, end + 2
            self.close = is_word(data, begin, end, b" close")
            return self.close or is_word(data, begin, end, b" keep-alive")
        elif kind == _CODING:
            self.coding, self.coding_end = line, end + 2
            return is_word(data, begin, end, b" chunked")
        elif kind == _CONTROL:
            self.control = data[begin:end]
        elif kind == _X_CACHE:
            self.x_cache = data[begin:end]
        elif kind == _VARY:
            self.vary = data[begin:end]
        elif kind == _EXPIRES:
            self.expires = data[begin:end]
        elif kind == _CACHE_STATUS:
            self.cache_status = data[begin:end]
        else:
            return False
        return True

    def _take_length(self, data: bytes, begin: i64, end: i64) -> bool:
        while begin < end and (data[begin] == SPACE or data[begin] == TAB):
            begin += 1
        if begin == end or end - begin > _DIGITS_MAX:
            return False
        length: i64 = 0
        while begin < end:
            digit: i64 = data[begin] - ZERO
            if digit < 0 or digit > 9:
                return False
            length = length * 10 + digit
            begin += 1
        self.length = length
        return True


def response_head(data: bytes, limits: Limits) -> ResponseHead | None:
    """The head at the start of ``data``; None where it is not usual: ``response`` decides."""
    stop: i64 = min(len(data), limits.head_bytes)
    if stop < 16 or not data.startswith(b"HTTP/1.") or data[8] != SPACE or data[12] != SPACE:
        return None
    minor: i64 = data[7] - ZERO
    status: i64 = data[9] - ZERO
    tens: i64 = data[10] - ZERO
    ones: i64 = data[11] - ZERO
    if minor < 0 or minor > 1 or status < 2 or status > 9 or tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return None
    values = _Values()
    size = _read_fields(data, stop, limits.fields, values)
    if size < 0:
        return None
    status = 100 * status + 10 * tens + ones
    if status == 204 or (values.coding >= 0 and (values.length >= 0 or minor == 0)):
        return None
    head = ResponseHead()
    head.status = status
    head.minor = minor
    head.size = size
    head.content_length = values.length
    head.chunked = values.coding >= 0
    head.upgrade = False
    head.squid_error = None
    head.content_type = values.content_type
    head.keep_alive = not values.close and (minor == 1 or values.connection >= 0)
    head.judge(values.control, values.vary, values.expires, values.x_cache, values.cache_status)
    head.head = kept(data, minor, size, values.connection, values.connection_end, values.coding, values.coding_end)
    return head


def _read_fields(data: bytes, stop: i64, most: i64, values: _Values) -> i64:
    """Read the reason phrase and at most so many fields; where the head ends, or -1: not before ``stop``, or it is not usual."""
    in_token, places_ = IN_TOKEN, _PLACES
    stop -= 1  # whatever is looked at has a byte behind it
    at: i64 = 13
    line: i64 = 0
    begin: i64 = 0
    kind: i64 = 0
    byte: i64 = 0
    while most >= 0:
        while at < stop:
            byte = data[at]
            if (byte < SPACE and byte != TAB) or byte == DELETE:
                break
            at += 1
        if at >= stop or byte != CR or data[at + 1] != LF or (kind and not values.take(kind, data, line, begin, at)):
            return -1
        at += 2
        line = at
        while at < stop and in_token[data[at]]:
            at += 1
        if at >= stop:
            return -1
        width: i64 = at - line
        if width == 0 or data[at] != COLON:
            return at + 2 if width == 0 and data[at] == CR and data[at + 1] == LF else -1
        kind = places_[width * 32 + (data[line + 1] & 31)] if 1 < width <= _NAME_BYTES_MAX else 0
        if kind and not is_word(data, line, at, _NAMES[kind]):
            kind = 0
        at += 1
        begin = at
        most -= 1
    return -1
