"""A pool: nodes that serve something together, each with its weight there, as they are at one moment.

The farm as a whole is the pool without a name.  Tables of owners are made when they are first asked for and kept while the
members stay, so that a death moves no keys but the dead node's.

Left out: schedulers that need more than the key (schedule.py), which request goes to which pool (rules.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from cachelb.routing.ring import Member
from cachelb.routing.route import ADMIT_ALL, ADMIT_NONE, live_owners
from cachelb.routing.table import LatestTable, Table

if TYPE_CHECKING:
    from cachelb.config_policy import PoolConfig

T = TypeVar("T")

SHARE_LEAST: Final = 0.05  # of its weight that a node has at the very start of its return: it must get its first request


class Tables:
    """The tables of all pools, kept from one moment to the next."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str], LatestTable] = {}

    def get(self, pool: str, algorithm: str, members: Sequence[Member]) -> Table | None:
        """The table of a pool by an algorithm; None where it has no members.

        Raises:
            ValueError: As ``make_table``.
        """
        return self._latest.setdefault((pool, algorithm), LatestTable()).renew(algorithm, members)


class Pool(Generic[T]):
    """One pool.

    Attributes:
        name: "" for the whole farm; algorithm: that of [hash].
        members: names and weights; targets, admits: one for each member (see ``route.admission``).
        serving: indices of the members that take requests which no key decides: those that drain only where there is no other.
        weights: of each of ``serving``; slow_weights: less while it returns slowly; slow_shares: the same of a weight of 1.
    """

    __slots__ = (
        "_made", "_tables", "admits", "algorithm", "members", "name",
        "serving", "slow_shares", "slow_weights", "targets", "weights",
    )  # fmt: skip

    def __init__(
        self, name: str, algorithm: str, tables: Tables, members: Sequence[Member], targets: Sequence[T], admits: Sequence[float]
    ) -> None:
        self.name = name
        self.algorithm = algorithm
        self.members = tuple(members)
        self.targets = tuple(targets)
        self.admits = tuple(admits)
        self._tables = tables
        self._made: dict[str, Table | None] = {}
        up = [i for i, admits_ in enumerate(self.admits) if admits_ > ADMIT_NONE and self.members[i].weight]
        last = [i for i, admits_ in enumerate(self.admits) if admits_ < ADMIT_NONE and self.members[i].weight]
        self.serving = tuple(up or last)
        self.weights = [self.members[i].weight for i in self.serving]
        self.slow_shares = [max(SHARE_LEAST, abs(self.admits[i])) for i in self.serving]
        self.slow_weights = [weight * share for weight, share in zip(self.weights, self.slow_shares, strict=True)]

    def table(self, algorithm: str = "") -> Table | None:
        """Its table of owners; None where it has no members."""
        if algorithm in self._made:
            return self._made[algorithm]
        table = self._made[algorithm] = self._tables.get(self.name, algorithm or self.algorithm, self.members)
        return table

    def owner(self, key: bytes, algorithm: str = "") -> int:
        """The place of the member that owns ``key`` when all are up, if it takes all of its keys now; else -1."""
        table = self.table(algorithm)
        index = -1 if table is None else table.owner(key)
        return index if index >= 0 and self.admits[index] == ADMIT_ALL else -1

    def owners(self, key: bytes, count: int, algorithm: str = "") -> tuple[T, ...]:
        """Up to ``count`` of its targets for ``key``, in the order to try; empty where none is in service."""
        table = self.table(algorithm)
        if table is None:
            return ()
        return tuple(self.targets[i] for i in live_owners(table, key, self.admits, count))


def pool_by_name(pools: Mapping[str, str], name: str, default: str) -> str:
    """The pool for a TLS client that asks for ``name``; "": for none.  pools: by names and ".suffixes" in lower case."""
    if not pools or not name:
        return default
    host = name.rstrip(".")
    found = pools.get(host)
    host = "." + host
    while found is None and host:
        found = pools.get(host)
        dot = host.find(".", 1)
        host = host[dot:] if dot > 0 else ""
    return default if found is None else found


def make_pools(
    pools: Iterable[PoolConfig],
    algorithm: str,
    tables: Tables,
    members: Sequence[Member],
    targets: Sequence[T],
    admits: Sequence[float],
) -> dict[str, Pool[T]]:
    """All pools by name, the farm as a whole among them.  Nodes that are no members are left out.

    Args:
        algorithm: Of [hash]; members, targets, admits: of the whole farm, as ``Pool`` has them.
    """
    made = {"": Pool("", algorithm, tables, members, targets, admits)}
    places = {member.name: place for place, member in enumerate(members)}
    for pool in pools:
        chosen = [places[name] for name in pool.nodes if name in places]
        own = [Member(members[i].name, pool.weights.get(members[i].name, members[i].weight)) for i in chosen]
        made[pool.name] = Pool(pool.name, algorithm, tables, own, [targets[i] for i in chosen], [admits[i] for i in chosen])
    return made
