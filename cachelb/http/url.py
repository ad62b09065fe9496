"""Request targets to canonical URLs: what is hashed, what the node stores under, what ICP and digests name.

The canonical form is Squid's (scheme and host in lower case, default port and trailing dots of the host dropped, empty
path "/", userinfo dropped for HTTP, path, query and even a fragment kept byte for byte), so that the director, the
nodes and their peers mean the same by a key.  Where readers could disagree about the host (several "@", a
backslash, percent signs, "127.1"), the URL is refused.

Leaves out whether a URL may be asked for: ports and addresses are judged by routing and by the engine.

Source: RFC 9112, section 3.2; RFC 3986, section 3; Squid's anyp/Uri.cc.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NoReturn

from cachelb.errors import BadRequest, Reason
from cachelb.http.octets import COMPILED
from cachelb.http.usual_line import HOST_BYTES_MAX, UNUSUAL, line_parts

# Squid's own list; 0 stands for schemes that have none.
DEFAULT_PORTS: Final = {b"http": 80, b"https": 443, b"ftp": 21, b"gopher": 70, b"wais": 210, b"whois": 43}

# The usual case, canonical already: 0.5 us against 1.3 us for the general way (2026-11).  A last label that does not
# begin with a letter may be an address and goes the general way.
_HOST: Final = rb"(?:[0-9a-z_-]++\.)*+[a-z][0-9a-z_-]*+"
_canonical: Final = re.compile(rb"http://(" + _HOST + rb")(/.*+)", re.DOTALL).fullmatch
_canonical_host: Final = re.compile(_HOST).fullmatch
# The whole first line of the usual request for such a URL: method, URL, host, path.
_usual_line: Final = re.compile(rb"(GET|HEAD) (http://(" + _HOST + rb")(/[\x21-\x7e\x80-\xff]*+)) HTTP/1\.1").fullmatch
# What `canonical` takes besides: a port that is not the default, and IPv4 addresses.  1 us against 7 us (2026-11).
_PORT: Final = rb"[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
_OCTET: Final = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_canonical_number: Final = re.compile(
    rb"http://((?:" + _OCTET + rb"\.){3}" + _OCTET + rb"|" + _HOST + rb")(?::(?!80/)(?:" + _PORT + rb"))?/.*+", re.DOTALL
).fullmatch
_absolute: Final = re.compile(rb"([A-Za-z][0-9A-Za-z+.-]*+|cache_object)://([^/?#]*+)(.*+)", re.DOTALL).fullmatch
_authority: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.]++)\]|([0-9A-Za-z._-]++))(?::([0-9]{0,5}))?").fullmatch
_number: Final = re.compile(rb"[0-9]++|0[Xx][0-9A-Fa-f]*+").fullmatch


class Url:
    """A request's URL in Squid's canonical form.

    scheme: lower case.  host: lower case, without brackets.  port: 0 where the scheme has no default and none is given.
    path: path, query and fragment; begins with "/".
    key: the canonical URL.  authority: host[:port] as a Host field has it, a default port dropped.
    userinfo: what stood before "@"; has_userinfo: something did, if only nothing (it counts as authorization).
    """

    __slots__ = ("authority", "has_userinfo", "host", "key", "path", "port", "scheme", "userinfo")

    def __init__(self, scheme: bytes, host: bytes, port: int, path: bytes, key: bytes, authority: bytes) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.path = path
        self.key = key
        self.authority = authority
        self.userinfo = b""
        self.has_userinfo = False

    @property
    def segment(self) -> bytes:
        """Authority and first path segment, ``b"www.a.com/images/"``: URLs that an origin likely treats alike.

        Made on demand: most requests never ask.
        """
        path = self.path.partition(b"?")[0].partition(b"#")[0]
        return self.authority + path[: path.find(b"/", 1) + 1 or 1]

    def __repr__(self) -> str:
        return f"Url({self.key!r})"


def parse_absolute(target: bytes) -> Url:
    """Read an absolute-form target, ``http://host[:port]/path``.

    Raises:
        BadRequest: BAD_URL.

    Source: RFC 9112, section 3.2.2.
    """
    match = _canonical(target)
    if match is not None:
        host, path = match.groups()
        if len(host) <= HOST_BYTES_MAX:
            return Url(b"http", host, 80, path, target, host)
    match = _absolute(target)
    if match is None:
        _refuse("no scheme and authority", target)
    scheme, authority, path = match.groups()
    userinfo, at, authority = authority.rpartition(b"@")
    if b"@" in userinfo or b"\\" in userinfo:
        _refuse("ambiguous userinfo", target)
    # ftp://host?x and ftp://host#x have an empty path, which is "/" (RFC 3986, section 6.2.3).
    url = _build(scheme.lower(), authority, path if path[:1] == b"/" else b"/" + path)
    if at:
        url.userinfo = userinfo
        url.has_userinfo = True
        if url.scheme not in (b"http", b"https"):
            url.key = b"%b://%b@%b%b" % (url.scheme, userinfo, url.authority, url.path)
    return url


def usual_line(first: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Method, URL, host and path of a first line, without its CRLF, that asks for a canonical URL by GET or HEAD over HTTP/1.1.

    Four times nothing for every other line.

    0.3 us, 0.8 us by the interpreter, against 3 us for ``head.scan_request`` and ``parse_absolute``, which take what this leaves
    (2026-11).
    """
    return line_parts(first) if COMPILED else _by_pattern(first)


