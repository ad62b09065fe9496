"""The resolver against a DNS server that speaks real datagrams, on both event loops."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fakes_dns import SERVFAIL, FakeDns, Says

from cachelb.nodes import resolve as module
from cachelb.nodes.resolve import FAILURE_TTL_S, ResolveError, Resolver

Run = Callable[[Any], Any]
Until = Callable[[Callable[[], bool]], Awaitable[None]]
ONE_CHANNEL = 4  # descriptors: epoll, inotify, two ends of a pipe
V4, V6 = Says(("10.0.0.1",)), Says(("fd00::1",))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A server, a resolver that asks it, and the resolver's clock."""

    def __init__(self, dns: FakeDns, hosts_path: Path, **options: Any) -> None:
        self.dns = dns
        self.clock = Clock()
        options = {"timeout_s": 2.0, **options}
        self.resolver = Resolver([dns.address], hosts_path=hosts_path, clock=self.clock, **options)

    async def error(self, name: str) -> tuple[str, str]:
        with pytest.raises(ResolveError) as caught:
            await self.resolver.resolve(name)
        return caught.value.kind, str(caught.value)

    def asked(self, name: str) -> tuple[int, int]:
        return self.dns.queries[name, "A"], self.dns.queries[name, "AAAA"]


@pytest.fixture
def world(run: Run, tmp_path: Path) -> Callable[..., None]:
    """``world(test, **options)``: run the coroutine function `test` on a World."""

    async def main(test: Callable[[World], Awaitable[None]], options: dict[str, Any]) -> None:
        dns = FakeDns()
        await dns.start()
        it = World(dns, tmp_path / "hosts", **options)
        try:
            await test(it)
        finally:
            it.resolver.close()
            dns.stop()

    return lambda test, **options: run(main(test, options))


WorldRun = Callable[..., None]


def test_both_families_are_asked_and_take_turns(world: WorldRun):
    async def test(w: World) -> None:
        w.dns.say("www.test", Says(("10.0.0.1", "10.0.0.2")), Says(("fd00::1",)))
        assert await w.resolver.resolve("www.test") == ["fd00::1", "10.0.0.1", "10.0.0.2"]
        assert w.asked("www.test") == (1, 1)

    world(test)


def test_literals_localhost_and_the_hosts_file_need_no_dns(world: WorldRun, tmp_path: Path):
    (tmp_path / "hosts").write_text("10.1.1.1 node.test\n")

    async def test(w: World) -> None:
        assert await w.resolver.resolve("10.0.0.9") == ["10.0.0.9"]
        assert await w.resolver.resolve("[FD00::9]") == ["fd00::9"]
        assert await w.resolver.resolve("LocalHost") == ["::1", "127.0.0.1"]
        assert await w.resolver.resolve("NODE.test.") == ["10.1.1.1"]
        assert w.resolver.cached("10.0.0.9", 0.0) == ["10.0.0.9"]
        assert w.resolver.queries == 0

    world(test)


def test_an_answer_is_kept_for_the_shortest_ttl_in_it(world: WorldRun):
    async def test(w: World) -> None:
        w.dns.say("www.test", Says(("10.0.0.1",), ttl_s=100), Says(("fd00::1",), ttl_s=30))
        w.dns.say("alias.test", Says(("10.0.0.1",), ttl_s=100, cname=("real.test", 7)))
        found = await w.resolver.resolve("www.test")
        assert w.resolver.cached("www.test", 1029.9) == found
        assert w.resolver.cached("www.test", 1030.0) is None
        assert await w.resolver.resolve("alias.test") == ["10.0.0.1"]
        assert w.resolver.expires("alias.test") == 1007.0
        assert await w.resolver.resolve("WWW.test.") == found
        assert w.asked("www.test") == (1, 1)

    world(test)


def test_ttls_are_bounded_on_both_sides(world: WorldRun):
    async def test(w: World) -> None:
        w.dns.say("short.test", Says(("10.0.0.1",), ttl_s=0))
        w.dns.say("long.test", Says(("10.0.0.1",), ttl_s=10**6))
        for name in ("short.test", "long.test"):
            await w.resolver.resolve(name)
        assert w.resolver.expires("short.test") == 1002.0
        assert w.resolver.expires("long.test") == 1050.0

    world(test, ttl_min_s=2.0, ttl_max_s=50.0)


def test_an_expired_answer_is_asked_for_again(world: WorldRun):
    async def test(w: World) -> None:
        w.dns.say("www.test", Says(("10.0.0.1",), ttl_s=0))
        await w.resolver.resolve("www.test")
        w.dns.say("www.test", Says(("10.0.0.2",), ttl_s=0))
        w.clock.now += 1.0
        assert await w.resolver.resolve("www.test") == ["10.0.0.2"]

    world(test)


