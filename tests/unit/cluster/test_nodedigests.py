"""``NodeDigests`` and nodes on loopback that have whatever digest the test says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest

from cachelb.cluster import nodedigests as module
from cachelb.cluster import schedule as schedule_module
from cachelb.cluster import sweep as sweep_module
from cachelb.cluster.holdings import Holdings, Source
from cachelb.cluster.index import Index
from cachelb.cluster.nodedigests import NodeDigests
from cachelb.cluster.storelog import Event, What
from cachelb.control import Seen
from cachelb.snapshot import NodeView
from digest import Geometry, Mask, build, digest_of, pack_digest, store_key

PERIOD_S = 3600
PATIENCE_S = 10.0


def url(number: int) -> bytes:
    return b"http://www.a.com/%d" % number


def keys_of(numbers: range) -> bytes:
    return b"".join(store_key(url(number)) for number in numbers)


class Node:
    """A node's HTTP port.  held: what its digest contains, None: it has none; body: instead of that digest."""

    def __init__(self, name: str, slot: int) -> None:
        self.name = name
        self.slot = slot
        self.held: range | None = range(0)
        self.body: bytes | None = None
        self.status = "200 OK"
        self.made_at = time.time()
        self.expires_in_s = PERIOD_S
        self.requests: list[bytes] = []
        self.at_once = self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.host = "127.0.0.1"
        self.port = 0

    def view(self, state: str = "up") -> NodeView:
        return NodeView(self.name, self.slot, (self.host,), self.port, 1.0, state)  # type: ignore[arg-type]

    def makes(self, held: range, *, age_s: float = 0.0) -> None:
        """Makes a new digest."""
        self.held = held
        self.made_at = time.time() - age_s

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(request)
            await self.gate.wait()
            writer.write(self._answer(request))
            await writer.drain()
        writer.close()

    def _answer(self, request: bytes) -> bytes:
        made = formatdate(self.made_at, usegmt=True)
        if self.held is None:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        if f"If-Modified-Since: {made}\r\n".encode() in request:
            return b"HTTP/1.1 304 Not Modified\r\n\r\n"
        body = pack_digest(build(keys_of(self.held), 16)) if self.body is None else self.body
        dates = f"Date: {formatdate(usegmt=True)}\r\nLast-Modified: {made}\r\n"
        dates += f"Expires: {formatdate(self.made_at + self.expires_in_s, usegmt=True)}\r\n"
        return f"HTTP/1.1 {self.status}\r\n{dates}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Farm:
    """Some nodes, an index, and its node digests, running."""

    def __init__(self, holdings: Holdings) -> None:
        self.index = Index(holdings, time.time)
        self.digests = NodeDigests(self.index)
        self.nodes: list[Node] = []
        self.task: asyncio.Future[None]

    def place(self, *, away: tuple[int, ...] = (), without: tuple[int, ...] = ()) -> None:
        views = [node.view("dead" if node.slot in away else "up") for node in self.nodes if node.slot not in without]
        self.index.place(views)
        self.digests.place(views)

    def status(self, slot: int = 0) -> dict[str, object]:
        name = self.nodes[slot].name
        return next(row for row in self.digests.status() if row["node"] == name)

    async def waits(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def tried(self, slot: int = 0, *, after: object = None) -> dict[str, object]:
        """The status once a digest was tried (whose fetched_at is not `after`)."""
        await self.waits(lambda: self.status(slot).get("verdict") is not None and self.status(slot)["fetched_at"] != after)
        await self.waits(lambda: not self.digests._nodes[slot].is_busy)
        return self.status(slot)

    async def again(self, slot: int = 0) -> dict[str, object]:
        """The node is asked as if its time had come."""
        before = self.status(slot).get("fetched_at")
        self.due(slot)
        return await self.tried(slot, after=before)

    def due(self, slot: int = 0) -> None:
        self.digests._nodes[slot].schedule.due = 0.0
        self.digests.place([node.view() for node in self.nodes])

    def saw(self, numbers: range, slot: int = 0, fresh_s: int = 20_000) -> None:
        self.index.saw(Seen(slot, int(time.time()) + fresh_s, url(number)) for number in numbers)

    def held(self, slot: int = 0) -> set[int]:
        return {number for number in range(500) if slot in self.index.holders(url(number))}


@asynccontextmanager
async def farm_of(count: int = 1, holdings: Holdings | None = None) -> AsyncIterator[Farm]:
    farm = Farm(holdings or Holdings())
    async with contextlib.AsyncExitStack() as stack:
        for slot in range(count):
            node = Node(f"cache{slot + 1}", slot)
            server = await stack.enter_async_context(await asyncio.start_server(node.serve, "127.0.0.1", 0))
            node.port = server.sockets[0].getsockname()[1]
            farm.nodes.append(node)
        farm.task = asyncio.ensure_future(farm.digests.run())
        try:
            yield farm
        finally:
            farm.task.cancel()
            await asyncio.gather(farm.task, return_exceptions=True)
            if not farm.task.cancelled() and farm.task.exception() is not None:
                raise farm.task.exception()  # type: ignore[misc]


@asynccontextmanager
async def at_another_place(farm: Farm) -> AsyncIterator[Node]:
    """Node 0 has another address and port from the next ``place`` on."""
    node = Node("cache1", 0)
    node.host = "127.0.0.2"
    async with await asyncio.start_server(node.serve, node.host, 0) as server:
        node.port = server.sockets[0].getsockname()[1]
        farm.nodes[0] = node
        yield node


def play(scenario: Callable[[Farm], Awaitable[None]], count: int = 1, holdings: Holdings | None = None) -> None:
    async def main() -> None:
        async with farm_of(count, holdings) as farm:
            await scenario(farm)

    asyncio.run(main())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module, "PAUSE_S", 0)
    monkeypatch.setattr(schedule_module, "HURRY_STEP_S", 0.02)
    monkeypatch.setattr(module, "PAUSE_S", 0)
    monkeypatch.setattr(module, "DATE_S", 0.0)  # digests follow each other within the second here


