"""The one place that knows which hash algorithms there are.

Left out: the algorithms themselves (ring.py, carp.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from cachelb.routing.carp import Carp
from cachelb.routing.ring import Member, Ring


class Table(Protocol):
    """What maps keys to nodes.  Indices are those of the members it was built from."""

    def owner(self, key: bytes) -> int:
        """Return the member that owns ``key``; -1 if no member has a weight."""

    def owners(self, key: bytes, count: int) -> list[int]:
        """Return up to ``count`` distinct members in failover order."""

    def fraction(self, key: bytes) -> float:
        """Return a number in [0, 1) that depends on the key only and is independent of its owner."""

    def place(self, key: bytes) -> int:
        """Return the key's 32-bit hash, for people to compare."""

    def digest(self) -> str:
        """Return a short fingerprint; equal for tables that agree on every key."""

    def shares(self) -> list[float]:
        """Return the part of the key space that each member owns."""


ALGORITHMS: Final[dict[str, type[Ring] | type[Carp]]] = {"ring": Ring, "carp": Carp}


def make_table(algorithm: str, members: Sequence[Member]) -> Table:
    """Build the table of ``members`` by the name of its algorithm.

    Raises:
        ValueError: The algorithm is unknown, or the members cannot be used (see the algorithm's ``build``).
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {algorithm!r}; there are {', '.join(ALGORITHMS)}")
    return ALGORITHMS[algorithm].build(members)


class LatestTable:
    """The table of the latest members: made anew only when the algorithm, or a member's name, weight or place changes."""

    def __init__(self) -> None:
        self.table: Table | None = None
        self._made_of: tuple[str, tuple[Member, ...]] | None = None

    def renew(self, algorithm: str, members: Sequence[Member]) -> Table | None:
        """The table of ``members``; None if there are none.

        Raises:
            ValueError: As ``make_table``; nothing has changed.
        """
        made_of = (algorithm, tuple(members))
        if made_of != self._made_of:
            self.table = make_table(algorithm, members) if members else None
            self._made_of = made_of
        return self.table
