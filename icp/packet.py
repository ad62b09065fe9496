"""ICP version 2 messages: bytes to values and back (RFC 2186, section 2).

Two readers: ``unpack`` takes every well-formed message, ``parse_query`` what a service has to answer.  Both are strict:
version 2 only (a version 3 query kills Squid 5.7), a length field that is the datagram's, a URL that ends at the packet's
only NUL.  Whatever is wrong is a ``BadPacket`` with its ``Fault``, to be counted by kind.

Left out: what to answer (``answer``), sockets (``service``, ``client``).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from .errors import BadPacket, Fault

HEADER = struct.Struct(">BBHIIII")  # opcode, version, length, reqnum, flags, option data, sender's address
VERSION = 2
MAX_URL = 8191  # bytes; Squid's MAX_URL is 8192 with the NUL
SRC_RTT = 0x40000000  # flag: in a query "tell me the RTT if you know it", in a reply "option data is one"
HIT_OBJ = 0x80000000  # flag of queries that would take the object itself; nobody sends objects any more

_HEADER_BYTES = HEADER.size
_QUERY_URL = _HEADER_BYTES + 4  # behind the requester's address, which only queries have


class Opcode(IntEnum):
    """RFC 2186, section 2.  MISS_NOFETCH: "do not fetch it from me now"; SECHO and DECHO: sent to a UDP echo port."""

    QUERY = 1
    HIT = 2
    MISS = 3
    ERR = 4
    SECHO = 10
    DECHO = 11
    MISS_NOFETCH = 21
    DENIED = 22
    HIT_OBJ = 23


REPLIES = frozenset({Opcode.HIT, Opcode.MISS, Opcode.ERR, Opcode.DECHO, Opcode.MISS_NOFETCH, Opcode.DENIED})
_OPCODES: dict[int, Opcode] = {int(opcode): opcode for opcode in Opcode}
_QUERY, _DECHO, _SECHO = Opcode.QUERY, Opcode.DECHO, Opcode.SECHO


class Message(NamedTuple):
    """Any ICP message.

    option_data: what the flags say it is, else 0.  sender: the sender's IPv4 address as a number; Squid sends 0.
    requester: the address in front of a query's URL, as a number; Squid sends 0.  Ignored in all other messages.
    """

    opcode: Opcode
    reqnum: int
    url: bytes
    flags: int = 0
    option_data: int = 0
    sender: int = 0
    requester: int = 0

    @property
    def rtt(self) -> tuple[int, int] | None:
        """(hops, milliseconds) to the origin, if a reply carries them."""
        if not self.flags & SRC_RTT:
            return None
        return self.option_data >> 16, self.option_data & 0xFFFF


class Query(NamedTuple):
    """What a service needs of a message that it has to answer.

    reqnum: 1 to 2**32 - 1.  url: 0 to 8191 bytes without NUL, as sent.  is_echo: a DECHO, sent to what seems to be a UDP
    echo port by one who takes its echo for a MISS.
    """

    reqnum: int
    url: bytes
    flags: int = 0
    is_echo: bool = False


def pack(message: Message) -> bytes:
    """Encode any message.  ``pack_reply`` is what a service uses: it never sends reqnum 0.

    Raises:
        ValueError: A URL that no receiver would take.
    """
    url = message.url
    if len(url) > MAX_URL or b"\0" in url:
        raise ValueError(f"a URL of {len(url)} bytes" if len(url) > MAX_URL else "a URL with a NUL in it")
    opcode, reqnum, _, flags, option_data, sender, requester = message
    address = requester.to_bytes(4, "big") if opcode == Opcode.QUERY else b""
    size = _HEADER_BYTES + len(address) + len(url) + 1
    return HEADER.pack(opcode, VERSION, size, reqnum, flags, option_data, sender) + address + url + b"\0"


def pack_query(reqnum: int, url: bytes, flags: int = 0) -> bytes:
    """Encode a QUERY as Squid's children send it: all addresses 0."""
    return pack(Message(Opcode.QUERY, reqnum, url, flags))


def pack_reply(opcode: Opcode, reqnum: int, url: bytes, rtt: tuple[int, int] | None = None) -> bytes:
    """Encode a reply: never longer than its query.

    Args:
        opcode: HIT, MISS, ERR, MISS_NOFETCH or DENIED.
        reqnum: The query's, not 0: a reply with 0 switches private keys off in the Squid that receives it, for good.
        url: The query's, or empty where that was unusable; Squid matches replies by reqnum alone.
        rtt: Measured (hops, milliseconds) to the origin, where the query asked for it.
    """
    assert reqnum
    flags, option_data = 0, 0
    if rtt is not None:
        flags, option_data = SRC_RTT, min(rtt[0], 0xFFFF) << 16 | min(rtt[1], 0xFFFF)
    return HEADER.pack(opcode, VERSION, _HEADER_BYTES + len(url) + 1, reqnum, flags, option_data, 0) + url + b"\0"


