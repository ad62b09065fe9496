"""Whose URL is it: the owners of a key, for the supervisor, exactly as the workers' relays choose them.

Nodes are named by their slots here, as everywhere in the index.

Left out: the table (``routing.table``), what a state means (``routing.route``).
"""

from __future__ import annotations

from collections.abc import Sequence

from cachelb.routing.ring import Member
from cachelb.routing.route import admission, live_owners
from cachelb.routing.table import LatestTable
from cachelb.snapshot import NodeView


class Owners:
    """The owners of keys among the nodes of the latest Snapshot; none before there is one."""

    def __init__(self, algorithm: str = "ring") -> None:
        self._algorithm = algorithm
        self._views: tuple[NodeView, ...] = ()
        self._latest = LatestTable()
        self._admits: list[float] = []

    def configure(self, algorithm: str) -> None:
        """Another algorithm from now on (``[hash] algorithm``).

        Raises:
            ValueError: As ``place``.
        """
        self._renew(algorithm, self._views)

    def place(self, views: Sequence[NodeView]) -> None:
        """These nodes from now on; the table is made anew only if names, weights or their order have changed.

        Raises:
            ValueError: They cannot make a table; nothing has changed.
        """
        self._renew(self._algorithm, tuple(views))

    def owners(self, key: bytes, count: int) -> tuple[int, ...]:
        """Slots of up to `count` nodes that the relay would try for `key` (a canonical URL) now, the first one in front."""
        table = self._latest.table
        if table is None:
            return ()
        return tuple([self._views[at].slot for at in live_owners(table, key, self._admits, count)])

    def all_owners(self, key: bytes, count: int) -> tuple[int, ...]:
        """Slots of the first `count` owners of `key` whatever their states: where the relay has sent it in quiet times."""
        table = self._latest.table
        if table is None:
            return ()
        return tuple([self._views[at].slot for at in table.owners(key, count)])

    def _renew(self, algorithm: str, views: tuple[NodeView, ...]) -> None:
        self._latest.renew(algorithm, [Member(view.name, view.weight) for view in views])
        self._algorithm = algorithm
        self._views = views
        self._admits = [admission(view.state, view.share) for view in views]