@pytest.mark.parametrize("other", [Says(rcode=SERVFAIL), Says(silent=True), Says()], ids=["fails", "silent", "none"])
def test_one_family_is_enough(world: WorldRun, other: Says):
    async def test(w: World) -> None:
        w.dns.say("four.test", V4, other)
        w.dns.say("six.test", other, V6)
        assert await w.resolver.resolve("four.test") == ["10.0.0.1"]
        assert await w.resolver.resolve("six.test") == ["fd00::1"]

    world(test)


def test_a_family_that_answers_late_is_not_waited_for_but_remembered(world: WorldRun, until: Until):
    async def test(w: World) -> None:
        w.dns.say("www.test", V4, Says(("fd00::1",), delay_s=module.SECOND_FAMILY_S + 0.03))
        assert await w.resolver.resolve("www.test") == ["10.0.0.1"]
        await until(lambda: w.resolver.cached("www.test", 1000.0) != ["10.0.0.1"])
        assert await w.resolver.resolve("www.test") == ["fd00::1", "10.0.0.1"]
        assert w.asked("www.test") == (1, 1)

    world(test)


def test_a_name_that_does_not_exist_is_believed_for_a_while(world: WorldRun):
    async def test(w: World) -> None:
        for _ in range(3):
            assert await w.error("gone.test") == ("nxdomain", "gone.test does not exist")
        assert w.resolver.queries == 1
        assert w.resolver.cached("gone.test", 1000.0) is None
        w.clock.now += 10.0
        w.dns.say("gone.test", V4)
        assert await w.resolver.resolve("gone.test") == ["10.0.0.1"]

    world(test)


def test_a_missing_name_is_not_believed_longer_because_its_zone_says_so(world: WorldRun):
    async def test(w: World) -> None:
        missing = Says(rcode=3, soa_minimum=3600)
        w.dns.say("new.test", missing, missing)
        await w.error("new.test")
        w.dns.say("new.test", V4)
        w.clock.now += 10.0
        assert await w.resolver.resolve("new.test") == ["10.0.0.1"]

    world(test)


def test_a_family_that_a_name_gains_is_seen_in_minutes(world: WorldRun):
    async def test(w: World) -> None:
        w.dns.say("www.test", V4)
        assert await w.resolver.resolve("www.test") == ["10.0.0.1"]
        w.dns.say("www.test", V4, V6)
        w.clock.now += module.CHANNEL_AGE_S
        assert await w.resolver.resolve("www.test") == ["fd00::1", "10.0.0.1"]

    world(test)


def test_a_name_without_any_address_is_missing_too(world: WorldRun):
    async def test(w: World) -> None:
        w.dns.say("mail.test")
        assert await w.error("mail.test") == ("nxdomain", "mail.test has no address")

    world(test)


def test_servers_that_fail_are_left_alone_only_briefly(world: WorldRun):
    async def test(w: World) -> None:
        broken = Says(rcode=SERVFAIL)
        w.dns.say("www.test", broken, broken)
        assert (await w.error("www.test"))[0] == "failure"
        assert (await w.error("www.test"))[0] == "failure"
        assert w.resolver.queries == 1
        w.dns.say("www.test", V4)
        w.clock.now += FAILURE_TTL_S
        assert await w.resolver.resolve("www.test") == ["10.0.0.1"]

    world(test)


def test_silent_servers_are_a_timeout_in_time(world: WorldRun):
    async def test(w: World) -> None:
        w.dns.say("www.test", Says(silent=True), Says(silent=True))
        started = asyncio.get_running_loop().time()
        assert await w.error("www.test") == ("timeout", "no DNS server answered for www.test")
        assert asyncio.get_running_loop().time() - started < 0.5

    world(test, timeout_s=0.1)


def test_a_missing_family_and_a_silent_one_are_a_timeout(world: WorldRun):
    async def test(w: World) -> None:
        w.dns.say("www.test", Says(silent=True))
        assert (await w.error("www.test"))[0] == "timeout"

    world(test, timeout_s=0.1)


def test_lookups_of_one_name_share_one_query(world: WorldRun):
    async def test(w: World) -> None:
        w.dns.say("www.test", Says(("10.0.0.1",), delay_s=0.02))
        found = await asyncio.gather(*(w.resolver.resolve(name) for name in ["www.test", "WWW.test"] * 10))
        assert found == [["10.0.0.1"]] * 20
        assert w.resolver.queries == 1

    world(test)


