"""What a relay runs on: one immutable value, replaced whole.

The supervisor makes a Snapshot whenever a node, its state or the configuration changes, and sends it to every worker as one
byte string.  Requests that began under an older Snapshot finish under it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

from cachelb.errors import CachelbError
from cachelb.routing.route import NodeState


class BadSnapshot(CachelbError):
    """The bytes are not a Snapshot; the one in force stays in force."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as the relay sees it.

    name: the identity that the ring follows; slot: where its counters are.
    addresses: IP literals in the order to try, never empty for a usable node; port: its HTTP port.
    weight: its share of the ring relative to the others; state: up, drain, down or dead.
    share: the part of its own keys that it takes, 0 to 1: below 1 while it returns slowly.
    icp_port: where it answers ICP; 0: it does not.
    send_proxy: the version of the PROXY protocol that its HTTP port expects, "v1" or "v2"; "": none.
    """

    name: str
    slot: int
    addresses: tuple[str, ...]
    port: int
    weight: float
    state: NodeState
    share: float = 1.0
    icp_port: int = 0
    send_proxy: str = ""


_NODE_FIELDS = [field.name for field in fields(NodeView)]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Nodes and policy at one moment.

    epoch: grows by one with every Snapshot; settings: the configuration as JSON (``Config.model_dump_json``).
    secret: what cookies are sealed with; "" where there are none.
    """

    epoch: int
    settings: str
    nodes: tuple[NodeView, ...]
    secret: str = ""

    def pack(self) -> bytes:
        """The Snapshot as bytes that ``unpack`` reads."""
        # dataclasses.asdict copies each value and takes five times as long: 13 ms instead of 2.6 for 1,000 nodes (2026-11)
        nodes = [{name: getattr(node, name) for name in _NODE_FIELDS} for node in self.nodes]
        return json.dumps({"epoch": self.epoch, "settings": self.settings, "nodes": nodes, "secret": self.secret}).encode()

    @classmethod
    def unpack(cls, blob: bytes) -> Snapshot:
        """Read what ``pack`` wrote.

        Raises:
            BadSnapshot: The bytes are truncated, or not of this shape.
        """
        try:
            value = json.loads(blob)
            nodes = tuple(NodeView(**{**node, "addresses": tuple(node["addresses"])}) for node in value["nodes"])
            return cls(int(value["epoch"]), str(value["settings"]), nodes, str(value["secret"]))
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise BadSnapshot(f"not a snapshot: {exc}") from exc
