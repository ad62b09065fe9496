"""What the supervisor knows of the farm: configured nodes, how they are, and their counters' slots.

Pure bookkeeping: it turns configuration, health and addresses into the nodes of a Snapshot.  Who probes and who resolves is
the supervisor's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachelb.counters import NODE_SLOTS
from cachelb.snapshot import NodeView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachelb.config import Config, NodeConfig
    from cachelb.nodes.health import NodeHealth


class Farm:
    """The nodes of one configuration after the other.

    A node that stays keeps its slot; a slot is given to another node only when no other is free, the longest unused first,
    so that counters of a node that was removed by mistake survive its return.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, NodeConfig] = {}
        self.slots: dict[str, int] = {}
        self._retired: dict[str, int] = {}

    def configure(self, config: Config) -> None:
        """Take over the nodes of ``config``."""
        nodes = {node.name: node for node in config.node}
        for name, slot in list(self.slots.items()):
            if name not in nodes:
                self._retired[name] = slot
                del self.slots[name]
        for name in nodes:
            if name not in self.slots:
                self.slots[name] = self._free_slot(name)
        self.nodes = nodes

    def _free_slot(self, name: str) -> int:
        if name in self._retired:
            return self._retired.pop(name)
        used = {*self.slots.values(), *self._retired.values()}
        for slot in range(NODE_SLOTS):
            if slot not in used:
                return slot
        oldest = next(iter(self._retired))
        return self._retired.pop(oldest)

    def watched(self) -> list[str]:
        """Nodes that health is asked about: all but those that the operator took down."""
        return [name for name, node in self.nodes.items() if node.state != "down"]

    def views(self, health: Mapping[str, NodeHealth], addresses: Callable[[str], tuple[str, ...]]) -> tuple[NodeView, ...]:
        """The nodes as a relay sees them, in the order of the configuration.

        Args:
            addresses: maps a node's name to its addresses; none means that it cannot be used.
        """
        views = []
        for name, node in self.nodes.items():
            state: str = node.state
            share = 1.0
            where = addresses(name)
            known = health.get(name)
            if state != "down":
                if not where or (known is not None and known.state == "dead"):
                    state, share = "dead", 0.0
                elif known is not None:
                    share = known.share
            views.append(NodeView(name, self.slots[name], where, node.http_port, float(node.weight), state, share))
        return tuple(views)
