"""How busy nodes are over all workers."""

from __future__ import annotations

from cachelb import control
from cachelb.config import parse
from cachelb.counters import BLOCK_BYTES, NODE_INDEX, node_offset
from cachelb.loads import are_wanted, elsewhere

NODE = '[[node]]\nname = "a"\nhost = "10.0.0.1"\n'


def block_with(under_way: dict[int, int]) -> memoryview:
    block = memoryview(bytearray(BLOCK_BYTES)).cast("Q")
    for slot, count in under_way.items():
        block[node_offset(slot) + NODE_INDEX["requests"]] = 100 + count
        block[node_offset(slot) + NODE_INDEX["ended"]] = 100
    return block


def test_each_worker_is_told_what_the_others_have():
    blocks = [block_with({0: 3, 1: 1}), block_with({0: 2}), block_with({2: 7})]
    assert elsewhere(blocks, [0, 1, 2]) == [{0: 2, 2: 7}, {0: 3, 1: 1, 2: 7}, {0: 5, 1: 1}]


def test_a_block_that_is_being_written_tells_nothing_below_zero():
    torn = block_with({})
    torn[node_offset(0) + NODE_INDEX["ended"]] = 105
    assert elsewhere([torn, block_with({0: 2})], [0]) == [{0: 2}, {}]


def test_loads_survive_the_way_to_a_worker():
    loads = {0: 1, 2047: 4_000_000_000}
    assert control.unpack_loads(control.pack_loads(loads)) == loads
    assert control.unpack_loads(b"") == {}


def test_they_are_wanted_where_something_asks_for_them():
    assert not are_wanted(parse(NODE + '[[rule]]\nscheduler = "rr"\n', "c"))
    assert are_wanted(parse(NODE + '[[rule]]\nscheduler = "wlc"\n', "c"))
    assert are_wanted(parse(NODE + '[[affinity]]\nname = "g"\n[[rule]]\naffinity = "g"\n', "c"))
    assert are_wanted(parse(NODE + '[[tcp]]\nname = "ftp"\nlisten = "127.0.0.1:21"\n', "c"))
