"""What a change of the nodes, of the algorithm or of the bypass rules would move: URLs, requests and bytes, from node to node.

Only ownership is looked at: dead nodes count as up, for they will be again, and a change is not what killed them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cachelb.errors import BadRequest
from cachelb.routing.classify import Policy
from cachelb.simulate.kinds import KIND_BITS, refusal
from cachelb.simulate.policies import Node, owner_of
from cachelb.simulate.reader import Requests

AROUND = "(around the farm)"  # bypassed, refused: no node is asked
NOBODY = "(no node)"
SAMPLE_URLS = 100_000


@dataclass(frozen=True, slots=True)
class Side:
    """The farm before or after.

    name: a file or an address.  policy: which URLs go to a node; None: all do, or rather, it is not known.
    """

    name: str
    algorithm: str
    nodes: tuple[Node, ...]
    policy: Policy | None = None


class Load(NamedTuple):
    """How much of something; urls, requests, sent (bytes)."""

    urls: int = 0
    requests: int = 0
    sent: int = 0

    def plus(self, other: Load) -> Load:
        """The sum."""
        return Load(self.urls + other.urls, self.requests + other.requests, self.sent + other.sent)


@dataclass(slots=True)
class Plan:
    """What moves.

    flows: from which node to which, how much, stayers included.  least: the part of the URLs that has to move however it
    is done, by the weights.
    """

    before: Side
    after: Side
    flows: dict[tuple[str, str], Load] = field(default_factory=dict)
    least: float = 0.0

    @property
    def total(self) -> Load:
        """All there is."""
        return _sum(self.flows.values())

    @property
    def moves(self) -> list[tuple[str, str, Load]]:
        """What changes hands: from, to, how much; the most URLs first."""
        rows = [(old, new, load) for (old, new), load in self.flows.items() if old != new]
        return sorted(rows, key=lambda row: (-row[2].urls, row[0], row[1]))

    @property
    def moved(self) -> Load:
        """All that changes hands."""
        return _sum(load for _, _, load in self.moves)

    @property
    def places(self) -> list[str]:
        """All nodes of either side, and what else there is to go to."""
        names = [*(node.name for node in self.before.nodes), *(node.name for node in self.after.nodes)]
        named = {name for flow in self.flows for name in flow}
        return list(dict.fromkeys([*names, *(place for place in (AROUND, NOBODY) if place in named)]))

    def held(self, place: str, *, after: bool) -> Load:
        """What belongs to a node, before or after."""
        return _sum(load for flow, load in self.flows.items() if flow[after] == place)


def _sum(loads: Iterable[Load]) -> Load:
    total = Load()
    for load in loads:
        total = total.plus(load)
    return total


def plan(
    before: Side, after: Side, urls: Iterable[bytes], requests: Sequence[int] | None = None, sent: Sequence[int] | None = None
) -> Plan:
    """Find out what moves.

    Args:
        urls: canonical ones.  requests, sent: how often each was asked for, and the bytes that this took; None: not known.

    Raises:
        ValueError: A side's nodes cannot be used.
    """
    found = Plan(before, after, least=least(before.nodes, after.nodes))
    place_before, place_after = _place_of(before), _place_of(after)
    counts: dict[tuple[str, str], list[int]] = {}
    for number, url in enumerate(urls):
        flow = (place_before(url), place_after(url))
        count = counts.setdefault(flow, [0, 0, 0])
        count[0] += 1
        if requests is not None and sent is not None:
            count[1] += requests[number]
            count[2] += sent[number]
    found.flows = {flow: Load(*count) for flow, count in counts.items()}
    return found


def _place_of(side: Side) -> Callable[[bytes], str]:
    owner, policy = owner_of(side.algorithm, side.nodes), side.policy
    names = [*(node.name for node in side.nodes), NOBODY]  # -1: nobody

    def place(url: bytes) -> str:
        if policy is not None:
            try:
                _, reason = refusal(url, policy)
            except BadRequest:
                return AROUND
            if reason:
                return AROUND
        return names[owner(url)]

    return place


def least(before: Sequence[Node], after: Sequence[Node]) -> float:
    """The part of the URLs that must move for the new weights: what some nodes own more afterwards."""
    old, new = _shares(before), _shares(after)
    return sum(max(0.0, share - old.get(name, 0.0)) for name, share in new.items())


def _shares(nodes: Sequence[Node]) -> dict[str, float]:
    state = "up" if any(node.state == "up" and node.weight > 0 for node in nodes) else "drain"
    weights = {node.name: node.weight for node in nodes if node.state == state}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()} if total else {}


def loads(chunks: Iterable[Requests], urls: int) -> tuple[array[int], array[int]]:
    """Of each URL, how often it was asked for and the bytes that this took."""
    requests, sent = array("Q", bytes(8 * urls)), array("Q", bytes(8 * urls))
    for chunk in chunks:
        for url, word in zip(chunk.urls, chunk.words, strict=True):
            requests[url] += 1
            sent[url] += word >> KIND_BITS
    return requests, sent


def made_up_urls(count: int = SAMPLE_URLS) -> Iterator[bytes]:
    """URLs that are no one's, all alike to a hash."""
    return (b"http://www%d.example/page/%d" % (number % 997, number) for number in range(count))