def test_what_a_digest_contains_is_confirmed_and_told():
    async def scenario(farm: Farm) -> None:
        farm.saw(range(100))
        farm.nodes[0].makes(range(100), age_s=100)
        farm.place()
        told = await farm.tried()
        assert (told["verdict"], told["confirmed"], told["removed"]) == ("kept", 100, 0)
        assert (told["problem"], told["has_digest"], told["entries"], told["share"]) == ("", True, 100, 1.0)
        assert 0 < told["fill"] < 0.5
        assert 0 < told["false_positives"] < 0.01
        assert PERIOD_S - 101 < told["next_s"] < PERIOD_S
        assert farm.index.holdings.holders(store_key(url(1)))[0].source is Source.DIGEST

    play(scenario)


def test_what_is_gone_is_found_out_by_the_second_digest_and_what_is_new_stays():
    async def scenario(farm: Farm) -> None:
        node = farm.nodes[0]
        farm.saw(range(100))
        node.makes(range(90), age_s=100)
        farm.place()
        assert (await farm.tried())["removed"] == 0  # all this may have come after the digest was made
        farm.saw(range(100, 110))
        node.makes(range(90))
        node.made_at += 2
        told = await farm.again()
        assert (told["removed"], told["missing"]) == (10, 20)
        assert farm.held() == {*range(90), *range(100, 110)}

    play(scenario)


def test_a_digest_that_is_not_new_is_not_sent_again():
    async def scenario(farm: Farm) -> None:
        farm.place()
        await farm.tried()
        farm.due()
        await farm.waits(lambda: len(farm.nodes[0].requests) == 2 and not farm.digests._nodes[0].is_busy)
        assert b"If-Modified-Since" not in farm.nodes[0].requests[0]
        assert b"If-Modified-Since" in farm.nodes[0].requests[1]
        assert 0 < farm.status()["next_s"] <= schedule_module.LATE_S

    play(scenario)


def test_what_expires_before_the_next_digest_is_not_expected_in_this_one():
    async def scenario(farm: Farm) -> None:
        farm.saw(range(100))
        farm.saw(range(100, 110), fresh_s=PERIOD_S - 100)
        farm.nodes[0].makes(range(100), age_s=100)
        farm.place()
        await farm.tried()
        farm.nodes[0].makes(range(100))
        farm.nodes[0].made_at += 2
        assert (await farm.again())["removed"] == 0
        assert farm.held() == set(range(110))

    play(scenario)


