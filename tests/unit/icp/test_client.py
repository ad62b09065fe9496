"""The client against scripted caches on loopback, on both event loops.  Against real Squids: tests/squid/test_icp.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
import uvloop

from icp import client as module
from icp import htcp, packet
from icp.client import HtcpClient, IcpClient
from icp.htcp import HtcpOpcode, HtcpReply
from icp.packet import SRC_RTT, Opcode
from icp.service import Service

URL = b"http://a.com/"


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine], object]:
    """Runs a coroutine on that event loop."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(coroutine: Coroutine) -> object:
        with asyncio.Runner(loop_factory=factory) as made:
            return made.run(asyncio.wait_for(coroutine, 20))

    return runner


@asynccontextmanager
async def cache(answer, host: str = "127.0.0.1"):
    """The address of something that answers datagrams by ``answer(datagram)``."""
    service = await Service.start([(host, 0)], lambda datagram, source, now: answer(datagram))
    try:
        yield service.addresses[0]
    finally:
        service.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  what it waits for happens in the code under test
        await asyncio.sleep(0.001)


def hit(datagram: bytes) -> bytes:
    query = packet.parse_query(datagram)
    return packet.pack_reply(Opcode.HIT, query.reqnum, query.url)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_reply_comes_with_its_time(run, host: str):
    async def scenario():
        async with cache(hit, host) as address, IcpClient() as client:
            answer = await client.query(address, URL, 5)
            assert answer is not None
            assert answer.reply.opcode is Opcode.HIT
            assert answer.reply.url == URL
            assert 0 < answer.rtt_s < 5

    run(scenario())


def test_many_queries_share_a_socket_and_get_their_own_replies(run):
    async def scenario():
        held: list[bytes] = []

        def backwards(datagram: bytes) -> None:
            held.append(hit(datagram))

        async with cache(backwards) as address, IcpClient() as client:
            urls = [b"http://a/%d" % number for number in range(50)]
            asking = [asyncio.ensure_future(client.query(address, url, 10)) for url in urls]
            await until(lambda: len(held) == 50)
            for reply in reversed(held):
                client.datagram_received(reply, address)
            answers = await asyncio.gather(*asking)
            assert [answer.reply.url for answer in answers if answer] == urls

    run(scenario())


def test_no_answer_in_time_is_none_and_a_late_one_is_stray(run):
    async def scenario():
        held: list[bytes] = []
        async with cache(lambda datagram: held.append(hit(datagram))) as address, IcpClient() as client:
            assert await client.query(address, URL, 0.02) is None
            await until(lambda: bool(held))
            client.datagram_received(held[0], address)
            assert client.stray == 1

    run(scenario())


def test_a_reply_from_elsewhere_does_not_count(run):
    async def scenario():
        async with cache(lambda datagram: None) as address, IcpClient() as client:
            asking = asyncio.ensure_future(client.query(address, URL, 0.05))
            await asyncio.sleep(0)
            assert client._waiting
            (number,) = client._waiting
            reply = packet.pack_reply(Opcode.HIT, number, URL)
            client.datagram_received(reply, ("127.0.0.66", address[1]))
            client.datagram_received(reply, (address[0], address[1] ^ 1))
            client.datagram_received(packet.pack_reply(Opcode.HIT, number ^ 1 or 2, URL), address)
            assert await asking is None
            assert client.stray == 3

    run(scenario())


def test_the_second_reply_is_stray(run):
    async def scenario():
        async with cache(hit) as address, IcpClient() as client:
            asking = asyncio.ensure_future(client.query(address, URL, 5))
            await asyncio.sleep(0)
            assert client._waiting
            (number,) = client._waiting
            for opcode in (Opcode.MISS, Opcode.HIT):
                client.datagram_received(packet.pack_reply(opcode, number, URL), address)
            answer = await asking
            assert answer is not None
            assert answer.reply.opcode is Opcode.MISS
            assert client.stray >= 1

    run(scenario())


