"""Schedulers that no key decides: in turn, and by how busy the nodes are.

    rr, wrr   in turn; by weight, so that a heavy node's turns are spread, not in a row
    lc, wlc   whoever has the fewest requests under way; by weight

Pure: how busy the nodes are is a parameter.  Left out: hashing (pool.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence


class Turns:
    """Nodes in turn, each as often as its weight says (stride scheduling): O(log n) for a turn."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._made_of: tuple[tuple[int, float], ...] = ()

    def next(self, serving: Sequence[int], weights: Sequence[float]) -> int:
        """The node whose turn it is.

        Args:
            serving: Those to choose from, not empty; weights: of each of them, above 0.
        """
        made_of = tuple(zip(serving, weights, strict=True))
        if made_of != self._made_of:
            self._made_of = made_of
            # As if each had just had its turn: a node of weight 1 beside one of 100 does not begin.
            self._heap = [(1.0 / weight, node) for node, weight in made_of]
            heapq.heapify(self._heap)
            self._weights = dict(made_of)
        at, node = self._heap[0]
        heapq.heapreplace(self._heap, (at + 1.0 / self._weights[node], node))
        return node


def least_busy(serving: Sequence[int], loads: Sequence[int], weights: Sequence[float], count: int, turn: int = 0) -> list[int]:
    """Up to ``count`` nodes, whoever would have the least to do with one request more in front.

    Args:
        serving: Those to choose from; loads, weights: of each of them, the requests under way and the weight, above 0.
        turn: Where to begin among equals, so that an idle farm's requests do not all go to the first.
    """
    size = len(serving)
    order = [((loads[i] + 1) / weights[i], (i - turn) % size, serving[i]) for i in range(size)]
    return [node for _, _, node in heapq.nsmallest(count, order)]
