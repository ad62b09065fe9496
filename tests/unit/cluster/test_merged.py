"""The farm's digest: when it is built, what is published, and that a failure takes nothing away."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import mmap
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from processes import children

from cachelb.cluster import merged as module
from cachelb.cluster.build import Built, Order
from cachelb.cluster.builder import Builder, BuildError
from cachelb.cluster.holdings import Holdings, Source, mask_of
from cachelb.cluster.merged import LATER_SHARE, MOVED_MIN, REST_PER_BUILD, SOONEST_S, MergedDigest, margin_s, wait_s
from cachelb.config import DigestConfig
from cachelb.handover import Published
from cachelb.routing.route import NodeState
from cachelb.snapshot import NodeView
from digest import Digest, Geometry, build, parse_digest

PATIENCE_S = 20.0


class Index:
    """What the director knows: holdings, and which nodes are live."""

    def __init__(self, *live: int) -> None:
        self.holdings = Holdings()
        self.live = mask_of(live)

    def fill(self, count: int, node: int = 0, seed: int = 0, fresh_s: float = 3600) -> bytes:
        keys = random.Random(seed).randbytes(16 * count)
        for at in range(0, len(keys), 16):
            self.holdings.add(keys[at : at + 16], node, int(time.time() + fresh_s), Source.STORE_LOG)
        return keys


class Subject:
    """A digest and what it published: the body of each, read at once, as it is closed later."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.news: list[tuple[Published, Digest]] = []
        self._more = asyncio.Event()
        self.merged = MergedDigest(index, self._publish)

    def _publish(self, published: Published) -> None:
        self.news.append((published, parse_digest(os.pread(published.fd, 1 << 24, 0))))
        self._more.set()

    @property
    def digest(self) -> Digest:
        return self.news[-1][1]

    async def published(self, count: int) -> Digest:
        """Wait until so many were published; the last of them."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.news) < count:
                self._more.clear()
                await self._more.wait()
        return self.news[count - 1][1]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.merged.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def subject() -> Iterator[Callable[..., Subject]]:
    """``subject(*live)``: a digest of nothing yet."""
    made: list[Subject] = []
    before = set(os.listdir("/proc/self/fd"))

    def make(*live: int) -> Subject:
        made.append(Subject(Index(*live)))
        return made[-1]

    yield make
    for one in made:
        one.merged.close()
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rest between two builds."""
    for name in ("SOONEST_S", "REST_PER_BUILD", "RETRY_S"):
        monkeypatch.setattr(module, name, 0.0)
    monkeypatch.setattr(module, "LOOK_S", 0.01)


def view(slot: int, state: NodeState = "up") -> NodeView:
    return NodeView(f"cache{slot}", slot, ("127.0.0.1",), 3128, 1.0, state)


# -- when


def test_what_has_not_moved_waits_for_its_period():
    assert wait_s({0: 1000, 1: 500}, {0: 1000, 1: 500}, 300, 1) == 300
    assert wait_s({0: 1000, 1: 500}, {0: 1100, 1: 450}, 300, 1) == 300  # 150 are a tenth, not more


@pytest.mark.parametrize(
    "now",
    [{0: 1100, 1: 449}, {0: 1151, 1: 500}, {0: 849, 1: 500}, {0: 1000}, {0: 1000, 1: 500, 2: 100}, {}],
    ids=["traded", "grown", "shrunk", "died", "returned", "all died"],
)
def test_more_than_a_tenth_or_a_node_that_came_or_went_is_due_soon(now: dict[int, int]):
    assert wait_s({0: 1000, 1: 500}, now, 300, 0.2) == SOONEST_S


def test_few_keys_wait_longer_so_that_a_small_farm_is_not_rebuilt_all_the_time():
    assert MOVED_MIN == 100
    assert wait_s({0: 50}, {0: 149}, 300, 0.2) == LATER_SHARE * 300 == 30
    assert wait_s({0: 50}, {0: 150}, 300, 0.2) == SOONEST_S
    assert wait_s({0: 5000, 1: 99}, {0: 5000}, 300, 0.2) == 30


def test_a_node_without_keys_is_nobody():
    assert wait_s({0: 1000}, {0: 1000, 1: 0}, 300, 1) == 300
    assert wait_s({0: 1000, 1: 0}, {0: 1000}, 300, 1) == 300


def test_building_takes_a_tenth_of_the_time_at_most():
    assert wait_s({0: 1000}, {0: 5000}, 300, 4) == 4 * REST_PER_BUILD == 40
    assert wait_s({0: 1000}, {0: 5000}, 300, 60) == 300
    assert wait_s({}, {0: 5000}, 300, 4) == 40


def test_an_empty_digest_is_replaced_at_once_and_never_kept_long():
    assert wait_s({}, {0: 100}, 300, 0) == 0
    assert wait_s({}, {0: 99}, 300, 0) == SOONEST_S
    assert wait_s({0: 0}, {0: 0}, 300, 0) == 30
    assert wait_s({}, {}, 300, 0) == 30
    assert wait_s({}, {}, 60, 0) == SOONEST_S
    assert wait_s({}, {}, 10, 0) == 10


