"""Which addresses "direct" may connect to, and whether an address is within given networks.

A proxy that connects wherever a client says is a way into the network it stands in: cloud metadata services, routers,
databases on loopback.  Unless the operator allows it, only globally reachable unicast addresses are connected to, and never
the director itself.  Names are judged by the addresses that are then connected to, so a name that changes between two
look-ups gains nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # RFC 4291, 2.4; Python calls ::127.0.0.1 and fec0::1 global
_SIX_TO_FOUR = ipaddress.ip_network("2002::/16")  # RFC 3056: an IPv4 address in bits 16 to 47


def is_within(address: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Whether ``address`` (an IP literal, with a zone or without) is in one of ``networks``."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return any(ip in network for network in networks)


def forbidden(address: str, *, allow_private: bool) -> str:
    """Why ``address`` (an IP literal) must not be connected to; empty when it may be.

    With ``allow_private`` only addresses that no server can have are refused.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "not an address"
    ip = _embedded(ip)
    if ip.is_multicast:
        return "a multicast address"
    if ip.is_unspecified:
        return "the unspecified address"
    if allow_private:
        return ""
    if ip.is_loopback:
        return "a loopback address"
    if ip.is_link_local:
        return "a link-local address"
    if not ip.is_global or (ip.version == 6 and ip not in _GLOBAL_UNICAST):
        return "a private or reserved address"
    return ""


def allowed_addresses(addresses: Iterable[str], *, allow_private: bool) -> tuple[list[str], str]:
    """Split ``addresses`` into those that may be connected to and why the last of the others may not."""
    good: list[str] = []
    why = ""
    for address in addresses:
        refusal = forbidden(address, allow_private=allow_private)
        if refusal:
            why = f"{address} is {refusal}"
        else:
            good.append(address)
    return good, why


def _embedded(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip in _SIX_TO_FOUR:
        return ipaddress.IPv4Address((int(ip) >> 80) & 0xFFFFFFFF)
    return ip
