"""The status documents of a Supervisor that does not run."""

from __future__ import annotations

import json

import pytest
from fakes_admin import config_of, with_supervisor

from cachelb import __version__
from cachelb.admin.status import EXACT_NODES, Reader, drain_eta, owned_parts
from cachelb.counters import FARM_INDEX, NODE_INDEX, node_offset
from cachelb.routing.ring import Member
from cachelb.routing.table import make_table
from cachelb.supervisor import Supervisor
from cachelb.workers import Workers


def test_before_there_are_workers_everything_is_nought():
    async def test(supervisor: Supervisor) -> None:
        found = Reader(supervisor).status()
        assert (found["state"], found["workers"], found["epoch"], found["reloads"]) == ("starting", [], 0, 0)
        assert found["version"] == __version__
        assert set(found["farm"].values()) == {0}
        assert [node["name"] for node in found["nodes"]] == ["a", "b", "c"]
        assert [node["state"] for node in found["nodes"]] == ["up", "drain", "down"]
        assert [node["weight"] for node in found["nodes"]] == [2.5, 1, 1]
        assert found["nodes"][2]["since_s"] is None
        assert json.loads(json.dumps(found)) == found

    with_supervisor(test)


def test_counters_are_those_of_all_workers_and_each_node_has_its_own():
    async def test(supervisor: Supervisor) -> None:
        supervisor.workers = Workers([[], []], b"")
        for number, block in enumerate(supervisor.workers.blocks, 1):
            block[FARM_INDEX["requests"]] = number
            block[FARM_INDEX["loop_lag_us"]] = number * 1000
            for node in ("a", "b"):
                block[node_offset(supervisor.farm.slots[node]) + NODE_INDEX["hits"]] = number * (10 if node == "a" else 100)
        found = Reader(supervisor).status()
        assert found["farm"]["requests"] == 3
        assert [node["counters"]["hits"] for node in found["nodes"]] == [30, 300, 0]
        one = {"number": 1, "pid": 0, "epoch": -1, "restarts": 0, "requests": 1, "clients_open": 0, "loop_lag_ms": 1.0}
        assert found["workers"] == [one, one | {"number": 2, "requests": 2, "loop_lag_ms": 2.0}]

    with_supervisor(test)


def test_why_a_node_is_dead_is_said():
    async def test(supervisor: Supervisor) -> None:
        for now in (1.0, 2.0):
            supervisor.health.observe_probe("a", False, "connection refused", now)
        node = Reader(supervisor).node("a")
        assert (node["state"], node["share"], node["key_share"]) == ("dead", 0.0, 0.0)
        assert "connection refused" in node["cause"]

    with_supervisor(test)


def test_shares_of_keys_are_those_of_the_nodes_that_take_keys():
    async def test(supervisor: Supervisor) -> None:
        reader = Reader(supervisor)
        assert [node["key_share"] for node in reader.nodes()] == [1.0, 0.0, 0.0]
        supervisor.steer("b", state="up", weight=2.5)
        shares = [node["key_share"] for node in reader.nodes()]
        assert sum(shares) == pytest.approx(1.0, abs=0.001)
        assert shares[0] == pytest.approx(0.5, abs=0.05)
        supervisor.steer("a", state="down")
        supervisor.steer("b", state="drain")  # the last one keeps them
        assert [node["key_share"] for node in reader.nodes()] == [0.0, 1.0, 0.0]

    with_supervisor(test)


def test_the_digest_of_the_configuration_is_the_files_alone():
    async def test(supervisor: Supervisor) -> None:
        reader = Reader(supervisor)
        before = reader.configuration()["digest"]
        supervisor.steer("a", state="drain")
        assert reader.configuration()["digest"] == before
        supervisor.file_config = config_of(hash={"algorithm": "carp"})
        assert reader.configuration()["digest"] != before

    with_supervisor(test)


def test_what_is_listened_on_is_what_it_began_with():
    async def test(supervisor: Supervisor) -> None:
        found = Reader(supervisor).listeners()
        assert {"kind": "http", "address": "0.0.0.0:3128"} in found
        assert {"kind": "admin_socket", "address": "/x/admin.sock"} in found

    with_supervisor(test, admin={"socket": "/x/admin.sock"})


def test_of_many_nodes_the_weights_say_nearly_what_the_table_does():
    members = [Member(f"n{i}", 1.0 + i % 3) for i in range(12)]
    table = make_table("ring", members)
    guessed = owned_parts(table, [member.weight for member in members])
    assert sum(guessed) == pytest.approx(1.0)
    assert max(abs(one / other - 1) for one, other in zip(guessed, table.shares(), strict=True)) < 0.1
    few = make_table("ring", members[:EXACT_NODES])
    assert owned_parts(few, [1.0] * EXACT_NODES) == few.shares()
    assert owned_parts(None, []) == []


@pytest.mark.parametrize(
    ("for_s", "at_start", "flying", "eta"),
    [(4, 10, 0, 0.0), (4, 10, 5, 4.0), (4, 10, 10, None), (4, 10, 12, None), (0, 10, 5, None)],
)
def test_the_end_of_a_drain_is_guessed_from_how_it_went(for_s: float, at_start: int, flying: int, eta: float | None):
    assert drain_eta(for_s, at_start, flying) == eta


def test_a_thousand_nodes_are_shown():
    async def test(supervisor: Supervisor) -> None:
        nodes = [{"name": f"n{i}", "host": f"127.1.{i // 250}.{i % 250 + 1}"} for i in range(1000)]
        supervisor.config = supervisor.file_config = config_of(node=nodes)
        supervisor.farm.configure(supervisor.config)
        supervisor.workers = Workers([[]], b"")
        last = supervisor.farm.slots["n999"]
        supervisor.workers.blocks[0][node_offset(last) + NODE_INDEX["requests"]] = 7
        found = Reader(supervisor).status()
        assert len(found["nodes"]) == 1000
        assert found["nodes"][-1]["counters"]["requests"] == 7
        assert sum(node["key_share"] for node in found["nodes"]) == pytest.approx(1.0, abs=0.05)

    with_supervisor(test)