def test_a_store_log_that_is_live_is_believed_more(caplog: pytest.LogCaptureFixture):
    async def scenario(farm: Farm) -> None:
        farm.nodes[0].makes(range(0), age_s=100)
        farm.place()
        until = int(time.time()) + 20_000
        farm.index.apply(0, [Event(What.STORED, store_key(url(number)), until) for number in range(10)])
        await farm.tried()
        farm.nodes[0].makes(range(0))
        farm.nodes[0].made_at += 2
        await farm.again()
        assert farm.held() == set(range(10))

    play(scenario)


@pytest.mark.parametrize("how", ["ask_now", "dead"])
def test_a_restarted_node_with_its_disk_intact_keeps_what_is_in_its_digest(how: str):
    async def scenario(farm: Farm) -> None:
        node = farm.nodes[0]
        farm.saw(range(100))
        farm.saw(range(200, 210), fresh_s=60)  # not testable
        node.makes(range(100), age_s=100)
        farm.place()
        before = await farm.tried()
        node.makes(range(80))
        restart(farm, how)
        told = await farm.tried(after=before["fetched_at"])
        assert (told["verdict"], told["removed"]) == ("kept", 20)
        assert farm.held() == {*range(80), *range(200, 210)}

    play(scenario)


def restart(farm: Farm, how: str) -> None:
    if how == "ask_now":
        farm.digests.ask_now(0)
    else:
        farm.place(away=(0,))
        farm.place()


@pytest.mark.parametrize("how", ["ask_now", "dead"])
def test_a_node_that_was_emptied_is_forgotten_at_once(how: str, caplog: pytest.LogCaptureFixture):
    async def scenario(farm: Farm) -> None:
        node = farm.nodes[0]
        farm.saw(range(200))
        farm.saw(range(200, 210), fresh_s=60)
        farm.saw(range(5), slot=1)
        node.makes(range(200), age_s=100)
        farm.place()
        before = await farm.tried()
        node.gate.clear()
        node.makes(range(3))
        restart(farm, how)
        farm.saw(range(300, 310))
        node.gate.set()
        told = await farm.tried(after=before["fetched_at"])
        assert (told["verdict"], told["removed"]) == ("emptied", 207)
        assert farm.held() == {*range(3), *range(300, 310)}
        assert farm.held(1) == set(range(5))

    caplog.set_level("INFO")
    play(scenario, count=2)
    assert "node cache1 was emptied: 207 objects forgotten" in caplog.messages


def test_a_restarted_node_is_asked_again_until_it_has_built_its_digest():
    async def scenario(farm: Farm) -> None:
        node = farm.nodes[0]
        farm.saw(range(100))
        node.makes(range(100), age_s=100)
        farm.place()
        before = await farm.tried()
        node.held = None
        farm.digests.ask_now(0)
        await farm.waits(lambda: len(node.requests) >= 4)
        assert farm.held() == set(range(100))
        node.makes(range(0))
        await farm.tried(after=before["fetched_at"])
        assert farm.held() == set()
        assert farm.status()["problem"] == ""

    play(scenario)


def test_the_same_digest_as_before_proves_that_there_was_no_restart():
    async def scenario(farm: Farm) -> None:
        node = farm.nodes[0]
        node.makes(range(0), age_s=3)  # young enough to be one of a process that was started just now
        farm.place()
        await farm.tried()
        farm.saw(range(100))
        farm.digests.ask_now(0)
        await farm.waits(lambda: len(node.requests) == 2 and not farm.digests._nodes[0].is_busy)
        assert b"If-Modified-Since" not in node.requests[1]
        assert farm.held() == set(range(100))
        node.makes(range(100))  # and what was recorded before is not taken for old later
        node.made_at += 2
        farm.index.saw([Seen(0, int(time.time()) + 20_000, url(200))])
        await farm.again()
        assert farm.held() == {*range(100), 200}

    play(scenario)


def test_a_node_that_was_away_but_not_restarted_keeps_what_came_after_its_digest():
    async def scenario(farm: Farm) -> None:
        node = farm.nodes[0]
        node.makes(range(50), age_s=200)
        farm.place(away=(0,))
        farm.saw(range(100))
        farm.place()
        told = await farm.tried()
        assert (told["verdict"], told["removed"]) == ("kept", 0)

    play(scenario)


