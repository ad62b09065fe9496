"""What the supervisor knows of the farm: configured nodes, how they are, and their counters' slots.

Pure bookkeeping: it turns configuration, health and addresses into the nodes of a Snapshot.  Who probes and who resolves is
the supervisor's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachelb.counters import NODE_SLOTS
from cachelb.nodes.health import HealthPolicy
from cachelb.nodes.names import literal
from cachelb.nodes.probes import Place
from cachelb.routing.route import NodeState
from cachelb.snapshot import NodeView
from cachelb.wire.proxy_protocol import own_header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cachelb.config import Config, NodeConfig
    from cachelb.nodes.health import NodeHealth


class Farm:
    """The nodes of one configuration after the other.

    A node that stays keeps its slot; a slot is given to another node only when no other is free, the longest unused
    first, so that counters of a node that was removed by mistake survive its return.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, NodeConfig] = {}
        self.addresses: dict[str, tuple[str, ...]] = {}
        self.slots: dict[str, int] = {}
        self._retired: dict[str, int] = {}

    def configure(self, config: Config) -> None:
        """Take over the nodes of ``config``."""
        nodes = {node.name: node for node in config.node}
        for name, slot in list(self.slots.items()):
            if name not in nodes:
                self._retired[name] = slot
                del self.slots[name]
        addresses = {}
        for name, node in nodes.items():
            if name not in self.slots:
                self.slots[name] = self._free_slot(name)
            old = self.nodes.get(name)
            # A new host by name keeps no address of the old one: it has none until it is resolved.
            known = self.addresses[name] if old is not None and old.host == node.host else ()
            addresses[name] = tuple(literal(node.host) or known)
        self.nodes, self.addresses = nodes, addresses

    def adopt(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """Take over from another director where nodes are that are not resolved yet."""
        for name, known in addresses.items():
            if name in self.addresses and not self.addresses[name]:
                self.addresses[name] = tuple(known)

    def _free_slot(self, name: str) -> int:
        if name in self._retired:
            return self._retired.pop(name)
        used = {*self.slots.values(), *self._retired.values()}
        for slot in range(NODE_SLOTS):
            if slot not in used:
                return slot
        oldest = next(iter(self._retired))
        return self._retired.pop(oldest)

    def names_to_resolve(self) -> dict[str, str]:
        """Nodes that are given by a DNS name: node name -> host."""
        return {name: node.host for name, node in self.nodes.items() if literal(node.host) is None}

    def watched(self) -> list[str]:
        """Nodes that health is asked about: all but those that the operator took down."""
        return [name for name, node in self.nodes.items() if node.state != "down"]

    def probe_targets(self) -> dict[str, Place]:
        """Where the watched nodes are probed, and how."""
        places = {}
        for name in self.watched():
            node = self.nodes[name]
            first = b"" if node.probe_port else own_header(node.send_proxy)
            places[name] = Place(self.addresses[name], node.probe_port or node.http_port, node.probe == "connect", first)
        return places

    def views(self, health: Mapping[str, NodeHealth]) -> tuple[NodeView, ...]:
        """The nodes as a relay sees them, in the order of the configuration.  One without an address is dead."""
        views = []
        for name, node in self.nodes.items():
            state: NodeState = node.state
            share = 1.0
            where = self.addresses[name]
            known = health.get(name)
            if state != "down":
                if not where or (known is not None and known.state == "dead"):
                    state, share = "dead", 0.0
                elif known is not None:
                    share = known.share
            icp_port = node.icp_port if node.probe == "http" else 0  # who speaks no HTTP is no cache
            place = (self.slots[name], where, node.http_port)
            views.append(NodeView(name, *place, float(node.weight), state, share, icp_port, node.send_proxy))
        return tuple(views)


def health_policy(config: Config) -> HealthPolicy:
    """The ``[health]`` section as the health machine takes it."""
    return HealthPolicy(**{name: getattr(config.health, name) for name in HealthPolicy._fields})
