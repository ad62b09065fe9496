"""``Forward`` and real Squids: what they say is what it says, and one that hangs costs nobody time for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
import uvloop

from cachelb.cluster import forward as module
from cachelb.cluster.forward import Forward
from cachelb.cluster.holdings import Holdings, Source
from cachelb.cluster.index import Index
from cachelb.cluster.owners import Owners
from cachelb.demo.farm import SquidFarm
from cachelb.demo.origin import OriginProcess
from cachelb.snapshot import NodeView
from digest import store_key


def forward_to(farm: SquidFarm) -> tuple[Index, Owners, Forward]:
    index, owners = Index(Holdings(10_000), time.time), Owners()
    forward = Forward(index, owners)
    views = [
        NodeView(node.name, slot, (node.host,), node.http_port, 1.0, "up", 1.0, node.icp_port)
        for slot, node in enumerate(farm.nodes)
    ]
    for part in (index, owners, forward):
        part.place(views)
    return index, owners, forward


def test_what_the_owners_hold_is_held(squid_farm: SquidFarm, origin: OriginProcess, unique: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 5.0)  # the machine has other tests to run

    async def scenario() -> None:
        _, owners, forward = forward_to(squid_farm)
        held = [f"{origin.base}/static/{unique}h{number}" for number in range(60)]
        absent = [f"{origin.base}/static/{unique}a{number}" for number in range(60)]
        for url in held:
            node = squid_farm.nodes[owners.owners(url.encode(), 1)[0]]
            node.exchange(f"GET {url} HTTP/1.0\r\n\r\n".encode())
        assert await asyncio.gather(*[forward.ask(url.encode()) for url in held]) == [True] * 60
        assert await asyncio.gather(*[forward.ask(url.encode()) for url in absent]) == [False] * 60
        assert await forward.ask(held[0].replace("http:", "HTTP:").encode()) is True
        counters = forward.counters()
        assert (counters["hit"], counters["miss"], counters["asked"]) == (61, 60, 121)
        forward.close()

    uvloop.run(asyncio.wait_for(scenario(), 30))


def test_a_node_that_denies_is_told_of_and_the_index_answers(
    own_farm: Callable[..., SquidFarm], origin: OriginProcess, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "TIMEOUT_S", 5.0)
    farm = own_farm(1, extra=["icp_access deny lo"])

    async def scenario() -> None:
        index, _, forward = forward_to(farm)
        url = f"{origin.base}/static/x".encode()
        assert await forward.ask(url) is False
        index.holdings.add(store_key(url), 0, int(time.time()) + 3600, Source.SEEN)
        assert await forward.ask(url) is True
        assert forward.counters()["refused"] == 2
        forward.close()

    uvloop.run(asyncio.wait_for(scenario(), 30))
    assert [record.getMessage() for record in caplog.records] == [
        "node cache1 denies ICP: allow it in squid.conf (icp_access allow director)"
    ]


def test_a_node_that_hangs_is_left_alone_and_asked_again_when_it_is_back(
    own_farm: Callable[..., SquidFarm], monkeypatch: pytest.MonkeyPatch
):
    farm = own_farm(1)
    node = farm.nodes[0]

    async def scenario() -> None:
        _, _, forward = forward_to(farm)
        node.pause()
        began = time.perf_counter()
        for number in range(500):
            assert await forward.ask(b"http://a.com/%d" % number) is False
        assert time.perf_counter() - began < 500 * module.TIMEOUT_S
        assert forward.counters()["skipped"] > 400
        node.resume()
        monkeypatch.setattr(module, "TIMEOUT_S", 1.0)
        while not forward.counters()["miss"]:
            await forward.ask(b"http://a.com/")
            await asyncio.sleep(0.01)
        forward.close()

    uvloop.run(asyncio.wait_for(scenario(), 30))
