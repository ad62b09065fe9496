"""All that the relay's pure modules make of some bytes, as text; as a program, of each input on standard input.

An input is 4 bytes of length and the bytes; so is an answer.  For ``fuzz_compiled``, which asks the compiled modules so.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable

from cachelb.errors import CachelbError
from cachelb.http.caching import cacheability, is_hit
from cachelb.http.fields import request_fields
from cachelb.http.framing import ChunkScanner
from cachelb.http.freshness import held_until, stored_until
from cachelb.http.head import Limits, scan_request
from cachelb.http.response import scan_response
from cachelb.http.url import parse_absolute, usual_line
from cachelb.http.usual_answer import response_head
from cachelb.http.usual_fields import usual_fields
from cachelb.http.usual_line import line_parts
from cachelb.routing.ring import Member, Ring

LENGTH = struct.Struct(">I")
LIMITS = Limits(head_bytes=600, url_bytes=60, fields=9)
RING = Ring.build([Member(f"n{i}", 1.0) for i in range(5)])
NOW = 1_800_000_000


def outcome(function: Callable[[], object]) -> str:
    """What a function returns, or how it refuses, its words included."""
    try:
        result = function()
    except CachelbError as exc:
        return f"{type(exc).__name__} {exc}"
    if isinstance(result, bytes | str | int | tuple | list) or result is None:
        return repr(result)
    values = {name: getattr(result, name, None) for name in dir(result) if not name.startswith("_")}
    # sets have no order, and every process another one
    plain = {name: sorted(value) if isinstance(value, frozenset | set) else value for name, value in values.items()}
    return repr({name: value for name, value in plain.items() if not callable(value)})


def outcomes(data: bytes) -> str:
    """One line for each function."""
    block = data.partition(b"\r\n")[2]
    first = data.partition(b"\r\n")[0]
    scanner = ChunkScanner(100)
    return "\n".join(
        [
            outcome(lambda: scan_request(data, LIMITS)),
            outcome(lambda: scan_response(data, LIMITS)),
            outcome(lambda: request_fields(block)),
            outcome(lambda: parse_absolute(first)),
            outcome(lambda: usual_line(first)),
            outcome(lambda: (line_parts(first), response_head(data, LIMITS) is None)),
            outcome(lambda: usual_fields(block, LIMITS.fields)),
            outcome(lambda: (scanner.scan(data), scanner.done, scanner.payload_bytes)),
            outcome(lambda: (cacheability(first, data, block), is_hit(first, None), is_hit(first, block))),
            outcome(lambda: (stored_until(200, data, NOW, 3), held_until(304, data, NOW))),
            outcome(lambda: (RING.owner(first), RING.owners(data, 3))),
        ]
    )


def main() -> None:
    """Answer until standard input ends."""
    read, write = sys.stdin.buffer, sys.stdout.buffer
    while len(size := read.read(LENGTH.size)) == LENGTH.size:
        answer = outcomes(read.read(LENGTH.unpack(size)[0])).encode()
        write.write(LENGTH.pack(len(answer)) + answer)
        write.flush()


if __name__ == "__main__":
    main()
