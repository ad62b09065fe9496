"""What the operations do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes_admin import Asker, token_file, with_client, with_supervisor

from cachelb.admin import model, openapi
from cachelb.admin.handlers import Handlers
from cachelb.control import HIT, MARKED, Sample
from cachelb.counters import NODE_INDEX, node_offset
from cachelb.routing.template import packed
from cachelb.supervisor import Supervisor

MODELS = {op.path: op.answer for op in openapi.OPERATIONS if op.answer and op.method == "GET"}


def test_every_operation_has_a_handler():
    async def test(supervisor: Supervisor) -> None:
        handlers = Handlers(supervisor)
        assert all(callable(getattr(handlers, operation.name)) for operation in openapi.OPERATIONS)

    with_supervisor(test)


@pytest.mark.parametrize("path", sorted(MODELS))
def test_answers_are_what_the_models_say_and_nothing_else(path: str):
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        query = "?url=http://www.test/x" if path.endswith("explain") else ""
        supervisor.desk.take(1.0)
        supervisor.desk.take(7.0)
        supervisor.desk.events.add("node", "node a is dead", "warning", "a", state="dead")
        supervisor.desk.hot.add([Sample(0, HIT | MARKED, 3, 1000, b"http://www.test/x")], 7.0)
        status, _, found = await ask(path.replace("{name}", "a") + query)
        assert status == 200
        kind = MODELS[path]
        assert kind is not None
        assert kind.model_validate(found).model_dump(mode="json") == found

    with_client(test)


def test_a_node_is_changed_and_given_back_and_the_shares_follow(tmp_path: Path):
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        status, _, node = await ask.change("/api/v1/nodes/c", json={"state": "up", "weight": 2.5})
        assert (status, node["state"], node["weight"]) == (200, "up", 2.5)
        assert node["operator"] == {"state": "up", "weight": 2.5}
        assert node["file"] == {"state": "down", "weight": 1.0}
        assert node["key_share"] == pytest.approx(0.5, abs=0.05)
        assert node["drain"] is None
        status, _, node = await ask.change("/api/v1/nodes/c/operator", "DELETE")
        assert (status, node["state"], node["operator"]) == (200, "down", {"state": None, "weight": None})
        _, _, found = await ask("/api/v1/events")
        assert [event["kind"] for event in found["events"]] == ["operator", "operator"]
        assert found["events"][0]["data"] == {"state": "up", "weight": 2.5}

    with_client(test, admin={"token_file": token_file(tmp_path)})


def test_draining_shows_how_far_it_has_come(tmp_path: Path):
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        assert supervisor.workers is not None
        block = supervisor.workers.blocks[0]
        start = node_offset(supervisor.farm.slots["a"])
        block[start + NODE_INDEX["requests"]] = 10
        _, _, node = await ask.change("/api/v1/nodes/b", json={"state": "up"})
        _, _, node = await ask.change("/api/v1/nodes/a", json={"state": "drain"})
        drain = node["drain"]
        assert (drain["in_flight"], drain["in_flight_at_start"], drain["done"], drain["keys_moved"]) == (10, 10, False, 0.0)
        for worker in supervisor.workers.workers:
            worker.epoch = supervisor.epoch
        block[start + NODE_INDEX["ended"]] = 6
        drain = (await ask("/api/v1/nodes/a"))[2]["drain"]
        assert (drain["in_flight"], drain["keys_moved"], drain["done"]) == (4, 1.0, False)
        assert drain["eta_s"] is not None
        block[start + NODE_INDEX["ended"]] = 10
        drain = (await ask("/api/v1/nodes/a"))[2]["drain"]
        assert (drain["in_flight"], drain["eta_s"], drain["done"]) == (0, 0.0, True)

    with_client(test, admin={"token_file": token_file(tmp_path)})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422), ({"state": "dead"}, 422), ({"weight": -1}, 422), ({"weight": "2"}, 422), ({"weight": 257}, 422),
        ({"x": 1}, 422), ([], 422), (None, 415), ({"state": None}, 422), ({"weight": True}, 422),
    ],
)  # fmt: skip
def test_a_body_that_will_not_do_changes_nothing(tmp_path: Path, body: Any, status: int):
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        code, _, document = await ask.change("/api/v1/nodes/a", json=body)
        assert code == status
        assert model.Problem.model_validate(document)
        assert supervisor.config == supervisor.file_config

    with_client(test, admin={"token_file": token_file(tmp_path)})


def test_no_url_may_be_left_without_an_owner(tmp_path: Path):
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        assert (await ask.change("/api/v1/nodes/a", json={"weight": 0}))[0] == 200
        assert (await ask.change("/api/v1/nodes/b", json={"weight": 0}))[0] == 200
        code, _, document = await ask.change("/api/v1/nodes/c", json={"weight": 0})
        assert (code, "owner" in document["detail"]) == (409, True)
        assert (await ask("/api/v1/nodes/c"))[2]["weight"] == 1

    with_client(test, admin={"token_file": token_file(tmp_path)})


def test_a_reload_that_is_refused_says_all_that_is_wrong(tmp_path: Path):
    path = tmp_path / "cachelb.toml"
    path.write_text('[hash]\nalgorithm = "md5"\n[relay]\nworkers = -1\n')

    async def test(supervisor: Supervisor, ask: Asker) -> None:
        code, _, document = await ask.change("/api/v1/reload", "POST")
        assert code == 409
        assert len(document["errors"]) >= 3
        assert supervisor.reloads == 0
        found = (await ask("/api/v1/status"))[2]
        assert found["config"]["problems"]
        assert (await ask("/api/v1/events"))[2]["events"][-1]["kind"] == "reload_refused"
        path.write_text('[[node]]\nname = "a"\nhost = "192.0.2.1"\nweight = 2\n')
        code, _, document = await ask.change("/api/v1/reload", "POST")
        assert (code, document["reloads"], document["config"]["problems"]) == (200, 1, [])
        assert "removed b" in document["changes"]

    with_client(test, str(path), admin={"token_file": token_file(tmp_path)})


def test_explain_goes_by_the_states_as_they_are(tmp_path: Path):
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        await ask.change("/api/v1/nodes/b", json={"state": "up"})
        found = (await ask("/api/v1/explain?url=http://www.test/x"))[2]
        assert found["goes"].startswith("to ")
        owner, other = found["to"][:2]
        assert {owner, other} == {"a", "b"}
        await ask.change(f"/api/v1/nodes/{owner}", json={"state": "drain"})
        found = (await ask("/api/v1/explain?url=http://www.test/x&method=GET&client=127.0.0.1&header=Accept:%20x"))[2]
        states = {node["name"]: node["state"] for node in found["nodes"]}
        assert (found["to"][0], states[owner], states["c"]) == (other, "drain", "down")

    with_client(test, admin={"token_file": token_file(tmp_path)})


@pytest.mark.parametrize(
    "query",
    [
        "explain", "explain?url=http://a/&client=x", "explain?url=http://a/&method=", "explain?url=http://a/&method=G%20T",
        "explain?url=http://a/&header=x", "explain?url=http://a/%0d%0aX:1", "hot?limit=0", "hot?limit=101", "hot?minutes=x",
        "history?seconds=4", "history?seconds=901", "history?nodes=zz", "events?after=-1", "events?after=1e3",
    ],
)  # fmt: skip
def test_a_query_that_will_not_do_is_a_problem_of_the_client(query: str):
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        code, _, document = await ask(f"/api/v1/{query}")
        assert code == 400
        assert model.Problem.model_validate(document)

    with_client(test)


def test_a_url_that_would_be_refused_is_explained_not_refused():
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        found = (await ask("/api/v1/explain?url=nonsense"))[2]
        assert (found["kind"], found["status"]) == ("refuse", 400)

    with_client(test)


def test_history_can_be_of_some_nodes():
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        supervisor.desk.take(1.0)
        supervisor.desk.take(6.0)
        assert set((await ask("/api/v1/history"))[2]["nodes"]) == {"a", "b", "c"}
        found = (await ask("/api/v1/history?nodes=a,b&seconds=60"))[2]
        assert (set(found["nodes"]), len(found["at"])) == ({"a", "b"}, 1)
        assert (await ask("/api/v1/history?nodes="))[2]["nodes"] == {}

    with_client(test)


# -- clients that stay with a node


SHOP = {"affinity": [{"name": "shop"}, {"name": "mail"}], "rule": [{"host": ["www.test"], "affinity": "shop"}]}


def fill(supervisor: Supervisor, count: int = 9) -> None:
    register = supervisor.affinity
    for number in range(count):
        for shelf in register.templates.shelves.values():
            slot = supervisor.farm.slots["abc"[number % 3]]
            register.templates.put(shelf, shelf.group.key(packed(f"10.0.0.{number}")), slot, 0xFFF, register.clock())


def test_templates_are_counted_and_listed_with_filters():
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        fill(supervisor)
        _, _, found = await ask("/api/v1/affinity")
        assert (found["templates"], len(found["clients"]), found["next"]) == (18, 18, "")
        assert [group["nodes"] for group in found["groups"]] == [{"a": 3, "b": 3, "c": 3}] * 2
        assert found["counters"]["affinity_templates"] == 18
        _, _, found = await ask("/api/v1/affinity?group=shop&node=b&limit=2")
        rest = (await ask(f"/api/v1/affinity?group=shop&node=b&limit=2&after={found['next']}"))[2]
        clients = {client["client"] for client in found["clients"] + rest["clients"]}
        assert clients == {"10.0.0.1", "10.0.0.4", "10.0.0.7"}
        _, _, found = await ask("/api/v1/affinity?client=10.0.0.5")
        assert [(c["group"], c["node"]) for c in found["clients"]] == [("shop", "c"), ("mail", "c")]
        assert (await ask("/api/v1/affinity?client=10.0.0.5&node=a"))[2]["clients"] == []
        _, _, found = await ask("/api/v1/explain?url=http://www.test/x&client=10.0.0.5")
        assert [(c["group"], c["node"]) for c in found["templates"]] == [("shop", "c"), ("mail", "c")]
        assert (found["affinity"], found["template"], found["to"][0]) == ("shop", "", "a")  # c is down
        _, _, found = await ask("/api/v1/explain?url=http://www.test/x&client=10.0.0.4")
        assert (found["affinity"], found["template"], found["to"][0]) == ("shop", "b", "b")  # which drains
        _, _, found = await ask("/api/v1/explain?url=http://www.test/x&client=10.9.9.9")
        assert (found["affinity"], found["template"]) == ("shop", "")

    with_client(test, **SHOP)


def test_templates_are_flushed_and_it_is_an_event(tmp_path: Path):
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        fill(supervisor)
        assert (await ask("/api/v1/affinity?client=10.0.0.5", "DELETE"))[0] == 401
        for query, count in (("client=10.0.0.5", 2), ("node=a&group=shop", 3), ("group=mail", 8), ("client=10.0.0.99", 0)):
            status, _, found = await ask.change(f"/api/v1/affinity?{query}", "DELETE")
            assert (status, found) == (200, {"flushed": count})
        assert supervisor.affinity.templates.size == 5
        events = (await ask("/api/v1/events"))[2]["events"]
        assert [event["text"] for event in events][1] == "3 templates flushed: node a, group shop, by the operator"
        assert (events[1]["kind"], events[1]["node"], events[1]["data"]) == ("affinity", "a", {"flushed": 3})

    with_client(test, **SHOP, admin={"token_file": token_file(tmp_path)})


@pytest.mark.parametrize(
    ("query", "method", "status", "says"),
    [
        ("group=none", "GET", 404, "there are shop, mail"),
        ("node=none", "GET", 404, "there is no node 'none'"),
        ("client=www.test", "GET", 400, "is not the IP address of a client"),
        ("limit=1001", "GET", 400, "limit must be"),
        ("after=x", "GET", 400, "is not what an answer says under next"),
        ("", "DELETE", 400, "flush what?"),
        ("client=10.0.0.1&node=a", "DELETE", 400, "not both"),
        ("group=none", "DELETE", 404, "there is no [[affinity]] 'none'"),
    ],
)
def test_what_cannot_be_listed_or_flushed_is_a_sentence(tmp_path: Path, query: str, method: str, status: int, says: str):
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        fill(supervisor)
        found = await ask.change(f"/api/v1/affinity?{query}", method)
        assert found[0] == status
        assert says in found[2]["detail"]
        assert supervisor.affinity.templates.size == 18

    with_client(test, **SHOP, admin={"token_file": token_file(tmp_path)})
