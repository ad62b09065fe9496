"""The pieces of HTTP's grammar that every module here shares: tokens, values, lists, the limits of a head.

Leaves out anything that knows a field's meaning.  All patterns are possessive, so that no input makes them backtrack.

Source: RFC 9110, section 5; RFC 9112, sections 2 and 5.
"""

from __future__ import annotations

import re
from typing import Final

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
# A value may hold HTAB, visible ASCII and obs-text; never NUL, CR, LF or another control (RFC 9110, section 5.5).
VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
FIELD: Final = TOKEN + rb"++:" + VALUE + rb"\r\n"
# What the unfinished last line of a valid head may look like.
FIELD_START: Final = rb"(?:" + TOKEN + rb"++(?::" + VALUE + rb"\r?+)?|\r)?"

# Fields that a Connection option must not be able to take away: they frame, route, identify or guard the message, and
# stripping them at one hop only is an attack ("hop-by-hop abuse"), never a need (RFC 9110, section 7.6.1).
PROTECTED: Final = frozenset(
    b"host content-length content-type content-encoding content-range transfer-encoding cache-control vary date age"
    b" expires etag last-modified set-cookie location authorization proxy-authorization proxy-authenticate"
    b" www-authenticate cookie range if-range expect via x-forwarded-for max-forwards".split()
)
# Removed at every hop, listed in Connection or not (RFC 9110, section 7.6.1; Proxy-Connection: appendix C.2.2 of 9112).
HOP_BY_HOP: Final = frozenset(b"connection proxy-connection keep-alive te upgrade transfer-encoding".split())

# The largest length that fits a signed 64-bit offset, as in Squid, nginx and the kernel.
MAX_LENGTH: Final = 2**63 - 1

_ELEMENT: Final = re.compile(rb'(?:[^",]++|"(?:[^"\\]++|\\.)*(?:"|\\?\Z))+', re.DOTALL)
_LENGTH: Final = re.compile(rb"[0-9]{1,19}+")


class Limits:
    """What a head may weigh at most.

    head_bytes: first line, fields and the empty line.  64 KiB: Squid's request_header_max_size.
    url_bytes: the request target.  32 KiB: four times Squid's MAX_URL of 8 KiB, which the node then judges.
    fields: number of field lines.  256: browsers send about 20; Apache stops at 100, nginx counts bytes only.
    """

    __slots__ = ("fields", "head_bytes", "url_bytes")

    def __init__(self, head_bytes: int = 65536, url_bytes: int = 32768, fields: int = 256) -> None:
        self.head_bytes = head_bytes
        self.url_bytes = url_bytes
        self.fields = fields


def split_list(value: bytes) -> list[bytes]:
    """Split a comma-separated value into its elements, without surrounding blanks and without empty ones.

    Commas inside quoted strings do not separate.  Source: RFC 9110, section 5.6.1.
    """
    if b'"' in value:
        parts = _ELEMENT.findall(value)
    else:
        parts = value.split(b",")
    return [part for part in [part.strip(b" \t") for part in parts] if part]


def parse_length(value: bytes) -> int:
    """A Content-Length value as a number; -1 if it is anything but plain digits up to ``MAX_LENGTH``."""
    if _LENGTH.fullmatch(value) is None:
        return -1
    length = int(value)
    return length if length <= MAX_LENGTH else -1
