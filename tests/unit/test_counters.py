from __future__ import annotations

import re

from cachelb.counters import (
    BLOCK_BYTES,
    END_INDEX,
    FARM,
    FARM_INDEX,
    NODE,
    NODE_INDEX,
    NODE_SLOTS,
    TABLE,
    forget_gauges,
    node_offset,
    read_farm,
    read_node,
)  # fmt: skip
from cachelb.errors import Reason


def block():
    return memoryview(bytearray(BLOCK_BYTES)).cast("Q")


def test_every_counter_is_declared_once():
    for counters in TABLE.values():
        names = [counter.name for counter in counters]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
        assert all(counter.unit and counter.text for counter in counters)


def test_every_reason_has_a_counter_of_its_own():
    assert len(set(END_INDEX.values())) == len(Reason)
    assert all(FARM[END_INDEX[reason]].name == f"ended_{reason.label}" for reason in Reason)


def test_indices_are_positions():
    assert all(FARM_INDEX[counter.name] == i for i, counter in enumerate(FARM))
    assert all(NODE_INDEX[counter.name] == i for i, counter in enumerate(NODE))


def test_nodes_do_not_overlap_and_the_last_one_fits():
    assert node_offset(0) == len(FARM)
    assert node_offset(1) - node_offset(0) == len(NODE)
    assert 8 * (node_offset(NODE_SLOTS - 1) + len(NODE)) == BLOCK_BYTES


def test_workers_are_added_up():
    one, two = block(), block()
    one[FARM_INDEX["requests"]], two[FARM_INDEX["requests"]] = 3, 4
    one[node_offset(5) + NODE_INDEX["hits"]], two[node_offset(5) + NODE_INDEX["hits"]] = 1, 2
    assert read_farm([one, two])["requests"] == 7
    assert read_node([one, two], 5)["hits"] == 3
    assert sum(read_node([one, two], 4).values()) == sum(read_node([one, two], 6).values()) == 0
    assert read_farm([]) == dict.fromkeys(FARM_INDEX, 0)


def test_what_a_dead_process_had_open_is_forgotten_and_what_it_counted_is_not():
    dead = block()
    for i in range(len(dead)):
        dead[i] = 1000 + i % 997
    before = list(dead)
    forget_gauges(dead)
    for i, counter in enumerate(FARM):
        assert dead[i] == (before[i] if counter.kind == "counter" else 0), counter.name
    for slot in (0, 1, NODE_SLOTS - 1):
        start = node_offset(slot)
        for i, counter in enumerate(NODE):
            if counter.name == "ended":
                assert dead[start + i] == before[start + NODE_INDEX["requests"]]
            else:
                assert dead[start + i] == (before[start + i] if counter.kind == "counter" else 0), counter.name
