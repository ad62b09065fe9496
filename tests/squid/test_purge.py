"""A farm of real Squids is purged by ``Purger``, with the index fed by their store logs where that matters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from cachelb.cluster.holdings import Holdings
from cachelb.cluster.index import Index
from cachelb.cluster.owners import Owners
from cachelb.cluster.purge import Purger
from cachelb.cluster.storelogs import StoreLogs
from cachelb.config import NodeConfig, parse
from cachelb.demo.farm import Squid, SquidFarm, wait_until
from cachelb.demo.origin import OriginProcess
from cachelb.routing.route import NodeState
from cachelb.snapshot import NodeView

SETTLE_S = 10.0


class Front:
    """What a director has for purges, in front of `farm`."""

    def __init__(self, farm: SquidFarm) -> None:
        self.nodes: tuple[NodeConfig, ...] = parse(farm.node_tables(), "farm").node
        self.index = Index(Holdings(10_000), time.time)
        self.owners = Owners()
        self.purger = Purger(self.index, self.owners)
        self.logs = StoreLogs(self.index, lambda slot: None)
        self.place()

    def place(self, **states: NodeState) -> None:
        """All nodes are up, but for those given."""
        views = [
            NodeView(node.name, slot, (node.host,), node.http_port, 1.0, states.get(node.name, "up"))
            for slot, node in enumerate(self.nodes)
        ]
        for part in (self.owners, self.index, self.purger, self.logs):
            part.place(views)

    def holder_names(self, url: str) -> list[str]:
        return [self.nodes[slot].name for slot in self.index.holders(url.encode())]


@asynccontextmanager
async def front_of(farm: SquidFarm) -> AsyncIterator[Front]:
    front = Front(farm)
    await front.logs.listen({node.name: [(place.host, place.port) for place in node.store_log] for node in front.nodes})
    try:
        yield front
    finally:
        front.purger.close()
        front.logs.close()


def run(main: Coroutine[Any, Any, None]) -> None:
    uvloop.run(asyncio.wait_for(main, 60))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SETTLE_S):
        while not condition():  # noqa: ASYNC110  what it waits for happens in a Squid
            await asyncio.sleep(0.01)


def ask(node: Squid, url: str, method: str = "GET", head: str = "") -> bytes:
    return node.exchange(f"{method} {url} HTTP/1.0\r\n{head}\r\n".encode())


async def until_heard(front: Front, farm: SquidFarm, origin: OriginProcess, unique: str) -> None:
    """Squid loses the first line after it has found nobody listening.  What is not stored is told of, by a private key."""
    tries = iter(range(1000))

    def all_are_heard() -> bool:
        for node in farm.nodes:
            ask(node, f"{origin.base}/any/{unique}{next(tries)}?cc=no-store")
        return all(feed.log.counts["private"] for feed in front.logs.feeds.values())

    await until(all_are_heard)


def is_hit(answer: bytes) -> bool:
    return b"\r\nX-Cache: HIT" in answer


def test_an_object_is_purged_wherever_it_is(squid_farm: SquidFarm, origin: OriginProcess, unique: str):
    url = f"{origin.base}/static/{unique}"

    async def scenario() -> None:
        async with front_of(squid_farm) as front:
            for node in squid_farm.nodes[:2]:
                ask(node, url)
            assert squid_farm.holders(url) == ["cache1", "cache2"]
            assert await front.purger.purge(url.encode()) == (0, 3, 3, 2, ())
            assert squid_farm.holders(url) == []
            assert await front.purger.purge(url.encode()) == (0, 3, 3, 0, ())
            assert len(front.purger._nodes[0].lines._idle) == 1  # a Squid lets its connection be kept

    run(scenario())


def test_what_a_head_has_stored_goes_too(squid_farm: SquidFarm, origin: OriginProcess, unique: str):
    url = f"{origin.base}/static/{unique}"
    node = squid_farm.nodes[0]

    async def scenario() -> None:
        async with front_of(squid_farm) as front:
            ask(node, url, "HEAD")
            assert is_hit(ask(node, url, "HEAD"))
            ask(node, url)
            assert await front.purger.clear(url.encode()) == 1
            assert not is_hit(ask(node, url, "HEAD"))
            assert not node.holds(url)

    run(scenario())


def test_a_node_without_a_rule_for_purge_is_told_of(own_farm: Callable[..., SquidFarm], origin: OriginProcess, unique: str):
    farm = own_farm(1, extra=["acl purges method PURGE", "http_access deny purges"])
    url = f"{origin.base}/static/{unique}"

    async def scenario() -> None:
        async with front_of(farm) as front:
            ask(farm.nodes[0], url)
            purged = await front.purger.purge(url.encode())
            assert purged[:4] == (0, 1, 0, 0)
            assert purged.problems[0].startswith("node cache1 refuses PURGE: allow it in squid.conf")
            assert farm.nodes[0].holds(url)

    run(scenario())


@pytest.mark.parametrize("how", ["ended", "hangs"])
def test_a_node_that_is_not_there_is_purged_when_it_is_back(
    own_farm: Callable[..., SquidFarm], origin: OriginProcess, unique: str, how: str
):
    farm = own_farm(2)
    absent = farm.nodes[1]
    urls = [f"{origin.base}/static/{unique}{number}" for number in range(20)]

    async def scenario() -> None:
        async with front_of(farm) as front:
            for node in farm.nodes:
                for url in urls:
                    ask(node, url)
            if how == "ended":
                absent.terminate()  # in order, so that its disk remembers all
                front.place(cache2="dead")
            else:
                absent.pause()
            results = await asyncio.gather(*[front.purger.purge(url.encode()) for url in urls])
            for purged in results:
                assert (purged.confirmed, purged.found) == (1, 1)
                assert purged.problems[0].startswith("cache2 ")
            assert front.purger.counters()["waiting"] == len(urls)
            if how == "ended":
                absent.start()
                assert wait_until(lambda: all(absent.holds(url) for url in urls), SETTLE_S)
                front.place()
            else:
                absent.resume()
                front.purger.returned(1)
            await until(lambda: front.purger.counters()["waiting"] == 0)
            assert front.purger.counters()["repeated"] == len(urls)
            assert [url for url in urls if farm.holders(url)] == []

    run(scenario())


def test_of_an_object_with_variants_those_that_fit_the_fields_are_purged(
    squid_farm: SquidFarm, origin: OriginProcess, unique: str
):
    url = f"{origin.base}/any/{unique}?cc=max-age=3600&vary=accept"
    one, other = "Accept: a/b\r\n", "Accept: c/d\r\n"
    nodes = squid_farm.nodes[:2]

    async def scenario() -> None:
        async with front_of(squid_farm) as front:

            async def found(fields: str) -> int:
                return (await front.purger.purge(url.encode(), fields.encode())).found

            for node in nodes:
                ask(node, url, head=one)
                ask(node, url, head=other)
            assert await found("") == 0  # without a field that varies, a Squid says that it has no such thing
            assert squid_farm.holders(url) == ["cache1", "cache2"]
            assert is_hit(ask(nodes[0], url, head=one))
            assert await found(one) == 2
            assert squid_farm.holders(url) == []
            assert not is_hit(ask(nodes[0], url, head=one))
            assert is_hit(ask(nodes[0], url, head=other))  # found again with the marker
            assert await found(other) == 1
            assert not is_hit(ask(nodes[0], url, head=other))

    run(scenario())


def test_the_index_forgets_and_learns_of_the_new_object(own_farm: Callable[..., SquidFarm], origin: OriginProcess, unique: str):
    farm = own_farm(2, store_logs=True)
    url = f"{origin.base}/static/{unique}"

    async def scenario() -> None:
        async with front_of(farm) as front:
            await until_heard(front, farm, origin, unique)
            for _ in range(3):
                for node in farm.nodes:
                    ask(node, url)
                await until(lambda: front.holder_names(url) == ["cache1", "cache2"])
                assert await front.purger.clear(url.encode()) == 2
                assert front.holder_names(url) == []
                ask(farm.nodes[1], url)
                await until(lambda: front.holder_names(url) == ["cache2"])
                assert await front.purger.clear(url.encode()) == 1
            await until(lambda: front.logs.counters()["line_released"] >= 9)
            assert front.holder_names(url) == []
            counters = front.logs.counters()
            assert counters["strangers"] == 0
            assert [word for word in counters if word.startswith("line_bad")] == []

    run(scenario())


def test_a_restart_of_a_node_is_told_once(own_farm: Callable[..., SquidFarm], origin: OriginProcess, unique: str):
    farm = own_farm(2, store_logs=True)
    restarted: list[int] = []

    async def scenario() -> None:
        async with front_of(farm) as front:
            front.logs._restarted = restarted.append
            await until_heard(front, farm, origin, unique)
            assert restarted == []
            farm.nodes[1].kill()
            farm.nodes[1].start()
            ask(farm.nodes[1], f"{origin.base}/any/{unique}?cc=no-store")
            await until(lambda: restarted == [1])
            ask(farm.nodes[1], f"{origin.base}/any/{unique}?cc=no-store")
            assert front.logs.counters()["restarts"] == 1

    run(scenario())
