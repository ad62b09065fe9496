"""Single values of the configuration: what a text must look like to be an address, a network, a name or a rule.

Every function takes what TOML gave (of any type), returns the value in its one form, and raises BadValue, whose message
is half a sentence that quotes the text and whose ``hint`` says what to write instead.

Left out: the schema (config.py), rules between values (config_rules.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal, NamedTuple

from cachelb.routing.classify import BypassRules
from cachelb.routing.globs import checked
from cachelb.routing.patterns import check_expression
from cachelb.routing.ports import PortSet

_SHOWN = 60  # characters of a value that a message quotes
_NAME_MAX = 64  # of a node; it is in every line of the access log
_WORKERS_MAX = 1024  # processes; no machine that this is for has more cores
_PORTS_MAX = 1024  # of a range: each is a socket in every worker
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "PURGE"))

_token = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII).fullmatch
_pseudonym = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z\[\]:-]{1,255}", re.ASCII).fullmatch  # RFC 9110, section 7.6.3
_account = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,31}", re.ASCII | re.IGNORECASE).fullmatch
_label = re.compile(r"[0-9a-z_](?:[0-9a-z_-]{0,61}[0-9a-z_])?", re.ASCII | re.IGNORECASE).fullmatch
_control = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]").search


class Address(NamedTuple):
    """An IP address without brackets, and a port.  As text: "address:port", with brackets for IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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
        hint = '"[::]:3128"' if ":" in text else f'"{text}:3128"' if is_address(text) else '"127.0.0.1:3128"'
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


def parse_server(value: object) -> str:
    """A name server: "address" or "address:port" (53 if not given)."""
    text = text_of(value)
    if is_address(text):
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
        raise BadValue(f"{shown(value)} cannot be a name", hint)
    return text


def check_host(value: object) -> str:
    """A node's address or DNS name; an IPv6 address with or without brackets."""
    text = text_of(value)
    if not text:
        raise BadValue("is empty", "write the node's address or DNS name")
    if "/" in text:
        raise BadValue(f"{shown(value)} is not a host", "write it without scheme and path")
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if is_address(bare):
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


def check_query_rule(value: object) -> str:
    """A pattern for a query or for the name of a parameter in one."""
    return _rule(value, lambda text: checked(text, "query"))


def check_header_rule(value: object) -> str:
    """A rule for requests with certain fields, which are not cached."""
    return _rule(value, lambda text: BypassRules(headers=[text]))


def check_label(value: object) -> str:
    """The name of something that is configured elsewhere, or "" for none."""
    return check_name(value) if text_of(value) else ""


def check_regex(value: object) -> str:
    """A regular expression in RE2's syntax, which takes linear time."""
    text = text_of(value)
    if problem := check_expression(text):
        hint = "RE2 has no look-around and no back-references"
        raise BadValue(f"{shown(value)} is not a regular expression of RE2: {problem}", hint)
    return text


def check_methods(value: object) -> tuple[str, ...]:
    """Request methods, which are tokens; case matters (RFC 9110, section 9.1)."""
    methods = tuple(text_of(item) for item in as_list(value))
    for method in methods:
        if not _token(method):
            raise BadValue(f"{shown(method)} is not a method", 'write it like "GET"')
        if method != method.upper() and method.upper() in _METHODS:
            raise BadValue(f"{shown(method)} matches nothing: the case of methods matters", f'write "{method.upper()}"')
    return methods


def check_cookie_name(value: object) -> str:
    """The name of a cookie: a token (RFC 6265, section 4.1.1)."""
    text = text_of(value)
    if len(text) > _NAME_MAX or not _token(text):
        raise BadValue(f"{shown(value)} cannot be the name of a cookie", f"a token of at most {_NAME_MAX} characters")
    return text


def check_domain(value: object) -> str:
    """A domain, or "" for none."""
    text = text_of(value)
    return check_host(text.removeprefix(".")) if text else ""


def check_cookie_path(value: object) -> str:
    """The path of a cookie."""
    text = text_of(value)
    if not text.startswith("/") or ";" in text or not text.isascii():
        raise BadValue(f"{shown(value)} cannot be the path of a cookie", 'write it like "/"')
    return text


def check_listen(value: object) -> tuple[str, ...]:
    """Where a TCP service listens: "address:port" or "address:first-last", one or several."""
    places = as_list(value)
    if not places:
        raise BadValue("is empty: the service must listen somewhere", 'as "0.0.0.0:21"')
    return tuple(str(parse_listen(place)) for place in places)


class PortRange(NamedTuple):
    """An IP address without brackets, and its ports from first to last.  As text as it was written."""

    host: str
    first: int
    last: int

    def __str__(self) -> str:
        start = str(Address(self.host, self.first))
        return start if self.first == self.last else f"{start}-{self.last}"

    @property
    def addresses(self) -> list[Address]:
        """One for each port."""
        return [Address(self.host, port) for port in range(self.first, self.last + 1)]


def parse_listen(value: object) -> PortRange:
    """An address with a port or a range of at most 1,024 ports: "0.0.0.0:50000-50099"."""
    text = text_of(value)
    start, dash, last = text.rpartition("-")
    address = parse_address(start if dash else text)
    end = _port(last, value) if dash else address.port
    if not address.port <= end < address.port + _PORTS_MAX:
        raise BadValue(f"{shown(value)} is not a range of 1 to {_PORTS_MAX} ports", 'write it like "0.0.0.0:50000-50099"')
    return PortRange(address.host, address.port, end)


def _rule(value: object, compiled: Callable[[str], object]) -> str:
    text = text_of(value)
    try:
        compiled(text)
    except ValueError as exc:
        raise BadValue(str(exc)) from exc
    return text


def overlap(one: str, other: str) -> bool:
    """Whether one of two addresses that are listened on includes the other."""
    if one == other:
        return True
    return (":" in one) == (":" in other) and (ip_address(one).is_unspecified or ip_address(other).is_unspecified)


def is_address(text: str) -> bool:
    """Whether a text is an IP address, without a zone."""
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
