"""``Purger`` against small nodes on loopback: whom it asks, what it says of the answers, what it remembers and forgets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from cachelb.cluster import purge as module
from cachelb.cluster.holdings import Holdings, Source
from cachelb.cluster.index import Index
from cachelb.cluster.owners import Owners
from cachelb.cluster.purge import Purger
from cachelb.cluster.storelog import Event, What
from cachelb.control import Purged
from cachelb.nodes import purges
from cachelb.routing.route import NodeState
from cachelb.snapshot import NodeView
from digest import store_key
from icp import BadUrl

URL = b"http://a.com/x"
ANSWERS = {
    200: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    404: b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    403: b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
    503: b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
}


class Node:
    """Holds URLs and forgets them by PURGE.

    status: what it answers instead; 0: nothing.  gate: it answers once this is set.
    """

    def __init__(self, name: str, slot: int) -> None:
        self.name = name
        self.slot = slot
        self.state: NodeState = "up"
        self.status: int | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.held: set[bytes] = set()
        self.requests: list[bytes] = []
        self._port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def view(self) -> NodeView:
        return NodeView(self.name, self.slot, ("127.0.0.1",), self._port, 1.0, self.state)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(request)
                await self.gate.wait()
                url = request.split()[1]
                status = self.status if self.status is not None else 200 if url in self.held else 404
                self.held.discard(url)
                writer.write(ANSWERS.get(status, b""))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


class Farm:
    """Nodes, and a purger in front of them."""

    def __init__(self, count: int) -> None:
        self.nodes = [Node(f"cache{number}", 10 + number) for number in range(count)]
        self.now = 1000.0
        self.index = Index(Holdings(10_000), time.time)
        self.owners = Owners()
        self.purger = Purger(self.index, self.owners, lambda: self.now)

    def place(self) -> None:
        """The nodes' states have changed."""
        views = [node.view for node in self.nodes]
        for part in (self.owners, self.index, self.purger):
            part.place(views)

    def hold(self, url: bytes, *nodes: Node, source: Source = Source.STORE_LOG) -> None:
        for node in nodes:
            node.held.add(url)
            self.index.holdings.add(store_key(url), node.slot, int(time.time()) + 3600, source)

    def in_order(self, url: bytes) -> list[Node]:
        """All nodes, the owner of `url` first."""
        return [self.nodes[slot - 10] for slot in self.owners.may_have(url, len(self.nodes))]

    @property
    def asked(self) -> list[str]:
        return [node.name for node in self.nodes if node.requests]


@asynccontextmanager
async def farm_of(count: int) -> AsyncIterator[Farm]:
    farm = Farm(count)
    for node in farm.nodes:
        await node.start()
    farm.place()
    try:
        yield farm
    finally:
        farm.purger.close()
        for node in farm.nodes:
            node.stop()


def run(main: Coroutine[Any, Any, None]) -> None:
    uvloop.run(asyncio.wait_for(main, 10))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  what it waits for happens in the code under test
        await asyncio.sleep(0.001)


def outcome(purged: Purged) -> Sequence[int]:
    """asked, confirmed, found."""
    assert purged.number == 0
    return purged[1:4]


def test_owners_and_holders_are_asked_and_nobody_else():
    async def scenario() -> None:
        async with farm_of(6) as farm:
            order = farm.in_order(URL)
            farm.hold(URL, order[0], order[5])
            purged = await farm.purger.purge(URL)
            assert outcome(purged) == (4, 4, 2)
            assert purged.problems == ()
            assert sorted(farm.asked) == sorted(node.name for node in (*order[:3], order[5]))
            assert [node.requests for node in order if node.requests] == [
                [b"PURGE http://a.com/x HTTP/1.1\r\nHost: a.com\r\n\r\n"]
            ] * 4
            assert farm.index.holders(URL) == []
            counters = farm.purger.counters()
            assert counters == {
                "purges": 1, "refused": 0, "found": 2, "absent": 2, "unconfirmed": 0, "repeated": 0, "dropped": 0, "waiting": 0,
            }  # fmt: skip

    run(scenario())


