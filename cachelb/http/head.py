"""Request heads: received bytes to a ``RequestHead``, or "need more", or a refusal.

Strict (RFC 9112, sections 2 to 5): what another reader could understand differently is refused, not repaired: bare CR
or LF, blanks around a field's name, folded lines, control characters.  A head is judged as it arrives: bytes that
cannot become a valid head are refused at once, not when the time for sending a head is over.

The meaning of fields is left to ``fields``, body lengths to ``framing``, URLs to ``url``.  Answers are in ``response``;
its names are repeated here.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

from cachelb.errors import BadRequest, Reason
from cachelb.http.grammar import FIELD, FIELD_START, TOKEN, Limits
from cachelb.http.response import ResponseHead, scan_response

__all__ = ["Limits", "RequestHead", "ResponseHead", "scan_request", "scan_response"]

# Fragments and obs-text pass: Squid takes them, and what it takes it stores under the very bytes (see url).
_TARGET: Final = rb"[\x21-\x7e\x80-\xff]"
_LINE: Final = rb"(" + TOKEN + rb"++) (" + _TARGET + rb"++) HTTP/1\.([0-9])\r\n"

# One possessive pattern over the whole head: 1.4 us for 396 bytes (2026-11); find() + split() + a loop took 2.2 us.
_head: Final = re.compile(rb"(?:\r\n){0,2}+" + _LINE + rb"((?:" + FIELD + rb")*+)(?<=\r\n)\r\n").match
_line: Final = re.compile(_LINE).match
_lines: Final = re.compile(rb"(?:" + FIELD + rb")*+").match
_version: Final = re.compile(rb"[^\r\n]* HTTP/([0-9]{1,3})(?:\.[0-9]{1,3})?\r\n").match
# What an unfinished first line, and an unfinished last line, may look like.
_VERSION_START: Final = rb"(?:HTTP/(?:[0-9][0-9.]{0,6}+\r?+)?|HTTP|HTT|HT|H)?"  # the longest first: nothing is tried twice
_line_start: Final = re.compile(
    rb"(?:" + TOKEN + rb"++(?: (?:" + _TARGET + rb"++(?: " + _VERSION_START + rb")?)?)?)?"
).fullmatch
_field_start: Final = re.compile(FIELD_START).fullmatch


class RequestHead:
    """One request's head, as received.

    method: a token, case kept.  target: the request-target, untouched.
    minor: 0 for HTTP/1.0, 1 for HTTP/1.1 and every later 1.x.
    block: all field lines, each with its CRLF, without the empty line.
    size: bytes that the head took from the buffer, empty lines before and after included.
    """

    __slots__ = ("block", "method", "minor", "size", "target")

    def __init__(self, method: bytes, target: bytes, minor: int, block: bytes, size: int) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.block = block
        self.size = size

    def __repr__(self) -> str:
        return f"RequestHead({self.method!r}, {self.target!r}, {self.minor}, {self.block!r}, {self.size})"


def scan_request(data: bytes, limits: Limits, seen: int = 0) -> RequestHead | None:
    """Read one request head from the start of ``data``.

    Args:
        data: What was received and not consumed yet; may hold more than one head.
        limits: What the head may weigh at most.
        seen: How many bytes of ``data`` an earlier call answered with None; saves looking at them again, so that a
            head that arrives in crumbs does not cost the square of its length.

    Returns:
        The head, or None if more bytes are needed.

    Raises:
        BadRequest: BAD_REQUEST, BAD_VERSION, URL_TOO_LONG, HEAD_TOO_LARGE or TOO_MANY_FIELDS, as soon as certain.

    Source: RFC 9112, sections 2.2, 3 and 5.
    """
    if seen > 6 and data.find(b"\r\n\r\n", seen - 3) < 0:
        _check_unfinished(data, limits, seen)
        return None
    match = _head(data)
    if match is None:
        _check_unfinished(data, limits, 0)
        return None
    method, target, minor, block = match.groups()
    size = match.end()
    if len(target) > limits.url_bytes:
        _url_too_long(len(target), limits)
    if size > limits.head_bytes:
        raise BadRequest(Reason.HEAD_TOO_LARGE, f"{size} bytes, limit {limits.head_bytes}")
    # A field line has 4 bytes at least: short blocks need not be counted.
    if len(block) > 4 * limits.fields:
        _check_count(block.count(b"\n"), limits)
    return RequestHead(method, target, 0 if minor == b"0" else 1, block, size)


def _check_unfinished(data: bytes, limits: Limits, seen: int) -> None:
    """Return for a head that may still become valid; raise for one that cannot."""
    start = 0
    while start < 4 and data.startswith(b"\r\n", start):
        start += 2
    if data == b"\r\n" * (start // 2) + b"\r" and start < 4:
        return
    line_end = data.find(b"\r\n", start) + 2
    if line_end == 1:
        _unfinished_line(data, start, limits)
        return
    if seen < line_end:
        seen = line_end
        line = _line(data, start)
        if line is None:
            _refuse_line(data, start, line_end)
        if len(line[2]) > limits.url_bytes:
            _url_too_long(len(line[2]), limits)
    complete = data.find(b"\r\n\r\n", max(line_end - 2, seen - 3))
    # Start with the line in which the unseen bytes begin; -1 + 2 cannot happen, the first line's end is before it.
    begin = data.rfind(b"\r\n", 0, seen) + 2
    end = data.rfind(b"\r\n") + 2 if complete < 0 else complete + 2
    matched = _lines(data, begin, end)
    reached = matched.end() if matched is not None else begin
    if reached != end or (complete < 0 and not _field_start(data, end)):
        _refuse_field(data, reached)
    if complete < 0 and len(data) >= limits.head_bytes:
        raise BadRequest(Reason.HEAD_TOO_LARGE, f"{len(data)} bytes and no end, limit {limits.head_bytes}")
    if len(data) - line_end > 4 * limits.fields:
        _check_count(data.count(b"\n", line_end, end), limits)


def _unfinished_line(data: bytes, start: int, limits: Limits) -> None:
    """Raise if the unfinished first line at ``start`` cannot become a valid one within the limits."""
    if _line_start(data, start) is None:
        raise BadRequest(Reason.BAD_REQUEST, f"request line begins {data[start : start + 60]!r}")
    target = data.find(b" ", start) + 1
    if target:
        end = data.find(b" ", target)
        length = (len(data) if end < 0 else end) - target
        if length > limits.url_bytes:
            _url_too_long(length, limits)
    if len(data) >= limits.head_bytes:
        raise BadRequest(Reason.HEAD_TOO_LARGE, f"{len(data)} bytes in the request line, limit {limits.head_bytes}")


def _refuse_line(data: bytes, start: int, line_end: int) -> NoReturn:
    """Say what is wrong with the complete request line from ``start``, which is known not to be valid."""
    version = _version(data, start, line_end)
    if version is not None and version[1] != b"1":
        raise BadRequest(Reason.BAD_VERSION, f"HTTP/{version[1].decode()}")
    raise BadRequest(Reason.BAD_REQUEST, f"request line {data[start : min(line_end, start + 60)]!r}")


def _refuse_field(data: bytes, position: int) -> NoReturn:
    """Say what is wrong with the field line at ``position``, which is known not to be valid."""
    line = data[position : position + 60]
    if line[:1] in (b" ", b"\t"):
        raise BadRequest(Reason.BAD_REQUEST, f"folded field line {line!r}")
    raise BadRequest(Reason.BAD_REQUEST, f"field line at byte {position}: {line!r}")


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.fields:
        raise BadRequest(Reason.TOO_MANY_FIELDS, f"{count} fields, limit {limits.fields}")


def _url_too_long(length: int, limits: Limits) -> NoReturn:
    raise BadRequest(Reason.URL_TOO_LONG, f"{length} bytes, limit {limits.url_bytes}")
