"""The admin listener over HTTP, in front of a Supervisor that does not run."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cachelb import __version__
from cachelb.admin.api import AdminServer, status
from cachelb.config import Config
from cachelb.config_values import Address
from cachelb.counters import FARM_INDEX, NODE_INDEX, node_offset
from cachelb.listen import CannotListenError
from cachelb.supervisor import Supervisor
from cachelb.workers import Workers

CONFIG = Config.model_validate_json(
    json.dumps(
        {
            "node": [
                {"name": "a", "host": "127.0.0.1", "weight": 2.5},
                {"name": "b", "host": "127.0.0.2", "state": "drain"},
                {"name": "c", "host": "127.0.0.3", "state": "down"},
            ]
        }
    )
)


def free_address() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return Address("127.0.0.1", sock.getsockname()[1])


def with_supervisor(test: Callable[[Supervisor], Awaitable[None]]) -> None:
    async def main() -> None:
        supervisor = Supervisor(Path("unused"), CONFIG)
        try:
            async with asyncio.timeout(10):
                await test(supervisor)
        finally:
            await supervisor.names.stop()

    asyncio.run(main())


def with_client(test: Callable[[Supervisor, Callable[..., Any]], Awaitable[None]]) -> None:
    """``test(supervisor, ask)``; ``ask(path, method="GET")`` is an open answer of the admin listener."""

    async def main(supervisor: Supervisor) -> None:
        address = free_address()
        admin = AdminServer(supervisor)
        await admin.start([address])
        try:
            async with aiohttp.ClientSession(f"http://{address.host}:{address.port}") as session:
                await test(supervisor, lambda path, method="GET": session.request(method, path))
        finally:
            await admin.stop()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address.host, address.port))

    with_supervisor(main)


def test_before_there_are_workers_everything_is_nought():
    async def test(supervisor: Supervisor) -> None:
        found = status(supervisor)
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
            for node in ("a", "b"):
                block[node_offset(supervisor.farm.slots[node]) + NODE_INDEX["hits"]] = number * (10 if node == "a" else 100)
        found = status(supervisor)
        assert found["farm"]["requests"] == 3
        assert [node["counters"]["hits"] for node in found["nodes"]] == [30, 300, 0]
        assert found["workers"] == [
            {"number": 1, "pid": 0, "epoch": -1, "restarts": 0},
            {"number": 2, "pid": 0, "epoch": -1, "restarts": 0},
        ]

    with_supervisor(test)


def test_why_a_node_is_dead_is_said():
    async def test(supervisor: Supervisor) -> None:
        for now in (1.0, 2.0):
            supervisor.health.observe_probe("a", False, "connection refused", now)
        node = status(supervisor)["nodes"][0]
        assert (node["state"], node["share"]) == ("dead", 0.0)
        assert "connection refused" in node["cause"]

    with_supervisor(test)


def test_the_status_is_json_and_the_metrics_are_text():
    async def test(supervisor: Supervisor, ask: Callable[..., Any]) -> None:
        async with ask("/api/v1/status") as answer:
            assert answer.status == 200
            assert answer.content_type == "application/json"
            assert (await answer.json())["nodes"][0]["name"] == "a"
        async with ask("/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert 'cachelb_node_up{node="a"} 1\n' in await answer.text()

    with_client(test)


def test_it_is_for_reading_only():
    async def test(supervisor: Supervisor, ask: Callable[..., Any]) -> None:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            async with ask("/api/v1/status", method) as answer:
                assert answer.status == 405
        async with ask("/metrics", "HEAD") as answer:
            assert answer.status == 200
        for path in ("/", "/api/v1/", "/metrics/x"):
            async with ask(path) as answer:
                assert answer.status == 404

    with_client(test)


def test_an_address_that_is_not_to_be_had_is_a_sentence():
    async def test(supervisor: Supervisor) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            admin = AdminServer(supervisor)
            good = free_address()
            with pytest.raises(CannotListenError) as caught:
                await admin.start([good, Address("127.0.0.1", port)])
            assert caught.value.strerror.startswith(f"cannot listen on 127.0.0.1 port {port}: another program uses it")
            await admin.stop()
        with socket.create_server((good.host, good.port)):  # the first one has been let go
            pass

    with_supervisor(test)


def test_a_thousand_nodes_are_shown():
    async def test(supervisor: Supervisor) -> None:
        nodes = [{"name": f"n{i}", "host": f"127.1.{i // 250}.{i % 250 + 1}"} for i in range(1000)]
        supervisor.farm.configure(Config.model_validate_json(json.dumps({"node": nodes})))
        supervisor.workers = Workers([[]], b"")
        last = supervisor.farm.slots["n999"]
        supervisor.workers.blocks[0][node_offset(last) + NODE_INDEX["requests"]] = 7
        found = status(supervisor)
        assert len(found["nodes"]) == 1000
        assert found["nodes"][-1]["counters"]["requests"] == 7

    with_supervisor(test)
