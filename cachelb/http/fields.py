"""Request fields: a block of field lines to the few facts that routing, framing and rewriting ask about.

``request_fields`` is a pure function of the block, which repeats on a keep-alive connection, so that the relay can keep
its results.  The block has passed ``scan_request``: its lines are well-formed, and only their meaning is judged here.
Rules that need the method or the version are in ``framing``.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

from cachelb.errors import BadRequest, Reason
from cachelb.http.grammar import parse_length, split_list
from cachelb.http.url import is_authority

_NONE: Final[frozenset[bytes]] = frozenset()
# Connection values as nearly all clients send them.
COMMON_OPTIONS: Final = {
    b"keep-alive": frozenset([b"keep-alive"]),
    b"Keep-Alive": frozenset([b"keep-alive"]),
    b"close": frozenset([b"close"]),
}
_hops: Final = re.compile(rb"[0-9]{1,9}+").fullmatch
# Schemes that authenticate a connection and not a request (RFC 4559, section 6; Squid takes the same three for it).
_session_scheme: Final = re.compile(rb"(?i)(?:^|,[\t ]*)(?:ntlm|negotiate|kerberos)(?:[\t ]|$)").search

ORIGIN_SESSION: Final = 1
PROXY_SESSION: Final = 2


_NAMES: Final = (
    "authorization", "chunked", "close", "connection_options", "content_length", "expect_continue", "forwarded_for",
    "host", "keep", "max_forwards", "no_store", "only_if_cached", "referer", "rest", "session", "trailer", "upgrade",
    "user_agent", "via",
)  # fmt: skip


class RequestFields:
    """What a request's fields say.

    content_length: -1 where there is none.  chunked: the body is chunked.
    host: the Host field in lower case; b"" where it is empty, None where there is none.
    connection_options: all options of Connection, in lower case.
    close, keep: Connection says close; Connection or Proxy-Connection says keep-alive (for HTTP/1.0 clients).
    upgrade: the value of Upgrade if Connection lists it, else b"".
    expect_continue: Expect says 100-continue.
    authorization: an Authorization field is there.
    session: whom the connection is to be authenticated to (NTLM, Negotiate): 0, or ORIGIN_SESSION and PROXY_SESSION added up.
    no_store, only_if_cached: Cache-Control directives.
    max_forwards: -1 where there is none.
    via, forwarded_for: all values joined with b", ".
    user_agent, referer: as sent, for the combined log.  trailer: the value of Trailer.
    rest: the block without the lines that ``rewrite`` drops always or writes anew from the values here.
    """

    __slots__ = (
        "authorization", "chunked", "close", "connection_options", "content_length", "expect_continue", "forwarded_for",
        "host", "keep", "max_forwards", "no_store", "only_if_cached", "referer", "rest", "session",
        "trailer", "upgrade", "user_agent", "via",
    )  # fmt: skip

    def __init__(self) -> None:
        self.content_length = -1
        self.chunked = False
        self.host: bytes | None = None
        self.connection_options = _NONE
        self.close = False
        self.keep = False
        self.upgrade = b""
        self.expect_continue = False
        self.authorization = False
        self.session = 0
        self.no_store = False
        self.only_if_cached = False
        self.max_forwards = -1
        self.via = b""
        self.forwarded_for = b""
        self.user_agent = b""
        self.referer = b""
        self.rest = b""
        self.trailer = b""

    def __repr__(self) -> str:
        return "RequestFields(" + ", ".join(f"{name}={getattr(self, name)!r}" for name in _NAMES) + ")"


def request_fields(block: bytes) -> RequestFields:
    """Judge a request's field lines.

    Args:
        block: ``RequestHead.block``: whole lines, each with its CRLF.

    Raises:
        BadRequest: BAD_FRAMING, NOT_IMPLEMENTED, EXPECTATION_FAILED, or BAD_REQUEST for a bad Host or Max-Forwards.

    Source: RFC 9110, sections 7.2, 7.6, 7.8 and 10.1.1; RFC 9112, sections 3.2, 6 and 9.6.
    """
    fields = RequestFields()
    values: dict[bytes, bytes] = {}
    rest = []
    for line in block.split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name not in _KNOWN:
            rest.append(line)
            continue
        if name in _STAYING:
            rest.append(line)
        value = value.strip(b" \t")
        if name in values:
            if name in _ONCE:
                raise BadRequest(_ONCE[name], f"repeated {name.decode()}")
            value = values[name] + b", " + value
        values[name] = value
    for name, value in values.items():
        _KNOWN[name](fields, value)
    fields.rest = b"\r\n".join(rest)
    if fields.chunked and fields.content_length >= 0:
        _bad_framing("both Content-Length and Transfer-Encoding")
    if fields.upgrade and b"upgrade" not in fields.connection_options:
        fields.upgrade = b""
    return fields


def _host(fields: RequestFields, value: bytes) -> None:
    if value and not is_authority(value):
        raise BadRequest(Reason.BAD_REQUEST, f"Host {value[:80]!r}")
    fields.host = value.lower()


def _content_length(fields: RequestFields, value: bytes) -> None:
    fields.content_length = parse_length(value)
    if fields.content_length < 0:
        _bad_framing(f"Content-Length {value[:60]!r}")


def _transfer_encoding(fields: RequestFields, value: bytes) -> None:
    codings = [coding.strip(b" \t") for coding in value.lower().split(b",")]
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1 or b"" in codings:
        _bad_framing(f"Transfer-Encoding {value[:60]!r}")
    if len(codings) > 1:
        raise BadRequest(Reason.NOT_IMPLEMENTED, f"Transfer-Encoding {value[:60]!r}")
    fields.chunked = True


def _connection(fields: RequestFields, value: bytes) -> None:
    options = fields.connection_options = _options(value)
    fields.close = b"close" in options
    fields.keep = fields.keep or b"keep-alive" in options


def _options(value: bytes) -> frozenset[bytes]:
    return COMMON_OPTIONS.get(value) or frozenset(split_list(value.lower()))


def _proxy_connection(fields: RequestFields, value: bytes) -> None:
    fields.keep = fields.keep or b"keep-alive" in _options(value)


def _upgrade(fields: RequestFields, value: bytes) -> None:
    fields.upgrade = value


def _expect(fields: RequestFields, value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise BadRequest(Reason.EXPECTATION_FAILED, f"Expect {value[:60]!r}")
    fields.expect_continue = True


def _authorization(fields: RequestFields, value: bytes) -> None:
    fields.authorization = True
    if _session_scheme(value):
        fields.session |= ORIGIN_SESSION


def _proxy_authorization(fields: RequestFields, value: bytes) -> None:
    if _session_scheme(value):
        fields.session |= PROXY_SESSION


def _cache_control(fields: RequestFields, value: bytes) -> None:
    for directive in split_list(value.lower()):
        name = directive.partition(b"=")[0].rstrip(b" \t")
        if name == b"no-store":
            fields.no_store = True
        elif name == b"only-if-cached":
            fields.only_if_cached = True


def _max_forwards(fields: RequestFields, value: bytes) -> None:
    if _hops(value) is None:
        raise BadRequest(Reason.BAD_REQUEST, f"Max-Forwards {value[:60]!r}")
    fields.max_forwards = int(value)


def _via(fields: RequestFields, value: bytes) -> None:
    fields.via = value


def _forwarded_for(fields: RequestFields, value: bytes) -> None:
    fields.forwarded_for = value


def _user_agent(fields: RequestFields, value: bytes) -> None:
    fields.user_agent = value


def _referer(fields: RequestFields, value: bytes) -> None:
    fields.referer = value


def _trailer(fields: RequestFields, value: bytes) -> None:
    fields.trailer = value


def _nothing(fields: RequestFields, value: bytes) -> None:
    """Only one hop's business: known so that it does not stay."""