def test_the_url_is_purged_in_its_canonical_form_with_the_fields_that_are_given():
    async def scenario() -> None:
        async with farm_of(1) as farm:
            farm.hold(b"http://a.com:8080/X?y", farm.nodes[0])
            purged = await farm.purger.purge(b"HTTP://u@A.com.:8080/X?y", b"Accept: a/b\r\nAccept-Encoding: gzip\r\n")
            assert outcome(purged) == (1, 1, 1)
            assert farm.nodes[0].requests == [
                b"PURGE http://a.com:8080/X?y HTTP/1.1\r\nHost: a.com:8080\r\nAccept: a/b\r\nAccept-Encoding: gzip\r\n\r\n"
            ]

    run(scenario())


@pytest.mark.parametrize("url", [b"", b"x", b"http://", b"http://a b/", b"http://a/ HTTP/1.1\r\nX: y\r\n\r\n", b"http://a/\0"])
def test_what_is_no_url_is_a_problem_and_reaches_no_node(url: bytes):
    async def scenario() -> None:
        async with farm_of(1) as farm:
            purged = await farm.purger.purge(url)
            assert outcome(purged) == (0, 0, 0)
            assert purged.problems[0].startswith("the URL cannot be understood: ")
            with pytest.raises(BadUrl):
                await farm.purger.clear(url)
            assert farm.asked == []

    run(scenario())


@pytest.mark.parametrize(
    "fields",
    [
        b"x", b"Accept: a", b"Accept: a\n", b"Accept: a\r\n\r\n", b"A : b\r\n", b"A: b\0\r\n", b" A: b\r\n", b"\r\n",
        b"Host: b\r\n", b"A: b\r\nCONTENT-LENGTH: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"connection: close\r\n",
        b"A: " + b"x" * module.FIELDS_BYTES + b"\r\n",
    ],
)  # fmt: skip
def test_fields_that_would_make_another_request_of_it_reach_no_node(fields: bytes):
    async def scenario() -> None:
        async with farm_of(1) as farm:
            assert outcome(await farm.purger.purge(URL, fields)) == (0, 0, 0)
            assert farm.asked == []

    run(scenario())


def test_htcp_is_told_how_many_nodes_had_it():
    async def scenario() -> None:
        async with farm_of(4) as farm:
            farm.hold(URL, *farm.nodes[:2])
            assert await farm.purger.clear(URL) == 2
            assert await farm.purger.clear(URL) == 0

    run(scenario())


def test_a_node_that_refuses_is_a_problem_told_once_a_minute(caplog: pytest.LogCaptureFixture):
    async def scenario() -> None:
        async with farm_of(2) as farm:
            farm.nodes[0].status = 403
            farm.nodes[1].status = 503
            for later_s in (0, 30, 31):
                farm.now += later_s
                purged = await farm.purger.purge(URL)
                assert outcome(purged) == (2, 0, 0)
                refusal, other = sorted(purged.problems)
                rule = "acl purge method PURGE; http_access allow purge director"
                assert refusal == f"node cache0 refuses PURGE: allow it in squid.conf ({rule})"
                assert other == "node cache1 answered PURGE with 503"
            assert sorted(record.getMessage() for record in caplog.records) == [refusal, refusal, other, other]
            assert farm.purger.counters()["unconfirmed"] == 6
            assert farm.purger.counters()["waiting"] == 0

    run(scenario())


@pytest.mark.parametrize("why", ["one refuses", "none is in service"])
def test_htcp_is_not_told_that_it_is_done_while_a_node_may_have_it(why: str):
    async def scenario() -> None:
        async with farm_of(2) as farm:
            farm.hold(URL, *farm.nodes)
            if why == "one refuses":
                farm.nodes[0].status = 403
            else:
                farm.nodes[0].state = farm.nodes[1].state = "dead"
                farm.place()
            assert await farm.purger.clear(URL) is None

    run(scenario())


