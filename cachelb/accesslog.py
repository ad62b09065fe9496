"""Lines of the access log: one finished exchange -> one line of bytes.

Three formats: ``squid`` (Squid's native ``access.log``, so that its analysers go on working), ``combined`` (Apache's)
and ``json`` (an object per line, with the request id and reason that the others have no column for).  Times are UTC.

What clients and origins send is never trusted to stay inside its column: in a URL, bytes that are not visible ASCII are
percent-encoded, the rest is as Squid writes it; quoted strings are escaped as Apache does; JSON is escaped as JSON.  So
a line has exactly its columns and one line feed, whatever was sent.

Left out: where lines go (``logfile``), and Squid's ``strip_query_terms``: URLs are written whole.

Source: Squid's ``logformat``: ``squid %ts.%03tu %6tr %>a %Ss/%03>Hs %<st %rm %ru %[un %Sh/%<a %mt``; Apache's
mod_log_config, ``ap_escape_logitem``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _json_text
from typing import Final, NamedTuple

LINE_BYTES: Final = 65536  # a line is never longer, so that it goes out in one write
LONG_PART_BYTES: Final = 1024  # kept of each part that came from outside where a line would be longer; six parts, \u00ff each
CUT: Final = b"..."  # the mark at the end of what was cut
KEPT_PARTS: Final = 1024  # of each kind, by ``SquidLines``: a megabyte with parts as long as it keeps
KEPT_PART_BYTES: Final = 256


class Entry(NamedTuple):
    """One exchange that has ended.

    at: wall-clock seconds at its end.  elapsed_ms: from the first byte of the request to the end.
    client: address.  outcome: Squid's result code (TCP_HIT).  status: 0 where no answer was sent.
    bytes_out: sent to the client, head included.  url: the canonical one; for CONNECT ``host:port``.
    hierarchy: Squid's code for how the peer was chosen (CARP).  peer: node name or address; "-" if none was asked.
    request_id: what a client can quote; empty if it was given none.  reason: the label of its ``errors.Reason``.
    """

    at: float
    elapsed_ms: int
    client: str
    outcome: str
    status: int
    bytes_out: int
    method: bytes
    url: bytes
    hierarchy: str
    peer: str
    content_type: bytes
    referer: bytes
    user_agent: bytes
    request_id: str
    reason: str


Formatter = Callable[[Entry], bytes]

_VISIBLE: Final = bytes(range(0x21, 0x7F))
_QUOTABLE: Final = bytes(c for c in range(0x20, 0x7F) if c not in b'"\\')
_QUOTABLE_VISIBLE: Final = _QUOTABLE[1:]  # without the space
_UNSAFE: Final = re.compile(rb"[^\x21-\x7e]")
_UNQUOTABLE: Final = re.compile(rb'[^\x20-\x7e]|["\\]')
_SHORT_ESCAPES: Final = dict(zip(b'\b\n\r\t\v"\\', (rb"\b", rb"\n", rb"\r", rb"\t", rb"\v", rb"\"", rb"\\"), strict=True))
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def escape_url(text: bytes) -> bytes:
    """Percent-encode what is not a visible ASCII character; "-" for nothing.  ``%`` itself stays, as in Squid."""
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], text) or b"-"


def visible_url(text: bytes) -> bytes:
    """As ``escape_url``; the same object where nothing is to be encoded, which one pass in C tells."""
    return escape_url(text) if not text or text.translate(None, _VISIBLE) else text


def escape_quoted(text: bytes) -> bytes:
    r"""Escape for a quoted string as Apache does: ``\"``, ``\\``, ``\n``, ``\xhh``; "-" for nothing."""
    return _UNQUOTABLE.sub(lambda match: _SHORT_ESCAPES.get(match[0][0]) or b"\\x%02x" % match[0][0], text) or b"-"


