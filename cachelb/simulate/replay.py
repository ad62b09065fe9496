"""One policy replays the trace: hits, loads, duplicates, and what adding a node does to the hit ratio.

The farm runs through the whole trace.  At the change a copy of it gets one node more, and both go on with the same requests: the
difference between the two is what the change does, whatever the traffic does at that time.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from cachelb.simulate.policies import Node, owners, turns
from cachelb.simulate.reader import Requests
from cachelb.simulate.store import FILL, SQUIDS, Limits, Stores

STEPS = 100  # points of the hit ratio over time
RECOVERED = 0.01  # so near to the farm without the change is recovered: one point
SMOOTHED = 3  # steps; one alone may be near by chance


class Requested(Protocol):
    """What a replay reads (``trace.Trace``)."""

    requests: int
    urls: int

    def chunks(self, first: int = 0, end: int | None = None) -> Iterator[Requests]:
        """The requests from `first` to before `end`."""

    def all_urls(self) -> Iterable[bytes]:
        """Every distinct URL in the order of their numbers."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is replayed.

    nodes: one at least takes requests.  size_bytes: of the store of a node of weight 1; fill: the part of it that is used.
    sample: the part of the URLs that the trace has; stores are made smaller with it.
    added: the node that comes, None: none does.  change: before which request.
    """

    nodes: tuple[Node, ...]
    size_bytes: int
    limits: Limits = SQUIDS
    added: Node | None = None
    change: int = 0
    fill: float = FILL
    sample: float = 1.0

    def capacity(self, node: Node) -> int:
        """Bytes that the node's store holds."""
        return int(self.size_bytes * node.weight * self.fill * self.sample)


@dataclass(slots=True)
class Outcome:
    """What one policy comes to.

    hits, hit_bytes, sent: of all requests, without the change.  node_*: per node, as `names`; node_urls: distinct URLs that it
    was asked for; node_objects, node_bytes: in its store at the end.  duplicates: part of the stored bytes that is on more than
    one node.  removed: objects that were pushed out.
    ends: for each step of time, the number of requests until its end; steady, changed: its hit ratio without and with the
    change (equal before it).  moved: part of the requests after the change that go to another node than they would have.
    duplicates_changed: at the end, with the change.  weights: of the nodes, 0 for those that take no requests.
    """

    policy: str
    requests: int = 0
    hits: int = 0
    sent: int = 0
    hit_bytes: int = 0
    names: list[str] = field(default_factory=list)
    node_requests: list[int] = field(default_factory=list)
    node_sent: list[int] = field(default_factory=list)
    node_urls: list[int] = field(default_factory=list)
    node_objects: list[int] = field(default_factory=list)
    node_bytes: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    duplicates: float = 0.0
    removed: int = 0
    ends: list[int] = field(default_factory=list)
    steady: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    moved: float = 0.0
    duplicates_changed: float = 0.0

    @property
    def hit_ratio(self) -> float:
        """Hits of all requests."""
        return self.hits / self.requests if self.requests else 0.0

    @property
    def byte_hit_ratio(self) -> float:
        """Bytes from the stores of all bytes."""
        return self.hit_bytes / self.sent if self.sent else 0.0

    def skew(self, loads: Sequence[int]) -> float:
        """The most loaded node against the mean, by weight: 1 is even."""
        total, weight = sum(loads), sum(self.weights)
        if not total or not weight:
            return 1.0
        return max(load / w for load, w in zip(loads, self.weights, strict=True) if w) * weight / total

    def dip(self, change: int) -> Dip | None:
        """What the change did; None without one."""
        first = next((step for step, end in enumerate(self.ends) if end > change), None)
        if first is None or not self.changed:
            return None
        losses = [old - new for old, new in zip(self.steady[first:], self.changed[first:], strict=True)]
        starts = [change, *self.ends[first:-1]]
        sizes = [end - start for start, end in zip(starts, self.ends[first:], strict=True)]
        lost = sum(loss * size for loss, size in zip(losses, sizes, strict=True) if loss > 0)
        for step in range(len(losses)):
            if max(losses[step : step + SMOOTHED]) <= RECOVERED:
                return Dip(max(losses), round(lost), starts[step] - change, True)
        return Dip(max(losses), round(lost), self.ends[-1] - change, False)


@dataclass(frozen=True, slots=True)
class Dip:
    """depth: the largest loss of hit ratio in a step.  lost: hits that became misses.

    after: requests until the loss stays within one point; recovered: False if the trace ends before.
    """

    depth: float
    lost: int
    after: int
    recovered: bool


