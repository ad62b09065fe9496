"""PURGE against small servers on loopback, on both event loops.  Real Squids answer in ``tests/squid/test_purge.py``."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cachelb.nodes import purges as module
from cachelb.nodes.purges import NoAnswer, PurgeLines

Run = Callable[[Any], Any]
Until = Callable[[Callable[[], bool]], Awaitable[None]]
REQUEST = b"PURGE http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"
# Squid 5.7's
OK = (
    b"HTTP/1.1 200 OK\r\nServer: squid/5.7\r\nMime-Version: 1.0\r\nDate: Wed, 25 Nov 2026 20:12:05 GMT\r\nContent-Length: 0\r\n"
    b"X-Cache: MISS from cache1.test\r\nX-Cache-Lookup: NONE from cache1.test:42529\r\nVia: 1.1 cache1.test (squid/5.7)\r\n"
    b"Connection: keep-alive\r\n\r\n"
)
ABSENT = OK.replace(b"200 OK", b"404 Not Found")
CLOSE = OK.replace(b"keep-alive", b"close")


class Node:
    """Answers each request by ``answer(number of the request)``: pieces to send, "close", "reset", or None: nothing."""

    def __init__(self, answer: Callable[[int], Any]) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answer(len(self.requests))
                if isinstance(answer, asyncio.Future):
                    answer = await answer
                if answer == "close":
                    return
                for piece in [answer] if isinstance(answer, bytes) else answer or []:
                    writer.write(piece)
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def asking(answer: Callable[[int], Any], *more: str) -> AsyncIterator[tuple[Node, PurgeLines]]:
    node = Node(answer)
    server = await asyncio.start_server(node.serve, "127.0.0.11", 0)
    lines = PurgeLines([*more, "127.0.0.11"], server.sockets[0].getsockname()[1])
    try:
        yield node, lines
    finally:
        lines.close()
        server.close()


def test_the_status_is_told_and_the_connection_kept(run: Run):
    async def scenario() -> None:
        async with asking(lambda number: OK if number == 1 else ABSENT) as (node, lines):
            assert [await lines.ask(REQUEST) for _ in range(3)] == [200, 404, 404]
            assert node.requests == [REQUEST] * 3
            assert node.connections == 1

    run(scenario())


def test_only_a_connection_begins_with_the_header_that_the_node_expects(run: Run):
    async def scenario() -> None:
        async with asking(lambda _: OK) as (node, lines):
            greeting = PurgeLines(lines.addresses, lines.port, b"PROXY UNKNOWN\r\n")
            assert [await greeting.ask(REQUEST) for _ in range(2)] == [200, 200]
            greeting.close()
            assert node.requests == [b"PROXY UNKNOWN\r\n" + REQUEST, REQUEST]

    run(scenario())


@pytest.mark.parametrize("step", [1, 7])
def test_an_answer_may_come_in_pieces(run: Run, step: int):
    async def scenario() -> None:
        async with asking(lambda number: [OK[at : at + step] for at in range(0, len(OK), step)]) as (node, lines):
            assert [await lines.ask(REQUEST) for _ in range(2)] == [200, 200]
            assert node.connections == 1

    run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        CLOSE,
        OK.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Connection: keep-alive\r\n", b""),
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        OK + b"more",
    ],
)
def test_a_connection_on_which_something_may_follow_is_not_kept(run: Run, until: Until, answer: bytes):
    async def scenario() -> None:
        async with asking(lambda number: answer) as (node, lines):
            assert [await lines.ask(REQUEST) for _ in range(2)] == [200, 200]
            assert node.connections == 2
            await until(lambda: node.open == 0)

    run(scenario())


def test_what_is_said_unasked_ends_the_connection(run: Run, until: Until):
    async def scenario() -> None:
        async with asking(lambda number: [OK, OK]) as (node, lines):
            assert await lines.ask(REQUEST) == 200
            await until(lambda: not lines._idle)
            assert await lines.ask(REQUEST) == 200
            assert node.connections == 2

    run(scenario())


@pytest.mark.parametrize("how", ["close", b"garbage\r\n\r\n"])
def test_what_fails_on_a_kept_connection_is_sent_again_on_a_new_one(run: Run, how: Any):
    async def scenario() -> None:
        async with asking(lambda number: how if number == 2 else OK) as (node, lines):
            assert [await lines.ask(REQUEST) for _ in range(2)] == [200, 200]
            assert (node.connections, len(node.requests)) == (2, 3)

    run(scenario())


def test_a_kept_connection_that_the_node_closes_is_not_used_again(run: Run, until: Until):
    async def scenario() -> None:
        async with asking(lambda number: OK if number == 1 else ABSENT) as (node, lines):
            assert await lines.ask(REQUEST) == 200
            lines._idle[0].close()
            await until(lambda: not lines._idle)
            assert await lines.ask(REQUEST) == 404
            assert len(node.requests) == 2

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("close", "connection closed without an answer"),
        (b"HTTP/1.1 200", "no answer within 0.05 s"),
        (None, "no answer within 0.05 s"),
        (b"SSH-2.0-x\r\n", "it answered what is not HTTP: status line b'SSH"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "it answered what is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * module.LIMITS.head_bytes, "it answered what is not HTTP"),
    ],
)
def test_no_answer_says_why(run: Run, answer: Any, text: str):
    async def scenario() -> None:
        async with asking(lambda number: answer) as (_, lines):
            with pytest.raises(NoAnswer, match=text):
                await lines.ask(REQUEST, 0.05)

    run(scenario())


def test_where_nobody_listens_there_is_no_answer(run: Run):
    async def scenario() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.11", 0))
            for addresses, text in ((["127.0.0.11"], "connection refused"), ([], "it has no address")):
                with pytest.raises(NoAnswer, match=text):
                    await PurgeLines(addresses, sock.getsockname()[1]).ask(REQUEST)

    run(scenario())


def test_the_next_address_is_tried(run: Run):
    async def scenario() -> None:
        async with asking(lambda number: OK, "127.0.0.12") as (node, lines):
            assert await lines.ask(REQUEST) == 200
            assert node.connections == 1

    run(scenario())


def test_only_so_many_are_under_way_and_waiting_counts(run: Run, until: Until):
    async def scenario() -> None:
        gate = asyncio.get_running_loop().create_future()
        async with asking(lambda number: gate) as (node, lines):
            tasks = [asyncio.ensure_future(lines.ask(REQUEST)) for _ in range(module.AT_ONCE + 10)]
            await until(lambda: len(node.requests) == module.AT_ONCE)
            with pytest.raises(NoAnswer, match=r"no answer within 0\.05 s"):
                await lines.ask(REQUEST, 0.05)
            assert len(node.requests) == module.AT_ONCE
            gate.set_result(OK)
            assert await asyncio.gather(*tasks) == [200] * len(tasks)
            assert node.connections == module.AT_ONCE

    run(scenario())


def test_who_gives_up_leaves_no_connection_in_doubt(run: Run, until: Until):
    async def scenario() -> None:
        async with asking(lambda number: None if number == 1 else OK) as (node, lines):
            with pytest.raises(NoAnswer):
                await lines.ask(REQUEST, 0.02)
            await until(lambda: node.open == 0)
            assert await lines.ask(REQUEST) == 200

    run(scenario())


def test_idle_connections_are_closed_after_a_while(run: Run, until: Until, monkeypatch: pytest.MonkeyPatch):
    async def scenario() -> None:
        async with asking(lambda number: OK) as (node, lines):
            monkeypatch.setattr(module, "IDLE_S", 0.02)
            await asyncio.gather(*[lines.ask(REQUEST) for _ in range(3)])
            assert node.open == 3
            await until(lambda: node.open == 0)
            assert lines._sweeping is None
            assert await lines.ask(REQUEST) == 200

    run(scenario())


def test_after_closing_nothing_is_kept(run: Run, until: Until):
    async def scenario() -> None:
        gate = asyncio.get_running_loop().create_future()
        async with asking(lambda number: gate if number == 2 else OK) as (node, lines):
            assert await lines.ask(REQUEST) == 200
            asked = asyncio.ensure_future(lines.ask(REQUEST))
            await until(lambda: len(node.requests) == 2)
            lines.close()
            gate.set_result(OK)
            assert await asked == 200
            await until(lambda: node.open == 0)

    run(scenario())
