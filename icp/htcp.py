"""HTCP 0.0/0.1 messages as Squid speaks them: TST and CLR, queries and replies (RFC 2756; Squid's htcp.cc).

    0   length of the datagram u16 | major 0 | minor u8                      header
    4   length of this part u16 | opcode, response (4 bits each) | F1 RR | id u32   data
    12  operation's own data: strings with a u16 length in front
    -2  length of this part u16 = 2                                          authentication: none

Squid's children send empty request headers, and its replies to TST always carry the three strings of DETAIL, empty ones on
a miss.  Its minor version is 1, or 0 with the ``oldsquid`` option, whose flag bits are elsewhere: minor 0 is read as RFC 2756
has it.  Strict, as ``packet`` is: exact lengths, nothing behind the last field, nothing signed.

Left out: NOP, MON and SET (Squid has none of them), signatures, what to answer (``answer_htcp``).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from .errors import BadPacket, Fault

HEADER = struct.Struct(">HBBHBBI")  # datagram's length, major, minor, data's length, opcode|response, flags, id
MAX_BYTES = 8192  # Squid's limit for a packet (htcp.cc)
_UNSIGNED = b"\0\2"  # the authentication part: its own length and nothing else
_FRAME = 4 + len(_UNSIGNED)  # what the datagram's length counts beyond the data's
_RR, _F1 = 1, 2  # flags: is a reply; in a request "a reply is wanted", in a reply "the request as such was refused"


class HtcpOpcode(IntEnum):
    """RFC 2756, section 3."""

    NOP = 0
    TST = 1
    MON = 2
    SET = 3
    CLR = 4


# What the response field of a reply says: of a TST, and of a CLR
TST_HIT, TST_MISS = 0, 1
CLR_GONE, CLR_KEPT, CLR_ABSENT = 0, 1, 2
REFUSED_OPCODE = 2  # of a reply whose F1 is set: "opcode not implemented"


class Specifier(NamedTuple):
    """What is asked for.  version: of HTTP; Squid sends ``1/1``.  headers: of the request; Squid's children send none."""

    method: bytes
    url: bytes
    version: bytes = b"1/1"
    headers: bytes = b""


class Detail(NamedTuple):
    """Headers of a TST's reply: of the response, of the entity, of the cache; each line with its CRLF."""

    response: bytes = b""
    entity: bytes = b""
    cache: bytes = b""


class HtcpQuery(NamedTuple):
    """A TST or CLR request.

    reason: of a CLR; 0 "not specified", 1 "the origin says it is no longer valid".  wants_reply: Squid's CLR does not.
    """

    opcode: HtcpOpcode
    msg_id: int
    what: Specifier
    wants_reply: bool = True
    reason: int = 0
    minor: int = 1


class HtcpReply(NamedTuple):
    """A reply to a TST or CLR.

    response: see above.  is_refusal: the request as such was refused; response then says why.  detail: of a TST; None in
    replies that carry none.
    """

    opcode: HtcpOpcode
    msg_id: int
    response: int
    detail: Detail | None = None
    is_refusal: bool = False
    minor: int = 1


def pack_query(query: HtcpQuery) -> bytes:
    """Encode a TST or CLR.

    Raises:
        ValueError: It would be longer than any receiver takes.
    """
    reason = query.reason.to_bytes(2, "big") if query.opcode == HtcpOpcode.CLR else b""
    data = reason + b"".join(map(_counted, query.what))
    return _framed(query.opcode << 4, _F1 if query.wants_reply else 0, query.msg_id, data, query.minor)


def pack_reply(reply: HtcpReply) -> bytes:
    """Encode a reply.

    Raises:
        ValueError: It would be longer than any receiver takes.
    """
    data = b"" if reply.detail is None else b"".join(map(_counted, reply.detail))
    flags = _RR | (_F1 if reply.is_refusal else 0)
    return _framed(reply.opcode << 4 | reply.response, flags, reply.msg_id, data, reply.minor)


