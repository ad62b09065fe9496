"""From a key's owners and the nodes' states to the nodes that are tried, in order.

What each state means for routing is decided here and nowhere else::

    up     takes its keys; while it returns slowly, only those whose fraction lies below its share
    drain  takes nothing while any other node can
    down   takes nothing (operator)
    dead   takes nothing (health)

Left out: sockets, retries, what else happens to a request (classify.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from cachelb.routing.table import Table

NodeState = Literal["up", "drain", "down", "dead"]

ADMIT_ALL: Final = 1.0
ADMIT_NONE: Final = 0.0
ADMIT_LAST: Final = -1.0  # a draining node: only when there is no other


class Route(NamedTuple):
    """Where a request goes.

    owners: indices of nodes, the one to try first in front; empty if the farm cannot serve it.
    why: in a few words, for the log and for `explain`.
    """

    owners: tuple[int, ...]
    why: str


def admission(state: NodeState, slow_share: float = 1.0) -> float:
    """Return what a node of this state admits, as `pick` reads it.

    Args:
        slow_share: The part of its keys that a node which is just coming back takes, 0 to 1.
    """
    if state == "up":
        # A node at the very start of its return takes no keys, but it is alive: better than a draining one.
        return min(ADMIT_ALL, max(slow_share, 1e-9))
    return ADMIT_LAST if state == "drain" else ADMIT_NONE


def pick(owners: Sequence[int], admits: Sequence[float], fraction: float) -> list[int]:
    """Return the nodes to try, in order.

    Args:
        owners: All nodes in the key's failover order.
        admits: For each node, its `admission`.
        fraction: The key's, see `Table.fraction`.

    Returns:
        Nodes that take the key; then those that are alive but still hold it off; if there is none of either, those
        that drain.  Empty if nothing is usable.
    """
    taking = [node for node in owners if admits[node] > fraction]
    if len(taking) < len(owners):
        taking += [node for node in owners if 0.0 < admits[node] <= fraction]
        if not taking:
            return [node for node in owners if admits[node] < 0.0]
    return taking


def live_owners(table: Table, key: bytes, admits: Sequence[float], count: int) -> tuple[int, ...]:
    """Return up to ``count`` nodes to try for ``key``, as `pick` would choose them from all.

    Asks the table for no more owners than it needs: with every node up that is ``count``.  16 nodes, three owners:
    1.9 us, 4 us with the first of them dead (2026-11).
    """
    fraction = table.fraction(key)
    wanted = count
    step = 0
    while True:
        owners = table.owners(key, wanted)
        taking = [node for node in owners if admits[node] > fraction]
        if len(taking) >= count:
            return tuple(taking[:count])
        if len(owners) < wanted or wanted >= len(admits):
            return tuple(pick(owners, admits, fraction)[:count])
        # One dead node is the usual case: ask for one more.  A farm mostly dead must not cost a call per node.
        step = 4 * step or count - len(taking)
        wanted = min(len(admits), wanted + step)


def likely_holders(table: Table, key: bytes, admits: Sequence[float], count: int) -> tuple[int, ...]:
    """Return up to ``count`` live nodes that may have ``key`` in their store, the likeliest first.

    That is its owner now; then all that are alive in failover order: a node that drains, or has just come back, takes no
    new requests for some of its keys, but still has the objects.
    """
    owners = live_owners(table, key, admits, 1)
    wanted = min(len(admits), count + sum(1 for admit in admits if admit < ADMIT_ALL))
    others = [node for node in table.owners(key, wanted) if admits[node] != ADMIT_NONE and node not in owners]
    return (*owners, *others)[:count]
