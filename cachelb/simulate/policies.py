"""Which node a request goes to, under each policy that is compared.

    ring         cachelb's own, `[hash] algorithm = "ring"`
    carp         Squid's carp parents, and `algorithm = "carp"`
    modulo       hash of the URL modulo the number of nodes, as simple load balancers have it
    round-robin  the nodes in turn, whatever the URL

Weights and states count as in the director: ring and carp go through ``routing.route``.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import cycle
from math import lcm
from typing import NamedTuple

from cachelb.routing.ring import Member
from cachelb.routing.route import ADMIT_ALL, NodeState, admission, pick
from cachelb.routing.table import ALGORITHMS, make_table

POLICIES = (*ALGORITHMS, "modulo", "round-robin")
_TURNS_LIMIT = 10_000


class Node(NamedTuple):
    """A node as a policy sees it."""

    name: str
    weight: float = 1.0
    state: NodeState = "up"


def owner_of(policy: str, nodes: Sequence[Node]) -> Callable[[bytes], int]:
    """The function from a URL to the index of its node, -1 if none takes it; for all but round-robin.

    Raises:
        ValueError: The nodes cannot be used, or no policy has this name.
    """
    if policy == "modulo":
        return _modulo(nodes)
    table = make_table(policy, [Member(node.name, node.weight) for node in nodes])
    admits = [admission(node.state) for node in nodes]
    if all(admit == ADMIT_ALL for admit in admits):
        return table.owner

    def live_owner(key: bytes) -> int:
        live = pick(table.owners(key, len(nodes)), admits, 0.0)
        return live[0] if live else -1

    return live_owner


def owners(policy: str, nodes: Sequence[Node], urls: Iterable[bytes]) -> array[int]:
    """The owner of each URL.  Raises ValueError as ``owner_of``."""
    return array("h", map(owner_of(policy, nodes), urls))


def turns(nodes: Sequence[Node]) -> Iterator[int]:
    """Round robin for ever: each node as often as its weight says, spread evenly (as nginx does it)."""
    shares = _slots(nodes)
    total = sum(shares)
    credit = [0] * len(nodes)
    order = []
    for _ in range(total):
        credit = [have + share for have, share in zip(credit, shares, strict=True)]
        best = max(range(len(nodes)), key=credit.__getitem__)
        credit[best] -= total
        order.append(best)
    return cycle(order)


def _modulo(nodes: Sequence[Node]) -> Callable[[bytes], int]:
    """Of the same hash as the ring's, so that nothing but the policy differs."""
    slots = [index for index, count in enumerate(_slots(nodes)) for _ in range(count)]
    place = make_table("ring", [Member(node.name, node.weight) for node in nodes]).place
    if not slots:
        return lambda _key: -1
    count = len(slots)
    return lambda key: slots[place(key) % count]


def _slots(nodes: Sequence[Node]) -> list[int]:
    """The weights of the nodes that are up (if none is: of those that drain) as small whole numbers."""
    state = "up" if any(node.state == "up" and node.weight > 0 for node in nodes) else "drain"
    weights = [Fraction(node.weight if node.state == state else 0).limit_denominator(100) for node in nodes]
    scale = lcm(*(weight.denominator for weight in weights))
    counts = [int(weight * scale) for weight in weights]
    while sum(counts) > _TURNS_LIMIT:
        counts = [-(-count // 2) for count in counts]
    return counts