class SquidLines:
    """Lines as Squid's native format has them.  What is the same in many of them is kept as it is written."""

    def __init__(self) -> None:
        self._at_ms = -1
        self._time = b""
        self._elapsed = [b"%6d " % ms for ms in range(1000)]
        self._clients: dict[str, bytes] = {}
        self._results: dict[tuple[str, int], bytes] = {}
        self._ends: dict[tuple[str, str, bytes], bytes] = {}

    def line(
        self, at: float, elapsed_ms: int, client: str, outcome: str, status: int, bytes_out: int, method: bytes, url: bytes,
        hierarchy: str, peer: str, content_type: bytes,
    ) -> bytes:  # fmt: skip
        """The line of an ``Entry`` with these values, which may be longer than LINE_BYTES."""
        self.stamp(at)
        method, url = escape_url(method), visible_url(url)
        return self.put(elapsed_ms, client, outcome, status, bytes_out, method, url, hierarchy, peer, content_type)

    def stamp(self, at: float) -> None:
        """Lines that are ``put`` from now on have this time."""
        at_ms = int(at * 1000 + 0.5)
        if at_ms != self._at_ms:
            self._time = b"%d.%03d " % divmod(at_ms, 1000)
            self._at_ms = at_ms

    def put(
        self, elapsed_ms: int, client: str, outcome: str, status: int, bytes_out: int, method: bytes, url: bytes,
        hierarchy: str, peer: str, content_type: bytes,
    ) -> bytes:  # fmt: skip
        """As ``line`` with the time of the latest ``stamp``, where ``method`` and ``url`` are as the log has them already."""
        end = self._ends.get((hierarchy, peer, content_type)) or self._end(hierarchy, peer, content_type)
        elapsed = self._elapsed[elapsed_ms] if 0 <= elapsed_ms < 1000 else b"%6d " % elapsed_ms
        result = self._results.get((outcome, status)) or self._result(outcome, status)
        who = self._clients.get(client) or self._client(client)
        return b"%b%b%b%b%b %b %b%b" % (self._time, elapsed, who, result, str(bytes_out).encode(), method, url, end)

    def _end(self, hierarchy: str, peer: str, content_type: bytes) -> bytes:
        mime = content_type[: content_type.index(b";")] if b";" in content_type else content_type
        host = escape_url(peer.encode("utf-8", "replace"))
        end = b" - %b/%b %b\n" % (hierarchy.encode(), host, escape_url(mime.strip()))
        if len(peer) + len(content_type) <= KEPT_PART_BYTES:
            if len(self._ends) >= KEPT_PARTS:
                self._ends.clear()
            self._ends[hierarchy, peer, content_type] = end
        return end

    def _result(self, outcome: str, status: int) -> bytes:
        if len(self._results) >= KEPT_PARTS:
            self._results.clear()
        result = self._results[outcome, status] = b"%b/%03d " % (outcome.encode(), status)
        return result

    def _client(self, client: str) -> bytes:
        if len(self._clients) >= KEPT_PARTS:
            self._clients.clear()
        who = self._clients[client] = client.encode() + b" "
        return who


@lru_cache(maxsize=4)
def _common_time(second: int) -> bytes:
    when = datetime.fromtimestamp(second, UTC)
    return f"{when.day:02d}/{_MONTHS[when.month - 1]}/{when:%Y:%H:%M:%S} +0000".encode()


def combined_line(entry: Entry) -> bytes:
    """One line as Apache's ``combined`` has it.  The version is written as HTTP/1.1, which is what we speak."""
    method, url, referer, agent = entry.method, entry.url, entry.referer, entry.user_agent
    if not (method and url) or (method + url).translate(None, _QUOTABLE_VISIBLE):
        method, url = escape_quoted(escape_url(method)), escape_quoted(escape_url(url))
    if not (referer and agent) or (referer + agent).translate(None, _QUOTABLE):
        referer, agent = escape_quoted(referer), escape_quoted(agent)
    size = b"%d" % entry.bytes_out if entry.bytes_out else b"-"
    # fmt: off
    return b'%b - - [%b] "%b %b HTTP/1.1" %03d %b "%b" "%b"\n' % (
        entry.client.encode(), _common_time(int(entry.at)), method, url, entry.status, size, referer, agent
    )
    # fmt: on


@lru_cache(maxsize=4)
def _iso_time(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def json_line(entry: Entry) -> bytes:
    """One JSON object.  Bytes that are not ASCII appear as U+0080 to U+00FF, so that nothing is lost."""
    at_ms = int(entry.at * 1000)
    method, url, mime = (
        entry.method.decode("latin-1"),
        entry.url.decode("latin-1"),
        entry.content_type.decode("latin-1"),
    )
    referer, agent = entry.referer.decode("latin-1"), entry.user_agent.decode("latin-1")
    return (
        f'{{"time":"{_iso_time(at_ms // 1000)}.{at_ms % 1000:03d}Z","elapsed_ms":{entry.elapsed_ms},'
        f'"client":{_json_text(entry.client)},"outcome":"{entry.outcome}","status":{entry.status},'
        f'"bytes_out":{entry.bytes_out},"method":{_json_text(method)},"url":{_json_text(url)},'
        f'"hierarchy":"{entry.hierarchy}","peer":{_json_text(entry.peer)},"content_type":{_json_text(mime)},'
        f'"referer":{_json_text(referer)},"user_agent":{_json_text(agent)},'
        f'"request_id":{_json_text(entry.request_id)},"reason":"{entry.reason}"}}\n'
    ).encode("ascii")


def _squid() -> Formatter:
    line = SquidLines().line
    return lambda entry: line(*entry[:11])


def formatter(name: str) -> Formatter:
    """A function that writes lines of format ``name``: squid, combined or json; no line is longer than ``LINE_BYTES``.

    Raises:
        KeyError: There is no such format; the configuration has been checked before.
    """
    plain = {"squid": _squid(), "combined": combined_line, "json": json_line}[name]

    def bounded(entry: Entry) -> bytes:
        line = plain(entry)
        return line if len(line) <= LINE_BYTES else plain(_shortened(entry))

    return bounded


def _shortened(entry: Entry) -> Entry:
    """``entry`` with everything from outside cut, so that its line is short in every format, escapes included."""

    def cut(text: bytes) -> bytes:
        return text if len(text) <= LONG_PART_BYTES else text[:LONG_PART_BYTES] + CUT

    return entry._replace(
        method=cut(entry.method),
        url=cut(entry.url),
        peer=entry.peer[:LONG_PART_BYTES],
        content_type=cut(entry.content_type),
        referer=cut(entry.referer),
        user_agent=cut(entry.user_agent),
    )
