"""``StoreLogs`` over real loopback sockets: whose datagram it is, what is told, what a flood may cost."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from cachelb.cluster import storelogs as module
from cachelb.cluster.storelog import Event, What
from cachelb.cluster.storelogs import Feed, StoreLogs
from cachelb.snapshot import NodeView

KEYS = [f"{number:032X}".replace("00000000000000000000000000000", "7F7F7A4F1B1F1CB79AAE1A82378AA") for number in range(9)]


def line(number: int = 1, action: str = "SWAPOUT") -> bytes:
    return (
        f"1795234877.944 {action} 00 0000001B {KEYS[number]}  200 1795234877        -1 1795238477 a/b 9/9 GET http://a/x\n"
    ).encode()


def private(process: int) -> bytes:
    """An answer that was not stored, as process `process` logs it."""
    key = (7).to_bytes(8, "little") + process.to_bytes(4, "little") + bytes(4)
    times = "1795234877        -1        -1"
    return f"1795234877.944 RELEASE -1 FFFFFFFF {key.hex().upper()}  200 {times} a/b 9/9 GET http://a/x\n".encode()


def view(name: str, slot: int, *addresses: str, state: Any = "up") -> NodeView:
    return NodeView(name, slot, addresses, 3128, 1.0, state)


class Index:
    """Keeps what it is told, and restarts among it, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []

    def apply(self, slot: int, events: list[Event]) -> None:
        self.told += [(slot, event.what.value) for event in events]

    def restarted(self, slot: int) -> None:
        self.told.append((slot, "restarted"))


def run(main: Coroutine[Any, Any, None]) -> None:
    uvloop.run(asyncio.wait_for(main, 10))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  what it waits for happens in the code under test
        await asyncio.sleep(0.001)


@asynccontextmanager
async def listening(index: Index, *views: NodeView, hosts: tuple[str, ...] = ("127.0.0.1",)):
    logs = StoreLogs(index, index.restarted)  # type: ignore[arg-type]
    logs.place(views)
    await logs.start([(host, 0) for host in hosts])
    try:
        yield logs
    finally:
        logs.close()


