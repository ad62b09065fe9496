"""Lines of access logs, for the tests of ``simulate`` and ``plan``."""

from __future__ import annotations

START = 1_795_234_877


def native(
    url: str, size: int = 1000, second: int = START, tag: str = "TCP_MISS", status: int = 200, method: str = "GET"
) -> bytes:
    """A line of Squid's native format."""
    return f"{second}.123    45 10.0.0.1 {tag}/{status:03d} {size} {method} {url} - HIER_DIRECT/10.2.3.4 image/png".encode()