def test_one_who_gives_up_does_not_end_the_lookup_of_the_others(world: WorldRun):
    async def test(w: World) -> None:
        w.dns.say("www.test", Says(("10.0.0.1",), delay_s=0.02))
        first = asyncio.ensure_future(w.resolver.resolve("www.test"))
        second = asyncio.ensure_future(w.resolver.resolve("www.test"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == ["10.0.0.1"]
        assert first.cancelled()
        assert w.resolver.queries == 1

    world(test)


@pytest.mark.parametrize("host", ["", "a..b", "127.1", "0x7f000001", "a b", "m\xfcller.de", "x" * 300, "fe80::1%lo"])
def test_what_is_no_name_is_never_asked_for(world: WorldRun, host: str):
    async def test(w: World) -> None:
        kind, text = await w.error(host)
        assert kind == "nxdomain"
        assert "is not a host name" in text
        assert w.resolver.queries == 0

    world(test)


def test_mapped_addresses_are_shown_as_what_they_are(world: WorldRun):
    async def test(w: World) -> None:
        w.dns.say("sly.test", None, Says(("::ffff:127.0.0.1",)))
        assert await w.resolver.resolve("sly.test") == ["127.0.0.1"]

    world(test)


def test_the_cache_is_bounded_and_the_oldest_names_go_first(world: WorldRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "NAMES_LIMIT", 3)

    async def test(w: World) -> None:
        for i in range(5):
            w.dns.say(f"n{i}.test", V4)
            await w.resolver.resolve(f"n{i}.test")
        known = [i for i in range(5) if w.resolver.cached(f"n{i}.test", 1000.0)]
        assert known == [2, 3, 4]

    world(test)


def test_lookups_at_the_same_time_are_bounded(world: WorldRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LOOKUPS_LIMIT", 2)

    async def test(w: World) -> None:
        for i in range(3):
            w.dns.say(f"n{i}.test", Says(("10.0.0.1",), delay_s=0.02))
        found = await asyncio.gather(*(w.resolver.resolve(f"n{i}.test") for i in range(3)), return_exceptions=True)
        assert found[:2] == [["10.0.0.1"]] * 2
        assert isinstance(found[2], ResolveError)
        assert found[2].kind == "failure"
        assert await w.resolver.resolve("n2.test") == ["10.0.0.1"]

    world(test)


def test_the_cache_of_the_library_is_bounded(world: WorldRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CHANNEL_LOOKUPS", 2)
    monkeypatch.setattr(module, "NAMES_LIMIT", 1)

    async def test(w: World) -> None:
        for i in range(4):
            w.dns.say(f"n{i}.test", Says(("10.0.0.1",), ttl_s=3600))
            await w.resolver.resolve(f"n{i}.test")
        await w.resolver.resolve("n0.test")  # long gone from ours: it would come from theirs without a query
        assert w.asked("n0.test") == (2, 2)

    world(test)


def test_close_ends_what_is_under_way_and_leaves_nothing_open(world: WorldRun, until: Until):
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def test(w: World) -> None:
        w.dns.say("www.test", Says(silent=True), Says(silent=True))
        before = descriptors()
        for _ in range(5):
            waiting = asyncio.ensure_future(w.resolver.resolve("www.test"))
            await until(lambda: w.dns.queries["www.test", "A"] > 0)
            w.dns.queries.clear()
            w.resolver.close()
            with pytest.raises(ResolveError, match="closed"):
                await waiting
        # c-ares closes in a thread of its own; uvloop holds on to the last callback, and so to one channel
        await until(lambda: descriptors() <= before + ONE_CHANNEL)
        w.dns.say("www.test", V4)
        assert await w.resolver.resolve("www.test") == ["10.0.0.1"]

    world(test)


def test_a_resolver_may_be_used_again_right_after_its_close(world: WorldRun):
    async def test(w: World) -> None:
        w.dns.say("www.test", V4)
        first = asyncio.ensure_future(w.resolver.resolve("www.test"))
        await asyncio.sleep(0)
        w.resolver.close()
        assert await w.resolver.resolve("www.test") == ["10.0.0.1"]
        with pytest.raises(ResolveError, match="closed"):
            await first

    world(test)


def test_a_nameserver_that_makes_no_sense_is_a_failure(run: Run, tmp_path: Path):
    async def main() -> None:
        resolver = Resolver(["not an address"], hosts_path=tmp_path / "none")
        with pytest.raises(ResolveError) as caught:
            await resolver.resolve("www.test")
        assert caught.value.kind == "failure"

    run(main())
