"""The service over real loopback sockets, on the standard event loop and on uvloop, with and without batches."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
import uvloop

from icp import service as module
from icp import sieve
from icp.batch import SLOTS
from icp.packet import pack_query
from icp.service import Service


@pytest.fixture(params=["asyncio", "uvloop", "uvloop, one by one"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Coroutine], object]:
    """Runs a coroutine on that event loop."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop
    if "one by one" in request.param:
        monkeypatch.setattr(module.Batch, "of", lambda sock: None)

    def runner(coroutine: Coroutine) -> object:
        with asyncio.Runner(loop_factory=factory) as made:
            return made.run(asyncio.wait_for(coroutine, 20))

    return runner


@pytest.fixture
def run_batches(monkeypatch: pytest.MonkeyPatch) -> Callable[[Coroutine], object]:
    """Runs a coroutine on uvloop; whatever waits behind the first datagram comes in batches."""
    with client() as sock:
        if module.Batch.of(sock) is None:
            pytest.skip("no recvmmsg here")
    monkeypatch.setattr(module, "PAUSE", 0)
    return lambda coroutine: uvloop.run(asyncio.wait_for(coroutine, 20))


@asynccontextmanager
async def serving(answer, *hosts: str, **options):
    service = await Service.start([(host, 0) for host in hosts or ("127.0.0.1",)], answer, **options)
    try:
        yield service
    finally:
        service.close()


