"""Which node a slot stands for: the table that gives the tags of the holdings their meaning.

A node that is forgotten loses its slot, and all records with that slot mean nothing from then on.  The slot is used again
when the sweep through all buckets has come round and collected them.

Left out: the sweep itself (``holdings``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .record import GENERATION, RECENT, SLOTS


def mask_of(nodes: Iterable[int]) -> int:
    """A set of nodes as ``holds`` takes it: bit n stands for node n."""
    mask = 0
    for node in nodes:
        mask |= 1 << node
    return mask


class Slots:
    """4,096 slots for nodes, which are numbered likewise.

    of: node -> slot.  nodes: slot -> node; -1: none.  bits: slot -> the node's bit, or 0.
    stamps: slot -> the tag of a record that is made now, but for its source.
    """

    __slots__ = ("_free", "_given", "_retired", "bits", "nodes", "of", "stamps")

    def __init__(self) -> None:
        self.of: dict[int, int] = {}
        self.nodes = [-1] * SLOTS
        self.bits = [0] * SLOTS
        self.stamps = [0] * SLOTS
        self._given = [0] * SLOTS  # slot -> how far the sweep was when its node got it
        self._free = list(range(SLOTS - 1, -1, -1))
        self._retired: dict[int, int] = {}  # slot -> how far the sweep must come before it can be used again

    @property
    def are_used_up(self) -> bool:
        """Whether ``take`` would fail."""
        return not self._free

    def take(self, node: int, swept: int) -> int:
        """A free slot for a node that has none.  swept: how far the sweep is, in buckets."""
        if not 0 <= node < SLOTS:
            raise ValueError(f"node number {node}")
        slot = self._free.pop()
        self._give(slot, node, swept)
        return slot

    def drop(self, node: int, until: int) -> bool:
        """The node has no slot any more; it is used again when the sweep has come to `until`.  Whether it had one."""
        slot = self.of.pop(node, None)
        if slot is not None:
            self._retire(slot, until)
        return slot is not None

    def collect(self, swept: int) -> None:
        """The sweep has come this far: free what it has passed."""
        for slot, due in list(self._retired.items()):
            if due <= swept:
                del self._retired[slot]
                self._free.append(slot)

    def turn(self, node: int) -> None:
        """From now on the node's records are of another generation."""
        slot = self.of.get(node)
        if slot is not None:
            self.stamps[slot] ^= GENERATION

    def uses(self) -> dict[int, tuple[int, int]]:
        """Slot -> node and a number that tells this use of the slot from others."""
        return {slot: (node, self._given[slot]) for node, slot in self.of.items()}

    def restore(self, used: Iterable[int], nodes: Mapping[int, int], until: int) -> None:
        """Begin with slots that have records already: `nodes` is slot -> node, the others are nobody's."""
        taken = {*used, *nodes}
        self._free = [slot for slot in self._free if slot not in taken]
        for slot in taken:
            if slot in nodes:
                self._give(slot, nodes[slot], 0)
            else:
                self._retire(slot, until)

    def _give(self, slot: int, node: int, swept: int) -> None:
        self.of[node] = slot
        self.nodes[slot] = node
        self.bits[slot] = 1 << node
        self.stamps[slot] = slot | RECENT
        self._given[slot] = swept

    def _retire(self, slot: int, until: int) -> None:
        self.nodes[slot] = -1
        self.bits[slot] = 0
        self._retired[slot] = until
