from __future__ import annotations

import array
import re

from cachelb.counters import (
    BLOCK_BYTES,
    BUCKETS,
    END_INDEX,
    FARM,
    FARM_INDEX,
    FIRST_BYTE_TIME,
    NODE,
    NODE_INDEX,
    NODE_SLOTS,
    NODE_WIDTH,
    ROW_WIDTH,
    TABLE,
    TOTAL_TIME,
    WHOLE_TIME,
    WORST,
    failures_and_answers,
    forget_gauges,
    node_offset,
    node_values,
    note_time,
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
    assert node_offset(1) - node_offset(0) == ROW_WIDTH
    assert 8 * (node_offset(NODE_SLOTS - 1) + ROW_WIDTH) == BLOCK_BYTES


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


def test_of_some_gauges_the_worst_worker_counts():
    one, two = block(), block()
    for name in WORST:
        one[FARM_INDEX[name]], two[FARM_INDEX[name]] = 3, 4
        assert read_farm([one, two])[name] == 4
    assert {FARM[FARM_INDEX[name]].kind for name in WORST} == {"gauge"}


def test_a_time_is_in_the_bucket_of_its_length_and_in_the_sum():
    counts = [0] * NODE_WIDTH
    for seconds in (0.0, 1e-6, 3e-6, 4e-6, 1.0, 1e9):
        note_time(counts, TOTAL_TIME, seconds)
    found = {bucket: count for bucket, count in enumerate(counts[TOTAL_TIME : TOTAL_TIME + BUCKETS]) if count}
    assert found == {0: 1, 1: 1, 2: 1, 3: 1, 20: 1, BUCKETS - 1: 1}
    assert counts[TOTAL_TIME + BUCKETS] == 10**15 + 10**6 + 8
    assert sum(counts[:TOTAL_TIME]) == 0


def test_histograms_fill_what_is_behind_the_counters():
    assert TOTAL_TIME + BUCKETS == NODE_WIDTH - 1
    assert WHOLE_TIME + BUCKETS == ROW_WIDTH - 1
    one = block()
    one[node_offset(0) + NODE_WIDTH - 1] = 7
    assert node_values([one, one], 0)[-1] == 14
    assert node_values([], 0) == [0] * NODE_WIDTH


def test_the_time_of_a_whole_answer_is_in_both_histograms():
    counts = [0] * ROW_WIDTH
    note_time(counts, WHOLE_TIME, 3e-6)
    note_time(counts, FIRST_BYTE_TIME, 4e-6)
    note_time(counts, TOTAL_TIME, 1.0)
    one = block()
    one[node_offset(2) : node_offset(3)] = memoryview(array.array("Q", counts))
    values = node_values([one], 2)
    assert len(values) == NODE_WIDTH
    for histogram, us in ((FIRST_BYTE_TIME, 4), (TOTAL_TIME, 1_000_000)):
        found = {bucket: count for bucket, count in enumerate(values[histogram : histogram + BUCKETS]) if count}
        assert found == {2: 1, us.bit_length(): 1}
        assert values[histogram + BUCKETS] == 3 + us


def test_only_what_a_node_caused_counts_against_it():
    blocks = [memoryview(bytearray(BLOCK_BYTES)).cast("Q") for _ in range(2)]
    for i, name in enumerate(NODE_INDEX):
        blocks[0][node_offset(4) + NODE_INDEX[name]] = 10**i
        blocks[1][node_offset(4) + NODE_INDEX[name]] = 2 * 10**i
        blocks[1][node_offset(3) + NODE_INDEX[name]] = 5
    weight = {name: 3 * 10**i for i, name in enumerate(NODE_INDEX)}
    assert failures_and_answers(blocks, 4) == (weight["connect_failures"] + weight["resets"], weight["responses"])