def send(source: str, address: tuple[str, int], *datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        for datagram in datagrams:
            sock.sendto(datagram, address)


def test_a_line_is_told_to_the_index_with_its_nodes_slot():
    async def scenario() -> None:
        index = Index()
        async with listening(index, view("a", 3, "127.0.0.51"), view("b", 5, "127.0.0.52", "127.0.0.53")) as logs:
            before = asyncio.get_running_loop().time()
            send("127.0.0.51", logs.addresses[0], line())
            await until(lambda: len(index.told) == 1)
            send("127.0.0.53", logs.addresses[0], line(), line(action="RELEASE"))
            await until(lambda: len(index.told) == 3)
            assert index.told == [(3, "stored"), (5, "stored"), (5, "released")]
            assert logs.feeds["a"].datagrams == 1
            assert logs.feeds["b"].log.counts == {"stored": 1, "released": 1}
            assert before <= logs.feeds["a"].last_at <= logs.feeds["b"].last_at
            assert logs.counters() == {
                "datagrams": 3, "strangers": 0, "shared": 0, "limited": 0, "restarts": 0, "line_stored": 2, "line_released": 1,
            }  # fmt: skip

    run(scenario())


def test_several_addresses_are_listened_on_v6_too():
    async def scenario() -> None:
        index = Index()
        async with listening(index, view("a", 0, "127.0.0.51"), view("b", 1, "::1"), hosts=("127.0.0.1", "::1")) as logs:
            send("127.0.0.51", logs.addresses[0], line())
            send("::1", logs.addresses[1], line())
            await until(lambda: len(index.told) == 2)
            assert sorted(index.told) == [(0, "stored"), (1, "stored")]

    run(scenario())


def test_strangers_are_counted_and_named_once_a_minute(caplog: pytest.LogCaptureFixture):
    async def scenario() -> None:
        index = Index()
        async with listening(index, view("a", 0, "127.0.0.51")) as logs:
            send("127.0.0.66", logs.addresses[0], line(), line())
            send("127.0.0.67", logs.addresses[0], line())
            await until(lambda: logs.counters()["strangers"] == 3)
            assert index.told == []
            assert [record.getMessage() for record in caplog.records] == [
                "store-log datagrams from 127.0.0.66, which is no node's address"
            ]
            logs._take(line(), "127.0.0.68", asyncio.get_running_loop().time() + 61)
            assert len(caplog.records) == 2

    run(scenario())


def test_nodes_that_share_an_address_are_not_listened_to_and_told_once(caplog: pytest.LogCaptureFixture):
    async def scenario() -> None:
        index = Index()
        views = [view("a", 0, "127.0.0.51"), view("b", 1, "127.0.0.51"), view("c", 2, "127.0.0.52")]
        async with listening(index, *views) as logs:
            for state in ("dead", "up"):
                logs.place([*views, view("d", 3, state=state)])
            send("127.0.0.51", logs.addresses[0], line())
            send("127.0.0.52", logs.addresses[0], line())
            await until(lambda: len(index.told) == 1)
            assert index.told == [(2, "stored")]
            assert logs.counters()["shared"] == 1
            assert list(logs.feeds) == ["c"]
            assert [record.getMessage() for record in caplog.records] == [
                "nodes a, b share the address 127.0.0.51: their store logs cannot be told apart; give them their own store_log"
            ]
            logs.place(views[1:])  # now it is b's alone
            send("127.0.0.51", logs.addresses[0], line())
            await until(lambda: len(index.told) == 2)
            assert index.told[1] == (1, "stored")

    run(scenario())


def test_a_node_is_heard_by_the_address_that_is_its_own():
    logs = StoreLogs(Index(), lambda slot: None)  # type: ignore[arg-type]
    logs.place([view("a", 0, "10.0.0.1", "10.0.0.2"), view("b", 1, "10.0.0.2")])
    assert list(logs.feeds) == ["a"]


async def free_place(host: str = "127.0.0.1") -> tuple[str, int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        return sock.getsockname()


def test_at_a_place_of_its_own_a_node_is_heard_from_any_nodes_address_and_from_here(caplog: pytest.LogCaptureFixture):
    async def scenario() -> None:
        index = Index()
        views = [view("a", 0, "127.0.1.1"), view("b", 1, "127.0.1.1"), view("c", 2, "127.0.1.1", "192.0.2.7")]
        async with listening(index, *views) as logs:
            first, second = await free_place(), await free_place()
            await logs.listen({"a": [first], "b": [second]})
            send("127.0.0.1", first, line())
            send("127.0.1.1", second, line())
            await until(lambda: len(index.told) == 2)
            assert sorted(index.told) == [(0, "stored"), (1, "stored")]
            send("127.0.1.1", logs.addresses[0], line())  # now it is c's alone
            await until(lambda: len(index.told) == 3)
            assert index.told[2] == (2, "stored")
            logs._take_own(first, line(), "192.0.2.7", asyncio.get_running_loop().time())
            assert index.told[3] == (0, "stored")
            logs._take_own(first, line(), "192.0.2.8", asyncio.get_running_loop().time())
            assert len(index.told) == 4
            assert logs.counters()["strangers"] == 1
            assert logs.counters()["datagrams"] == 5
        assert [record.getMessage()[:30] for record in caplog.records] == [
            "nodes a, b, c share the address 127.0.1.1"[:30], "store-log datagrams from 192.0.2.8"[:30],
        ]  # fmt: skip

    run(scenario())


def test_a_place_may_change_hands_and_be_given_up():
    async def scenario() -> None:
        index = Index()
        async with listening(index, view("a", 0, "127.0.1.1"), view("b", 1, "127.0.1.1")) as logs:
            place, other = await free_place(), await free_place()
            await logs.listen({"a": [place]})
            send("127.0.1.1", place, line())
            await until(lambda: len(index.told) == 1)
            await logs.listen({"b": [place], "a": [other]})
            send("127.0.1.1", place, line())
            await until(lambda: len(index.told) == 2)
            assert index.told == [(0, "stored"), (1, "stored")]
            await logs.listen({})

            def is_free() -> bool:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    try:
                        sock.bind(place)
                    except OSError:
                        return False
                return True

            await until(is_free)

    run(scenario())


def test_a_port_may_be_listened_to_at_another_address_from_one_moment_to_the_next():
    async def scenario() -> None:
        index = Index()
        async with listening(index, view("a", 0, "127.0.1.1")) as logs:
            _, port = await free_place()
            await logs.listen({"a": [("0.0.0.0", port)]})
            await logs.listen({"a": [("127.0.0.1", port)]})
            send("127.0.1.1", ("127.0.0.1", port), line())
            await until(lambda: index.told == [(0, "stored")])

    run(scenario())


def test_of_changes_that_come_at_once_the_last_one_counts():
    async def scenario() -> None:
        index = Index()
        async with listening(index, view("a", 0, "127.0.1.1"), view("b", 1, "127.0.1.1")) as logs:
            place, other = await free_place(), await free_place()
            await asyncio.gather(
                logs.listen({"a": [place, other]}), logs.listen({"a": [place]}), logs.listen({}), logs.listen({"b": [place]})
            )
            send("127.0.1.1", place, line())
            await until(lambda: index.told == [(1, "stored")])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(other)

    run(scenario())


def test_a_place_that_cannot_be_had_is_an_error_and_the_others_are_in_force():
    async def scenario() -> None:
        index = Index()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            async with listening(index, view("a", 0, "127.0.1.1"), view("b", 1, "127.0.1.1")) as logs:
                place = await free_place()
                with pytest.raises(OSError, match="in use"):
                    await logs.listen({"a": [taken.getsockname()], "b": [place]})
                send("127.0.1.1", place, line())
                await until(lambda: index.told == [(1, "stored")])

    run(scenario())


def test_a_node_that_stays_is_the_same_and_one_that_leaves_leaves_its_counts():
    index = Index()
    logs = StoreLogs(index, index.restarted)  # type: ignore[arg-type]
    logs.place([view("a", 0, "10.0.0.1"), view("b", 1, "10.0.0.2")])
    logs._take(line(), "10.0.0.1", 1.0)
    logs._take(line(), "10.0.0.2", 1.0)
    feed = logs.feeds["a"]
    logs.place([view("a", 4, "10.0.0.9"), view("b", 1)])  # another slot and address; one without an address
    assert logs.feeds == {"a": feed}
    logs._take(line(), "10.0.0.1", 2.0)
    logs._take(line(), "10.0.0.9", 2.0)
    assert index.told == [(0, "stored"), (1, "stored"), (4, "stored")]
    assert logs.counters()["line_stored"] == 3
    assert logs.counters()["strangers"] == 1


def test_a_restart_is_told_before_what_the_new_process_says():
    index = Index()
    logs = StoreLogs(index, index.restarted)  # type: ignore[arg-type]
    logs.place([view("a", 6, "10.0.0.1")])
    for datagram in (private(100), line(), private(100), private(200) + line(), line()):
        logs._take(datagram, "10.0.0.1", 1.0)
    assert index.told == [(6, "stored"), (6, "restarted"), (6, "stored"), (6, "stored")]
    assert logs.counters()["restarts"] == 1


def test_two_processes_that_take_turns_are_one_restart_in_a_while():
    """Two Squids behind one node, or somebody who pretends."""
    index = Index()
    logs = StoreLogs(index, index.restarted)  # type: ignore[arg-type]
    logs.place([view("a", 6, "10.0.0.1")])
    for number in range(1001):
        logs._take(private(100 + number % 2), "10.0.0.1", 1.0 + number / 100)
    restarts = index.told.count((6, "restarted"))
    assert 10.0 / module.RESTART_S <= restarts <= 10.0 / module.RESTART_S + 1
    logs._take(b"", "10.0.0.1", 99.0)  # the last one has not been acted on yet
    assert index.told.count((6, "restarted")) == restarts + 1


@pytest.mark.parametrize("datagram", [b"", b"\n", b"garbage", b"\xff" * 65507, line()[:-1], line()[:50] + b"\n"])
def test_what_makes_no_sense_is_counted_and_nothing_is_told(datagram: bytes):
    index = Index()
    logs = StoreLogs(index, index.restarted)  # type: ignore[arg-type]
    logs.place([view("a", 0, "10.0.0.1")])
    logs._take(datagram, "10.0.0.1", 1.0)
    assert index.told == []
    assert logs.feeds["a"].datagrams == 1
    assert logs.feeds["a"].log.counts.total() == bool(datagram)


def test_a_node_may_send_a_burst_and_then_so_much_a_second(caplog: pytest.LogCaptureFixture):
    feed = Feed("a", 0)
    assert sum(feed.admits(1, 100.0) for _ in range(2 * module.BURST)) == module.BURST
    assert feed.limited == module.BURST
    assert sum(feed.admits(1, 100.1) for _ in range(2 * module.BURST)) == module.LINES_PER_S // 10
    assert sum(feed.admits(1, 200.0) for _ in range(2 * module.BURST)) == module.BURST
    assert [record.args and record.args[0] for record in caplog.records] == ["a", "a"]  # once a minute


def test_a_datagram_of_many_lines_costs_as_much_or_is_not_read(caplog: pytest.LogCaptureFixture):
    index = Index()
    logs = StoreLogs(index, index.restarted)  # type: ignore[arg-type]
    logs.place([view("a", 0, "10.0.0.1"), view("b", 1, "10.0.0.2")])
    logs._take(line() * module.LINES_A_DATAGRAM, "10.0.0.1", 1.0)
    assert len(index.told) == module.LINES_A_DATAGRAM
    logs._take(line() * (module.LINES_A_DATAGRAM + 1), "10.0.0.1", 1.0)
    assert len(index.told) == module.LINES_A_DATAGRAM
    for _ in range(module.BURST):
        logs._take(line() * 10, "10.0.0.2", 1.0)
    told = [slot for slot, _ in index.told].count(1)
    assert module.BURST <= told < module.BURST + 10
    assert logs.counters()["limited"] == 1 + module.BURST - told // 10
    assert len(caplog.records) == 2


def test_what_the_index_raises_does_not_end_the_service(caplog: pytest.LogCaptureFixture):
    class Broken(Index):
        def apply(self, slot: int, events: list[Event]) -> None:
            if not self.told:
                self.told.append((slot, "raised"))
                raise RuntimeError("boom")
            super().apply(slot, events)

    async def scenario() -> None:
        index = Broken()
        async with listening(index, view("a", 0, "127.0.0.51")) as logs:
            send("127.0.0.51", logs.addresses[0], line(), line())
            await until(lambda: len(index.told) == 2)
            assert index.told[1] == (0, What.STORED.value)

    with caplog.at_level(logging.CRITICAL):
        run(scenario())


def test_an_address_in_use_is_an_error():
    async def scenario() -> None:
        logs = StoreLogs(Index(), lambda slot: None)  # type: ignore[arg-type]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(OSError, match="in use"):
                await logs.start([taken.getsockname()])
        assert logs.addresses == []
        logs.close()

    run(scenario())
