"""Single values of the configuration: what a text must look like to be an address, a network, a name or a rule.

Every function takes what TOML gave (of any type), returns the value in its one form, and raises BadValue, whose message
is half a sentence that quotes the text and whose ``hint`` says what to write instead.

Left out: the schema (config.py), rules between values (config_rules.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface, ip_network
from typing import Literal, NamedTuple

from cachelb.routing.classify import BypassRules
from cachelb.routing.ports import PortSet

_SHOWN = 60  # characters of a value that a message quotes
_NAME_MAX = 64  # of a node; it is in every line of the access log
_WORKERS_MAX = 1024  # processes; no machine that this is for has more cores

_token = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII).fullmatch
_pseudonym = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z\[\]:-]{1,255}", re.ASCII).fullmatch  # RFC 9110, section 7.6.3
_account = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,31}", re.ASCII | re.IGNORECASE).fullmatch
_label = re.compile(r"[0-9a-z_](?:[0-9a-z_-]{0,61}[0-9a-z_])?", re.ASCII | re.IGNORECASE).fullmatch
_interface = re.compile(r"(?!\.{1,2}$)[^\s/:]{1,15}", re.ASCII).fullmatch
_control = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]").search


class Address(NamedTuple):
    """An IP address without brackets, and a port.  As text: "address:port", with brackets for IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class VirtualAddress(NamedTuple):
    """An IP address with its prefix length, and the interface that it is for.  As text: as ``ip addr add`` has it."""

    host: str
    prefix: int
    interface: str

    def __str__(self) -> str:
        return f"{self.host}/{self.prefix} dev {self.interface}"


class BadValue(ValueError):
    """A value cannot be used; ``hint`` says what to write instead, or is empty."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


def shown(value: object) -> str:
    """A value as TOML has it, on one line and not too long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return "a number of very many digits"
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = type(value).__name__
    if not text.isprintable():  # a message must not steer a terminal
        text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 4] + " ..."


def as_list(value: object) -> tuple[object, ...]:
    """A single value stands for a list of one, "" for an empty list."""
    if isinstance(value, tuple | list):
        return tuple(value)
    return () if isinstance(value, str) and not value.strip() else (value,)


def text_of(value: object) -> str:
    """The value if it is a text without control characters."""
    if not isinstance(value, str):
        raise BadValue(f"should be a text in quotes, not {shown(value)}")
    if _control(value):
        raise BadValue(f"{shown(value)} has control characters")
    return value.strip()


def parse_address(value: object) -> Address:
    """Where to listen: "127.0.0.1:3128", "[::]:3128"."""
    if isinstance(value, Address):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 65535:
        raise BadValue(f"{value} is a port without an address", f'write "0.0.0.0:{value}" for all IPv4 addresses')
    text = text_of(value)
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        hint = '"[::]:3128"' if ":" in text else f'"{text}:3128"' if _is_address(text) else '"127.0.0.1:3128"'
        raise BadValue(f"{shown(value)} is not an address with a port", f"write it like {hint}")
    number = _port(port, value)
    if host in ("", "*"):
        raise BadValue(f"{shown(value)} has no address", f'write "0.0.0.0:{number}" for all IPv4 addresses')
    try:
        literal = IPv6Address(host[1:-1]) if host.startswith("[") and host.endswith("]") else IPv4Address(host)
    except AddressValueError:
        hint = f'write "127.0.0.1:{number}"' if host == "localhost" else "write an address of this host, not a name"
        raise BadValue(f"{shown(value)} has no valid IP address", hint) from None
    if literal.is_multicast or str(literal) == "255.255.255.255":
        raise BadValue(f"{shown(value)} is not an address that can be listened on")
    return Address(str(literal), number)


def parse_virtual_address(value: object) -> VirtualAddress:
    """A virtual address: "10.0.0.100 dev eth0", "2001:db8::100/64 dev eth0"; without a prefix length it is a host's."""
    if isinstance(value, VirtualAddress):
        return value
    text, example = text_of(value), 'write it like "10.0.0.100 dev eth0"'
    words = text.split()
    if len(words) != 3 or words[1] != "dev":
        hint = f'write "{text} dev eth0"' if len(words) == 1 and _is_address(text.partition("/")[0]) else example
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


def parse_server(value: object) -> str:
    """A name server: "address" or "address:port" (53 if not given)."""
    text = text_of(value)
    if _is_address(text):
        return str(Address(str(ip_address(text)), 53))
    try:
        address = parse_address(text)
    except BadValue:
        raise BadValue(f"{shown(value)} is not the address of a name server", 'write it like "127.0.0.53:53"') from None
    if ip_address(address.host).is_unspecified:
        raise BadValue(f"{shown(value)} is not the address of a name server", 'write it like "127.0.0.53:53"')
    return str(address)


