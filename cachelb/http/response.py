"""Answer heads: received bytes to a ``ResponseHead`` that holds everything the relay asks about an answer.

Framing is as strict as for requests (RFC 9112, section 6.3); fields are judged once and re-serialised without the
hop-by-hop ones, so that nothing unparsed is passed on.  Three readers give the same result and tests compare them.  One takes
the usual answers, validating and picking the values out in the same pass: compiled, that is ``usual_answer``; for the
interpreter, one pattern.  ``_scan_slowly`` goes line by line, takes all others and explains refusals.

Body lengths that depend on the request are left to ``framing``, what may be stored to ``caching``.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

from cachelb.errors import BadResponse, Reason
from cachelb.http.grammar import (
    FIELD,
    FIELD_START,
    HOP_BY_HOP,
    PROTECTED,
    TOKEN,
    VALUE,
    Limits,
    parse_length,
    split_list,
)
from cachelb.http.octets import COMPILED
from cachelb.http.responsehead import ResponseHead, kept
from cachelb.http.usual_answer import response_head

__all__ = ["ResponseHead", "scan_response"]

_STATUS: Final = rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])((?: " + VALUE + rb")?)\r\n"
_SPECIAL: Final = (
    rb"(?i:c(?:lose|onnection|ontent-length|ontent-type|ache-control|ache-status)|t(?:ransfer-encoding|e)|keep-alive"
    rb"|proxy-connection|upgrade|vary|expires|x-(?:cache|squid-error)):"
)
# "(?(5)(?!))" fails where group 5 is set already.  Repeated fields of meaning, rare ones and odd spellings make the
# whole pattern fail, and the slow reader decides.  Names are told apart letter by letter, so that a line is tried once:
# 1.0 us for 11 lines of 290 bytes; with each field of meaning as a branch of its own it took 1.35 us (2026-11).
# Trap: a group that begins before its branch has proved to be the one is left with a wrong start when the branch fails
# (CPython 3.11.7, "span of capturing group is wrong"), so every group stands behind the field's name and colon, where
# failing means that the whole pattern fails.
# Trap: before CPython 3.11.5 (gh-106052) a possessive group whose last round fails half-way does not go back to where that
# round began.  So the end asks for the end of a line before it, and possessive groups elsewhere cannot fail half-way.
_fast_head: Final = re.compile(
    _STATUS  # groups 1 minor version, 2 status, 3 reason
    + rb"(?:"
    + rb"|".join(
        [
            rb"[Cc](?:ontent-(?:"
            + (rb"[Ll]ength:(?(4)(?!))[\t ]*+([0-9]{1,18}+)[\t ]*+" + rb"|")
            + (rb"[Tt]ype:(?(5)(?!))[\t ]*+(" + VALUE + rb")(?<![\t ])" + rb")|")
            + (rb"ache-[Cc]ontrol:(?(6)(?!))(" + VALUE + rb")|")
            + (rb"onnection:(?(7)(?!))([\t ]*+(?:[Kk]eep-[Aa]live|([Cc]lose))))\r\n"),  # 8 is close
            # names that share no first letter with a field of meaning
            rb"[ABDFGHIJL-OQRSWYZabdfghijl-oqrswyz]" + TOKEN + rb"*+:" + VALUE + rb"\r\n",
            rb"X-Cache(?::(?(9)(?!))(" + VALUE + rb")|-Lookup:" + VALUE + rb")\r\n",
            rb"[Vv](?:ary:(?(10)(?!))(" + VALUE + rb")|ia:" + VALUE + rb")\r\n",
            rb"[Ee](?:Tag:" + VALUE + rb"|xpires:(?(11)(?!))(" + VALUE + rb"))\r\n",
            rb"[Tt]ransfer-[Ee]ncoding:(?(12)(?!))([\t ]*+chunked)\r\n",
            rb"Cache-Status:(?(13)(?!))(" + VALUE + rb")\r\n",
            rb"(?!" + _SPECIAL + rb")" + TOKEN + rb"++:" + VALUE + rb"\r\n",
        ]
    )
    + rb")*+(?<=\r\n)\r\n"
).match
_CONNECTION: Final = 7
_CODING: Final = 12
_any_head: Final = re.compile(_STATUS + rb"((?:" + FIELD + rb")*+)(?<=\r\n)\r\n").match
_status_line: Final = re.compile(_STATUS).match
_lines: Final = re.compile(rb"(?:" + FIELD + rb")*+").match
_STATUS_START: Final = rb"(?: (?:[1-9](?:[0-9](?:[0-9](?: " + VALUE + rb")?\r?+)?)?)?)?"
_status_start: Final = re.compile(rb"|H|HT|HTT|HTTP|HTTP/|HTTP/1|HTTP/1\.|HTTP/1\.[0-9]" + _STATUS_START).fullmatch
_field_start: Final = re.compile(FIELD_START).fullmatch


def scan_response(data: bytes, limits: Limits, seen: int = 0) -> ResponseHead | None:
    """Read one answer's head from the start of ``data``; ``seen`` as in ``scan_request``.

    A 204 with Transfer-Encoding or a Content-Length other than 0 is read as having no body, its lengths are dropped and
    the connection is not kept.  The same in a 1xx is refused: the next head on that connection could not be found.

    Returns:
        The head, or None if more bytes are needed.

    Raises:
        BadResponse: BAD_RESPONSE or RESPONSE_TOO_LARGE, as soon as certain.

    Source: RFC 9112, sections 4, 5 and 6.3.
    """
    if seen > 6 and data.find(b"\r\n\r\n", seen - 3) < 0:
        _check_unfinished(data, limits, seen)
        return None
    head = response_head(data, limits) if COMPILED else _usual_head(data, limits)
    return _scan_slowly(data, limits) if head is None else head


def _usual_head(data: bytes, limits: Limits) -> ResponseHead | None:
    """As ``usual_answer.response_head``, by one pattern."""
    match = _fast_head(data)
    if match is None:
        return None
    (minor, status, reason, length, content_type, control, connected, close, x_cache, vary, expires, coding,
     cache_status) = match.groups()  # fmt: skip
    size = match.end()
    if (
        status < b"200"
        or status == b"204"
        or not reason
        or minor > b"1"
        or (coding is not None and (length is not None or minor == b"0"))
        or size > limits.head_bytes
        or (size > 4 * limits.fields and data.count(b"\n", 0, size) - 2 > limits.fields)
    ):
        return None
    head = ResponseHead()
    head.status = int(status)
    head.minor = 0 if minor == b"0" else 1
    head.size = size
    head.content_length = -1 if length is None else int(length)
    head.chunked = coding is not None
    head.upgrade = False
    head.squid_error = None
    head.content_type = content_type or b"-"
    head.keep_alive = close is None and (head.minor == 1 or connected is not None)
    head.judge(control, vary, expires, x_cache, cache_status)
    line = match.start(_CONNECTION) - 11 if connected is not None else -1
    other = match.start(_CODING) - 18 if coding is not None else -1
    head.head = kept(data, head.minor, size, line, match.end(_CONNECTION) + 2, other, match.end(_CODING) + 2)
    return head


def _scan_slowly(data: bytes, limits: Limits) -> ResponseHead | None:
    """What ``scan_response`` does, for every head."""
    match = _any_head(data)
    if match is None:
        _check_unfinished(data, limits, 0)
        return None
    size = match.end()
    if size > limits.head_bytes:
        raise BadResponse(Reason.RESPONSE_TOO_LARGE, f"{size} bytes, limit {limits.head_bytes}")
    lines = match[4].split(b"\r\n")[:-1]
    _check_count(len(lines), limits)
    values: dict[bytes, list[bytes]] = {}
    named = []
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        named.append((name, line))
        values.setdefault(name, []).append(value.strip(b" \t"))
    head = ResponseHead()
    head.status = int(match[2])
    head.minor = 0 if match[1] == b"0" else 1
    head.size = size
    options = {option.lower() for value in values.get(b"connection", ()) for option in split_list(value)}
    head.keep_alive = b"close" not in options and (head.minor == 1 or b"keep-alive" in options)
    head.upgrade = head.status == 101 and any(values.get(b"upgrade", ()))
    drop = (options - PROTECTED) | HOP_BY_HOP
    if head.upgrade:
        drop -= {b"upgrade"}
    _set_lengths(head, values, drop)
    _set_notes(head, values)
    lines = [line for name, line in named if name not in drop]
    head.head = b"\r\n".join([b"HTTP/1.1 " + match[2] + (match[3] or b" "), *lines, b""])
    return head


def _set_lengths(head: ResponseHead, values: dict[bytes, list[bytes]], drop: set[bytes]) -> None:
    """Set what frames the body; add to ``drop`` the lengths of a body that cannot be there.

    Source: RFC 9112, section 6.3; RFC 9110, section 8.6.
    """
    lengths = values.get(b"content-length")
    codings = values.get(b"transfer-encoding")
    head.content_length = -1
    head.chunked = codings is not None
    if lengths is not None:
        if codings is not None:
            _refuse("both Content-Length and Transfer-Encoding")
        head.content_length = parse_length(lengths[0])
        if len(lengths) > 1 or head.content_length < 0:
            _refuse(f"Content-Length {b', '.join(lengths)[:60]!r}")
    if codings is not None:
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            _refuse(f"Transfer-Encoding {b', '.join(codings)[:60]!r}")
        if head.minor == 0:
            _refuse("Transfer-Encoding in an HTTP/1.0 answer")
    if head.status >= 200 and head.status != 204:
        return
    if head.chunked or head.content_length > 0:
        if head.status < 200:
            _refuse(f"status {head.status} with a body length")
        head.keep_alive = False
    head.chunked = False
    head.content_length = -1
    drop.add(b"content-length")


def _set_notes(head: ResponseHead, values: dict[bytes, list[bytes]]) -> None:
    """Set what the answer says besides its framing."""

    def joined(name: bytes) -> bytes | None:
        found = values.get(name)
        return None if found is None else b", ".join(found)

    head.squid_error = joined(b"x-squid-error")
    head.content_type = values.get(b"content-type", [b""])[-1] or b"-"
    head.judge(joined(b"cache-control"), joined(b"vary"), joined(b"expires"), joined(b"x-cache"), joined(b"cache-status"))


def _check_unfinished(data: bytes, limits: Limits, seen: int) -> None:
    """Raise if ``data``, which is no complete valid head, cannot become one; ``seen`` bytes were found good before."""
    line_end = data.find(b"\r\n") + 2
    if line_end == 1:
        if _status_start(data) is None:
            _refuse(f"begins {data[:60]!r}")
    elif seen < line_end and _status_line(data) is None:
        _refuse(f"status line {data[: min(line_end, 60)]!r}")
    else:
        complete = data.find(b"\r\n\r\n", max(line_end - 2, seen - 3))
        begin = data.rfind(b"\r\n", 0, max(line_end, seen)) + 2
        end = complete + 2 if complete >= 0 else data.rfind(b"\r\n") + 2
        matched = _lines(data, begin, end)
        reached = begin if matched is None else matched.end()
        if reached != end or (complete < 0 and _field_start(data, end) is None):
            _refuse(f"field line at byte {reached}: {data[reached : reached + 60]!r}")
    if len(data) >= limits.head_bytes:
        raise BadResponse(Reason.RESPONSE_TOO_LARGE, f"{len(data)} bytes and no end, limit {limits.head_bytes}")


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.fields:
        raise BadResponse(Reason.RESPONSE_TOO_LARGE, f"{count} fields, limit {limits.fields}")


def _refuse(detail: str) -> NoReturn:
    raise BadResponse(Reason.BAD_RESPONSE, detail)