def test_a_dead_node_is_purged_when_it_is_back():
    async def scenario() -> None:
        async with farm_of(3) as farm:
            dead = farm.nodes[1]
            urls = [b"http://a.com/%d" % number for number in range(100)]
            for url in urls:
                farm.hold(url, *farm.nodes)
            dead.state = "dead"
            farm.place()
            for url in urls:
                purged = await farm.purger.purge(url, b"Accept: a\r\n")
                assert outcome(purged) == (2, 2, 2)
                assert purged.problems == ("cache1 is dead: will be purged when it is back",)
                assert farm.index.holders(url) == []
            assert dead.requests == []
            assert farm.purger.counters()["waiting"] == 100
            dead.state = "up"
            farm.place()
            await until(lambda: farm.purger.counters()["waiting"] == 0)
            assert not dead.held
            assert farm.purger.counters()["repeated"] == 100
            assert farm.purger.counters()["found"] == 300
            assert {request.split(b"\r\n")[2] for request in dead.requests} == {b"Accept: a"}

    run(scenario())


def test_returned_repeats_at_once_and_does_no_harm_otherwise():
    async def scenario() -> None:
        async with farm_of(1) as farm:
            node = farm.nodes[0]
            farm.purger.returned(node.slot)
            farm.purger.returned(99)
            node.stop()
            purged = await farm.purger.purge(URL)
            assert outcome(purged) == (1, 0, 0)
            assert purged.problems == ("cache0 has not confirmed (connection refused): will be purged when it is back",)
            await node.start()
            farm.purger.returned(node.slot)
            await until(lambda: farm.purger.counters()["repeated"] == 1)
            assert farm.purger.counters()["waiting"] == 0

    run(scenario())


def test_a_live_node_that_gave_no_answer_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.02)

    async def scenario() -> None:
        async with farm_of(1) as farm:
            node = farm.nodes[0]
            node.stop()
            await farm.purger.purge(URL)
            await until(lambda: farm.purger.counters()["unconfirmed"] >= 3)
            assert farm.purger.counters()["waiting"] == 1
            await node.start()
            await until(lambda: farm.purger.counters()["repeated"] == 1)
            assert farm.purger.counters()["waiting"] == 0
            await until(lambda: farm.purger._nodes[node.slot].repeating is None)

    run(scenario())


def test_what_is_repeated_in_vain_grows_no_younger(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.02)

    async def scenario() -> None:
        async with farm_of(1) as farm:
            farm.nodes[0].stop()
            await farm.purger.purge(URL)
            farm.now += 80_000
            await until(lambda: farm.purger.counters()["unconfirmed"] >= 3)
            farm.now += 80_000
            await until(lambda: farm.purger.counters()["dropped"] == 1)
            assert farm.purger.counters()["waiting"] == 0

    run(scenario())


def test_a_node_that_leaves_while_it_is_asked_is_asked_no_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(purges.PurgeLines.ask, "__defaults__", (0.2,))
    monkeypatch.setattr(module, "PAUSE_S", 0.0)

    async def scenario() -> None:
        async with farm_of(2) as farm:
            everyone = farm.nodes
            gone = everyone[1]
            gone.gate.clear()
            purging = asyncio.ensure_future(farm.purger.purge(URL))
            await until(lambda: len(gone.requests) == 1)
            farm.nodes = farm.nodes[:1]
            farm.place()
            assert outcome(await purging) == (2, 1, 0)
            assert farm.purger.counters()["waiting"] == 0
            await asyncio.sleep(0.05)
            assert len(gone.requests) == 1
            farm.nodes = everyone

    run(scenario())


def test_a_purge_that_is_confirmed_meanwhile_is_not_repeated():
    async def scenario() -> None:
        async with farm_of(1) as farm:
            node = farm.nodes[0]
            node.stop()
            await farm.purger.purge(URL)
            await node.start()
            assert outcome(await farm.purger.purge(URL)) == (1, 1, 0)
            assert farm.purger.counters()["waiting"] == 0

    run(scenario())