def _by_pattern(first: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    match = _usual_line(first)
    if match is None:
        return UNUSUAL
    method, target, host, path = match.groups()
    return UNUSUAL if len(host) > HOST_BYTES_MAX else (method, target, host, path)


def canonical(target: bytes) -> bytes:
    """The canonical URL of an absolute-form target: itself, where it is that already (0.4 us instead of 0.9; 2026-11).

    Raises:
        BadRequest: BAD_URL.
    """
    match = _canonical(target) or _canonical_number(target)
    return target if match is not None and len(match[1]) <= HOST_BYTES_MAX else parse_absolute(target).key


def parse_origin(target: bytes, host: bytes) -> Url:
    """Read an origin-form target, ``/path``, for the Host field's value ``host`` (accelerator use: always http).

    Raises:
        BadRequest: BAD_URL.

    Source: RFC 9112, sections 3.2.1 and 3.3.
    """
    if target[:1] != b"/":
        _refuse("neither absolute nor a path", target)
    return _build(b"http", host, target)


def parse_authority(target: bytes) -> tuple[bytes, int]:
    """Read an authority-form target, ``host:port`` (CONNECT): host in lower case without brackets, and the port.

    Raises:
        BadRequest: BAD_URL; the port must be given.

    Source: RFC 9112, section 3.2.3.
    """
    host, port, _ = _split(target)
    if port < 0:
        _refuse("no port", target)
    return host, port


def is_authority(value: bytes) -> bool:
    """Whether ``value`` is host[:port] in the form that a Host field and an authority may have here."""
    try:
        _split(value)
    except BadRequest:
        return False
    return True


def _build(scheme: bytes, authority: bytes, path: bytes) -> Url:
    """The canonical URL of three parts that are split already."""
    host, port, shown = _split(authority)
    default = DEFAULT_PORTS.get(scheme, 0)
    if port < 0:
        port = default
    if port != default:
        shown = b"%b:%d" % (shown, port)
    return Url(scheme, host, port, path, b"%b://%b%b" % (scheme, shown, path), shown)


def _split(authority: bytes) -> tuple[bytes, int, bytes]:
    """host[:port] to (host, port or -1, host as shown in a URL: with brackets where they belong)."""
    if _canonical_host(authority) is not None and len(authority) <= HOST_BYTES_MAX:
        return authority, -1, authority
    match = _authority(authority)
    if match is None:
        _refuse("malformed host or port", authority)
    literal, name, port_text = match.groups()
    port = int(port_text) if port_text else -1
    if port == 0 or port > 65535:
        _refuse("no such port", authority)
    if literal is not None:
        try:
            address = IPv6Address(literal.decode())
        except AddressValueError:
            _refuse("malformed IPv6 address", authority)
        if address.ipv4_mapped is not None:
            # One name for one destination: Squid writes such an address as the IPv4 address that it is.
            host = str(address.ipv4_mapped).encode()
            return host, port, host
        host = address.compressed.encode()
        return host, port, b"[%b]" % host
    host = name.lower().rstrip(b".")
    if not host or host[:1] == b"." or b".." in host or len(host) > HOST_BYTES_MAX:
        _refuse("malformed host", authority)
    if _number(host.rpartition(b".")[2]) is not None:
        _check_ipv4(host, authority)
    return host, port, host


def _check_ipv4(host: bytes, authority: bytes) -> None:
    """Refuse a host that resolvers would take for an IPv4 address though it is not written as one.

    inet_aton() reads "127.1", "0x7f000001" and "010.0.0.1" as addresses, and not all readers as the same ones.
    """
    try:
        IPv4Address(host.decode())
    except AddressValueError:
        _refuse("malformed IPv4 address", authority)


def _refuse(what: str, value: bytes) -> NoReturn:
    raise BadRequest(Reason.BAD_URL, f"{what}: {value[:80]!r}")