@pytest.mark.parametrize("now", [{}, {0: 1}, {0: 5000}])
def test_the_period_is_the_longest_wait(now: dict[int, int]):
    assert wait_s({0: 1000}, now, 1, 100) == 1


def test_what_is_in_it_must_be_fresh_for_a_twentieth_of_its_life_and_never_less_than_icp_promises():
    assert [margin_s(rebuild_s) for rebuild_s in (1, 10, 300)] == [30, 30, 30]
    assert margin_s(3600) == 195


# -- what


def test_an_empty_digest_is_valid_and_needs_no_event_loop(subject: Callable[..., Subject]):
    one = subject()
    one.merged.configure(DigestConfig(bits_per_entry=5))
    began = int(time.time())
    one.merged.publish_empty()
    published, digest = one.news[0]
    assert digest == Digest.empty(Geometry(1224, 5))
    assert published.size_bytes == os.fstat(published.fd).st_size
    assert began <= published.modified_at <= time.time()
    assert published.expires_at - published.modified_at == 30


def test_what_is_published_cannot_be_changed(subject: Callable[..., Subject]):
    one = subject()
    one.merged.publish_empty()
    fd = one.news[0][0].fd
    seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    assert seals & (wanted := fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL) == wanted
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fd, b"x")
    with pytest.raises(PermissionError):
        os.truncate(f"/proc/self/fd/{fd}", 0)
    for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
        with mmap.mmap(fd, 0, flags, mmap.PROT_READ) as memory:
            assert parse_digest(memory[:]) == one.digest
    assert not os.get_inheritable(fd)


def test_the_first_is_empty_and_the_next_has_what_is_held(subject: Callable[..., Subject]):
    async def main() -> None:
        keys = one.index.fill(2000, 0), one.index.fill(1000, 1, seed=1)
        one.index.fill(500, 2, seed=2)  # its node is not live
        async with one.running():
            assert await one.published(1) == Digest.empty(Geometry(1000, 8))
            assert await one.published(2) == build(b"".join(keys), 8)
        published = one.news[1][0]
        assert published.expires_at - published.modified_at == 300

    one = subject(0, 1)
    asyncio.run(main())


def test_what_is_stale_soon_is_not_in_it(subject: Callable[..., Subject]):
    async def main() -> None:
        keys = one.index.fill(200, 0)
        one.index.fill(200, 0, seed=1, fresh_s=25)
        one.index.fill(200, 0, seed=2, fresh_s=-100)
        async with one.running():
            assert await one.published(2) == build(keys, 8)

    one = subject(0)
    asyncio.run(main())


@pytest.mark.usefixtures("_hurry")
def test_it_follows_what_the_farm_holds(subject: Callable[..., Subject]):
    async def main() -> None:
        one.merged.publish_empty()
        keys = one.index.fill(1000, 0)
        async with one.running():
            assert await one.published(2) == build(keys, 8)
            more = one.index.fill(200, 1, seed=1)
            assert await one.published(3) == build(keys + more, 8)
            one.index.live = mask_of([1])
            one.merged.place([view(0, "dead"), view(1)])
            assert await one.published(4) == build(more, 8)
            one.index.live = 0
            assert await one.published(5) == Digest.empty(Geometry(1000, 8))
            one.index.live = mask_of([0, 1])
            assert await one.published(6) == build(keys + more, 8)
            one.index.holdings = Holdings()
            keys = one.index.fill(150, 0, seed=3)
            assert await one.published(7) == build(keys, 8)

    one = subject(0, 1)
    asyncio.run(main())


def test_other_settings_are_used_at_once(subject: Callable[..., Subject]):
    async def main() -> None:
        keys = one.index.fill(1000, 0)
        async with one.running():
            await one.published(2)
            one.merged.configure(DigestConfig(bits_per_entry=16, rebuild_s=60))
            assert await one.published(3) == build(keys, 16)
            assert one.news[2][0].expires_at - one.news[2][0].modified_at == 60
            one.merged.configure(DigestConfig(bits_per_entry=16, rebuild_s=1))
            await one.published(4)

    one = subject(0)
    asyncio.run(main())


def test_a_key_that_was_purged_is_not_in_the_next(subject: Callable[..., Subject]):
    async def main() -> None:
        keys = one.index.fill(1000, 0)
        one.merged.configure(DigestConfig(rebuild_s=1))
        async with one.running():
            assert (await one.published(2)).count == 1000
            one.index.holdings.remove(keys[:16], 0)
            assert await one.published(3) == build(keys[16:], 8)

    one = subject(0)
    asyncio.run(main())


# -- what goes wrong


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[BuildError | Callable[[int], Built] | None]:
    """What the next builds do, in order: fail, something else, or build."""
    plan: list[Any] = []
    real = Builder.build

    async def build_instead(self: Builder, holdings: Holdings, order: Order, fd: int) -> Built:
        what = plan.pop(0) if plan else None
        if isinstance(what, BuildError):
            raise what
        return await real(self, holdings, order, fd) if what is None else what(fd)

    monkeypatch.setattr(Builder, "build", build_instead)
    return plan