def test_who_refuses_what_is_repeated_is_not_asked_for_ever():
    async def scenario() -> None:
        async with farm_of(1) as farm:
            node = farm.nodes[0]
            node.state = "dead"
            farm.place()
            await farm.purger.purge(URL)
            node.state, node.status = "up", 403
            farm.place()
            await until(lambda: farm.purger.counters()["waiting"] == 0)
            assert farm.purger.counters()["repeated"] == 0

    run(scenario())


def test_a_node_that_the_operator_took_down_is_neither_asked_nor_a_problem_but_not_forgotten():
    async def scenario() -> None:
        async with farm_of(2) as farm:
            node = farm.nodes[0]
            node.state = "down"
            farm.place()
            farm.hold(URL, *farm.nodes)
            purged = await farm.purger.purge(URL)
            assert outcome(purged) == (1, 1, 1)
            assert purged.problems == ()
            node.state = "drain"
            farm.place()
            await until(lambda: not node.held)

    run(scenario())


def test_where_no_node_is_in_service_that_is_a_problem():
    async def scenario() -> None:
        async with farm_of(1) as farm:
            farm.nodes[0].state = "down"
            farm.place()
            assert (await farm.purger.purge(URL)).problems == ("there is no node in service",)
        async with farm_of(0) as farm:
            assert (await farm.purger.purge(URL)).problems == ("there is no node in service",)

    run(scenario())


def test_when_the_first_owners_are_dead_those_who_took_over_are_asked():
    async def scenario() -> None:
        async with farm_of(6) as farm:
            order = farm.in_order(URL)
            for node in order[:3]:
                node.state = "dead"
            farm.place()
            order[3].held.add(URL)
            purged = await farm.purger.purge(URL)
            assert outcome(purged) == (3, 3, 1)
            assert len(purged.problems) == 3
            assert order[3].requests

    run(scenario())


def test_a_node_that_hangs_costs_the_time_limit_a_few_times_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(purges.PurgeLines.ask, "__defaults__", (0.2,))
    monkeypatch.setattr(module, "STUCK_AFTER", 2)
    monkeypatch.setattr(module, "PAUSE_S", 100.0)

    async def scenario() -> None:
        async with farm_of(2) as farm:
            node = farm.nodes[0]
            node.gate.clear()
            for _ in range(module.STUCK_AFTER):
                purged = await farm.purger.purge(URL)
                assert purged.problems == ("cache0 has not confirmed (no answer within 0.2 s): will be purged when it is back",)
            asked = len(node.requests)
            purged = await farm.purger.purge(URL)
            assert outcome(purged) == (1, 1, 0)
            assert purged.problems == ("cache0 does not answer: will be purged when it is back",)
            assert len(node.requests) == asked
            node.gate.set()
            farm.purger.returned(node.slot)
            await until(lambda: farm.purger.counters()["waiting"] == 0)
            assert outcome(await farm.purger.purge(URL)) == (2, 2, 0)

    run(scenario())


def test_the_index_forgets_before_the_nodes_are_asked_and_again_when_each_confirms():
    async def scenario() -> None:
        async with farm_of(3) as farm:
            slow, *quick = farm.in_order(URL)
            farm.hold(URL, *farm.nodes)
            slow.gate.clear()
            purging = asyncio.ensure_future(farm.purger.purge(URL))
            await until(lambda: farm.purger.counters()["found"] == 2)
            assert farm.index.holders(URL) == []
            stored = Event(What.STORED, store_key(URL), int(time.time()) + 3600)
            farm.index.apply(slow.slot, [stored])  # the old object, logged late
            farm.index.apply(quick[0].slot, [stored])  # a new one: this node has confirmed before
            slow.gate.set()
            assert outcome(await purging) == (3, 3, 3)
            assert farm.index.holders(URL) == [quick[0].slot]

    run(scenario())