def test_garbage_is_counted_and_the_answer_still_awaited(run):
    async def scenario():
        async with cache(hit) as address, IcpClient() as client:
            asking = asyncio.ensure_future(client.query(address, URL, 5))
            for data in (b"", b"garbage", packet.pack_query(1, URL)):
                client.datagram_received(data, address)
            assert await asking is not None
            assert client.bad == 3

    run(scenario())


def test_flags_are_sent_and_the_way_to_the_origin_is_read(run):
    async def scenario():
        def far(datagram: bytes) -> bytes:
            query = packet.parse_query(datagram)
            return packet.pack_reply(Opcode.MISS, query.reqnum, query.url, (3, 20) if query.flags == SRC_RTT else None)

        async with cache(far) as address, IcpClient() as client:
            answer = await client.query(address, URL, 5, flags=SRC_RTT)
            assert answer is not None
            assert answer.reply.rtt == (3, 20)

    run(scenario())


def test_nobody_there_is_none(run):
    async def scenario():
        async with cache(hit) as address:
            pass
        async with IcpClient() as client:
            assert await client.query(address, URL, 0.02) is None

    run(scenario())


def test_no_more_are_under_way_than_the_limit(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 3)

    async def scenario():
        async with cache(lambda datagram: None) as address, IcpClient() as client:
            asking = [asyncio.ensure_future(client.query(address, URL, 30)) for _ in range(3)]
            await asyncio.sleep(0.01)
            assert await client.query(address, URL, 30) is None
            client.close()
            assert await asyncio.gather(*asking) == [None] * 3

    run(scenario())


def test_who_is_cancelled_leaves_nothing_behind(run):
    async def scenario():
        async with cache(lambda datagram: None) as address, IcpClient() as client:
            asking = asyncio.ensure_future(client.query(address, URL, 30))
            await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert not client._waiting

    run(scenario())


def test_a_url_that_does_not_fit_is_an_error(run):
    async def scenario():
        async with IcpClient() as client:
            with pytest.raises(ValueError, match="8192 bytes"):
                await client.query(("127.0.0.1", 9), b"x" * 8192, 1)

    run(scenario())


def test_the_address_to_send_from_can_be_chosen(run):
    async def scenario():
        sources = []
        service = await Service.start(
            [("127.0.0.1", 0)], lambda datagram, source, now: (sources.append(source), hit(datagram))[1]
        )
        async with IcpClient("127.0.0.77") as client:
            assert await client.query(service.addresses[0], URL, 5) is not None
        service.close()
        assert sources == ["127.0.0.77"]

    run(scenario())


def test_htcp_test_and_clear(run):
    async def scenario():
        seen = []

        def answer(datagram: bytes) -> bytes | None:
            query = htcp.parse_query(datagram)
            seen.append(query)
            if query.opcode is HtcpOpcode.TST:
                return htcp.pack_reply(HtcpReply(HtcpOpcode.TST, query.msg_id, htcp.TST_HIT, htcp.Detail()))
            response = {b"http://a/gone": htcp.CLR_GONE, b"http://a/absent": htcp.CLR_ABSENT}.get(query.what.url)
            return htcp.pack_reply(HtcpReply(HtcpOpcode.CLR, query.msg_id, response or 0, is_refusal=response is None))

        async with cache(answer) as address, HtcpClient() as client:
            tested = await client.test(address, URL, 5, headers=b"Accept: */*\r\n")
            assert tested is not None
            assert tested.reply.response == htcp.TST_HIT
            assert await client.clear(address, b"http://a/gone", 5) == htcp.CLR_GONE
            assert await client.clear(address, b"http://a/absent", 5) == htcp.CLR_ABSENT
            assert await client.clear(address, b"http://a/refused", 5) is None
        assert seen[0].what == htcp.Specifier(b"GET", URL, b"1/1", b"Accept: */*\r\n")
        assert all(query.wants_reply for query in seen)

    run(scenario())


def test_htcp_without_answer_is_none(run):
    async def scenario():
        async with cache(lambda datagram: None) as address, HtcpClient() as client:
            assert await client.test(address, URL, 0.02) is None
            assert await client.clear(address, URL, 0.02) is None

    run(scenario())
