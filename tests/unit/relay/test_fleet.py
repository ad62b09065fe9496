from __future__ import annotations

import socket

import pytest

from cachelb.config import Config
from cachelb.counters import BLOCK_BYTES, NODE_INDEX, node_offset, read_node
from cachelb.relay.fleet import Fleet
from cachelb.relay.upstream import Link
from cachelb.snapshot import NodeView, Snapshot

CONFIG = Config()


def view(name, slot=0, addresses=("127.0.0.1",), port=3128, weight=1.0, state="up", share=1.0):
    return NodeView(name, slot, tuple(addresses), port, weight, state, share)


def place(fleet, *views, config=CONFIG):
    return {target.name for target in fleet.place(Snapshot(1, "", tuple(views)), config)}


@pytest.fixture
def fleet():
    return Fleet(memoryview(bytearray(BLOCK_BYTES)).cast("Q"))


@pytest.fixture
def make_idle(loop):
    """Puts an idle connection into a target."""
    sockets = []

    def make(target):
        sockets.extend(socket.socketpair())
        sockets[-2].setblocking(False)
        link = Link(loop, sockets[-2], target, target.addresses[0])
        target.keep(link, 0.0)
        return link

    yield make
    for sock in sockets:
        sock.close()


def test_nodes_keep_their_order_and_their_targets(fleet):
    place(fleet, view("b", 1), view("a", 0))
    first = fleet.targets
    assert [target.name for target in first] == ["b", "a"]
    place(fleet, view("a", 0), view("b", 1), view("c", 2))
    assert fleet.targets[:2] == [first[1], first[0]]
    assert fleet.admits == [1.0, 1.0, 1.0]


def test_who_has_just_died_is_told_once(fleet, make_idle):
    place(fleet, view("a", 0), view("b", 1))
    link = make_idle(fleet.targets[0])
    assert place(fleet, view("a", 0, state="dead", share=0.0), view("b", 1)) == {"a"}
    assert link.closed
    assert fleet.admits == [0.0, 1.0]
    assert place(fleet, view("a", 0, state="dead", share=0.0), view("b", 1)) == set()


def test_a_node_that_goes_closes_its_connections_and_keeps_no_more(fleet, make_idle):
    place(fleet, view("a", 0))
    gone = fleet.targets[0]
    idle = make_idle(gone)
    place(fleet, view("b", 1))
    assert idle.closed
    assert make_idle(gone).closed


@pytest.mark.parametrize(
    "after", [view("a", addresses=["127.0.0.2"]), view("a", port=3129), view("a", addresses=["127.0.0.2", "127.0.0.3"])]
)
def test_a_node_that_moves_keeps_its_counters_but_no_connection(fleet, make_idle, after):
    place(fleet, view("a"))
    before = fleet.targets[0]
    idle = make_idle(before)
    before.counts[0] = 7
    place(fleet, after)
    now = fleet.targets[0]
    assert (now.addresses, now.port) == (after.addresses, after.port)
    assert idle.closed
    assert make_idle(before).closed
    before.counts[0] += 1
    assert now.counts[0] == 8


def test_one_address_more_or_another_order_is_no_move(fleet, make_idle):
    place(fleet, view("a", addresses=["127.0.0.1", "127.0.0.2"]))
    idle = make_idle(fleet.targets[0])
    place(fleet, view("a", addresses=["127.0.0.3", "127.0.0.2", "127.0.0.1"]))
    assert fleet.targets[0].addresses == ("127.0.0.3", "127.0.0.2", "127.0.0.1")
    assert not idle.closed
    idle.shut()


def test_one_that_dies_as_it_moves_is_told_in_both_shapes(fleet):
    place(fleet, view("a"))
    before = fleet.targets[0]
    died = fleet.place(Snapshot(2, "", (view("a", addresses=(), state="dead"),)), CONFIG)
    assert died == {before, fleet.targets[0]}


def test_the_table_is_made_anew_only_when_it_must(fleet):
    place(fleet, view("a", 0), view("b", 1))
    table = fleet.table
    place(fleet, view("a", 0, state="dead"), view("b", 1, addresses=["127.0.0.9"]))
    assert fleet.table is table
    place(fleet, view("a", 0, weight=2.0), view("b", 1))
    assert fleet.table is not table


def test_without_nodes_there_is_no_table(fleet):
    place(fleet)
    assert fleet.table is None
    assert fleet.spread() == ()


@pytest.mark.parametrize("views", [(view("a"), view("a", 1)), (view("a", weight=-1.0),)])
def test_nodes_that_make_no_table_change_nothing(fleet, views):
    place(fleet, view("z"))
    target, table = fleet.targets[0], fleet.table
    with pytest.raises(ValueError, match=r"name|weight"):
        place(fleet, *views)
    assert (fleet.targets, fleet.table) == ([target], table)
    assert target.idle_max


