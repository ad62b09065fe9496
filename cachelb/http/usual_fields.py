"""The usual request's field block, read byte by byte: for compiled code (see ``octets``).

A block that has not been seen before (another page in Referer, another cookie) takes 1.7 us so, and 7 us by ``scan_request`` and
``request_fields`` (2026-11).  Its loop over lines is that of ``usual_answer`` once more: one for both, with a call for each line,
would cost more than it saves.

Left out: all that is not usual.  Bodies, credentials, repeated fields of meaning and rare ones, what is malformed: ``head`` and
``fields`` read everything and explain refusals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachelb.http.fields import COMMON_OPTIONS, RequestFields
from cachelb.http.octets import COLON, CR, DELETE, IN_TOKEN, LF, SPACE, TAB, is_word, places, trimmed
from cachelb.http.usual_line import is_usual_host

if TYPE_CHECKING:
    from mypy_extensions import i64

# Fields of meaning.  The first four do not stay in the block; behind the eighth come those whose blocks are left to others.
_HOST: Final = 1
_CONNECTION: Final = 2
_PROXY_CONNECTION: Final = 3
_FORWARDED_FOR: Final = 4
_CONTROL: Final = 5
_VIA: Final = 6
_USER_AGENT: Final = 7
_REFERER: Final = 8
_NAMES: Final = [
    b"", b"host", b"connection", b"proxy-connection", b"x-forwarded-for", b"cache-control", b"via", b"user-agent", b"referer",
    b"content-length", b"transfer-encoding", b"upgrade", b"expect", b"authorization", b"proxy-authorization", b"max-forwards",
    b"keep-alive", b"te", b"trailer",
]  # fmt: skip
_NAME_BYTES_MAX: Final = 19
_PLACES: Final = places(_NAMES)
assert len(_PLACES) == (_NAME_BYTES_MAX + 1) * 32


def usual_fields(block: bytes, most: int) -> RequestFields | None:
    """What ``request_fields`` makes of a block that also is well-formed and has at most so many lines; None: not usual."""
    fields = RequestFields()
    in_token, places_ = IN_TOKEN, _PLACES
    stop: i64 = len(block) - 1  # whatever is looked at has a byte behind it
    left: i64 = most
    seen: i64 = 0
    stays: i64 = 0  # where the lines begin that stay and are not in rest yet
    rest = b""
    at: i64 = 0
    while at < stop:
        line: i64 = at
        while at < stop and in_token[block[at]]:
            at += 1
        width: i64 = at - line
        if at >= stop or width == 0 or block[at] != COLON or left == 0:
            return None
        left -= 1
        at += 1
        begin: i64 = at
        while at < stop:
            byte: i64 = block[at]
            if (byte < SPACE and byte != TAB) or byte == DELETE:
                break
            at += 1
        if at >= stop or block[at] != CR or block[at + 1] != LF:
            return None
        kind: i64 = places_[width * 32 + (block[line + 1] & 31)] if 1 < width <= _NAME_BYTES_MAX else 0
        if kind and is_word(block, line, line + width, _NAMES[kind]):
            bit: i64 = 1 << kind
            if seen & bit or not _take(fields, kind, trimmed(block, begin, at)):
                return None
            seen |= bit
            if kind <= _FORWARDED_FOR:
                rest += block[stays:line]
                stays = at + 2
        at += 2
    if at != stop + 1:
        return None
    fields.rest = rest + block[stays:]
    return fields


def _take(fields: RequestFields, kind: i64, value: bytes) -> bool:
    """Take down the value of a field of meaning; False: it is not usual."""
    if kind == _HOST:
        if not is_usual_host(value, 0, len(value)):
            return False
        fields.host = value
    elif kind <= _PROXY_CONNECTION:
        options = COMMON_OPTIONS.get(value)
        if options is None:
            return False
        if kind == _CONNECTION:
            fields.connection_options = options
            fields.close = b"close" in options
        fields.keep = fields.keep or b"keep-alive" in options
    elif kind == _FORWARDED_FOR:
        fields.forwarded_for = value
    elif kind == _CONTROL:
        value = value.lower()
        return b"no-store" not in value and b"only-if-cached" not in value
    elif kind == _VIA:
        fields.via = value
    elif kind == _USER_AGENT:
        fields.user_agent = value
    elif kind == _REFERER:
        fields.referer = value
    else:
        return False
    return True
