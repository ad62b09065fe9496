"""The usual request's first line, read byte by byte: for compiled code (see ``octets``).

Left out: all that is not usual, which ``head`` and ``url`` read, who explain refusals, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachelb.http.octets import DELETE, DOT, IN_LABEL, SLASH, SPACE

if TYPE_CHECKING:
    from mypy_extensions import i64

HOST_BYTES_MAX: Final = 255  # SQUIDHOSTNAMELEN; a DNS name has 253 at most
_VERSION: Final = b" HTTP/1.1"
UNUSUAL: Final = (b"", b"", b"", b"")


def line_parts(first: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """As ``url.usual_line``.  Never None, for which the compiled tuple would have to be an object."""
    if first.startswith(b"GET http://"):
        target: i64 = 4
    elif first.startswith(b"HEAD http://"):
        target = 5
    else:
        return UNUSUAL
    if not first.endswith(_VERSION):
        return UNUSUAL
    host: i64 = target + 7
    end: i64 = len(first) - 9
    path: i64 = host
    while path < end and first[path] != SLASH:
        path += 1
    if path >= end or not is_usual_host(first, host, path):
        return UNUSUAL
    at: i64 = path
    while at < end:
        byte: i64 = first[at]
        if byte <= SPACE or byte == DELETE:
            return UNUSUAL
        at += 1
    return b"GET" if target == 4 else b"HEAD", first[target:end], first[host:path], first[path:end]


def is_usual_host(data: bytes, begin: i64, end: i64) -> bool:
    """Whether ``data[begin:end]`` is a host name in canonical form, and for sure no address."""
    in_label = IN_LABEL
    label: i64 = begin
    at: i64 = begin
    while at < end:
        byte: i64 = data[at]
        if not in_label[byte]:
            if at == label or byte != DOT:
                return False
            label = at + 1
        at += 1
    # The last label begins with a letter: what begins with a digit may be an address.
    return at > label and at - begin <= HOST_BYTES_MAX and _is_letter(data[label])


def _is_letter(byte: i64) -> bool:
    """Whether it is a small letter."""
    return 97 <= byte <= 122