@pytest.mark.parametrize("dies", [False, True])
def test_a_node_that_is_another_machine_now_holds_what_its_digest_says(dies: bool):
    async def scenario(farm: Farm) -> None:
        told = farm.nodes[0]
        farm.index.apply(0, [Event(What.STORED, store_key(url(n)), int(time.time()) + 20_000) for n in range(100)])
        told.makes(range(100), age_s=10)
        farm.place()
        before = await farm.tried()
        if dies:
            farm.place(away=(0,))
        async with at_another_place(farm) as new:
            new.makes(range(3), age_s=1800)  # it has been running for a while
            farm.place()
            await farm.tried(after=before["fetched_at"])
            assert farm.held() == set(range(3))
            assert len(told.requests) == 1

    play(scenario)


def test_a_node_that_has_only_another_address_keeps_what_came_after_its_digest():
    async def scenario(farm: Farm) -> None:
        node = farm.nodes[0]
        node.makes(range(50), age_s=200)
        farm.saw(range(100))
        farm.place()
        await farm.tried()
        async with at_another_place(farm) as new:
            new.held, new.made_at = node.held, node.made_at
            farm.place()
            await farm.waits(lambda: bool(new.requests) and not farm.digests._nodes[0].is_busy)
            assert farm.held() == set(range(100))

    play(scenario)


def test_a_node_that_moves_during_its_trial_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    async def scenario(farm: Farm) -> None:
        farm.saw(range(100))
        farm.nodes[0].makes(range(100), age_s=10)
        farm.place()
        await farm.waits(lambda: farm.digests._sweep.has(0))
        async with at_another_place(farm) as new:
            new.makes(range(0), age_s=1800)
            farm.place()
            monkeypatch.setattr(sweep_module, "PAUSE_S", 0)
            await farm.waits(lambda: farm.held() == set())

    monkeypatch.setattr(sweep_module, "PAUSE_S", 0.005)
    play(scenario)


def test_a_node_that_is_away_is_not_asked():
    async def scenario(farm: Farm) -> None:
        farm.place(away=(0,))
        await farm.tried(1)
        assert farm.nodes[0].requests == []
        farm.place()
        await farm.tried(0)

    play(scenario, count=2)


def test_a_restart_that_is_noticed_twice_is_settled_once():
    async def scenario(farm: Farm) -> None:
        node = farm.nodes[0]
        farm.saw(range(100))
        node.makes(range(100), age_s=100)
        farm.place()
        before = await farm.tried()
        node.makes(range(0))
        farm.digests.ask_now(0)
        await farm.waits(lambda: farm.digests._sweep.has(0))
        farm.saw(range(200, 210))
        farm.digests.ask_now(0)  # while the first is being settled
        await farm.tried(after=before["fetched_at"])
        await farm.waits(lambda: len(node.requests) == 3 and not farm.digests._nodes[0].is_busy)
        farm.digests.ask_now(0)  # and afterwards
        await farm.waits(lambda: len(node.requests) == 4 and not farm.digests._nodes[0].is_busy)
        assert farm.held() == set(range(200, 210))

    play(scenario)


def test_an_answer_of_the_process_before_is_not_believed():
    async def scenario(farm: Farm) -> None:
        node = farm.nodes[0]
        farm.saw(range(100))
        node.makes(range(100))
        node.gate.clear()
        farm.place()
        await farm.waits(lambda: len(node.requests) == 1)
        farm.digests.ask_now(0)  # it was restarted while it answered
        node.gate.set()
        await farm.tried()
        assert len(node.requests) == 2

    play(scenario)


