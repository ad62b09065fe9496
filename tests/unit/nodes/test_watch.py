"""Names of nodes, followed with a scripted resolver and a clock of our own, and once with real DNS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from fakes_dns import FakeDns, Says

from cachelb.nodes import watch
from cachelb.nodes.resolve import ResolveError
from cachelb.nodes.watch import LOCAL_S, RETRY_S, NodeNames, make_resolver

Run = Callable[[Any], Any]
Until = Callable[[Callable[[], bool]], Awaitable[None]]


class Settings(NamedTuple):
    nameservers: tuple[str, ...] = ()
    ttl_min_s: float = 1.0
    ttl_max_s: float = 3600.0
    negative_ttl_s: float = 10.0
    timeout_s: float = 5.0


class FakeResolver:
    """Says what ``answers`` has for a host: addresses with the time at which they expire, or an error."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[list[str], float | None] | ResolveError] = {}
        self.asked: list[str] = []
        self.closed = 0

    async def resolve(self, host: str) -> list[str]:
        self.asked.append(host)
        answer = self.answers[host]
        if isinstance(answer, ResolveError):
            raise answer
        return answer[0]

    def expires(self, host: str) -> float | None:
        answer = self.answers[host]
        return None if isinstance(answer, ResolveError) else answer[1]

    def close(self) -> None:
        self.closed += 1


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.resolver = FakeResolver()
        self.changes: list[tuple[str, list[str]]] = []
        self.problems: list[tuple[str, str]] = []
        self.made: list[object] = []
        self.names = NodeNames(
            Settings(),
            lambda name, found: self.changes.append((name, found)),
            lambda name, text: self.problems.append((name, text)),
            make=self.make,
            clock=lambda: self.now,
        )

    def make(self, settings: object) -> Any:
        self.made.append(settings)
        return self.resolver

    def say(self, host: str, *addresses: str, until: float | None = None) -> None:
        self.resolver.answers[host] = (list(addresses), until)

    def fail(self, host: str) -> None:
        self.resolver.answers[host] = ResolveError("nxdomain", f"{host} does not exist")

    async def pass_time(self, seconds: float) -> None:
        """Let the background work see a later clock."""
        self.now += seconds
        self.names._woken.set()
        for _ in range(10):
            await asyncio.sleep(0)


