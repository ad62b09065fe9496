"""Whether nodes answer ICP: told, and nothing follows from it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import pytest

from cachelb.cluster import icpprobes
from cachelb.cluster.icpprobes import DENIED, SILENT, URL, IcpProbes
from cachelb.snapshot import NodeView
from icp import Opcode
from icp.client import IcpClient
from icp.packet import pack_reply, parse_query
from icp.service import Service

HOST = "127.0.0.1"


def view(port: int, state: str = "up", name: str = "n1") -> NodeView:
    return NodeView(name, 0, (HOST,) if port >= 0 else (), 3128, 1.0, state, 1.0, max(port, 0))


@contextlib.asynccontextmanager
async def squid(*opcodes: Opcode | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Its port, and the URLs that it was asked for; it answers with one opcode after the other, and stays with the last."""
    asked: list[bytes] = []
    left = list(opcodes)

    def answer(datagram: bytes, source: str, now: float) -> bytes | None:
        query = parse_query(datagram)
        asked.append(query.url)
        opcode = left.pop(0) if len(left) > 1 else left[0]
        return None if opcode is None else pack_reply(opcode, query.reqnum, query.url)

    service = await Service.start([(HOST, 0)], answer)
    try:
        yield service.addresses[0][1], asked
    finally:
        service.close()


@contextlib.asynccontextmanager
async def probing(*views: NodeView) -> AsyncIterator[IcpProbes]:
    async with IcpClient() as client:
        probes = IcpProbes(client, interval_s=0.01)
        probes.place(views)
        task = asyncio.create_task(probes.run())
        try:
            yield probes
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  what it waits for happens in the code under test
            await asyncio.sleep(0.001)


def test_an_answer_is_told_with_its_time():
    async def main() -> None:
        async with squid(Opcode.MISS) as (port, asked), probing(view(port)) as probes:
            await until(lambda: "n1" in probes.told)
            assert probes.told["n1"].startswith("MISS in ")
            assert asked[0] == URL
            assert not probes.is_deaf("n1")

    asyncio.run(main())


def test_silence_and_denial_are_told_and_logged_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(icpprobes, "TIMEOUT_S", 0.02)

    async def main() -> None:
        async with squid(None, None, Opcode.DENIED, Opcode.DENIED, Opcode.HIT) as (port, asked), probing(view(port)) as probes:
            await until(lambda: probes.told.get("n1") == SILENT)
            assert probes.is_deaf("n1")
            await until(lambda: probes.told.get("n1") == DENIED)
            await until(lambda: not probes.is_deaf("n1"))
            assert len(asked) >= 5

    with caplog.at_level(logging.INFO, "cachelb.cluster"):
        asyncio.run(main())
    assert [SILENT in record.getMessage() for record in caplog.records] == [True, False]


@pytest.mark.parametrize("placed", [view(0), view(-1), view(3130, "dead"), view(3130, "down")])
def test_who_speaks_no_icp_or_is_not_there_is_not_asked(placed: NodeView):
    async def main() -> None:
        async with squid(Opcode.MISS) as (port, asked), probing(placed, view(port, name="other")) as probes:
            await until(lambda: len(asked) >= 3)
            assert list(probes.told) == ["other"]

    asyncio.run(main())


def test_what_a_node_said_is_forgotten_when_another_one_has_its_name():
    async def main() -> None:
        async with squid(Opcode.MISS) as (port, _), probing(view(port)) as probes:
            await until(lambda: "n1" in probes.told)
            probes.place([view(port, "drain")])
            assert "n1" in probes.told
            probes.place([view(port + 1)])
            assert probes.told == {}
            probes.place([])
            assert probes.told == {}

    asyncio.run(main())
