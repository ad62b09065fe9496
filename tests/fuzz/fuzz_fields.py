"""Whatever a request's field lines are, they mean what a slow reader finds in them, or are refused for a reason it finds too."""

from __future__ import annotations

import random
import re

from mutate import mutate

from cachelb.errors import BadRequest, Reason
from cachelb.http.fields import RequestFields, request_fields
from cachelb.http.grammar import FIELD
from cachelb.http.url import is_authority
from cachelb.http.usual_fields import usual_fields

NAMES = [
    *(b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Proxy-Connection", b"Upgrade", b"Expect", b"TE"),
    *(b"Authorization", b"Cache-Control", b"Max-Forwards", b"Via", b"X-Forwarded-For", b"User-Agent", b"Referer", b"Trailer"),
    *(b"Keep-Alive", b"Cookie", b"Hosts", b"Content-Lengt", b"X"),
]
VALUES = {
    b"Host": [b"a.com", b"A.com:80", b"", b"[::1]:81", b"a b", b"a:b", b"a.com, b.com", b"a.com:99999"],
    b"Content-Length": [
        b"0",
        b"5",
        b"05",
        b"5, 5",
        b"+5",
        b"5 ",
        b"9" * 18,
        b"%d" % (2**63 - 1),
        b"%d" % 2**63,
        b"9" * 30,
        b"\xb2",
    ],
    b"Transfer-Encoding": [
        b"chunked",
        b"Chunked",
        b"gzip, chunked",
        b"chunked, chunked",
        b"chunked;x",
        b"gzip",
        b"",
        b",chunked",
    ],
    b"Connection": [b"close", b"keep-alive", b"Keep-Alive", b"upgrade, x", b"Close , te", b',,"close"', b"KEEP-ALIVE,close", b""],
    b"Proxy-Connection": [b"keep-alive", b"close", b"x, Keep-Alive"],
    b"Upgrade": [b"websocket", b"", b"h2c, x"],
    b"Expect": [b"100-continue", b"100-Continue", b"x", b"", b"100-continue, x"],
    b"Cache-Control": [
        b"no-store",
        b"No-Store = 1",
        b'x="no-store, only-if-cached"',
        b"only-if-cached,max-age=0",
        b'a="\\",no-store',
    ],
    b"Max-Forwards": [b"0", b"10", b"-1", b"9" * 9, b"9" * 10, b"", b"1, 2", b"\xb2"],
    b"Via": [b"1.1 lb", b"1.0 x, 1.1 lb (a, b)", b""],
    b"X-Forwarded-For": [b"10.0.0.1", b"unknown, ::1"],
}
ANY = [b"x", b"", b"chunked", b"close", b"5", b'"', b"\xff", b"100-continue", b"a, b"]
NASTY = [b",", b'"', b"\\", b" ", b"\t", b";", b"=", b":", b"\r\n", b"close", b"no-store", b"\x80", b"0", b"Host: b\r\n", b"TE:"]
ONCE = {
    b"host": Reason.BAD_REQUEST,
    b"content-length": Reason.BAD_FRAMING,
    b"transfer-encoding": Reason.BAD_FRAMING,
    b"max-forwards": Reason.BAD_REQUEST,
}
DROPPED = re.compile(
    rb"(?i:host|transfer-encoding|connection|proxy-connection|upgrade|expect|max-forwards|x-forwarded-for|keep-alive|te|trailer)"
)
is_block = re.compile(rb"(?:%b)*" % FIELD).fullmatch


def make(chance: random.Random) -> bytes:
    lines = []
    for _ in range(chance.choice((0, 1, 2, 2, 3, 3, 4, 6))):
        name = chance.choice(NAMES)
        value = chance.choice(VALUES.get(name, ANY) if chance.randrange(6) else ANY)
        blank = chance.choice((b" ", b" ", b" ", b"", b"\t "))
        name = chance.choice((name, name, name, name.lower(), name.upper(), name.swapcase()))
        lines.append(b"%b:%b%b%b\r\n" % (name, blank, value, chance.choice((b"", b"", b"", b" \t"))))
    block = b"".join(lines)
    return mutate(chance, [block], NASTY) if chance.randrange(4) == 0 else block


def elements(value: bytes) -> list[bytes]:
    """Of a list, letter by letter."""
    found, quoted, escaped = [b""], False, False
    for number in value:
        letter = bytes([number])
        if letter == b"," and not quoted:
            found.append(b"")
            continue
        found[-1] += letter
        if escaped:
            escaped = False
        elif letter == b"\\" and quoted:
            escaped = True
        elif letter == b'"':
            quoted = not quoted
    return [element.strip(b" \t") for element in found if element.strip(b" \t")]


def faults(lines: list[tuple[bytes, bytes]]) -> set[Reason]:
    """Every reason to refuse them."""
    found = {reason for name, reason in ONCE.items() if sum(other == name for other, _ in lines) > 1}
    names = {name for name, _ in lines}
    for name, value in lines:
        if name == b"host" and value and not is_authority(value):
            found.add(Reason.BAD_REQUEST)
        elif name == b"content-length" and not (value.isdigit() and len(value) <= 19 and int(value) < 2**63):
            found.add(Reason.BAD_FRAMING)
        elif name == b"max-forwards" and not (value.isdigit() and len(value) <= 9):
            found.add(Reason.BAD_REQUEST)
        elif name == b"expect" and value.lower() != b"100-continue":
            found.add(Reason.EXPECTATION_FAILED)
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            found |= {Reason.BAD_FRAMING, Reason.NOT_IMPLEMENTED}
    if sum(name == b"expect" for name, _ in lines) > 1:
        found.add(Reason.EXPECTATION_FAILED)
    if {b"transfer-encoding", b"content-length"} <= names:
        found.add(Reason.BAD_FRAMING)
    return found


def check(block: bytes) -> str:
    usual = usual_fields(block, 256)
    if not is_block(block):
        assert usual is None
        return "refused before, by scan_request"
    lines = [(line.partition(b":")[0].lower(), line.partition(b":")[2].strip(b" \t")) for line in block.split(b"\r\n")[:-1]]
    expected = faults(lines)
    try:
        fields = request_fields(block)
    except BadRequest as problem:
        assert problem.reason in expected, problem
        assert usual is None
        return f"refused {problem.reason.name}"
    assert not expected
    assert usual is None or repr(usual) == repr(fields)
    check_values(fields, lines)
    stays = [line + b"\r\n" for line in block.split(b"\r\n")[:-1] if not DROPPED.fullmatch(line.partition(b":")[0])]
    assert fields.rest == b"".join(stays)
    return "a body" if fields.chunked or fields.content_length > 0 else "no body"


def is_session(lines: list[tuple[bytes, bytes]], wanted: bytes) -> bool:
    """Whether credentials of some field with this name are for the connection: after a scheme comes a blank, or nothing."""
    for name, value in lines:
        *parts, last = (part.lstrip(b"\t ") for part in value.split(b","))
        words = [re.split(rb"[\t ]", part)[0] for part in parts if re.search(rb"[\t ]", part)] + [re.split(rb"[\t ]", last)[0]]
        if name == wanted and any(word.lower() in (b"ntlm", b"negotiate", b"kerberos") for word in words):
            return True
    return False


def check_values(fields: RequestFields, lines: list[tuple[bytes, bytes]]) -> None:
    joined: dict[bytes, bytes] = {}
    for name, value in lines:
        joined[name] = joined[name] + b", " + value if name in joined else value
    options = {option.lower() for option in elements(joined.get(b"connection", b""))}
    proxy = {option.lower() for option in elements(joined.get(b"proxy-connection", b""))}
    directives = {re.split(rb"[ \t]*=", each.lower())[0] for each in elements(joined.get(b"cache-control", b""))}
    said = {
        "content_length": int(joined.get(b"content-length", b"-1")),
        "chunked": b"transfer-encoding" in joined,
        "host": joined[b"host"].lower() if b"host" in joined else None,
        "connection_options": options,
        "close": b"close" in options,
        "keep": b"keep-alive" in options | proxy,
        "upgrade": joined.get(b"upgrade", b"") if b"upgrade" in options else b"",
        "expect_continue": b"expect" in joined,
        "authorization": b"authorization" in joined,
        "session": is_session(lines, b"authorization") | is_session(lines, b"proxy-authorization") << 1,
        "no_store": b"no-store" in directives,
        "only_if_cached": b"only-if-cached" in directives,
        "max_forwards": int(joined.get(b"max-forwards", b"-1")),
        "via": joined.get(b"via", b""),
        "forwarded_for": joined.get(b"x-forwarded-for", b""),
        "user_agent": joined.get(b"user-agent", b""),
        "referer": joined.get(b"referer", b""),
        "trailer": joined.get(b"trailer", b""),
    }
    found = {name: getattr(fields, name) for name in RequestFields.__slots__ if name != "rest"}
    assert found == said