def parse_query(datagram: bytes) -> HtcpQuery:
    """Decode a TST or CLR.

    Raises:
        BadPacket: Anything else; see ``Fault``.
    """
    opcode, response, flags, msg_id = _header(datagram)
    if flags & _RR:
        raise BadPacket(Fault.UNSOLICITED, opcode)
    if opcode not in (HtcpOpcode.TST, HtcpOpcode.CLR) or response:
        raise BadPacket(Fault.OPCODE, datagram[6])
    at, reason = HEADER.size, 0
    if opcode is HtcpOpcode.CLR:
        if len(datagram) < at + 4:
            raise BadPacket(Fault.SECTION, 2, len(datagram) - at - 2)
        reason = int.from_bytes(datagram[at : at + 2], "big")
        at += 2
    what = Specifier._make(_strings(datagram, at, 4))
    return HtcpQuery(opcode, msg_id, what, bool(flags & _F1), reason, datagram[3])


def parse_reply(datagram: bytes) -> HtcpReply:
    """Decode the reply to a TST or CLR.

    Raises:
        BadPacket: Anything else; see ``Fault``.
    """
    opcode, response, flags, msg_id = _header(datagram)
    if not flags & _RR:
        raise BadPacket(Fault.NOT_A_REPLY, opcode)
    detail = None
    if opcode is HtcpOpcode.TST and len(datagram) > HEADER.size + 2:
        detail = Detail._make(_strings(datagram, HEADER.size, 3))
    elif len(datagram) != HEADER.size + 2:
        raise BadPacket(Fault.TRAILING, len(datagram) - HEADER.size - 2)
    return HtcpReply(opcode, msg_id, response, detail, bool(flags & _F1), datagram[3])


def _counted(text: bytes) -> bytes:
    if len(text) > MAX_BYTES:
        raise ValueError(f"a string of {len(text)} bytes in a packet of at most {MAX_BYTES}")
    return len(text).to_bytes(2, "big") + text


def _framed(operation: int, flags: int, msg_id: int, data: bytes, minor: int) -> bytes:
    size = HEADER.size + len(data) + len(_UNSIGNED)
    if size > MAX_BYTES:
        raise ValueError(f"a packet of {size} bytes; at most {MAX_BYTES} are taken")
    return HEADER.pack(size, 0, minor, size - _FRAME, operation, flags, msg_id) + data + _UNSIGNED


def _header(datagram: bytes) -> tuple[HtcpOpcode, int, int, int]:
    """(opcode, response, flags, id) of a datagram whose parts have the lengths they say."""
    size = len(datagram)
    if size < HEADER.size + len(_UNSIGNED):
        raise BadPacket(Fault.SHORT, size)
    length, major, minor, data_length, operation, flags, msg_id = HEADER.unpack_from(datagram)
    if length != size or size > MAX_BYTES:
        raise BadPacket(Fault.LENGTH, length, size)
    if major or minor > 1:
        raise BadPacket(Fault.VERSION, major << 8 | minor)
    if data_length != size - _FRAME or datagram[-2:] != _UNSIGNED:
        raise BadPacket(Fault.AUTH, size - 4 - data_length)
    if flags & ~(_RR | _F1):  # reserved, or Squid's old layout of them: whether a reply is wanted cannot be known
        raise BadPacket(Fault.VERSION, major << 8 | minor)
    if operation >> 4 > HtcpOpcode.CLR:
        raise BadPacket(Fault.OPCODE, operation)
    return HtcpOpcode(operation >> 4), operation & 15, flags, msg_id


def _strings(datagram: bytes, at: int, count: int) -> list[bytes]:
    """`count` strings from `at` on, which must fill the data part."""
    end = len(datagram) - len(_UNSIGNED)
    found = []
    for _ in range(count):
        start = at + 2
        length = int.from_bytes(datagram[at:start], "big") if start <= end else 0
        if start + length > end:
            raise BadPacket(Fault.SECTION, length, max(0, end - start))
        at = start + length
        found.append(datagram[start:at])
    if at != end:
        raise BadPacket(Fault.TRAILING, end - at)
    return found