@pytest.mark.usefixtures("_hurry")
def test_a_build_that_fails_is_told_and_tried_again(
    subject: Callable[..., Subject], builds: list[Any], caplog: pytest.LogCaptureFixture
):
    async def main() -> None:
        one.merged.publish_empty()
        keys = one.index.fill(1000, 0)
        builds.extend([BuildError("no room"), lambda fd: os.write(fd, b"short") and wrong, BuildError("killed")])
        async with one.running():
            assert await one.published(2) == build(keys, 8)

    one = subject(0)
    wrong = Built(0, 0, 1000, 8, 1128, 0.0, 0.0, [], 0.0, 0)
    with caplog.at_level(logging.INFO, "cachelb.digest"):
        asyncio.run(main())
    told = [(record.levelname, record.message.rpartition(": ")[2]) for record in caplog.records]
    assert told == [
        ("WARNING", "no room"),
        ("WARNING", "5 bytes were written instead of 1128"),
        ("WARNING", "killed"),
        ("INFO", "the cache digest is up to date again"),
    ]
    assert one.merged.status()["problem"] == ""
    assert len(one.news) == 2


def test_while_it_fails_the_old_one_stays_and_the_tries_become_rare(subject: Callable[..., Subject], builds: list[Any]):
    async def main() -> None:
        one.merged.publish_empty()
        one.index.fill(1000, 0)
        for expected in (5, 10, 20, 40, 80, 160, 300, 300):
            builds.append(BuildError("no room"))
            await one.merged._renew()
            assert one.merged._left_s() == pytest.approx(expected, abs=1)
        status = one.merged.status()
        assert (status["problem"], status["keys"]) == ("no room", 0)
        assert status["next_at"] == pytest.approx(time.time() + 300, abs=2)
        assert len(one.news) == 1
        await one.merged._renew()
        assert one.merged._left_s() == pytest.approx(300, abs=1)
        assert len(one.news) == 2

    one = subject(0)
    asyncio.run(main())


def test_without_descriptors_the_old_one_stays(subject: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> int:
        raise OSError(24, "Too many open files")

    one = subject(0)
    one.merged.publish_empty()
    one.index.fill(1000, 0)
    monkeypatch.setattr(module.os, "memfd_create", refuse)
    asyncio.run(one.merged._renew())
    assert "Too many open files" in one.merged.status()["problem"]
    assert one.digest == parse_digest(os.pread(one.news[0][0].fd, 4096, 0))


def test_a_publisher_that_raises_leaks_nothing(subject: Callable[..., Subject]):
    def refuse(published: Published) -> None:
        raise RuntimeError("a bug")

    one = subject(0)
    one.merged = MergedDigest(one.index, refuse)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="a bug"):
            one.merged.publish_empty()
    one.merged.close()


def test_whoever_is_cancelled_while_it_builds_leaves_nothing(subject: Callable[..., Subject]):
    async def main() -> None:
        one.index.fill(1000, 0)
        async with one.running():
            while not one.merged.status().get("is_building"):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.005)
        assert not one.merged.status()["is_building"]

    one, others = subject(0), children()
    asyncio.run(main())
    assert children() <= others


# -- what is told


def test_the_operator_sees_what_there_is_and_what_comes(subject: Callable[..., Subject]):
    async def main() -> None:
        async with one.running():
            await one.published(2)
            await asyncio.sleep(0)

    one = subject(0, 1, 2)
    assert one.merged.status() == {}
    one.merged.publish_empty()
    assert {name: one.merged.status()[name] for name in ("keys", "nodes", "size_bytes", "fill")} == {
        "keys": 0,
        "nodes": [],
        "size_bytes": 1128,
        "fill": 0.0,
    }
    one.merged.place([view(0), view(1)])
    for node, count in enumerate((1200, 600, 1)):
        one.index.fill(count, node, seed=node)
    asyncio.run(main())
    status = one.merged.status()
    digest = one.digest
    assert status["built_at"] == pytest.approx(time.time(), abs=5)
    assert status["expires_at"] == status["built_at"] + 300
    assert status["next_at"] == pytest.approx(status["expires_at"], abs=2)
    assert (status["records"], status["keys"], status["capacity"], status["bits_per_entry"]) == (1801, 1801, 1801, 8)
    assert (status["fill"], status["false_positives"]) == (digest.mask.fill, digest.mask.false_positives)
    assert status["size_bytes"] == 128 + 1801
    assert (status["problem"], status["is_building"]) == ("", False)
    assert status["cpu_s"] > 0
    assert 0 < status["build_s"] < PATIENCE_S
    assert status["peak_bytes"] > 4 << 20
    assert [(node["name"], node["keys"]) for node in status["nodes"]] == [("cache0", 1200), ("cache1", 600), ("slot 2", 1)]
    assert 0 < status["nodes"][1]["fill"] < status["nodes"][0]["fill"] < status["fill"]
