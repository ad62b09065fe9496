"""Sets of ports, as the configuration writes them: ``[80, 443, "1025-65535"]``.

Left out: which set means what (classify.py).
"""

from __future__ import annotations

from collections.abc import Iterable

LAST_PORT = 65535


class PortSet:
    """A set of TCP ports with a test that costs one index.  Immutable."""

    __slots__ = ("_allowed", "ranges")

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self.ranges = tuple(ranges)
        allowed = bytearray(LAST_PORT + 1)
        for first, last in self.ranges:
            allowed[first : last + 1] = b"\x01" * (last - first + 1)
        self._allowed = bytes(allowed)

    @classmethod
    def parse(cls, items: Iterable[int | str]) -> PortSet:
        """Make a set from ports and "first-last" ranges.

        Raises:
            ValueError: An item is neither, or out of 1 to 65535; the message is one sentence that quotes it.
        """
        return cls([_parse_item(item) for item in items])

    def allows(self, port: int) -> bool:
        """Tell whether ``port`` is in the set.  Any integer may be asked for."""
        return 0 < port <= LAST_PORT and self._allowed[port] == 1

    def __str__(self) -> str:
        return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in self.ranges)

    def __repr__(self) -> str:
        return f"PortSet({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PortSet) and self._allowed == other._allowed

    def __hash__(self) -> int:
        return hash(self._allowed)


def _parse_item(item: int | str) -> tuple[int, int]:
    if isinstance(item, bool) or not isinstance(item, int | str):
        raise ValueError(f'{item!r} is neither a port nor a range like "1025-65535"')
    first, dash, last = str(item).strip().partition("-")
    first, last = first.strip(), last.strip()
    if not _is_number(first) or (dash and not _is_number(last)):
        raise ValueError(f'{item!r} is neither a port nor a range like "1025-65535"')
    low = int(first)
    high = int(last) if dash else low
    if not (1 <= low <= LAST_PORT and 1 <= high <= LAST_PORT):
        raise ValueError(f"{item!r} is out of range; ports are 1 to {LAST_PORT}")
    if low > high:
        raise ValueError(f"{item!r} ends before it begins")
    return low, high


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
