"""What traffic says about nodes, as the workers count it."""

from __future__ import annotations

from cachelb.counters import BLOCK_BYTES, NODE_INDEX, node_offset
from cachelb.passive import passive_totals


def test_only_what_a_node_caused_counts_against_it():
    blocks = [memoryview(bytearray(BLOCK_BYTES)).cast("Q") for _ in range(2)]
    for i, name in enumerate(NODE_INDEX):
        blocks[0][node_offset(4) + NODE_INDEX[name]] = 10**i
        blocks[1][node_offset(4) + NODE_INDEX[name]] = 2 * 10**i
        blocks[1][node_offset(3) + NODE_INDEX[name]] = 5
    weight = {name: 3 * 10**i for i, name in enumerate(NODE_INDEX)}
    assert passive_totals(blocks, 4) == (weight["connect_failures"] + weight["resets"], weight["responses"])