def test_beyond_so_many_under_way_purges_are_refused_and_nothing_is_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 2)

    async def scenario() -> None:
        async with farm_of(1) as farm:
            node = farm.nodes[0]
            farm.hold(URL, node)
            node.gate.clear()
            purging = [asyncio.ensure_future(farm.purger.purge(b"http://a.com/%d" % number)) for number in range(2)]
            await until(lambda: len(node.requests) == 2)
            assert await farm.purger.purge(URL) == Purged(0, 0, 0, 0, ("too many purges under way",))
            assert farm.index.holders(URL) == [node.slot]
            node.gate.set()
            assert [outcome(purged) for purged in await asyncio.gather(*purging)] == [(1, 1, 0)] * 2
            assert outcome(await farm.purger.purge(URL)) == (1, 1, 1)
            assert farm.purger.counters()["refused"] == 1

    run(scenario())


def test_what_is_forgotten_for_want_of_room_is_told(caplog: pytest.LogCaptureFixture):
    async def scenario() -> None:
        async with farm_of(1) as farm:
            farm.purger._backlog._per_node = 2
            farm.nodes[0].state = "dead"
            farm.place()
            for number in range(4):
                await farm.purger.purge(b"http://a.com/%d" % number)
            assert farm.purger.counters()["dropped"] == 2
            assert farm.purger.counters()["waiting"] == 2
            assert [record.getMessage() for record in caplog.records] == [
                "node cache0 has missed more purges than are remembered: it may come back with old objects"
            ]

    run(scenario())


def test_what_is_remembered_for_too_long_is_dropped():
    async def scenario() -> None:
        async with farm_of(1) as farm:
            farm.nodes[0].state = "dead"
            farm.place()
            await farm.purger.purge(URL)
            farm.now += 86401
            farm.place()
            assert farm.purger.counters()["waiting"] == 0
            assert farm.purger.counters()["dropped"] == 1

    run(scenario())


def test_a_node_that_has_moved_is_asked_where_it_is_and_one_that_left_is_not():
    async def scenario() -> None:
        async with farm_of(2) as farm:
            moved, gone = farm.nodes
            assert outcome(await farm.purger.purge(URL)) == (2, 2, 0)
            moved.stop()
            moved._port = 0
            await moved.start()
            farm.nodes = [moved]
            farm.place()
            assert outcome(await farm.purger.purge(URL)) == (1, 1, 0)
            assert (len(moved.requests), len(gone.requests)) == (2, 1)
            farm.nodes = [moved, gone]

    run(scenario())


def test_a_node_that_left_with_a_backlog_is_told_when_it_returns():
    async def scenario() -> None:
        async with farm_of(2) as farm:
            gone = farm.nodes[1]
            gone.held.add(URL)
            gone.state = "dead"
            farm.place()
            await farm.purger.purge(URL)
            everyone = farm.nodes
            farm.nodes = everyone[:1]
            farm.place()
            gone.state = "up"
            farm.nodes = everyone
            farm.place()
            await until(lambda: not gone.held)

    run(scenario())


def test_closing_ends_what_is_repeated():
    async def scenario() -> None:
        async with farm_of(1) as farm:
            farm.nodes[0].stop()
            await farm.purger.purge(URL)
            task = farm.purger._nodes[10].repeating
            assert task is not None
            farm.purger.close()
            await until(task.done)
            assert task.cancelled()

    run(scenario())


def test_many_purges_at_once_are_all_done():
    async def scenario() -> None:
        async with farm_of(4) as farm:
            urls = [b"http://a.com/%d" % number for number in range(1000)]
            for url in urls:
                farm.hold(url, *farm.nodes)
            results = await asyncio.gather(*[farm.purger.purge(url) for url in urls])
            assert {outcome(purged) for purged in results} == {(4, 4, 4)}
            assert not any(node.held for node in farm.nodes)
            assert farm.index.holdings.count() == 0

    run(scenario())