@pytest.mark.parametrize("away", [(), (0, 1)])
def test_what_was_loaded_is_settled_by_a_digest_made_after_it_was_saved(away: tuple[int, ...]):
    async def scenario(farm: Farm) -> None:
        farm.place(away=away)
        farm.nodes[0].makes(range(50), age_s=60)
        farm.nodes[1].makes(range(50), age_s=900)
        farm.place()
        await farm.tried(0)
        await farm.tried(1)
        assert farm.held(0) == set(range(50))
        assert farm.held(1) == set(range(100))  # older: its node has been there all the time

    holdings = Holdings()
    for number in range(200):
        holdings.add(store_key(url(number % 100)), number // 100, int(time.time()) + 20_000, Source.STORE_LOG)
    buckets = holdings.buckets(0, 1 << 18)
    slots = {slot: node for slot, (node, _) in holdings.slots().items()}
    counts = [len(bucket) // 20 for bucket in buckets]
    loaded = Holdings.restore(memoryview(b"".join(buckets)), counts, slots, as_of=int(time.time()) - 300)
    play(scenario, count=2, holdings=loaded)


def test_a_node_without_a_digest_is_forgotten_when_it_was_restarted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "NONE_RUNNING_S", 0.0)
    caplog.set_level("INFO")

    async def scenario(farm: Farm) -> None:
        farm.nodes[0].held = None
        farm.saw(range(1234))
        farm.place()
        await farm.waits(lambda: farm.digests._nodes[0].none_since is not None)
        assert len(farm.held()) == 500
        farm.digests.ask_now(0)
        assert farm.held() == set()
        assert not farm.status()["has_digest"]
        farm.saw(range(5))
        await farm.waits(lambda: len(farm.nodes[0].requests) > 3)
        assert farm.held() == set(range(5))

    play(scenario)
    assert "node cache1 was restarted and has no digest: 1,234 objects forgotten" in caplog.messages


def test_a_restarted_node_that_does_not_get_a_digest_is_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "NONE_RESTARTED_S", 0.05)

    async def scenario(farm: Farm) -> None:
        farm.saw(range(10))
        farm.nodes[0].makes(range(10), age_s=100)
        farm.place()
        await farm.tried()
        farm.nodes[0].held = None
        farm.digests.ask_now(0)
        await farm.waits(lambda: farm.held() == set())

    play(scenario)


def test_unsound_digests_change_nothing_and_are_told_once(caplog: pytest.LogCaptureFixture):
    sound = pack_digest(build(keys_of(range(100)), 16))
    full = digest_of(b"", Geometry(1000, 8))
    full.mask.unite(Mask.from_bytes(b"\xff" * 1000))
    unsound = {
        sound[:100]: "less than a control block",
        sound[:-1]: "bytes follow the control block",
        sound[:16] + b"\x7f\xff\xff\xff" + sound[20:]: "makes a mask of",
        sound + b"\0": "bytes follow the control block",
        pack_digest(full): "100% of its bits are set",
    }

    async def scenario(farm: Farm) -> None:
        node = farm.nodes[0]
        farm.saw(range(100))
        node.makes(range(100), age_s=100)
        farm.place()
        before = await farm.tried()
        for body, problem in unsound.items():
            caplog.clear()
            node.body = body
            node.made_at += 3
            for count in range(2):
                asked = len(node.requests)
                farm.due()
                await farm.waits(lambda asked=asked: len(node.requests) > asked and not farm.digests._nodes[0].is_busy)
                assert problem in str(farm.status()["problem"]), count
                assert farm.status()["next_s"] > 50
            assert [record.levelname for record in caplog.records] == ["WARNING"]
            assert "node cache1" in caplog.text
        assert farm.status()["fetched_at"] == before["fetched_at"]
        assert farm.held() == set(range(100))
        node.body = None
        node.made_at += 3
        assert (await farm.again())["problem"] == ""
        assert "node cache1: its digest is used again" in caplog.messages

    caplog.set_level("INFO")
    play(scenario)


@pytest.mark.parametrize("fault", ["status", "limit", "refused"])
def test_what_cannot_be_fetched_is_a_problem(fault: str, monkeypatch: pytest.MonkeyPatch):
    async def scenario(farm: Farm) -> None:
        node = farm.nodes[0]
        if fault == "status":
            node.status = "403 Forbidden"
        elif fault == "limit":
            node.body = b"x" * (farm.digests._mask_limit_bytes + 129)
        else:
            node.port = 1
        farm.place()
        await farm.waits(lambda: farm.status()["problem"] != "")
        problem = str(farm.status()["problem"])
        assert {"status": "403", "limit": "above the limit", "refused": "refused"}[fault] in problem.lower()
        assert not farm.status()["has_digest"]

    monkeypatch.setattr(module, "MASK_LEAST_BYTES", 1000)
    play(scenario, holdings=Holdings(1000))


def test_a_digest_that_does_not_know_what_its_node_holds_is_not_used(caplog: pytest.LogCaptureFixture):
    async def scenario(farm: Farm) -> None:
        node = farm.nodes[0]
        farm.saw(range(100))
        node.makes(range(1), age_s=100)
        farm.place()
        await farm.tried()
        for later in range(2, 8, 2):
            node.makes(range(1))
            node.made_at += later
            assert (await farm.again())["verdict"] == "mute"
        assert farm.held() == set(range(100))
        assert "1% of what the node is known to hold" in str(farm.status()["problem"])

    play(scenario)
    assert len([line for line in caplog.messages if "rock" in line]) == 1


