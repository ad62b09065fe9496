"""``Forward`` against small ICP nodes on loopback: what they say counts, and where they say nothing the index answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from cachelb.cluster import forward as module
from cachelb.cluster.forward import Forward
from cachelb.cluster.holdings import Holdings, Source
from cachelb.cluster.index import Index
from cachelb.cluster.owners import Owners
from cachelb.routing.route import NodeState
from cachelb.snapshot import NodeView
from digest import store_key
from icp import Answerer, BadUrl, Opcode, Outcome, pack_query, pack_reply, parse_query, parse_reply
from icp.service import Service

URL = b"http://a.com/x"


class Node:
    """Answers ICP with `opcode`, None: not at all.  asked: URLs."""

    def __init__(self, name: str, slot: int) -> None:
        self.name = name
        self.slot = slot
        self.state: NodeState = "up"
        self.speaks_icp = True
        self.opcode: Opcode | None = Opcode.MISS
        self.asked: list[bytes] = []

    async def start(self) -> None:
        self.service = await Service.start([("127.0.0.1", 0)], self._answer)

    @property
    def view(self) -> NodeView:
        port = self.service.addresses[0][1] if self.speaks_icp else 0
        return NodeView(self.name, self.slot, ("127.0.0.1",), 3128, 1.0, self.state, 1.0, port)

    def _answer(self, datagram: bytes, source: str, now: float) -> bytes | None:
        query = parse_query(datagram)
        self.asked.append(query.url)
        return self.opcode and pack_reply(self.opcode, query.reqnum, query.url)


class Farm:
    def __init__(self, count: int) -> None:
        self.nodes = [Node(f"cache{number}", 10 + number) for number in range(count)]
        self.now = 1000.0
        self.index = Index(Holdings(1000), time.time)
        self.owners = Owners()
        self.forward = Forward(self.index, self.owners, lambda: self.now)

    def place(self) -> None:
        views = [node.view for node in self.nodes]
        for part in (self.owners, self.index, self.forward):
            part.place(views)

    def hold(self, url: bytes, node: Node) -> None:
        self.index.holdings.add(store_key(url), node.slot, int(time.time()) + 3600, Source.STORE_LOG)

    def owner(self, url: bytes) -> Node:
        return self.nodes[self.owners.owners(url, 1)[0] - 10]

    def counts(self) -> dict[str, int]:
        """Those that are not 0."""
        return {word: count for word, count in self.forward.counters().items() if count}


@asynccontextmanager
async def farm_of(count: int) -> AsyncIterator[Farm]:
    farm = Farm(count)
    for node in farm.nodes:
        await node.start()
    farm.place()
    try:
        yield farm
    finally:
        farm.forward.close()
        for node in farm.nodes:
            node.service.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of a busy machine is not late."""
    monkeypatch.setattr(module, "TIMEOUT_S", 5.0)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as made:
            made.run(asyncio.wait_for(main, 10))

    return runner


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  what it waits for happens in the code under test
        await asyncio.sleep(0.001)


@pytest.mark.usefixtures("patient")
def test_the_owner_is_asked_and_believed(run):
    async def scenario() -> None:
        async with farm_of(3) as farm:
            owner = farm.owner(URL)
            for opcode, held in ((Opcode.HIT, True), (Opcode.MISS, False), (Opcode.MISS_NOFETCH, False)):
                owner.opcode = opcode
                assert await farm.forward.ask(URL) is held
            farm.hold(URL, owner)  # it knows better
            assert await farm.forward.ask(URL) is False
            assert [node.asked for node in farm.nodes if node.asked] == [[URL] * 4]
            assert farm.counts() == {"asked": 4, "hit": 1, "miss": 3}

    run(scenario())


@pytest.mark.usefixtures("patient")
def test_the_owner_is_asked_for_what_it_stores_the_url_as(run):
    async def scenario() -> None:
        async with farm_of(3) as farm:
            owner = farm.owner(b"http://a.com/X")
            owner.opcode = Opcode.HIT
            assert await farm.forward.ask(b"HTTP://A.com:80/X") is True
            assert owner.asked == [b"http://a.com/X"]

    run(scenario())


@pytest.mark.usefixtures("patient")
def test_who_owns_a_dead_nodes_urls_is_asked_for_them(run):
    async def scenario() -> None:
        async with farm_of(3) as farm:
            first = farm.owner(URL)
            first.state = "dead"
            farm.place()
            second = farm.owner(URL)
            second.opcode = Opcode.HIT
            assert await farm.forward.ask(URL) is True
            assert (first.asked, second.asked) == ([], [URL])

    run(scenario())


@pytest.mark.parametrize("is_held", [True, False])
@pytest.mark.parametrize("why", ["late", "denied", "error", "no icp", "no node"])
def test_where_the_owner_says_nothing_of_use_the_index_answers(run, monkeypatch: pytest.MonkeyPatch, why: str, is_held: bool):
    if why in ("denied", "error"):
        monkeypatch.setattr(module, "TIMEOUT_S", 5.0)

    async def scenario() -> None:
        async with farm_of(2) as farm:
            for node in farm.nodes:
                node.opcode = {"late": None, "denied": Opcode.DENIED, "error": Opcode.ERR}.get(why, Opcode.MISS)
                node.speaks_icp = why != "no icp"
            farm.place()
            if is_held:
                farm.hold(URL, farm.owner(URL))
            if why == "no node":
                farm.owners.place([])
            assert await farm.forward.ask(URL) is is_held
            word = {"late": "late", "denied": "refused", "error": "refused"}.get(why, "skipped")
            assert farm.counts()[word] == 1

    run(scenario())