def parse_network(value: object) -> IPv4Network | IPv6Network:
    """A network: "10.0.0.0/8", "fc00::/7", or a single address."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    text = text_of(value)
    try:
        return ip_network(text)
    except ValueError:
        pass
    if text.lower() in ("all", "any", "*", "world"):
        raise BadValue(f"{shown(value)} is not a network", 'write "0.0.0.0/0" and "::/0", if you mean the whole world')
    if "/" in text:
        try:
            wider = ip_network(text, strict=False)
        except ValueError:
            pass
        else:
            raise BadValue(f"{shown(value)} has bits set beyond its prefix length", f'did you mean "{wider}"?')
    raise BadValue(f"{shown(value)} is not a network", 'write it like "10.0.0.0/8" or "fc00::/7"')


def parse_ports(value: object) -> int | str:
    """A port or a range of ports, checked: 443, "1025-65535"."""
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise BadValue(f'should be a port or a range like "1025-65535", not {shown(value)}')
    try:
        PortSet.parse([value])
    except ValueError as exc:
        raise BadValue(str(exc)) from exc
    return value


def check_name(value: object) -> str:
    """A node's name: a token of at most 64 characters."""
    text = text_of(value)
    if not text:
        raise BadValue("is empty", "the name is what the ring follows; give every node one that stays")
    if len(text) > _NAME_MAX or not _token(text):
        hint = f"letters, digits and -._ only, at most {_NAME_MAX} characters"
        raise BadValue(f"{shown(value)} cannot be a node's name", hint)
    return text


def check_host(value: object) -> str:
    """A node's address or DNS name; an IPv6 address with or without brackets."""
    text = text_of(value)
    if not text:
        raise BadValue("is empty", "write the node's address or DNS name")
    if "/" in text:
        raise BadValue(f"{shown(value)} is not a host", "write it without scheme and path")
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if _is_address(bare):
        address = ip_address(bare)
        if address.is_unspecified or address.is_multicast or bare == "255.255.255.255":
            raise BadValue(f"{shown(value)} is not the address of one host")
        return str(address)
    _, colon, port = text.rpartition(":")
    if colon and port.isdigit():
        raise BadValue(f"{shown(value)} is not a host", f"write the port by itself: http_port = {int(port[:9])}")
    labels = text.removesuffix(".").split(".")
    if len(text) > 254 or not all(map(_label, labels)) or labels[-1].isdigit():
        raise BadValue(f"{shown(value)} is neither an IP address nor a DNS name")
    return text.lower()


def check_workers(value: object) -> Literal["auto"] | int:
    """A number of processes, or "auto"."""
    if value == "auto":
        return "auto"
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadValue(f'should be "auto" or a number, not {shown(value)}')
    if not 1 <= value <= _WORKERS_MAX:
        raise BadValue(f"is {shown(value)}; it must be 1 to {_WORKERS_MAX}", 'or "auto": one per core')
    return value


def check_pseudonym(value: object) -> str:
    """The name that Via gets: host[:port] or a token; empty for the default."""
    text = text_of(value)
    if text and not _pseudonym(text):
        raise BadValue(f"{shown(value)} cannot stand in a Via field", 'write it like "cache.example.net:3128"')
    return text


def check_path(value: object) -> str:
    """A path of a file, "-" or "" ."""
    return text_of(value)


def check_mode(value: object) -> str:
    """The mode of a socket: "0600", "0660" or "0666" and the like."""
    text = text_of(value)
    if len(text) != 4 or text[0] != "0" or any(digit not in "0246" for digit in text[1:]) or text[1] != "6":
        raise BadValue(f"{shown(value)} is not the mode of a socket", 'write it like "0660"; the owner needs 6')
    return text


def check_account(value: object) -> str:
    """The name of a user or a group, or ""."""
    text = text_of(value)
    if text and not _account(text):
        raise BadValue(f"{shown(text)} is not the name of an account")
    return text


def check_host_rule(value: object) -> str:
    """A rule for hosts that are not cached."""
    return _rule(value, lambda text: BypassRules(hosts=[text]))


def check_path_rule(value: object) -> str:
    """A rule for paths that are not cached."""
    return _rule(value, lambda text: BypassRules(paths=[text]))


def check_header_rule(value: object) -> str:
    """A rule for requests with certain fields, which are not cached."""
    return _rule(value, lambda text: BypassRules(headers=[text]))


def _rule(value: object, compiled: Callable[[str], BypassRules]) -> str:
    text = text_of(value)
    try:
        compiled(text)
    except ValueError as exc:
        raise BadValue(str(exc)) from exc
    return text


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _port(text: str, value: object) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else -1
    if not 1 <= number <= 65535:
        raise BadValue(f"{shown(value)} has no valid port", "ports are 1 to 65535")
    return number
