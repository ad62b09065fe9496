"""Edits to a request's fields on their way to a node or an origin.

What is sent is made from the lines that were parsed, never from bytes that were not understood.  Hop-by-hop fields go,
Via and X-Forwarded-For are written.  An edit is a pure function of block and policy and leaves a gap for the client's
address, so that the relay can keep it for every client that sends the same block.  Host and Connection are the engine's
to write; answers are edited by ``response``.

Source: RFC 9110, sections 7.6.1 to 7.6.3; RFC 9112, section 6.1.
"""

from __future__ import annotations

from typing import NamedTuple

from cachelb.http.fields import RequestFields
from cachelb.http.grammar import HOP_BY_HOP, PROTECTED, split_list

_ALWAYS = HOP_BY_HOP | {b"host"}


class EditPolicy(NamedTuple):
    """How to edit.

    forwarded_for: append to X-Forwarded-For, set it, delete it, or off: leave it as it came.
    via: our entry, such as b"1.1 name (cachelb)", with the version that the client spoke; b"" writes none.
    forwarded_for_hops: how many entries of an X-Forwarded-For are kept, the last ones; 64 is Squid's own limit.
    upgrade: pass Upgrade on (the engine then writes Connection: Upgrade).
    to_origin: next comes an origin, not a node of ours: the proxy's credentials stay here.
    minor: the client's version; Expect means nothing in HTTP/1.0.
    decrement_max_forwards: the method is TRACE or OPTIONS and goes on.
    """

    forwarded_for: str
    via: bytes
    forwarded_for_hops: int = 64
    upgrade: bool = False
    to_origin: bool = False
    minor: int = 1
    decrement_max_forwards: bool = False


class RequestEdit(NamedTuple):
    """Field lines to send: ``pre + client address + post``; where ``post`` is empty, ``pre`` alone.

    Without Host, Connection and the empty line.
    """

    pre: bytes
    post: bytes


def request_edit(block: bytes, fields: RequestFields, policy: EditPolicy) -> RequestEdit:
    """Edit a request's field lines.

    Args:
        block: ``RequestHead.block``; fields: what ``request_fields`` made of it.
        policy: How.
    """
    drop = _ALWAYS
    if fields.connection_options:
        drop = drop | (fields.connection_options - PROTECTED)
    extra = _dropped_by(policy, fields)
    if extra:
        drop = drop | extra
    if not fields.chunked:
        drop = drop | {b"trailer"}
    kept = [line for line in block.split(b"\r\n") if line.partition(b":")[0].lower() not in drop]
    kept.pop()  # the empty string after the last CRLF
    if fields.chunked:
        kept.append(b"Transfer-Encoding: chunked")
    if policy.upgrade and fields.upgrade:
        kept.append(b"Upgrade: " + fields.upgrade)
    if policy.decrement_max_forwards and fields.max_forwards > 0:
        kept.append(b"Max-Forwards: %d" % (fields.max_forwards - 1))
    if policy.via:
        kept.append(b"Via: " + policy.via)
    if policy.forwarded_for == "set" or (policy.forwarded_for == "append" and not fields.forwarded_for):
        kept.append(b"X-Forwarded-For: ")
        return RequestEdit(b"\r\n".join(kept), b"\r\n")
    if policy.forwarded_for == "append":
        hops = split_list(fields.forwarded_for)[-policy.forwarded_for_hops :]
        kept.append(b"X-Forwarded-For: " + b", ".join([*hops, b""]))
        return RequestEdit(b"\r\n".join(kept), b"\r\n")
    kept.append(b"")
    return RequestEdit(b"\r\n".join(kept), b"")


def _dropped_by(policy: EditPolicy, fields: RequestFields) -> set[bytes]:
    """Names of the fields that go because of the policy; empty where none of those is there."""
    drop: set[bytes] = set()
    if policy.forwarded_for != "off" and (fields.forwarded_for or policy.forwarded_for == "delete"):
        drop.add(b"x-forwarded-for")
    if policy.to_origin:
        drop.add(b"proxy-authorization")
    if policy.minor == 0:
        drop.add(b"expect")
    if policy.decrement_max_forwards and fields.max_forwards > 0:
        drop.add(b"max-forwards")
    return drop


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
