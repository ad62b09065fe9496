"""Fetch a Squid's digest: one GET on a connection of its own.

The request has the origin form, which a Squid answers itself on any plain http_port whatever the Host field says.
Nothing is believed: the head and the body have limits, the length must be given once and be exact, and the whole
exchange has one time limit.  What the bytes say is judged by ``wire``.

Left out: when to fetch, redirects (Squid sends none), TLS, ports that require a PROXY header.
"""

from __future__ import annotations

import asyncio
import os
import re
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final, Literal, NamedTuple

from .wire import CONTROL_BYTES, MASK_LIMIT_BYTES, DigestError

DIGEST_PATH = "/squid-internal-periodic/store_digest"
HEAD_LIMIT_BYTES = 16384  # Squid's own heads have 300 to 400 bytes
BODY_LIMIT_BYTES = CONTROL_BYTES + MASK_LIMIT_BYTES

_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
_status_line = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: " + _TEXT + rb")?").fullmatch
_field = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(" + _TEXT + rb")").fullmatch
_number = re.compile(rb"[0-9]{1,18}").fullmatch
_date = re.compile(rb"[A-Za-z0-9 ,:+-]{1,64}").fullmatch


class Outcome(Enum):
    """An answer without a digest."""

    NOT_MODIFIED = "not modified"
    NOT_READY = "not ready"


NOT_MODIFIED: Final = Outcome.NOT_MODIFIED  # 304: it still is the one that if_modified_since names
NOT_READY: Final = Outcome.NOT_READY  # 404: the node has not built its digest yet, or never will (no cache_dir)


class Fetched(NamedTuple):
    """A digest's bytes.

    last_modified: the node's date for it, for the next ``if_modified_since``; empty if it gave none.
    fresh_s: seconds until the node makes a new one, by the node's own clock; 0 if it does not say.
    age_s: seconds since it was made; period_s: from then to the next one.  Likewise.
    """

    body: bytes
    last_modified: str
    fresh_s: float
    age_s: float = 0.0
    period_s: float = 0.0


class FetchError(DigestError):
    """No digest and no clear answer came; the text names the address and the numbers."""


class AnswerHead(NamedTuple):
    """What matters of an answer's head.  length: -1 where no Content-Length is given.  The others: see ``Fetched``."""

    status: int
    length: int
    last_modified: str
    fresh_s: float
    age_s: float
    period_s: float


async def fetch_digest(
    host: str,
    port: int,
    *,
    path: str = DIGEST_PATH,
    if_modified_since: str = "",
    limit_bytes: int = BODY_LIMIT_BYTES,
    timeout_s: float = 10.0,
    first: bytes = b"",
) -> Fetched | Literal[Outcome.NOT_MODIFIED, Outcome.NOT_READY]:
    """Ask a node for its digest.

    Args:
        host: Name or address of the node.
        port: One of its plain http_ports, 1 to 65535.
        path: Where the digest is; must begin with "/" and be fit for a request line.
        if_modified_since: The ``last_modified`` of the digest that is there already.
        limit_bytes: The longest body that is accepted, control block included.
        timeout_s: For everything together.
        first: What the connection begins with, a PROXY header.

    Raises:
        FetchError: No connection, no answer in time, another status, a malformed head, a missing, repeated, wrong or
            too large length.
    """
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    request = _request(place, path, if_modified_since)
    try:
        async with asyncio.timeout(timeout_s):
            return await _exchange(host, port, first + request, bool(if_modified_since), limit_bytes)
    except TimeoutError:
        raise FetchError(f"{place}: no complete answer within {timeout_s:g} s") from None
    except FetchError as problem:
        raise FetchError(f"{place}: {problem}") from None
    except (OSError, UnicodeError) as problem:  # UnicodeError: a host name that DNS cannot hold
        raise FetchError(f"{place}: {_sentence(problem)}") from problem


def parse_answer_head(data: bytes) -> AnswerHead:
    """Read the head of an answer, the empty line at its end included.

    Raises:
        FetchError: It is malformed, has a Transfer-Encoding, or a Content-Length that is repeated or not a number.
    """
    status_line, *lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    match = _status_line(status_line)
    if match is None:
        raise FetchError(f"not an HTTP answer: {status_line[:40]!r}")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        field = _field(line)
        if field is None:
            raise FetchError(f"malformed header field {line[:40]!r}")
        name, value = field[1].lower(), field[2].rstrip(b" \t")
        if name == b"transfer-encoding" or (name == b"content-length" and name in fields):
            raise FetchError(f"ambiguous length: {line[:40]!r}")
        fields[name] = value
    length = fields.get(b"content-length")
    if length is not None and not _number(length):
        raise FetchError(f"Content-Length {length[:40]!r}")
    last_modified, date, expires = (fields.get(name, b"") for name in (b"last-modified", b"date", b"expires"))
    return AnswerHead(
        int(match[1]),
        -1 if length is None else int(length),
        last_modified.decode("ascii") if _date(last_modified) else "",
        _seconds_between(date, expires),
        _seconds_between(last_modified, date),
        _seconds_between(last_modified, expires),
    )


async def _exchange(
    host: str, port: int, request: bytes, is_conditional: bool, limit_bytes: int
) -> Fetched | Literal[Outcome.NOT_MODIFIED, Outcome.NOT_READY]:
    reader, writer = await asyncio.open_connection(host, port, limit=HEAD_LIMIT_BYTES)
    try:
        writer.write(request)
        head = parse_answer_head(await _read_head(reader))
        if head.status == 304 and is_conditional:
            return NOT_MODIFIED
        if head.status == 404:
            return NOT_READY
        if head.status != 200:
            raise FetchError(f"answered {head.status}")
        if head.length < 0:
            raise FetchError("answered without a Content-Length")
        if head.length > limit_bytes:
            raise FetchError(f"a digest of {head.length} bytes is above the limit of {limit_bytes}")
        return Fetched(await _read_body(reader, head.length), *head[2:])
    finally:
        writer.transport.abort()  # all that matters has been read


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as problem:
        raise FetchError(f"closed after {len(problem.partial)} bytes of the head") from None
    except asyncio.LimitOverrunError:
        raise FetchError(f"a head of more than {HEAD_LIMIT_BYTES} bytes") from None


async def _read_body(reader: asyncio.StreamReader, length: int) -> bytes:
    try:
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as problem:
        raise FetchError(f"closed after {len(problem.partial)} of {length} bytes") from None


def _sentence(problem: OSError | UnicodeError) -> str:
    """What the system says, without asyncio's words and numbers, which repeat the address."""
    number = getattr(problem, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return getattr(problem, "strerror", None) or str(problem)  # names: numbers of another kind


def _request(place: str, path: str, if_modified_since: str) -> bytes:
    condition = f"If-Modified-Since: {if_modified_since}\r\n" if if_modified_since else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {place}\r\nAccept: application/cache-digest\r\n{condition}Connection: close\r\n\r\n"
    ).encode("ascii")


def _seconds_between(start: bytes, end: bytes) -> float:
    """From one HTTP date to another; 0 if one is missing, malformed or they are in the wrong order."""
    if not (_date(start) and _date(end)):
        return 0.0
    try:
        between = parsedate_to_datetime(end.decode("ascii")) - parsedate_to_datetime(start.decode("ascii"))
    except (ValueError, TypeError, OverflowError):  # TypeError: one has a time zone, the other has none
        return 0.0
    return max(0.0, between.total_seconds())
