"""Which node a client that has no template is given: by a rule's scheduler, over what the whole farm has under way.

    wlc, lc   whoever has the least under way, by weight; where that is the same, whoever has the fewest templates
    rr, wrr   in turn
    others    what the worker has found by hashing

Under way is what the workers' counters say, and what was given out since they were written.  An idle farm has nothing under way;
then by templates, for the heaviest node must not get every client of a quiet night.

Pure: time and counters are parameters.  Left out: what was chosen before (``templates``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cachelb.routing.pool import Pool, Tables, make_pools
from cachelb.routing.ring import Member
from cachelb.routing.route import ADMIT_NONE, admission
from cachelb.routing.schedule import Turns
from cachelb.routing.template import keepers

if TYPE_CHECKING:
    from cachelb.config_policy import PoolConfig
    from cachelb.snapshot import NodeView

# Workers write their counters every 0.2 s, of many nodes every second (relay.fleet); a client's first request follows at once.
RECENT_S = 0.4
RECENT_MANY_S, FEW = 1.4, 64


class Assigner:
    """Chooses among the nodes of one Snapshot.

    pools: by name; of each node its slot.
    """

    def __init__(self) -> None:
        self.pools: dict[str, Pool[int]] = {}
        self._dead: frozenset[int] = frozenset()
        self._tables = Tables()
        self._turns: dict[tuple[str, str], Turns] = {}
        self._keepers: dict[tuple[str, bool], dict[int, int]] = {}
        self._recent: deque[tuple[float, int]] = deque()
        self._given: dict[int, int] = {}
        self._recent_s = RECENT_S
        self._turn = 0

    def place(self, algorithm: str, pools: Iterable[PoolConfig], views: Sequence[NodeView]) -> None:
        """These pools and nodes, in these states."""
        members = [Member(view.name, view.weight) for view in views]
        admits = [admission(view.state, view.share) for view in views]
        self.pools = make_pools(pools, algorithm, self._tables, members, [view.slot for view in views], admits)
        self._dead = frozenset(view.slot for view in views if view.state == "dead")
        self._keepers.clear()
        self._recent_s = RECENT_S if len(views) <= FEW else RECENT_MANY_S

    def keepers(self, pool: str, expires_on_drain: bool) -> dict[int, int]:
        """See ``routing.template.keepers``."""
        found = self._keepers.get((pool, expires_on_drain))
        if found is None:
            found = self._keepers[pool, expires_on_drain] = keepers(self.pools[pool], _itself, expires_on_drain)
        return found

    def is_dead(self, slot: int) -> bool:
        """Whether health says so: not the operator, who has taken it down or out for good."""
        return slot in self._dead

    def admits(self, pool: str, slot: int) -> float:
        """What a node admits that may serve in the pool, see ``routing.route.admission``; ADMIT_NONE for all others."""
        found = self.pools[pool]
        index = found.targets.index(slot) if slot in found.targets else -1
        return found.admits[index] if index >= 0 and found.members[index].weight else ADMIT_NONE

    def choose(
        self, pool: str, scheduler: str, proposed: int, load: Callable[[int], int], templates: Mapping[int, int], now: float
    ) -> int:
        """The slot of the node for a client; -1: none is in service.

        Args:
            proposed: What the worker has found, if that is in service; -1: nothing.
            load: Requests under way, by slot; templates: of the group, by slot.
        """
        found = self.pools[pool]
        serving = found.serving
        if not serving:
            return -1
        while self._recent and self._recent[0][0] < now - self._recent_s:
            self._given[self._recent.popleft()[1]] -= 1
        if proposed >= 0 and any(found.targets[node] == proposed for node in serving):
            slot = proposed
        elif scheduler in ("rr", "wrr"):
            turns = self._turns.setdefault((pool, scheduler), Turns())
            weights = found.weights if scheduler == "wrr" else [1.0] * len(serving)
            slot = found.targets[turns.next(serving, weights)]
        else:
            weights = found.slow_shares if scheduler == "lc" else found.slow_weights
            slot = self._least_busy([found.targets[node] for node in serving], weights, load, templates)
        self._recent.append((now, slot))
        self._given[slot] = self._given.get(slot, 0) + 1
        return slot

    def _least_busy(
        self, slots: Sequence[int], weights: Sequence[float], load: Callable[[int], int], templates: Mapping[int, int]
    ) -> int:
        self._turn += 1
        size = len(slots)

        def cost(i: int) -> tuple[float, float, int]:
            slot, weight = slots[i], weights[i]
            busy = (max(0, load(slot)) + self._given.get(slot, 0)) / weight
            return busy, (templates.get(slot, 0) + 1) / weight, (i - self._turn) % size

        return slots[min(range(size), key=cost)]


def _itself(slot: int) -> int:
    return slot