def client(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((host, 0))
    return sock


async def ask(sock: socket.socket, data: bytes, address: tuple[str, int]) -> bytes:
    """Send, and wait for what comes back.  A plain thread-free poll: uvloop's sock_* know no datagrams with addresses."""
    sock.sendto(data, address)
    return await receive(sock)


async def receive(sock: socket.socket) -> bytes:
    while True:
        try:
            return sock.recvfrom(65536)[0]
        except BlockingIOError:
            await asyncio.sleep(0.001)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  what it waits for happens in the code under test
        await asyncio.sleep(0.001)


def test_answers_go_to_who_asked_with_his_address_and_the_time(run):
    async def scenario():
        seen = []

        def answer(datagram: bytes, source: str, now: float) -> bytes:
            seen.append((source, now))
            return datagram.upper()

        async with serving(answer) as service:
            with client("127.0.0.7") as first, client("127.0.0.8") as second:
                assert await ask(first, b"a", service.addresses[0]) == b"A"
                assert await ask(second, b"b", service.addresses[0]) == b"B"
            assert [source for source, _ in seen] == ["127.0.0.7", "127.0.0.8"]
            assert abs(seen[0][1] - asyncio.get_running_loop().time()) < 5
            assert {name: count for name, count in service.counters().items() if count} == {"received": 2, "sent": 2}

    run(scenario())


def test_several_addresses_are_served_v6_too(run):
    async def scenario():
        async with serving(lambda datagram, source, now: source.encode(), "127.0.0.1", "127.0.0.2", "::1") as service:
            assert [host for host, _ in service.addresses] == ["127.0.0.1", "127.0.0.2", "::1"]
            for host, address in zip(("127.0.0.9", "127.0.0.9", "::1"), service.addresses, strict=True):
                with client(host) as sock:
                    assert await ask(sock, b"x", address) == host.encode()

    run(scenario())


def test_silence_is_silence(run):
    async def scenario():
        def answer(datagram: bytes, source: str, now: float) -> bytes | None:
            return None if datagram == b"no" else datagram

        async with serving(answer) as service:
            with client() as sock:
                sock.sendto(b"no", service.addresses[0])
                assert await ask(sock, b"yes", service.addresses[0]) == b"yes"
            assert (service.received, service.sent) == (2, 1)

    run(scenario())


def test_a_burst_is_answered_whole_and_once_each(run):
    async def scenario():
        async with serving(lambda datagram, source, now: datagram) as service:
            with client() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                for number in range(300):
                    sock.sendto(b"%d" % number, service.addresses[0])
                got = [await receive(sock) for _ in range(300)]
                assert sorted(map(int, got)) == list(range(300))
                with pytest.raises(BlockingIOError):
                    sock.recv(10)

    run(scenario())


@pytest.mark.parametrize("size", [0, 1, 16384, 65507])
def test_datagrams_of_any_size_do_no_harm(run, size: int):
    async def scenario():
        sizes = []

        def answer(datagram: bytes, source: str, now: float) -> bytes:
            sizes.append(len(datagram))
            return b"ok"

        async with serving(answer) as service:
            with client() as sock:
                sock.sendto(b"x" * size, service.addresses[0])
                assert await ask(sock, b"y", service.addresses[0]) == b"ok"
                await until(lambda: len(sizes) == 2)
            assert sizes == [min(size, sizes[0]), 1]

    run(scenario())


def test_what_raises_in_the_answering_is_counted_and_told_once(run, caplog: pytest.LogCaptureFixture):
    async def scenario():
        def answer(datagram: bytes, source: str, now: float) -> bytes:
            if datagram == b"bad":
                raise RuntimeError("boom")
            return datagram

        async with serving(answer) as service:
            with client() as sock:
                for _ in range(5):
                    sock.sendto(b"bad", service.addresses[0])
                assert await ask(sock, b"good", service.addresses[0]) == b"good"
                assert service.received == 6
            assert service.crashed == 5

    with caplog.at_level(logging.ERROR):
        run(scenario())
    assert [record.exc_info[1].args for record in caplog.records] == [("boom",)]


def test_a_reply_that_cannot_be_sent_is_counted(run):
    async def scenario():
        async with serving(lambda datagram, source, now: b"x" * (70_000 if datagram == b"large" else 1)) as service:
            with client() as sock:
                sock.sendto(b"large", service.addresses[0])
                assert await ask(sock, b"small", service.addresses[0]) == b"x"
            assert (service.unsent, service.crashed) == (1, 0)

    run(scenario())


def test_what_takes_time_is_answered_meanwhile_others_are(run):
    async def scenario():
        gate = asyncio.Event()

        async def slow(datagram: bytes) -> bytes | None:
            await gate.wait()
            return None if datagram == b"slow none" else datagram

        def answer(datagram: bytes, source: str, now: float):
            return slow(datagram) if datagram.startswith(b"slow") else datagram

        async with serving(answer) as service:
            with client() as sock:
                sock.sendto(b"slow", service.addresses[0])
                sock.sendto(b"slow none", service.addresses[0])
                assert await ask(sock, b"quick", service.addresses[0]) == b"quick"
                gate.set()
                assert await receive(sock) == b"slow"
            assert (service.received, service.sent) == (3, 2)

    run(scenario())


def test_what_raises_later_is_counted(run, caplog: pytest.LogCaptureFixture):
    async def scenario():
        async def slow(problem: bytes) -> bytes:
            await asyncio.sleep(0)
            raise OSError("gone") if problem == b"system" else RuntimeError("boom")

        async with serving(lambda datagram, source, now: slow(datagram)) as service:
            with client() as sock:
                sock.sendto(b"system", service.addresses[0])
                sock.sendto(b"ours", service.addresses[0])
                await until(lambda: (service.unsent, service.crashed) == (1, 1))

    with caplog.at_level(logging.CRITICAL):
        run(scenario())


def test_no_more_is_found_out_than_the_limit(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_PENDING", 2)

    async def scenario():
        gate = asyncio.Event()

        async def slow(datagram: bytes) -> bytes:
            await gate.wait()
            return datagram

        async with serving(lambda datagram, source, now: slow(datagram)) as service:
            with client() as sock:
                for number in range(5):
                    sock.sendto(b"%d" % number, service.addresses[0])
                await until(lambda: service.received == 5)
                assert service.overloaded == 3
                gate.set()
                assert {await receive(sock), await receive(sock)} == {b"0", b"1"}

    run(scenario())


def test_closing_frees_the_address_and_gives_up_what_is_pending(run):
    async def scenario():
        cancelled = []

        async def slow() -> bytes:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise
            return b""

        async with serving(lambda datagram, source, now: slow()) as service:
            with client() as sock:
                sock.sendto(b"x", service.addresses[0])
                await until(lambda: service.received == 1)
            await asyncio.sleep(0)
            address = service.addresses[0]
        await until(lambda: bool(cancelled))

        def is_free() -> bool:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                try:
                    sock.bind(address)
                except OSError:
                    return False
            return True

        await until(is_free)

    run(scenario())


def test_an_address_in_use_is_an_error_and_nothing_is_held(run):
    async def scenario():
        with client() as taken, client("127.0.0.3") as free:
            address = free.getsockname()
            free.close()
            with pytest.raises(OSError, match="in use"):
                await Service.start([address, taken.getsockname()], lambda datagram, source, now: None)
            await asyncio.sleep(0.01)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(address)

    run(scenario())


# batches


def batching(answer):
    """`answer` for many, and the list of how many they were each time."""
    batches: list[int] = []

    def answer_all(datagrams, sources, now):
        batches.append(len(datagrams))
        return [answer(datagram, source, now) for datagram, source in zip(datagrams, sources, strict=True)]

    return answer_all, batches


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_waits_is_answered_in_batches_each_to_its_sender(run_batches, host: str):
    async def scenario():
        def answer(datagram: bytes, source: str, now: float) -> bytes:
            return source.encode() + b" " + datagram

        answer_all, batches = batching(answer)
        async with serving(answer, host, answer_all=answer_all) as service:
            with client(host) as first, client(host) as second:
                for number in range(50):
                    for sock in (first, second):
                        sock.sendto(b"%d" % number, service.addresses[0])
                for sock in (first, second):
                    assert [await receive(sock) for _ in range(50)] == [b"%s %d" % (host.encode(), n) for n in range(50)]
            assert (service.received, service.sent) == (100, 100)
            assert sum(batches) >= 90
            assert max(batches) == SLOTS

    run_batches(scenario())


def test_in_a_batch_silence_is_silence_and_what_takes_time_comes_later(run_batches):
    async def scenario():
        gate = asyncio.Event()

        async def slow(datagram: bytes) -> bytes:
            await gate.wait()
            return datagram

        def answer(datagram: bytes, source: str, now: float):
            return {b"slow": slow(datagram), b"none": None}.get(datagram, datagram) if len(datagram) == 4 else datagram

        answer_all, batches = batching(
            lambda datagram, source, now: None if datagram == b"none" else answer(datagram, source, now)
        )
        async with serving(lambda datagram, source, now: datagram, "127.0.0.1", answer_all=answer_all) as service:
            with client() as first, client("127.0.0.2") as second:
                for text in (b"1", b"none", b"slow", b"2", b"none", b"3"):
                    for sock in (first, second):
                        sock.sendto(text, service.addresses[0])
                for sock in (first, second):
                    assert [await receive(sock) for _ in range(3)] == [b"1", b"2", b"3"]
                gate.set()
                for sock in (first, second):
                    assert await receive(sock) == b"slow"
            assert (service.received, service.sent, service.unsent) == (12, 8, 0)
            assert sum(batches) == 11

    run_batches(scenario())


def test_one_that_cannot_be_answered_does_not_harm_the_rest_of_its_batch(run_batches, caplog: pytest.LogCaptureFixture):
    async def scenario():
        def answer(datagram: bytes, source: str, now: float) -> bytes:
            if datagram == b"bad":
                raise RuntimeError("boom")
            return datagram

        answer_all, _ = batching(answer)
        async with serving(answer, answer_all=answer_all) as service:
            with client() as sock:
                for text in (b"1", b"2", b"bad", b"3"):
                    sock.sendto(text, service.addresses[0])
                assert [await receive(sock) for _ in range(3)] == [b"1", b"2", b"3"]
            assert (service.received, service.sent, service.crashed) == (4, 3, 1)

    with caplog.at_level(logging.CRITICAL):
        run_batches(scenario())


def test_what_makes_no_sense_as_answers_is_counted_and_the_service_goes_on(run_batches, caplog: pytest.LogCaptureFixture):
    async def scenario():
        async with serving(lambda datagram, source, now: datagram, answer_all=lambda *_: ["x", 7]) as service:
            with client() as sock:
                for text in (b"1", b"2", b"3"):
                    sock.sendto(text, service.addresses[0])
                await until(lambda: service.crashed > 0)
                assert await receive(sock) == b"1"
                assert await ask(sock, b"4", service.addresses[0]) == b"4"

    with caplog.at_level(logging.CRITICAL):
        run_batches(scenario())


def test_in_a_batch_too_what_cannot_be_sent_is_counted(run_batches):
    async def scenario():
        def answer(datagram: bytes, source: str, now: float) -> bytes:
            return b"x" * 65_535 if datagram == b"large" else datagram

        async with serving(answer) as service:
            with client() as sock:
                for text in (b"1", b"large", b"2", b"large"):
                    sock.sendto(text, service.addresses[0])
                assert [await receive(sock), await receive(sock)] == [b"1", b"2"]
                await until(lambda: service.unsent == 2)
            assert service.sent == 2

    run_batches(scenario())


def test_other_work_of_the_event_loop_is_not_kept_waiting(run_batches, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_FULL", 2)

    async def scenario():
        goes: list[int] = []

        def answer(datagram: bytes, source: str, now: float) -> None:
            if not goes:
                asyncio.get_running_loop().call_soon(lambda: goes.append(service.received))
                goes.append(0)

        answer_all, batches = batching(answer)
        async with serving(answer, answer_all=answer_all) as service:
            with client() as sock:
                for _ in range(400):
                    sock.sendto(b"x", service.addresses[0])
                await until(lambda: service.received == 400)
            assert 2 * (1 + SLOTS) <= goes[1] <= 2 * SLOTS + module.LIBUV_READS
            assert max(batches) == SLOTS

    run_batches(scenario())


def test_closing_while_a_batch_is_answered_does_no_harm(run_batches):
    async def scenario():
        def answer(datagram: bytes, source: str, now: float) -> bytes:
            if datagram == b"3":
                service.close()
            return datagram

        service = await Service.start([("127.0.0.1", 0)], answer)
        with client() as sock:
            for number in range(100):
                sock.sendto(b"%d" % number, service.addresses[0])
            await until(lambda: service._is_closed)
            await asyncio.sleep(0)
            assert service.crashed == 0

    run_batches(scenario())


# floods

GOOD = pack_query(1, b"http://a/")


def echo_good(datagram: bytes, source: str, now: float) -> bytes | None:
    return datagram if datagram == GOOD else None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_flood_of_what_gets_no_answer_is_kept_away_for_a_while(run, monkeypatch: pytest.MonkeyPatch, host: str):
    monkeypatch.setattr(module, "FLOOD_PER_S", 20)
    monkeypatch.setattr(module, "SIEVE_S", 0.2)

    async def scenario():
        async with serving(echo_good, host, program=sieve.ICP) as service:
            with client(host) as sock:
                for _ in range(20):
                    sock.sendto(b"bad", service.addresses[0])
                await until(lambda: service.floods == 1)
                for _ in range(10):
                    sock.sendto(b"bad", service.addresses[0])
                assert await ask(sock, GOOD, service.addresses[0]) == GOOD
                assert (service.received, service.counters()["dropped"]) == (21, 10)
                await until(lambda: service._sieve is None)
                sock.sendto(b"bad", service.addresses[0])
                await until(lambda: service.received == 22)
            assert service.floods == 1

    run(scenario())


def test_silence_now_and_then_is_no_flood(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FLOOD_PER_S", 3)

    async def scenario():
        async with serving(echo_good, program=sieve.ICP) as service:
            for now in range(20):
                service.kept_silent(1, 1 + now * 0.6)
            assert service.floods == 0
            service.kept_silent(3, 20.0)
            assert service.floods == 1

    run(scenario())


def test_without_a_program_a_flood_is_only_a_lot_of_datagrams(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FLOOD_PER_S", 2)

    async def scenario():
        async with serving(echo_good) as service:
            with client() as sock:
                for _ in range(50):
                    sock.sendto(b"bad", service.addresses[0])
                await until(lambda: service.received == 50)
            assert (service.floods, service.counters()["dropped"]) == (0, 0)

    run(scenario())


def test_a_program_that_the_kernel_does_not_take_is_tried_once(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FLOOD_PER_S", 2)
    monkeypatch.setattr(module, "SIEVE_S", 0.0)

    async def scenario():
        async with serving(echo_good, program=bytes(8)) as service:
            for _ in range(5):
                service.kept_silent(2, 1.0)
                await until(lambda: service._sieve is None)
            assert service.floods == 0

    run(scenario())


def test_what_comes_during_a_pause_is_answered_after_it(run):
    async def scenario():
        async with serving(lambda datagram, source, now: datagram.upper()) as service:
            with client() as sock:
                assert await ask(sock, b"before", service.addresses[0]) == b"BEFORE"
                service.pause()
                service.pause()
                await asyncio.sleep(0)
                sock.sendto(b"meanwhile", service.addresses[0])
                await service.resume()
                await service.resume()
                assert await receive(sock) == b"MEANWHILE"
                assert await ask(sock, b"after", service.addresses[0]) == b"AFTER"
                assert len(service._streams) == 1

    run(scenario())


def test_what_is_being_found_out_is_sent_during_a_pause(run):
    async def scenario():
        known = asyncio.Event()

        async def find_out(datagram: bytes) -> bytes:
            await known.wait()
            return datagram

        async with serving(lambda datagram, source, now: find_out(datagram)) as service:
            with client() as sock:
                sock.sendto(b"x", service.addresses[0])
                await until(lambda: service.received == 1)
                service.pause()
                known.set()
                assert await receive(sock) == b"x"

    run(scenario())


def test_two_services_share_a_socket_and_lose_nothing_when_one_of_them_pauses(run):
    async def scenario():
        def answer(datagram: bytes, source: str, now: float) -> bytes:
            return datagram

        async with serving(answer) as first:
            shared = first.sockets[0].dup()
            second = await Service.start([first.addresses[0]], answer, bind=lambda host, port: shared)
            with client() as sock:
                for number in range(200):
                    if number == 100:
                        first.pause()
                    assert await ask(sock, b"%d" % number, second.addresses[0]) == b"%d" % number
            second.close()

    run(scenario())


def test_what_comes_while_the_endpoint_is_made_is_answered(run):
    async def scenario():
        with client() as sock:
            listening = module.bind("127.0.0.1", 0)
            for number in range(20):  # before it is read
                sock.sendto(b"%d" % number, listening.getsockname())
            service = await Service.start([("", 0)], lambda datagram, source, now: datagram, bind=lambda host, port: listening)
            assert {await receive(sock) for _ in range(20)} == {b"%d" % number for number in range(20)}
            service.close()

    run(scenario())


def test_a_sieve_of_who_had_the_socket_before_is_removed(run):
    async def scenario():
        listening = module.bind("127.0.0.1", 0)
        if not sieve.attach(listening, sieve.ICP):
            pytest.skip("no socket filters here")
        service = await Service.start([("", 0)], lambda datagram, source, now: datagram, bind=lambda host, port: listening)
        with client() as sock:
            assert await ask(sock, b"no ICP", service.addresses[0]) == b"no ICP"
        service.close()

    run(scenario())