def replay(policy: str, case: Case, trace: Requested, tell: Callable[[int], None] = lambda _count: None) -> Outcome:
    """Run one policy through the trace.

    Args:
        tell: called with the number of requests done, from time to time.

    Raises:
        ValueError: The nodes cannot be used.
    """
    run = _Run(policy, case, trace)
    found = run.outcome
    done = 0
    for step in range(STEPS):
        end = trace.requests * (step + 1) // STEPS
        if end == done:
            continue
        for first, last in _cut(done, end, case.change if case.added else 0):
            if case.added and first == case.change:
                run.begin_change(case.added)
            run.serve(first, last)
            tell(last)
        run.end_step(end)
        done = end
    run.finish()
    return found


def _cut(first: int, end: int, at: int) -> list[tuple[int, int]]:
    """[first, end), in two where `at` is within."""
    return [(first, at), (at, end)] if first < at < end else [(first, end)]


class _Run:
    def __init__(self, policy: str, case: Case, trace: Requested) -> None:
        self.policy, self.case, self.trace = policy, case, trace
        self.stores = Stores([case.capacity(node) for node in case.nodes], case.limits)
        self.after: Stores | None = None  # the copy that has been changed
        self.owners = self._owners(case.nodes)
        self.turns = turns(case.nodes)
        self.owners_after: array[int] | None = None
        self.turns_after: Iterator[int] = iter(())
        self.seen = [bytearray(trace.urls) for _ in case.nodes] if self.owners is None else []
        self.outcome = Outcome(policy, names=[node.name for node in case.nodes], weights=[_load(node) for node in case.nodes])
        self._moved = 0
        self._last = (0, 0, 0)

    def _owners(self, nodes: Sequence[Node]) -> array[int] | None:
        return None if self.policy == "round-robin" else owners(self.policy, nodes, self.trace.all_urls())

    def begin_change(self, added: Node) -> None:
        nodes = (*self.case.nodes, added)
        self.after = self.stores.with_one_more(self.case.capacity(added))
        self.after.hits = self.stores.hits
        self.owners_after = self._owners(nodes)
        self.turns_after = turns(nodes)

    def serve(self, first: int, end: int) -> None:
        """Requests from `first` to before `end`, by the farm and, after the change, by the changed one."""
        for urls, words, _ in self.trace.chunks(first, end):
            nodes = self._nodes(urls, self.owners, self.turns)
            if self.seen:
                nodes = list(nodes)
                for url, node in zip(urls, nodes, strict=True):
                    self.seen[node][url] = 1
            if self.after is not None:
                nodes = list(nodes)
                nodes_after = list(self._nodes(urls, self.owners_after, self.turns_after))
                self._moved += sum(map(int.__ne__, nodes, nodes_after))
                self.after.serve(urls, words, nodes_after)
            self.stores.serve(urls, words, nodes)

    @staticmethod
    def _nodes(urls: array[int], owned: array[int] | None, taken: Iterator[int]) -> Iterable[int]:
        return islice(taken, len(urls)) if owned is None else map(owned.__getitem__, urls)

    def end_step(self, end: int) -> None:
        done, hits, hits_after = self._last
        count = end - done
        now, now_after = self.stores.hits, self.after.hits if self.after is not None else self.stores.hits
        self.outcome.ends.append(end)
        self.outcome.steady.append((now - hits) / count)
        self.outcome.changed.append((now_after - hits_after) / count)
        self._last = (end, now, now_after)

    def finish(self) -> None:
        found, stores = self.outcome, self.stores
        found.requests = sum(stores.requests)
        found.sent = sum(stores.sent)
        found.hits, found.hit_bytes, found.removed = stores.hits, stores.hit_bytes, stores.removed
        found.node_requests, found.node_sent = stores.requests, stores.sent
        found.node_objects, found.node_bytes = stores.held(), stores.used()
        found.duplicates = stores.duplicates()
        if self.owners is not None:
            found.node_urls = [self.owners.count(node) for node in range(len(self.case.nodes))]
        else:
            found.node_urls = [sum(seen) for seen in self.seen]
        if self.after is not None:
            found.duplicates_changed = self.after.duplicates()
            found.moved = self._moved / max(1, self.trace.requests - self.case.change)
        else:
            found.changed = []


def _load(node: Node) -> float:
    return node.weight if node.state == "up" else 0.0
