"""``Slots``: which node a slot stands for, and when it may stand for another."""

from __future__ import annotations

import pytest

from cachelb.cluster.record import GENERATION, RECENT, SLOTS
from cachelb.cluster.slots import Slots


def test_a_slot_that_was_dropped_is_used_again_only_after_the_sweep():
    slots = Slots()
    slot = slots.take(7, 0)
    assert (slots.of, slots.nodes[slot], slots.bits[slot]) == ({7: slot}, 7, 1 << 7)
    assert slots.drop(7, 100)
    assert not slots.drop(7, 100)
    assert (slots.of, slots.nodes[slot], slots.bits[slot]) == ({}, -1, 0)
    others = [slots.take(node, 0) for node in range(SLOTS - 1)]
    assert slot not in others
    assert slots.are_used_up
    slots.collect(99)
    assert slots.are_used_up
    slots.collect(100)
    assert slots.take(7, 100) == slot


@pytest.mark.parametrize("node", [-1, SLOTS])
def test_a_node_needs_a_possible_number(node: int):
    with pytest.raises(ValueError, match="node number"):
        Slots().take(node, 0)


def test_each_use_of_a_slot_is_told_from_the_others():
    slots = Slots()
    slot = slots.take(7, 3)
    before = slots.uses()
    slots.drop(7, 100)
    slots.collect(100)
    assert slots.take(8, 100) == slot
    assert (before, slots.uses()) == ({slot: (7, 3)}, {slot: (8, 100)})


def test_a_turn_changes_the_generation_of_one_node_and_back():
    slots = Slots()
    one, other = slots.take(1, 0), slots.take(2, 0)
    slots.turn(1)
    slots.turn(9)
    assert slots.stamps[one] == one | RECENT | GENERATION
    assert slots.stamps[other] == other | RECENT
    slots.turn(1)
    assert slots.stamps[one] == one | RECENT


def test_slots_that_come_with_records_are_given_to_their_nodes_or_wait():
    slots = Slots()
    slots.restore([3, 4], {4: 44, 5: 55}, 10)
    assert slots.of == {44: 4, 55: 5}
    taken = {slots.take(node, 0) for node in range(SLOTS - 3)}
    assert taken.isdisjoint({3, 4, 5})
    slots.collect(10)
    assert slots.take(100, 10) == 3
