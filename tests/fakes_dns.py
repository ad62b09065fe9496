"""A small DNS server for tests: real datagrams, scripted answers, every query counted.

It knows what it is told (``server.names``), answers NXDOMAIN for the rest, and can be slow, silent or broken per name
and record type.  Checked against the real thing by its user: the client is c-ares.

Left out: TCP, EDNS (its option is ignored, as old servers do), anything but A, AAAA and CNAME.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field

A, AAAA, CNAME, SOA = 1, 28, 5, 6
NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3
TYPES = {A: "A", AAAA: "AAAA"}
_HEADER = struct.Struct(">6H")
_RECORD = struct.Struct(">HHIH")


@dataclass
class Says:
    """What is answered for one name and type.  silent: nothing at all; soa_minimum: adds an SOA record (RFC 2308)."""

    addresses: tuple[str, ...] = ()
    ttl_s: int = 60
    rcode: int = NOERROR
    delay_s: float = 0.0
    silent: bool = False
    cname: tuple[str, int] | None = None  # the name that has the addresses, and the TTL of this link
    soa_minimum: int | None = None


@dataclass
class FakeDns(asyncio.DatagramProtocol):
    """``names``: (name, "A" or "AAAA") to what is said; ``queries``: how often each was asked; ``address``: where it
    listens, as a Resolver's nameservers want it."""

    names: dict[tuple[str, str], Says] = field(default_factory=dict)
    queries: Counter[tuple[str, str]] = field(default_factory=Counter)
    address: str = ""
    _transport: asyncio.DatagramTransport | None = None

    async def start(self, host: str = "127.0.0.53") -> None:
        """Listen on a free port."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, 0))
        self.address = "{}:{}".format(*self._transport.get_extra_info("sockname")[:2])

    def stop(self) -> None:
        """Stop listening."""
        if self._transport is not None:
            self._transport.close()

    def say(self, name: str, a: Says | None = None, aaaa: Says | None = None) -> None:
        """Script both types of `name`; None: the name exists but has no such address, and this may not be cached."""
        self.names[name, "A"] = a or Says(soa_minimum=0)
        self.names[name, "AAAA"] = aaaa or Says(soa_minimum=0)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        name, kind, end = parse_question(data)
        key = (name.lower(), TYPES.get(kind, str(kind)))
        self.queries[key] += 1
        says = self.names.get(key, Says(rcode=NXDOMAIN))
        if not says.silent:
            answer = pack_answer(data[:2], data[_HEADER.size : end], kind, says)
            asyncio.get_running_loop().call_later(says.delay_s, self._send, answer, addr)

    def _send(self, answer: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(answer, addr)


def parse_question(data: bytes) -> tuple[str, int, int]:
    """The name and type that a query asks for, and where its question ends.  Source: RFC 1035 section 4.1.2."""
    labels, at = [], _HEADER.size
    while length := data[at]:
        labels.append(data[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), int.from_bytes(data[at + 1 : at + 3], "big"), at + 5


def pack_name(name: str) -> bytes:
    """Labels with their lengths, uncompressed."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def pack_answer(ident: bytes, question: bytes, kind: int, says: Says) -> bytes:
    """The datagram that says it."""
    owner = question[:-4]
    records, authority = [], []
    if says.cname is not None:
        target = pack_name(says.cname[0])
        records.append(owner + _RECORD.pack(CNAME, 1, says.cname[1], len(target)) + target)
        owner = target
    family = socket.AF_INET if kind == A else socket.AF_INET6
    for address in says.addresses:
        packed = socket.inet_pton(family, address)
        records.append(owner + _RECORD.pack(kind, 1, says.ttl_s, len(packed)) + packed)
    if says.soa_minimum is not None:
        soa = pack_name("ns.test") * 2 + struct.pack(">5I", 1, 2, 3, 4, says.soa_minimum)
        authority.append(pack_name("test") + _RECORD.pack(SOA, 1, says.soa_minimum, len(soa)) + soa)
    head = _HEADER.pack(int.from_bytes(ident, "big"), 0x8180 | says.rcode, 1, len(records), len(authority), 0)
    return head + question + b"".join(records + authority)
