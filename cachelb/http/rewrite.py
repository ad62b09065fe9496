"""Edits to a request's fields on their way to a node or an origin.

What is sent is made from the lines that were parsed, never from bytes that were not understood.  Hop-by-hop fields go,
Via and X-Forwarded-For are written.  An edit is a pure function of fields and policy and leaves a gap for the client's
address, so that the relay can keep it for every client that sends the same block.  Host and Connection are the engine's
to write; answers are edited by ``response``.

Source: RFC 9110, sections 7.6.1 to 7.6.3; RFC 9112, section 6.1.
"""

from __future__ import annotations

from typing import Final

from cachelb.http.fields import RequestFields
from cachelb.http.grammar import PROTECTED, split_list

_NONE: Final[frozenset[bytes]] = frozenset()
# Connection options that name no line of ``RequestFields.rest``, or none that Connection may take away.
_NOT_DROPPED: Final = PROTECTED | {b"close", b"keep-alive", b"upgrade", b"te", b"trailer"}


class EditPolicy:
    """How to edit.

    forwarded_for: append to X-Forwarded-For, set it, delete it, or off: leave it as it came.
    via: our entry, such as b"1.1 name (cachelb)", with the version that the client spoke; b"" writes none.
    forwarded_for_hops: how many entries of an X-Forwarded-For are kept, the last ones; 64 is Squid's own limit.
    upgrade: pass Upgrade on (the engine then writes Connection: Upgrade).
    to_origin: next comes an origin, not a node of ours: the proxy's credentials stay here.
    minor: the client's version; Expect means nothing in HTTP/1.0.
    decrement_max_forwards: the method is TRACE or OPTIONS and goes on.
    """

    __slots__ = ("decrement_max_forwards", "forwarded_for", "forwarded_for_hops", "minor", "to_origin", "upgrade", "via")

    def __init__(
        self,
        forwarded_for: str,
        via: bytes,
        forwarded_for_hops: int = 64,
        upgrade: bool = False,
        to_origin: bool = False,
        minor: int = 1,
        decrement_max_forwards: bool = False,
    ) -> None:
        self.forwarded_for = forwarded_for
        self.via = via
        self.forwarded_for_hops = forwarded_for_hops
        self.upgrade = upgrade
        self.to_origin = to_origin
        self.minor = minor
        self.decrement_max_forwards = decrement_max_forwards


def request_edit(fields: RequestFields, policy: EditPolicy) -> tuple[bytes, bytes]:
    """Edit a request's field lines.  Those that are written anew come last.

    Args:
        fields: What ``request_fields`` made of them, sorted already.
        policy: How.

    Returns:
        Field lines to send, without Host, Connection and the empty line, as two parts between which the client's address goes;
        where the second one is empty, it goes nowhere.
    """
    rest = fields.rest
    drop: frozenset[bytes] = fields.connection_options
    if drop:
        drop = _NONE if drop <= _NOT_DROPPED else drop - _NOT_DROPPED
    if policy.to_origin:
        drop = drop | {b"proxy-authorization"}
    if drop:
        rest = b"\r\n".join([line for line in rest.split(b"\r\n") if line.partition(b":")[0].lower() not in drop])
    lines = [rest[:-2]] if rest else []
    if fields.chunked:
        if fields.trailer:
            lines.append(b"Trailer: " + fields.trailer)
        lines.append(b"Transfer-Encoding: chunked")
    if fields.upgrade and policy.upgrade:
        lines.append(b"Upgrade: " + fields.upgrade)
    if fields.expect_continue and policy.minor:
        lines.append(b"Expect: 100-continue")
    if fields.max_forwards >= 0:
        lowered = policy.decrement_max_forwards and fields.max_forwards > 0
        lines.append(b"Max-Forwards: %d" % (fields.max_forwards - lowered))
    if policy.via:
        lines.append(b"Via: " + policy.via)
    mode = policy.forwarded_for
    if mode == "append" or mode == "set":
        lines.append(b"X-Forwarded-For: ")
        pre = b"\r\n".join(lines)
        if fields.forwarded_for and mode == "append":
            hops = split_list(fields.forwarded_for)[-policy.forwarded_for_hops :]
            pre += b", ".join([*hops, b""])
        return pre, b"\r\n"
    if mode == "off" and fields.forwarded_for:
        lines.append(b"X-Forwarded-For: " + fields.forwarded_for)
    lines.append(b"")
    return b"\r\n".join(lines), b""


def is_loop(fields: RequestFields, pseudonym: bytes) -> bool:
    """Whether a request has passed through ``pseudonym``, our received-by name in Via, before.

    Case does not matter.  Source: RFC 9110, section 7.6.3.
    """
    if not fields.via:
        return False
    via = fields.via.lower()
    wanted = pseudonym.lower()
    if wanted not in via:
        return False
    # Commas inside comments are split at, too: at worst a forged comment makes a client's own request a loop, whereas a
    # reader of comments could be led past a true entry by an unclosed one.
    for entry in via.split(b","):
        words = entry.split()
        if len(words) > 1 and words[1] == wanted:
            return True
    return False