def test_requests_are_spread_in_turn_over_those_in_service(fleet):
    place(fleet, *(view(f"n{i}", i, state="dead" if i == 1 else "drain" if i == 2 else "up") for i in range(5)))
    first = [fleet.spread()[0].name for _ in range(6)]
    assert sorted(set(first)) == ["n0", "n3", "n4"]
    assert first[:3] == first[3:]


def test_a_node_without_a_weight_gets_none_of_them(fleet):
    place(fleet, view("a", 0), view("ftp", 1, weight=0.0))
    assert {fleet.spread()[0].name for _ in range(4)} == {"a"}


def test_those_that_drain_serve_when_nobody_else_does(fleet):
    place(fleet, view("a", 0, state="drain"), view("b", 1, state="dead"))
    assert [target.name for target in fleet.spread()] == ["a"]


def test_counters_are_written_to_the_nodes_place_in_the_block(fleet, make_idle):
    place(fleet, view("a", 3))
    fleet.targets[0].counts[NODE_INDEX["requests"]] = 42
    link = make_idle(fleet.targets[0])
    fleet.write_counters()
    start = node_offset(3)
    assert fleet.block[start + NODE_INDEX["requests"]] == 42
    assert fleet.block[start + NODE_INDEX["idle"]] == 1
    fleet.close()
    assert link.closed


def test_requests_that_are_at_a_node_when_it_is_removed_are_seen_to_end(fleet, make_idle):
    place(fleet, view("a", 3), view("b", 4))
    removed = fleet.targets[0]
    make_idle(removed)
    removed.counts[NODE_INDEX["requests"]] = 2
    fleet.write_counters()
    place(fleet, view("b", 4))
    start = node_offset(3)
    fleet.write_counters()
    assert fleet.block[start + NODE_INDEX["idle"]] == 0
    removed.counts[NODE_INDEX["ended"]] = 2
    fleet.write_counters()
    assert fleet.block[start + NODE_INDEX["ended"]] == 2
    removed.counts[NODE_INDEX["ended"]] = 3  # all had ended: nobody looks any more
    fleet.write_counters()
    assert fleet.block[start + NODE_INDEX["ended"]] == 2


def test_a_node_that_returns_before_its_requests_have_ended_counts_them_too(fleet):
    place(fleet, view("a", 3))
    removed = fleet.targets[0]
    removed.counts[NODE_INDEX["requests"]] = 2
    place(fleet)
    place(fleet, view("a", 3))
    assert fleet.targets[0] is not removed
    fleet.targets[0].counts[NODE_INDEX["requests"]] += 1
    removed.counts[NODE_INDEX["ended"]] += 1
    fleet.write_counters()
    start = node_offset(3)
    assert fleet.block[start + NODE_INDEX["requests"]] == 3
    assert fleet.block[start + NODE_INDEX["ended"]] == 1


def test_another_node_in_the_slot_of_one_that_leaves_has_it_for_itself(fleet):
    place(fleet, view("a", 3))
    removed = fleet.targets[0]
    removed.counts[NODE_INDEX["requests"]] = 2
    fleet.write_counters()
    place(fleet, view("b", 3))
    removed.counts[NODE_INDEX["requests"]] = 99
    fleet.write_counters()
    assert fleet.block[node_offset(3) + NODE_INDEX["requests"]] == 2


def test_a_restarted_worker_counts_on(fleet):
    fleet.block[node_offset(3) + NODE_INDEX["requests"]] = 42
    place(fleet, view("a", 3))
    assert fleet.targets[0].counts[NODE_INDEX["requests"]] == 42


def test_limits_are_those_of_the_configuration(fleet):
    config = Config.model_validate({"limits": {"idle_per_node": 3}, "timeouts": {"node_keep_alive_s": 7.0}})
    place(fleet, view("a"), config=config)
    assert (fleet.targets[0].idle_max, fleet.targets[0].keep_s) == (3, 7.0)


def test_many_nodes_take_turns_to_be_written(fleet):
    place(fleet, *(view(f"n{i}", i) for i in range(100)))
    for target in fleet.targets:
        target.counts[NODE_INDEX["requests"]] = 7
    fleet.write_counters(0)
    fleet.write_counters(6)
    assert sum(read_node([fleet.block], i)["requests"] for i in range(100)) == 7 * 40
    fleet.write_counters()
    assert sum(read_node([fleet.block], i)["requests"] for i in range(100)) == 7 * 100