def play(test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World()
        try:
            await test(world)
        finally:
            await world.names.stop()

    asyncio.run(main())


def test_all_names_are_known_after_the_start():
    async def test(w: World) -> None:
        w.say("a.test", "10.0.0.1", until=130.0)
        w.say("b.test", "10.0.0.2", "10.0.0.3", until=130.0)
        await w.names.start({"n1": "a.test", "n2": "b.test"})
        assert w.changes == [("n1", ["10.0.0.1"]), ("n2", ["10.0.0.2", "10.0.0.3"])]

    play(test)


def test_a_name_is_asked_for_again_when_its_ttl_is_over_and_a_change_is_told():
    async def test(w: World) -> None:
        w.say("a.test", "10.0.0.1", until=130.0)
        await w.names.start({"n1": "a.test"})
        await w.pass_time(29.9)
        assert len(w.resolver.asked) == 1
        w.say("a.test", "10.0.0.9", until=190.0)
        await w.pass_time(0.2)
        assert w.changes[1:] == [("n1", ["10.0.0.9"])]
        await w.pass_time(50.0)
        assert len(w.resolver.asked) == 2

    play(test)


def test_a_bug_of_ours_does_not_end_it(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(watch, "RETRY_S", 0.0)

    async def test(w: World) -> None:
        w.say("a.test", "10.0.0.1", until=130.0)
        await w.names.start({"n1": "a.test"})
        del w.resolver.answers["a.test"]
        await w.pass_time(31)
        assert "internal error: KeyError('a.test')" in caplog.text
        w.say("a.test", "10.0.0.2", until=300.0)
        await w.pass_time(31)
        assert w.changes[-1] == ("n1", ["10.0.0.2"])

    play(test)


def test_another_order_of_the_same_addresses_is_no_change():
    async def test(w: World) -> None:
        w.say("a.test", "10.0.0.1", "10.0.0.2", until=101.0)
        await w.names.start({"n1": "a.test"})
        w.say("a.test", "10.0.0.2", "10.0.0.1", until=102.0)
        await w.pass_time(1.0)
        assert len(w.resolver.asked) == 2
        assert len(w.changes) == 1

    play(test)


def test_the_last_good_addresses_stay_when_dns_fails_and_that_is_told_once():
    async def test(w: World) -> None:
        w.say("a.test", "10.0.0.1", until=101.0)
        await w.names.start({"n1": "a.test"})
        w.fail("a.test")
        for _ in range(3):
            await w.pass_time(RETRY_S)
        assert len(w.resolver.asked) == 4
        assert len(w.changes) == 1
        assert w.problems == [("n1", "a.test does not exist; 10.0.0.1 stays in use")]
        w.say("a.test", "10.0.0.1", until=w.now + 7)
        await w.pass_time(RETRY_S)
        w.fail("a.test")
        await w.pass_time(10.0)
        assert len(w.problems) == 2
        assert len(w.changes) == 1

    play(test)


def test_a_name_that_never_resolved_is_tried_again_soon():
    async def test(w: World) -> None:
        w.fail("a.test")
        await w.names.start({"n1": "a.test"})
        assert w.problems == [("n1", "a.test does not exist; the node has no address")]
        w.say("a.test", "10.0.0.1", until=1000.0)
        await w.pass_time(RETRY_S)
        assert w.changes == [("n1", ["10.0.0.1"])]

    play(test)


def test_names_without_a_ttl_are_looked_at_regularly():
    async def test(w: World) -> None:
        w.say("a.test", "10.0.0.1")
        await w.names.start({"n1": "a.test"})
        await w.pass_time(LOCAL_S)
        assert len(w.resolver.asked) == 2

    play(test)


def test_a_reload_looks_up_new_and_changed_names_only():
    async def test(w: World) -> None:
        for number, host in enumerate(("a.test", "b.test", "c.test", "d.test")):
            w.say(host, f"10.0.0.{number}", until=1000.0)
        await w.names.start({"n1": "a.test", "n2": "b.test", "n3": "c.test"})
        w.names.reload(Settings(), {"n2": "b.test", "n3": "d.test", "n4": "a.test"})
        await w.pass_time(0.0)
        assert w.resolver.asked == ["a.test", "b.test", "c.test", "d.test", "a.test"]
        assert w.changes[3:] == [("n3", ["10.0.0.3"]), ("n4", ["10.0.0.0"])]
        assert w.made == [Settings()]

    play(test)


def test_new_resolver_settings_make_a_new_resolver():
    async def test(w: World) -> None:
        await w.names.start({})
        w.names.reload(Settings(timeout_s=1.0), {})
        assert w.made == [Settings(), Settings(timeout_s=1.0)]
        assert w.resolver.closed == 1

    play(test)


def test_an_answer_for_a_name_that_was_removed_meanwhile_is_dropped():
    async def test(w: World) -> None:
        w.say("a.test", "10.0.0.1", until=101.0)
        await w.names.start({"n1": "a.test"})
        gate = asyncio.Event()

        async def slowly(host: str) -> list[str]:
            await gate.wait()
            return ["10.0.0.99"]

        w.resolver.resolve = slowly  # type: ignore[method-assign]
        await w.pass_time(1.0)
        w.names.reload(Settings(), {})
        gate.set()
        await w.pass_time(0.0)
        assert len(w.changes) == 1

    play(test)


def test_names_follow_real_dns(run: Run, until: Until, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "RETRY_S", 0.01)

    async def main() -> None:
        dns = FakeDns()
        await dns.start()
        settings = Settings((dns.address,), ttl_min_s=0.01, negative_ttl_s=0.01)
        changes: list[tuple[str, list[str]]] = []
        names = NodeNames(settings, lambda name, found: changes.append((name, found)), make=make_resolver)
        await names.start({"n1": "cache1.test"})
        assert changes == []
        dns.say("cache1.test", Says(("10.0.0.1",), ttl_s=0))
        await until(lambda: changes == [("n1", ["10.0.0.1"])])
        dns.say("cache1.test", Says(("10.0.0.2", "10.0.0.3"), ttl_s=0))
        await until(lambda: changes[-1] == ("n1", ["10.0.0.2", "10.0.0.3"]))
        await names.stop()
        dns.stop()

    run(main())
