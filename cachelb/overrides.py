"""What the operator has set on nodes while the director runs, over what the file says.

Each value lasts until the file's own value changes: who edited the file came later.  Left out: how nodes get to the workers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cachelb.config import Config, NodeConfig

FIELDS = ("state", "weight")


class Override(NamedTuple):
    """value: what was set; over: what the file said then."""

    value: Any
    over: Any


class Overrides:
    """All that is set, by name of the node and field."""

    def __init__(self) -> None:
        self._set: dict[str, dict[str, Override]] = {}

    def of(self, name: str) -> dict[str, Any]:
        """What is set on a node, by field."""
        return {field: override.value for field, override in self._set.get(name, {}).items()}

    def set(self, node: NodeConfig, **values: Any) -> None:
        """Set fields of a node, over what ``node``, the file's, says.  What the file says anyway is not remembered."""
        known = self._set.setdefault(node.name, {})
        for field, value in values.items():
            known.pop(field, None)
            if value != getattr(node, field):
                known[field] = Override(value, getattr(node, field))
        if not known:
            del self._set[node.name]

    def reset(self, name: str) -> bool:
        """Take back what was set on a node; False where nothing was."""
        return self._set.pop(name, None) is not None

    def reload(self, nodes: Iterable[NodeConfig]) -> list[tuple[str, str]]:
        """The file has been read again: drop what it overrules now; returns node and sentence for each."""
        said = []
        by_name = {node.name: node for node in nodes}
        for name, known in list(self._set.items()):
            node = by_name.get(name)
            for field, override in list(known.items()):
                now = getattr(node, field) if node is not None else None
                if now != override.over:
                    del known[field]
                    why = "it is no longer in the file" if node is None else f"the file says {now} now"
                    said.append((name, f"node {name}: {field} {override.value} by the operator is dropped: {why}"))
            if not known:
                del self._set[name]
        return said

    def told(self) -> dict[str, dict[str, list[Any]]]:
        """All of it as plain values, for ``adopt``: node, field, and what was set over what."""
        return {name: {field: list(override) for field, override in known.items()} for name, known in self._set.items()}

    def adopt(self, told: dict[str, dict[str, list[Any]]], nodes: Iterable[NodeConfig]) -> None:
        """Take over what was set on the director before, as far as the file that is read now says what it said then."""
        for name, known in told.items():
            pairs = {field: Override(*values) for field, values in known.items() if field in FIELDS and len(values) == 2}
            if pairs:
                self._set[name] = pairs
        self.reload(nodes)

    def applied(self, config: Config) -> Config:
        """The configuration as it is in force."""
        if not self._set:
            return config
        nodes = tuple(
            node.model_copy(update=self.of(node.name)) if node.name in self._set else node for node in config.node
        )
        return config.model_copy(update={"node": nodes})