def test_what_is_no_url_is_asked_of_nobody(run):
    async def scenario() -> None:
        async with farm_of(1) as farm:
            for url in (b"", b"x", b"http://"):
                with pytest.raises(BadUrl):
                    await farm.forward.ask(url)
            assert farm.counts() == {}

    run(scenario())


def test_a_url_that_no_packet_can_carry_is_answered_from_the_index(run):
    async def scenario() -> None:
        async with farm_of(1) as farm:
            assert await farm.forward.ask(b"http://a.com/" + b"x" * 8192) is False
            assert farm.counts() == {"skipped": 1}
            assert farm.forward._nodes[10].under_way == 0

    run(scenario())


def test_an_owner_that_is_always_late_rests_and_is_tried_again(run):
    async def scenario() -> None:
        async with farm_of(1) as farm:
            node = farm.nodes[0]
            node.opcode = None
            for _ in range(module.LATE_IN_A_ROW):
                assert await farm.forward.ask(URL) is False
            assert farm.counts() == {"asked": module.LATE_IN_A_ROW, "late": module.LATE_IN_A_ROW}
            for _ in range(5):
                await farm.forward.ask(URL)
            assert farm.counts()["skipped"] == 5
            farm.now += module.REST_S
            for _ in range(5):
                await farm.forward.ask(URL)
            assert farm.counts()["asked"] == module.LATE_IN_A_ROW + 1
            assert farm.counts()["skipped"] == 9

    run(scenario())


@pytest.mark.usefixtures("patient")
def test_an_owner_that_answers_its_trial_is_asked_like_any_other(run):
    async def scenario() -> None:
        async with farm_of(1) as farm:
            node = farm.forward._nodes[10]
            for _ in range(module.LATE_IN_A_ROW):
                assert node.admits(farm.now)
                node.missed(farm.now)
            assert not node.admits(farm.now)
            farm.now += module.REST_S
            farm.nodes[0].opcode = Opcode.HIT
            assert [await farm.forward.ask(URL) for _ in range(3)] == [True] * 3
            assert farm.counts() == {"asked": 3, "hit": 3}

    run(scenario())


@pytest.mark.usefixtures("patient")
def test_an_answer_between_late_ones_starts_the_count_anew(run):
    async def scenario() -> None:
        async with farm_of(1) as farm:
            node = farm.forward._nodes[10]
            for _ in range(3):
                for _ in range(module.LATE_IN_A_ROW - 1):
                    node.missed(farm.now)
                await farm.forward.ask(URL)
            assert farm.counts()["asked"] == 3

    run(scenario())


@pytest.mark.usefixtures("patient")
def test_an_owner_with_too_many_queries_gets_no_more(run):
    async def scenario() -> None:
        async with farm_of(1) as farm:
            node = farm.nodes[0]
            node.opcode = None
            farm.hold(URL, node)
            asking = [asyncio.ensure_future(farm.forward.ask(URL)) for _ in range(module.UNDER_WAY)]
            await until(lambda: len(node.asked) == module.UNDER_WAY)
            assert await farm.forward.ask(URL) is True
            assert farm.counts() == {"skipped": 1}
            farm.forward.close()  # those that wait are answered from the index
            assert await asyncio.gather(*asking) == [True] * module.UNDER_WAY

    run(scenario())


@pytest.mark.usefixtures("patient")
def test_a_node_that_denies_is_told_once_a_minute(run, caplog: pytest.LogCaptureFixture):
    async def scenario() -> None:
        async with farm_of(1) as farm:
            farm.nodes[0].opcode = Opcode.DENIED
            for later_s in (0, 30, 31):
                farm.now += later_s
                await farm.forward.ask(URL)

    run(scenario())
    text = "node cache0 denies ICP: allow it in squid.conf (icp_access allow director)"
    assert [record.getMessage() for record in caplog.records] == [text] * 2


def test_what_is_known_of_a_node_stays_until_it_moves(run):
    async def scenario() -> None:
        async with farm_of(2) as farm:
            before = farm.forward._nodes[10]
            farm.nodes[1].state = "dead"
            farm.place()
            assert farm.forward._nodes[10] is before
            farm.nodes[0].service.close()
            await farm.nodes[0].start()
            farm.place()
            assert farm.forward._nodes[10] is not before
            farm.nodes[0].speaks_icp = False
            farm.place()
            assert list(farm.forward._nodes) == [11]

    run(scenario())


@pytest.mark.usefixtures("patient")
def test_an_icp_service_answers_what_the_owner_says(run):
    async def scenario() -> None:
        async with farm_of(2) as farm:
            answerer = Answerer(farm.index.holds, lambda source: True, ask=farm.forward.ask)
            for opcode in (Opcode.HIT, Opcode.MISS):
                farm.owner(URL).opcode = opcode
                coming = answerer.answer(pack_query(7, URL), "127.0.0.9", 0.0)
                assert parse_reply(await coming).opcode is opcode  # type: ignore[misc, arg-type]
            assert answerer.counts[Outcome.HIT] == answerer.counts[Outcome.MISS] == 1

    run(scenario())