def test_at_most_so_many_nodes_are_asked_at_once_and_all_are_in_the_end():
    async def scenario(farm: Farm) -> None:
        for node in farm.nodes:
            node.gate.clear()
        farm.place()
        await farm.waits(lambda: sum(len(node.requests) for node in farm.nodes) == module.FETCHES)
        for _ in range(20):
            await asyncio.sleep(0)
        assert sum(len(node.requests) for node in farm.nodes) == module.FETCHES
        for node in farm.nodes:
            node.gate.set()
        for slot in range(len(farm.nodes)):
            await farm.tried(slot)

    play(scenario, count=3 * module.IN_HAND)


def test_a_node_that_dies_while_it_is_asked_is_no_problem_of_its_digest(caplog: pytest.LogCaptureFixture):
    async def scenario(farm: Farm) -> None:
        node = farm.nodes[0]
        node.gate.clear()
        node.status = "500 Sorry"
        farm.place()
        await farm.waits(lambda: len(node.requests) == 1)
        farm.place(away=(0,))
        node.gate.set()
        await farm.waits(lambda: not farm.digests._nodes[0].is_busy)
        assert farm.status()["problem"] == ""

    play(scenario)
    assert caplog.messages == []


def test_a_node_is_asked_at_its_next_address_when_the_first_does_not_answer():
    async def scenario(farm: Farm) -> None:
        node = farm.nodes[0]
        view = NodeView(node.name, 0, ("127.0.0.99", "127.0.0.1"), node.port, 1.0, "up")
        farm.digests.place([view])
        assert (await farm.tried())["problem"] == ""

    play(scenario)


def test_a_node_that_left_meanwhile_is_no_trouble():
    async def scenario(farm: Farm) -> None:
        farm.nodes[0].gate.clear()
        farm.saw(range(50))
        farm.place()
        await farm.waits(lambda: len(farm.nodes[0].requests) == 1)
        farm.place(without=(0,))
        farm.nodes[0].gate.set()
        await farm.tried(1)
        assert [row["node"] for row in farm.digests.status()] == ["cache2"]
        farm.nodes[0].name = "another"
        farm.place()
        await farm.tried(0)
        farm.digests.ask_now(77)

    play(scenario, count=2)


def test_a_node_that_leaves_during_its_trial_is_no_trouble(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweep_module, "PAUSE_S", 0.01)

    async def scenario(farm: Farm) -> None:
        farm.saw(range(50))
        farm.place()
        await farm.waits(lambda: farm.digests._sweep.has(0))
        farm.place(without=(0,))
        assert not farm.digests._sweep.has(0)
        farm.place()
        await farm.waits(lambda: farm.digests._sweep.has(0))

    play(scenario)


def test_switched_off_it_asks_nobody():
    async def scenario(farm: Farm) -> None:
        farm.digests.configure(False)
        farm.place()
        farm.saw(range(5))
        farm.digests.ask_now(0)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert farm.nodes[0].requests == []
        assert farm.held() == set(range(5))
        farm.digests.configure(True)
        await farm.tried()

    play(scenario)


def test_a_mistake_of_ours_is_logged_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    real, bugs = module.read_digest, ["a bug"]

    def read(body: bytes, limit_bytes: int) -> object:
        if bugs:
            raise RuntimeError(bugs.pop())
        return real(body, limit_bytes)

    monkeypatch.setattr(module, "read_digest", read)

    async def scenario(farm: Farm) -> None:
        farm.place()
        await farm.waits(lambda: any(row["problem"] == "internal error" for row in farm.digests.status()))
        await farm.waits(lambda: any("verdict" in row for row in farm.digests.status()))

    play(scenario, count=2)
    assert any("a bug" in message for message in caplog.messages)


def test_it_can_be_run_again():
    async def scenario(farm: Farm) -> None:
        farm.place()
        await farm.tried()
        farm.task.cancel()
        await asyncio.gather(farm.task, return_exceptions=True)
        farm.task = asyncio.ensure_future(farm.digests.run())
        farm.nodes[0].made_at += 2
        await farm.again()

    play(scenario)
