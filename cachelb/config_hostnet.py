"""The sections about the director's host and about clients that know of no proxy.

Left out: rules between keys (config_rules.py), what is done on the host (``hostnet``).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator

from cachelb.config_base import Addresses, Network, Port, Section
from cachelb.config_values import VirtualAddress, as_list, check_director, check_interface, parse_virtual_address

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
