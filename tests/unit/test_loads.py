"""How busy nodes are over all workers."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from fakes import PATIENCE_S, Peer, get
from live_director import LiveDirector, SlowNode, wait_until

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


RULES = """
[relay]
workers = 2
[[pool]]
name = "a"
nodes = ["a"]
[[rule]]
client = "127.0.1.0/24"
pool = "a"
scheduler = "rr"
[[rule]]
scheduler = "lc"
"""


@pytest.mark.slow
def test_every_worker_knows_what_the_others_have_under_way(director: Callable[..., LiveDirector], node: SlowNode):
    idle = SlowNode("127.0.0.62")
    live = director(RULES, until=None)
    live.nodes = {"a": node, "b": idle}
    live.configure(RULES)
    live.launch()
    live.wait_for("ready: ")
    clients = []
    for i in range(5):
        sock = socket.create_connection(live.http, PATIENCE_S, (f"127.0.1.{i + 1}", 0))
        clients.append(Peer(sock))
        clients[-1].send(get("http://www.test/slow"))
        assert node.waiting.acquire(timeout=PATIENCE_S)

    def ten_in_a_row() -> bool:
        return all(live.ask().startswith(b"127.0.0.62") for _ in range(10))

    wait_until(ten_in_a_row)
    wait_until(lambda: all(worker["requests"] for worker in live.status()["workers"]))
    for client in clients:
        client.close()
    idle.stop()
