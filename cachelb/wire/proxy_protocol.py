"""The PROXY protocol, versions 1 and 2: who the client of a connection is, told by the proxy before us or to the node.

A header is the first thing on a connection::

    PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n          version 1: at most 107 bytes
    \r\n\r\n\0\r\nQUIT\n  21 11 00 0c  c0000201 ...             version 2: 16 bytes, addresses, TLVs

``LOCAL`` (v2) and ``UNKNOWN`` (v1) say that the connection is the proxy's own, as for its health checks, or that it does not
know: then the addresses of the connection itself are the true ones.  TLVs are passed over; a checksum among them is not checked,
for TCP has one.

Source: HAProxy's doc/proxy-protocol.txt, 2.8.  Left out: reading from a socket (``relay.guests``), Unix sockets' paths.
"""

from __future__ import annotations

import re
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"  # of version 2
V1_BYTES: Final = 107  # the longest header of version 1, its CRLF included
V2_BYTES: Final = 16
V2_REST_BYTES: Final = 4096  # of addresses and TLVs that we take: what TLVs tell of TLS has some hundred bytes

_LINE: Final = re.compile(
    rb"PROXY (TCP[46]) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39}) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n\Z"
)
_START: Final = re.compile(rb"PROXY (?:TCP4|TCP6|UNKNOWN)[ \r]")
_V4: Final = struct.Struct("!4s4sHH")
_V6: Final = struct.Struct("!16s16sHH")
_TCP4, _TCP6 = 0x11, 0x21
_LOCAL, _PROXY = 0x20, 0x21


class BadProxyHeaderError(ValueError):
    """The bytes do not begin with a PROXY header; the text says what is wrong, in a few words."""


class Ends(NamedTuple):
    """The two ends of a connection: IP addresses in their usual form, and ports."""

    source: str
    source_port: int
    destination: str
    destination_port: int


class Header(NamedTuple):
    """A header.  size: its bytes; ends: what it says; None: those of the connection itself are the true ones."""

    size: int
    ends: Ends | None


def parse(data: bytes) -> Header | None:
    """Read the header at the start of ``data``; None when it is not whole.

    Raises:
        BadProxyHeaderError: It is none, or it is malformed.
    """
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _parse_v2(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _parse_v1(data)
    raise BadProxyHeaderError("no PROXY header")


def is_header(data: bytes) -> bool:
    """Whether somebody begins to speak the PROXY protocol, as far as the first bytes show."""
    return data.startswith(SIGNATURE) or _START.match(data) is not None


def _parse_v1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, V1_BYTES)
    if end < 0:
        if len(data) >= V1_BYTES:
            raise BadProxyHeaderError(f"version 1: no line of at most {V1_BYTES} bytes")
        return None
    size = end + 2
    line = data[:size]
    if line == b"PROXY UNKNOWN\r\n" or line.startswith(b"PROXY UNKNOWN "):
        return Header(size, None)  # whatever else such a line says is to be ignored
    match = _LINE.match(line)
    if match is None:
        raise BadProxyHeaderError("version 1: not family, two addresses and two ports")
    wanted = IPv4Address if match[1] == b"TCP4" else IPv6Address
    try:
        source, destination = (wanted(match[number].decode("ascii")) for number in (2, 3))
    except ValueError:
        raise BadProxyHeaderError("version 1: an address that is none of its family") from None
    ports = int(match[4]), int(match[5])
    if max(ports) > 65535:
        raise BadProxyHeaderError("version 1: a port above 65535")
    return Header(size, Ends(_plain(source), ports[0], _plain(destination), ports[1]))


def _parse_v2(data: bytes) -> Header | None:
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise BadProxyHeaderError(f"version 2: version and command are 0x{data[12]:02x}")
    if len(data) < V2_BYTES:
        return None
    rest = int.from_bytes(data[14:16], "big")
    if rest > V2_REST_BYTES:
        raise BadProxyHeaderError(f"version 2: {rest} bytes of addresses and TLVs, more than {V2_REST_BYTES}")
    family = data[13]
    needed = {_TCP4: _V4.size, _TCP6: _V6.size}.get(family, 0)
    if data[12] == _PROXY and rest < needed:
        raise BadProxyHeaderError(f"version 2: {rest} bytes do not hold two addresses")
    size = V2_BYTES + rest
    if len(data) < size:
        return None
    if data[12] == _LOCAL or not family:
        return Header(size, None)
    if family == _TCP4:
        source, destination, *ports = _V4.unpack_from(data, V2_BYTES)
        return Header(size, Ends(_plain(IPv4Address(source)), ports[0], _plain(IPv4Address(destination)), ports[1]))
    if family == _TCP6:
        source, destination, *ports = _V6.unpack_from(data, V2_BYTES)
        return Header(size, Ends(_plain(IPv6Address(source)), ports[0], _plain(IPv6Address(destination)), ports[1]))
    raise BadProxyHeaderError(f"version 2: family and protocol are 0x{family:02x}, not TCP over IP")


def _plain(address: IPv4Address | IPv6Address) -> str:
    """As clients' addresses are written everywhere here: an IPv4 address in an IPv6 one is that IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def make(version: str, ends: Ends | None) -> bytes:
    """A header.

    Args:
        version: "v1" or "v2".
        ends: The client's address and the one it connected to; None: the connection is our own.
    """
    if version == "v1":
        if ends is None:
            return b"PROXY UNKNOWN\r\n"
        source, destination = _of_one_family(ends)
        family = 4 if isinstance(source, IPv4Address) else 6
        return f"PROXY TCP{family} {source} {destination} {ends.source_port} {ends.destination_port}\r\n".encode("ascii")
    if ends is None:
        return SIGNATURE + bytes((_LOCAL, 0, 0, 0))
    source, destination = _of_one_family(ends)
    is_v4 = isinstance(source, IPv4Address)
    body = (_V4 if is_v4 else _V6).pack(source.packed, destination.packed, ends.source_port, ends.destination_port)
    return SIGNATURE + bytes((_PROXY, _TCP4 if is_v4 else _TCP6)) + len(body).to_bytes(2, "big") + body


def own_header(version: str) -> bytes:
    """What a connection of our own begins with where ``version`` is spoken; nothing where that is ""."""
    return make(version, None) if version else b""


def _of_one_family(ends: Ends) -> tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address]:
    """Both addresses; as IPv6 ones where they differ, for a header has one family."""
    source, destination = ip_address(ends.source), ip_address(ends.destination)
    if source.version != destination.version:
        return _wide(source), _wide(destination)
    return source, destination


def _wide(address: IPv4Address | IPv6Address) -> IPv6Address:
    return address if isinstance(address, IPv6Address) else IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