def unpack(datagram: bytes) -> Message:
    """Decode any well-formed message.

    Raises:
        BadPacket: See ``Fault``.
    """
    opcode, reqnum, flags, option_data, sender = _header(datagram)
    if opcode is _QUERY:
        url = _url(datagram, _QUERY_URL, reqnum)
        requester = int.from_bytes(datagram[_HEADER_BYTES:_QUERY_URL], "big")
        return Message(opcode, reqnum, url, flags, option_data, sender, requester)
    return Message(opcode, reqnum, _url(datagram, _HEADER_BYTES, 0), flags, option_data, sender)


def parse_query(datagram: bytes) -> Query:
    """Decode one message that is to be answered: a QUERY or a DECHO.  0.9 us (2026-11).

    Args:
        datagram: A whole UDP payload of any size.

    Raises:
        BadPacket: Anything else.  ``fault.is_err_due`` says whether an ERR with ``reqnum`` is to be sent.

    Source: RFC 2186, section 2.  The requester's address before the URL is skipped and stray NULs are refused, as in
    Squid's icpGetUrl().
    """
    opcode, reqnum, flags, _, _ = _header(datagram)
    if opcode is _QUERY:
        start = _QUERY_URL
    elif opcode is _DECHO:
        start = _HEADER_BYTES
    elif opcode is _SECHO:
        raise BadPacket(Fault.ECHO)
    else:
        raise BadPacket(Fault.UNSOLICITED, opcode)
    if not reqnum:
        raise BadPacket(Fault.REQNUM_ZERO)
    return Query(reqnum, _url(datagram, start, reqnum), flags, opcode is _DECHO)


def parse_reply(datagram: bytes) -> Message:
    """Decode one reply: HIT, MISS, ERR, MISS_NOFETCH, DENIED, or the echo of a DECHO.

    Raises:
        BadPacket: Anything else, and reqnum 0, which no query of ours had.
    """
    message = unpack(datagram)
    if message.opcode not in REPLIES:
        raise BadPacket(Fault.NOT_A_REPLY, message.opcode)
    if not message.reqnum:
        raise BadPacket(Fault.REQNUM_ZERO)
    return message


def header_fault(datagram: bytes) -> Fault | None:
    """SHORT, VERSION or LENGTH, or None.  What most garbage fails, found without an exception: 0.1 us."""
    size = len(datagram)
    if size < _HEADER_BYTES:
        return Fault.SHORT
    if datagram[1] != VERSION:
        return Fault.VERSION
    if datagram[2] << 8 | datagram[3] != size:
        return Fault.LENGTH
    return None


def _header(datagram: bytes) -> tuple[Opcode, int, int, int, int]:
    fault = header_fault(datagram)
    if fault is not None:
        size, values = len(datagram), datagram[:4]
        length = int.from_bytes(values[2:], "big")
        numbers = {Fault.SHORT: (size,), Fault.VERSION: (*values[1:2],), Fault.LENGTH: (length, size)}
        raise BadPacket(fault, *numbers[fault])
    number, _, _, reqnum, flags, option_data, sender = HEADER.unpack_from(datagram)
    opcode = _OPCODES.get(number)
    if opcode is None:
        raise BadPacket(Fault.OPCODE, number)
    if opcode is Opcode.HIT_OBJ:
        raise BadPacket(Fault.HIT_OBJ)
    return opcode, reqnum, flags, option_data, sender


def _url(datagram: bytes, start: int, reqnum: int) -> bytes:
    """The URL from `start` to the NUL that must be the last byte and the only NUL."""
    last = len(datagram) - 1
    if last < start:
        raise BadPacket(Fault.NO_URL, last + 1, reqnum=reqnum)
    nul = datagram.find(0, start)
    if nul != last:
        raise BadPacket(Fault.NO_NUL if datagram[last] else Fault.STRAY_NUL, last + 1 - start, reqnum=reqnum)
    if last - start > MAX_URL:
        raise BadPacket(Fault.LONG_URL, last - start, reqnum=reqnum)
    return datagram[start:last]
