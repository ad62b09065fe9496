"""Whose URL is it: the owners of a key, for the supervisor, exactly as the workers' relays choose them.

Peers, the index and purges know the URL alone, as its canonical form or as its key (``RuleSet.keyed``).  The rule that counts is
the first that asks for nothing else.

Nodes are named by their slots here, as everywhere in the index.

Left out: the table (``routing.table``), what a state means (``routing.route``), what a rule takes (``routing.rules``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cachelb.errors import BadRequest
from cachelb.http.url import Url, parse_absolute
from cachelb.routing.pool import Pool, Tables, make_pools
from cachelb.routing.ring import Member
from cachelb.routing.route import admission
from cachelb.routing.rules import NO_RULES, Rule, RuleSet
from cachelb.snapshot import NodeView

if TYPE_CHECKING:
    from cachelb.config_policy import PoolConfig


class Owners:
    """The owners of keys among the nodes of the latest Snapshot; none before there is one."""

    def __init__(self, algorithm: str = "ring") -> None:
        self._algorithm = algorithm
        self._configured: Sequence[PoolConfig] = ()
        self._rules = NO_RULES
        self._views: tuple[NodeView, ...] = ()
        self._tables = Tables()
        self._pools: dict[str, Pool[int]] = {}

    def configure(self, algorithm: str, pools: Sequence[PoolConfig] = (), rules: RuleSet = NO_RULES) -> None:
        """Another algorithm (``[hash] algorithm``), other pools and rules from now on.

        Raises:
            ValueError: As ``place``.
        """
        self._renew(algorithm, pools, self._views)
        self._rules = rules

    def place(self, views: Sequence[NodeView]) -> None:
        """These nodes from now on; a table is made anew only if names, weights or their order have changed.

        Raises:
            ValueError: They cannot make a table; nothing has changed.
        """
        self._renew(self._algorithm, self._configured, tuple(views))

    def owners(self, key: bytes, count: int) -> tuple[int, ...]:
        """Slots of up to `count` nodes that the relay would try for `key` (a canonical URL) now, the first one in front.

        Empty also where its rule does not go by the key, or does not send it to a node.
        """
        url, rule = self._of_key(key)
        if rule is None:
            return self._pools[""].owners(key, count) if self._pools else ()
        action = rule.action
        if not action.is_hashed or action.refuse or action.bypass or action.pool not in self._pools:
            return ()
        return self._pools[action.pool].owners(_hashed(key, url, rule), count, action.algorithm)

    def may_have(self, key: bytes, count: int) -> tuple[int, ...]:
        """Slots of all nodes to which the relay sends `key` now, or has in quiet times.

        Each owner stands with the `count` - 1 after it.  Where a rule does not go by the key, its whole pool may.
        """
        if not self._pools:
            return ()
        url, rule = self._of_key(key)
        slots: dict[int, None] = {}
        rules: Sequence[Rule] = () if url is None else self._rules.candidates(b"GET", url.scheme, url.host, url.port, url.path)
        for each in rules:
            action = each.action
            pool = self._pools.get(action.pool)
            if pool is None or action.refuse or action.bypass:
                continue
            if action.is_hashed:
                slots |= dict.fromkeys(_both(pool, _hashed(key, url, each), count, action.algorithm))
            else:
                slots |= dict.fromkeys(pool.targets)
        if rule is None:
            slots |= dict.fromkeys(_both(self._pools[""], key, count, ""))
        return tuple(slots)

    def _of_key(self, key: bytes) -> tuple[Url | None, Rule | None]:
        if self._rules is NO_RULES:
            return None, None
        try:
            url = parse_absolute(key)
        except BadRequest:
            return None, None
        return url, self._rules.of_url(url)

    def _renew(self, algorithm: str, pools: Sequence[PoolConfig], views: tuple[NodeView, ...]) -> None:
        members = [Member(view.name, view.weight) for view in views]
        admits = [admission(view.state, view.share) for view in views]
        made = make_pools(pools, algorithm, self._tables, members, [view.slot for view in views], admits)
        made[""].table()  # which may raise, and then nothing has changed
        self._pools = made
        self._algorithm = algorithm
        self._configured = pools
        self._views = views


def _hashed(key: bytes, url: Url | None, rule: Rule) -> bytes:
    return url.host if url is not None and rule.action.scheduler == "host" else key


def _both(pool: Pool[int], key: bytes, count: int, algorithm: str) -> list[int]:
    """The owners of quiet times, then those of now."""
    table = pool.table(algorithm)
    if table is None:
        return []
    return [*(pool.targets[at] for at in table.owners(key, count)), *pool.owners(key, count, algorithm)]
