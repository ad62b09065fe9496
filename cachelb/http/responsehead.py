"""What an answer's head means: the values that its readers (``usual``, ``response``) find, judged and put together.

What may be stored is judged by ``caching``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachelb.http.caching import cacheability, is_hit

if TYPE_CHECKING:
    from mypy_extensions import i64

# What Squid stores without being told to (http.cc, reusableReply), and 404, cacheable by RFC 9110, section 15.1.
LEARNABLE: Final = frozenset((200, 203, 300, 301, 308, 404, 410))

NAMES: Final = (
    "chunked", "content_length", "content_type", "head", "hit", "keep_alive", "minor", "size", "squid_error",
    "status", "storable", "uncacheable", "upgrade",
)  # fmt: skip  # compiled, a class has no __slots__ to ask


class ResponseHead:
    """One answer's head and what it means.

    status: 100 to 999; below 200 it is interim.  minor: 0 or 1, as in a request.  size: bytes taken from the buffer.
    content_length: -1 where there is none.  chunked: Transfer-Encoding is chunked.
    keep_alive: as far as the head says, the connection may be used again after the body.
    upgrade: a 101 that names a protocol.
    uncacheable: b"private", b"no-store" or b"vary-star" where no shared cache may ever store such an answer, else b"".
    storable: explicitly cacheable.  Both speak of the URL, so neither is set where Squid made the answer itself.
    hit: did the node have it; None where it does not say.
    squid_error: the value of X-Squid-Error, such as b"ERR_CONNECT_FAIL 111"; None where there is none.
    content_type: b"-" where there is none, as in the access log.
    head: status line and fields to send on, without the hop-by-hop ones and without the empty line; the engine appends
        its own Via, Transfer-Encoding and Connection.
    """

    __slots__ = (
        "chunked", "content_length", "content_type", "head", "hit", "keep_alive", "minor", "size", "squid_error",
        "status", "storable", "uncacheable", "upgrade",
    )  # fmt: skip

    status: int
    minor: int
    size: int
    content_length: int
    chunked: bool
    keep_alive: bool
    upgrade: bool
    uncacheable: bytes
    storable: bool
    hit: bool | None
    squid_error: bytes | None
    content_type: bytes
    head: bytes

    def __repr__(self) -> str:
        return "ResponseHead(" + ", ".join(f"{name}={getattr(self, name)!r}" for name in NAMES) + ")"

    def judge(
        self,
        control: bytes | None,
        vary: bytes | None,
        expires: bytes | None,
        x_cache: bytes | None,
        cache_status: bytes | None,
    ) -> None:
        """Set what the values of these fields say; None where there is none.  ``status`` and ``squid_error`` must be set."""
        self.hit = None if x_cache is None and cache_status is None else is_hit(x_cache, cache_status)
        if self.status in LEARNABLE and self.squid_error is None:
            self.uncacheable, self.storable = cacheability(control, vary, expires)
        else:
            self.uncacheable, self.storable = b"", False


def kept(data: bytes, minor: i64, size: i64, line: i64, end: i64, other: i64, other_end: i64) -> bytes:
    """A head as HTTP/1.1, without its empty line and without two others, each from its begin, or -1, to its end."""
    if line > other:
        line, end, other, other_end = other, other_end, line, end
    begin: i64 = 0 if minor else 8
    if other < 0:
        lines = data[begin : size - 2]
    elif line < 0:
        lines = data[begin:other] + data[other_end : size - 2]
    else:
        lines = data[begin:line] + data[end:other] + data[other_end : size - 2]
    return lines if minor else b"HTTP/1.1" + lines
