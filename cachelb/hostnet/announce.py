"""Tells the network where a virtual address is now, and asks it beforehand whether somebody has it.

    IPv4: gratuitous ARP, as a request and as an answer, for there are hosts that listen to one of them only; an ARP probe
    IPv6: an unsolicited neighbour advertisement to all nodes; asking is the kernel's (duplicate address detection)

The packets are made by pure functions.  Needs CAP_NET_RAW.

Source: RFC 826; RFC 5227, sections 2.1 and 2.3; RFC 4861, sections 4.4 and 7.2.6.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from typing import Final

_ETHERNET: Final = struct.Struct("!6s6sH")
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST, _ANSWER = 1, 2
_EVERYBODY: Final = b"\xff" * 6
_NOBODY: Final = bytes(6)
_ETH_P_ARP: Final = 0x0806
_ALL_NODES: Final = "ff02::1"
_ADVERTISEMENT, _OVERRIDE, _TARGET_LINK_ADDRESS = 136, 0x20000000, 2
_HOP_LIMIT: Final = 255  # others are not believed: RFC 4861, section 7.1.2

PROBES: Final = 2
PROBE_WAIT_S: Final = 0.25  # for the answer to one: on one link it takes a ms; RFC 5227 waits longer, and a start would, too


def hardware(text: str) -> bytes:
    """The six bytes of "02:00:00:00:00:01"."""
    return bytes.fromhex(text.replace(":", ""))


def gratuitous_arp(mac: bytes, host: str, operation: int) -> bytes:
    """A frame that says that ``host`` is at ``mac``.  operation: 1: as a request; 2: as an answer."""
    address = socket.inet_aton(host)
    asked = _NOBODY if operation == _REQUEST else _EVERYBODY
    frame = _ETHERNET.pack(_EVERYBODY, mac, _ETH_P_ARP)
    return frame + _ARP.pack(1, 0x0800, 6, 4, operation, mac, address, asked, address)


def arp_probe(mac: bytes, host: str) -> bytes:
    """A frame that asks who has ``host``, and says nothing of who asks."""
    frame = _ETHERNET.pack(_EVERYBODY, mac, _ETH_P_ARP)
    return frame + _ARP.pack(1, 0x0800, 6, 4, _REQUEST, mac, bytes(4), _NOBODY, socket.inet_aton(host))


def owner_in(frame: bytes, own: bytes, host: str) -> str:
    """Who says in this frame that ``host`` is his: his hardware address; "": nobody but us."""
    if len(frame) < _ETHERNET.size + _ARP.size:
        return ""
    kind, protocol, _, _, _, sender, address, _, _ = _ARP.unpack_from(frame, _ETHERNET.size)
    if (kind, protocol) != (1, 0x0800) or address != socket.inet_aton(host) or sender == own:
        return ""
    return str(sender.hex(":"))


def advertisement(mac: bytes, host: str) -> bytes:
    """ICMPv6 without its checksum, which the kernel adds: ``host`` is at ``mac``."""
    target = socket.inet_pton(socket.AF_INET6, host)
    return struct.pack("!BBHI16sBB6s", _ADVERTISEMENT, 0, 0, _OVERRIDE, target, _TARGET_LINK_ADDRESS, 1, mac)


class Announcer:
    """Holds the sockets from which it is told, so that they can be opened while that is allowed.

    places: for each address its interface and that one's hardware address; interfaces without one need no announcement.

    Raises:
        OSError: A socket cannot be opened.
    """

    def __init__(self, places: Sequence[tuple[str, str, str]]) -> None:
        self._ready: list[tuple[socket.socket, list[bytes], tuple[str, int, int, int] | None]] = []
        try:
            for host, interface, mac in places:
                if ":" in host:
                    self._ready.append(_icmp(host, interface, hardware(mac)))
                else:
                    frames = [gratuitous_arp(hardware(mac), host, operation) for operation in (_REQUEST, _ANSWER)]
                    self._ready.append((_arp(interface), frames, None))
        except BaseException:
            self.close()
            raise

    def send(self) -> None:
        """Announce all.

        Raises:
            OSError: One could not be sent; the others were.
        """
        problem: OSError | None = None
        for sock, packets, to in self._ready:
            for packet in packets:
                try:
                    sock.send(packet) if to is None else sock.sendto(packet, to)
                except OSError as exc:
                    problem = exc
        if problem is not None:
            raise problem

    def close(self) -> None:
        """Announce nothing more."""
        for sock, _, _ in self._ready:
            sock.close()
        self._ready.clear()


def _arp(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)  # 0: receives nothing
    try:
        sock.bind((interface, 0))
    except OSError:
        sock.close()
        raise
    return sock


def _icmp(host: str, interface: str, mac: bytes) -> tuple[socket.socket, list[bytes], tuple[str, int, int, int]]:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6)
    try:
        index = socket.if_nametoindex(interface)
        sock.setsockopt(socket.IPPROTO_ICMPV6, 1, b"\xff" * 32)  # ICMPV6_FILTER: nothing passes, as nothing is read
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOP_LIMIT)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sock.bind((host, 0, 0, index))
    except OSError:
        sock.close()
        raise
    return sock, [advertisement(mac, host)], (_ALL_NODES, 0, 0, index)


def probe(host: str, interface: str, mac: str) -> str:
    """Ask whether another host of the link has this IPv4 address: its hardware address; "": nobody answers.

    Raises:
        OSError: It cannot be asked.
    """
    own = hardware(mac)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(_ETH_P_ARP)) as sock:
        sock.bind((interface, _ETH_P_ARP))
        for _ in range(PROBES):
            sock.send(arp_probe(own, host))
            until = time.monotonic() + PROBE_WAIT_S
            while (left := until - time.monotonic()) > 0:
                sock.settimeout(left)
                try:
                    owner = owner_in(sock.recv(128), own, host)
                except TimeoutError:
                    break
                if owner:
                    return owner
    return ""