def _bad_framing(detail: str) -> NoReturn:
    raise BadRequest(Reason.BAD_FRAMING, detail)


_KNOWN: Final = {
    b"host": _host,
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"connection": _connection,
    b"proxy-connection": _proxy_connection,
    b"upgrade": _upgrade,
    b"expect": _expect,
    b"authorization": _authorization,
    b"proxy-authorization": _proxy_authorization,
    b"cache-control": _cache_control,
    b"max-forwards": _max_forwards,
    b"via": _via,
    b"x-forwarded-for": _forwarded_for,
    b"user-agent": _user_agent,
    b"referer": _referer,
    b"keep-alive": _nothing,
    b"te": _nothing,
    b"trailer": _trailer,
}
# Known, and sent on as they came.
_STAYING: Final = frozenset(
    (b"content-length", b"authorization", b"proxy-authorization", b"cache-control", b"via", b"user-agent", b"referer")
)
# A second line of these is an ambiguity, equal or not (RFC 9112, sections 3.2 and 6.3); of the others, a list.
_ONCE: Final = {
    b"host": Reason.BAD_REQUEST,
    b"content-length": Reason.BAD_FRAMING,
    b"transfer-encoding": Reason.BAD_FRAMING,
    b"max-forwards": Reason.BAD_REQUEST,
}
