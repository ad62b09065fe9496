"""The sections about the director's host and about clients that know of no proxy.

Left out: rules between keys (config_rules.py), what is done on the host (``hostnet``).
"""

from __future__ import annotations

import re
from ipaddress import ip_interface
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator

from cachelb.config_base import Addresses, Network, Port, Section
from cachelb.config_values import BadValue, as_list, check_host, is_address, shown, text_of

_interface = re.compile(r"(?!\.{1,2}$)[^\s/:]{1,15}", re.ASCII).fullmatch


class VirtualAddress(NamedTuple):
    """An IP address with its prefix length, and the interface that it is for.  As text: as ``ip addr add`` has it."""

    host: str
    prefix: int
    interface: str

    def __str__(self) -> str:
        return f"{self.host}/{self.prefix} dev {self.interface}"


def parse_virtual_address(value: object) -> VirtualAddress:
    """A virtual address: "10.0.0.100 dev eth0", "2001:db8::100/64 dev eth0"; without a prefix length it is a host's."""
    if isinstance(value, VirtualAddress):
        return value
    text, example = text_of(value), 'write it like "10.0.0.100 dev eth0"'
    words = text.split()
    if len(words) != 3 or words[1] != "dev":
        hint = f'write "{text} dev eth0"' if len(words) == 1 and is_address(text.partition("/")[0]) else example
        raise BadValue(f"{shown(value)} does not say an address and its interface", hint)
    try:
        found = ip_interface(words[0])
    except ValueError:
        raise BadValue(f"{shown(words[0])} is not an IP address", example) from None
    if found.ip.is_unspecified or found.ip.is_multicast or found.ip.is_link_local or found.ip.is_loopback:
        raise BadValue(f"{found.ip} cannot be a virtual address", example)
    return VirtualAddress(str(found.ip), found.network.prefixlen, check_interface(words[2]))


def check_director(value: object) -> str:
    """The URL of another director's admin listener."""
    text = text_of(value).rstrip("/")
    scheme, _, place = text.partition("://")
    host, _, port = place.rpartition(":")
    try:
        check_host(host)
        number = int(port) if port.isascii() and port.isdigit() else 0
    except BadValue:
        number = 0
    if scheme not in ("http", "https") or not 0 < number < 65536:
        raise BadValue(f"{shown(value)} is not the URL of a director's admin listener", 'write it like "http://10.0.0.2:3180"')
    return text


def check_interface(value: object) -> str:
    """The name of a network interface."""
    text = text_of(value)
    if not _interface(text):
        raise BadValue(f"{shown(value)} is not the name of a network interface", 'write it like "eth0"; see: ip link')
    return text


VirtualAddresses = Annotated[
    tuple[Annotated[VirtualAddress, PlainValidator(parse_virtual_address), PlainSerializer(str, return_type=str)], ...],
    BeforeValidator(as_list),
]
PortNumbers = Annotated[tuple[Port, ...], Field(min_length=1)]


class HostnetConfig(Section):
    """What the director sets on its host, and takes back when it ends."""

    addresses: VirtualAddresses = ()  # "10.0.0.100 dev eth0": added at the start; with keepalived none, for it does that
    # of the policy rule by which intercepted packets stay here: before the system's own, 32766
    priority: Annotated[int, Field(ge=1, le=32765)] = 3128
    table: Annotated[int, Field(ge=1, le=0x7FFFFFFF)] = 3128  # of routes, where that rule leads; nobody else's
    mark: Annotated[int, Field(ge=1, le=0xFFFFFFFF)] = 0x2000  # bits of a packet's mark; kube-proxy has 0x4000


class PeersConfig(Section):
    """Other directors of the same farm: they are asked whether they route alike."""

    # their admin listeners: "http://10.0.0.2:3180"; this one may be among them.  All need the same [admin] token
    directors: tuple[Annotated[str, BeforeValidator(check_director)], ...] = ()
    interval_s: Annotated[float, Field(ge=0.2, le=60, allow_inf_nan=False)] = 2.0  # between questions


class InterceptConfig(Section):
    """Clients that know of no proxy: what they ask of port 80 of anybody is taken."""

    listen: Addresses = ()  # where the kernel takes them to, one for each IP version: "127.0.0.1:3129", "[::1]:3129"
    ports: PortNumbers = (80,)  # of the servers
    interfaces: tuple[Annotated[str, BeforeValidator(check_interface)], ...] = ()  # where clients come in; none: all of them
    clients: tuple[Network, ...] | None = None  # who is intercepted; not set: [access] allow
    non_http: Literal["tunnel", "refuse"] = "tunnel"  # what does not speak HTTP: to where it was meant to go, or cut
    # whose address origins (what goes around the farm) and nodes see: the client's, if answers to that are routed here
    spoof: Literal["off", "origin", "nodes", "both"] = "off"
    skip: tuple[Network, ...] = ()  # who is not, as a client or as a server; the nodes and this host's addresses never are
