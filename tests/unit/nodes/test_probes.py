"""Probes against small servers on loopback, on both event loops.  The request itself meets a real Squid in
``tests/squid/test_node_probes.py``."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cachelb.nodes import probes
from cachelb.nodes.health import Change, Health, HealthPolicy
from cachelb.nodes.probes import REQUEST, Prober, ProbeResult, probe, probe_any

Run = Callable[[Any], Any]
Until = Callable[[Callable[[], bool]], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by reset


class Node:
    """A server that sends `pieces` after a request and closes; None: it stays silent; "reset": it resets.

    `requests`: what it was sent.
    """

    def __init__(self, pieces: list[bytes] | str | None = None) -> None:
        self.pieces: list[bytes] | str | None = pieces
        self.requests: list[bytes] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.11", port: int = 0) -> Node:
        self._server = await asyncio.start_server(self._serve, host, port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if isinstance(self.pieces, list):
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
            elif self.pieces == "reset":
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            else:
                await reader.read()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()


def ask(run: Run, pieces: list[bytes] | str | None, timeout_s: float = 2.0) -> ProbeResult:
    async def main() -> ProbeResult:
        node = await Node(pieces).start()
        try:
            result = await probe("127.0.0.11", node.port, timeout_s)
        finally:
            node.stop()
        assert node.requests == [REQUEST]
        return result

    result: ProbeResult = run(main())
    return result


@pytest.mark.parametrize(
    "line",
    [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 503 Service Unavailable\r\n", b"HTTP/1.1 403\r\n", b"HTTP/1.1 500 \n",
     b"HTTP/1.1 999 " + b"x" * 900 + b"\r\n"],
)  # fmt: skip
def test_any_http_answer_means_that_the_node_lives(run: Run, line: bytes):
    result = ask(run, [line + b"\r\n"])
    assert result.ok
    assert result.detail == f"HTTP status {line[9:12].decode()}"
    assert 0 < result.rtt_s < 2


def test_a_status_line_may_arrive_in_pieces(run: Run):
    assert ask(run, [bytes([byte]) for byte in OK]).ok


@pytest.mark.parametrize("length", range(len(b"HTTP/1.1 200")))
def test_every_truncation_of_a_status_line_is_no_answer(length: int):
    ok, detail = probes._judge(b"HTTP/1.1 200"[:length])
    assert not ok
    started = f"answered something that is not HTTP: {b'HTTP/1.1 200'[:length]!r}"
    assert detail == (started if length else "connection closed without an answer")


@pytest.mark.parametrize(
    "junk", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/2.0 200 OK\r\n", b"HTTP/1.1 20 OK\r\n", b"\0" * 5000, b"x" * 100_000]
)
def test_what_is_not_http_is_not_life(run: Run, junk: bytes):
    result = ask(run, [junk])
    assert not result.ok
    assert result.detail.startswith("answered something that is not HTTP: b'")
    assert len(result.detail) < 250


def test_a_connection_closed_without_an_answer_is_not_life(run: Run):
    assert ask(run, [])[:2] == (False, "connection closed without an answer")


def test_a_reset_is_not_life(run: Run):
    assert ask(run, "reset")[:2] == (False, "connection reset")


def test_a_silent_node_is_given_up_in_time(run: Run):
    result = ask(run, None, timeout_s=0.05)
    assert result[:2] == (False, "no answer within 0.05 s")
    assert 0.045 <= result.rtt_s < 1.0  # uvloop counts whole milliseconds
    assert not result.ours


def test_a_closed_port_is_refused_at_once(run: Run):
    with socket.socket() as sock:
        sock.bind(("127.0.0.11", 0))  # bound and not listening
        result = run(probe("127.0.0.11", sock.getsockname()[1], 2.0))
    assert result[:2] == (False, "connection refused")
    assert not result.ours


def test_a_full_backlog_is_no_connection(run: Run):
    with socket.socket() as sock, socket.socket() as first:
        sock.bind(("127.0.0.11", 0))
        sock.listen(0)
        first.connect(sock.getsockname())
        result = run(probe("127.0.0.11", sock.getsockname()[1], 0.05))
    assert not result.ok
    assert result.detail in ("no connection in 0.05 s", "no answer within 0.05 s")


def test_trouble_of_our_own_says_nothing_about_the_node(run: Run, monkeypatch: pytest.MonkeyPatch):
    async def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(asyncio, "open_connection", fail)
    result = run(probe("127.0.0.11", 1, 2.0))
    assert result[:2] == (False, "the director has no free file descriptors")
    assert result.ours


def test_a_director_that_was_stopped_does_not_blame_the_node(run: Run):
    async def main() -> ProbeResult:
        node = await Node(None).start()
        task = asyncio.ensure_future(probe("127.0.0.11", node.port, 0.02))
        while not node.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        time.sleep(0.25)  # noqa: ASYNC251  what SIGSTOP does
        result = await task
        node.stop()
        return result

    result = run(main())
    assert result.ours
    assert result.detail.startswith("the director itself was late by 0.2")


def test_one_living_address_is_enough_and_the_dead_one_is_not_waited_for(run: Run):
    async def main() -> ProbeResult:
        silent = await Node(None).start("127.0.0.11")
        living = await Node([OK]).start("127.0.0.12", silent.port)
        result = await probe_any(["127.0.0.11", "127.0.0.12"], silent.port, 1.0)
        silent.stop()
        living.stop()
        return result

    result = run(main())
    assert result.ok
    assert result.rtt_s < 0.5


def test_a_node_without_a_living_address_is_dead(run: Run):
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 0))
        port = sock.getsockname()[1]
        assert run(probe_any(["127.0.0.11", "127.0.0.12"], port, 1.0))[:2] == (False, "connection refused")
    assert run(probe_any([], 80, 1.0))[:2] == (False, "its name has no address")


def test_a_failure_of_the_node_counts_more_than_trouble_of_our_own(run: Run, monkeypatch: pytest.MonkeyPatch):
    async def fake(address: str, port: int, timeout_s: float, *, connect: bool, first: bytes) -> ProbeResult:
        return ProbeResult(False, address, 0.0, ours=address == "first")

    monkeypatch.setattr(probes, "probe", fake)
    assert run(probe_any(["first", "second"], 80, 1.0)) == ProbeResult(False, "second", 0.0)
    assert run(probe_any(["first", "first"], 80, 1.0)).ours


def test_a_probe_begins_with_the_header_that_the_node_expects(run: Run):
    async def main() -> None:
        node = await Node([OK]).start()
        try:
            for addresses in (["127.0.0.11"], ["127.0.0.12", "127.0.0.11"]):
                assert (await probe_any(addresses, node.port, 2.0, first=b"PROXY UNKNOWN\r\n")).ok
        finally:
            node.stop()
        assert node.requests == [b"PROXY UNKNOWN\r\n" + REQUEST] * 2

    run(main())


def test_a_node_that_does_not_expect_the_header_is_of_no_use(run: Run):
    async def main() -> None:
        node = await Node([b"HTTP/1.1 400 Bad Request\r\n\r\n"]).start()
        try:
            assert (await probe("127.0.0.11", node.port, 2.0)).ok
            refused = await probe("127.0.0.11", node.port, 2.0, first=b"PROXY UNKNOWN\r\n")
        finally:
            node.stop()
        assert refused[:2] == (False, "HTTP status 400: its port expects no PROXY header (send_proxy)")

    run(main())


def test_a_connection_is_enough_where_no_http_is_spoken(run: Run):
    with socket.create_server(("127.0.0.11", 0)) as silent:
        port = silent.getsockname()[1]
        alive = run(probe_any(["127.0.0.11"], port, 1.0, connect=True))
        assert (alive.ok, alive.detail) == (True, "connected")
        assert run(probe_any(["127.0.0.99", "127.0.0.11"], port, 1.0, connect=True)).ok
    dead = run(probe_any(["127.0.0.11"], port, 1.0, connect=True))
    assert (dead.ok, dead.detail) == (False, "connection refused")


# -- the prober

FAST = HealthPolicy(interval_s=0.05, timeout_s=0.04, slow_start_s=0.0)


class Watched:
    """A Prober on real servers."""

    def __init__(self, nodes: dict[str, Node], policy: HealthPolicy = FAST) -> None:
        self.targets = {name: ("127.0.0.11", node.port) for name, node in nodes.items()}
        self.health = Health(policy, list(nodes), time.monotonic())
        self.changes: list[str] = []
        self.prober = Prober(self.health, lambda: self.targets, self._note, policy.timeout_s)
        self.task = asyncio.ensure_future(self.prober.run())

    def _note(self, changes: list[Change]) -> None:
        self.changes += map(str, changes)

    def up(self) -> set[str]:
        return {name for name, node in self.health.states().items() if node.state == "up"}

    async def stop(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


def test_the_prober_sees_nodes_hang_die_and_return(run: Run, until: Until, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probes, "IDLE_S", 1000.0)  # it must be woken, not wake up by chance

    async def main() -> None:
        a, b, c = [await Node([OK]).start() for _ in "abc"]
        it = Watched({"a": a, "b": b, "c": c})
        await until(lambda: min(len(node.requests) for node in (a, b, c)) >= 2)
        assert it.up() == {"a", "b", "c"}
        b.pieces = None
        c.stop()
        await until(lambda: it.up() == {"a"})
        assert sorted(it.changes) == [
            "node b is dead: 2 probes in a row failed, last: no answer within 0.04 s",
            "node c is dead: 2 probes in a row failed, last: connection refused",
        ]
        b.pieces = [OK]
        await c.start(port=c.port)
        await until(lambda: it.up() == {"a", "b", "c"})
        assert "node b is up: 2 probes in a row were answered, last: HTTP status 200 in" in " ".join(it.changes)
        await it.stop()
        for node in (a, b, c):
            node.stop()

    run(main())


def test_a_node_that_denies_the_director_is_told_of_once(run: Run, until: Until, caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        node = await Node([b"HTTP/1.1 403 Forbidden\r\n\r\n"]).start()
        it = Watched({"a": node})
        await until(lambda: len(node.requests) >= 3)
        assert it.up() == {"a"}
        await it.stop()
        node.stop()

    run(main())
    (record,) = caplog.records
    assert record.getMessage().startswith("node a denies probes (HTTP status 403) and may deny clients: ")


def test_a_wake_is_answered_long_before_the_interval_is_over(run: Run, until: Until):
    async def main() -> None:
        node = await Node([OK]).start()
        it = Watched({"a": node}, HealthPolicy(interval_s=1000.0, timeout_s=1.0))
        await until(lambda: len(node.requests) == 1)
        it.health.observe_passive("a", 99, 0, time.monotonic())
        it.prober.wake()
        await until(lambda: len(node.requests) == 2)
        await it.stop()
        node.stop()

    run(main())


def test_a_result_wakes_the_prober(run: Run, until: Until, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probes, "IDLE_S", 1000.0)

    async def main() -> None:
        node = await Node([b"", b"", OK]).start()
        monkeypatch.setattr(probes, "PAUSE_S", 0.0)  # it sleeps before the answer is here, with nothing due
        it = Watched({"a": node})
        await until(lambda: len(node.requests) >= 3)
        await it.stop()
        node.stop()

    run(main())


def test_one_silent_node_does_not_delay_the_probes_of_others(run: Run, until: Until):
    async def main() -> None:
        silent, living = await Node(None).start(), await Node([OK]).start()
        it = Watched({"s": silent, "l": living}, HealthPolicy(interval_s=0.05, timeout_s=5.0))
        await until(lambda: len(living.requests) >= 3)
        assert len(silent.requests) == 1
        await it.stop()
        silent.stop()
        living.stop()

    run(main())


def test_a_node_that_has_no_target_yet_is_not_declared_dead(run: Run, until: Until):
    async def main() -> None:
        node = await Node([OK]).start()
        it = Watched({"a": node})
        it.health.reload(FAST, ["a", "new"], time.monotonic())
        await until(lambda: len(node.requests) >= 3)
        assert it.up() == {"a", "new"}
        it.targets["new"] = ("127.0.0.11", node.port)
        await until(lambda: it.health.states()["new"].cause.startswith("probes are answered"))
        await it.stop()
        node.stop()

    run(main())


def test_no_file_descriptors_is_no_reason_to_declare_the_farm_dead(run: Run, until: Until, monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        node = await Node([OK]).start()
        tried = []

        async def fail(*_: object, **__: object) -> ProbeResult:
            tried.append(1)
            return ProbeResult(False, "the director has no free file descriptors", 0.0, ours=True)

        monkeypatch.setattr(probes, "probe_any", fail)
        it = Watched({"a": node})
        await until(lambda: len(tried) >= 3)
        assert it.up() == {"a"}
        assert it.changes == []
        await it.stop()
        node.stop()

    run(main())


def test_an_error_in_what_the_prober_calls_is_not_swallowed(run: Run):
    async def main() -> None:
        def broken(changes: list[Change]) -> None:
            raise ZeroDivisionError

        with socket.socket() as sock:
            sock.bind(("127.0.0.11", 0))
            target = ("127.0.0.11", sock.getsockname()[1])
            health = Health(FAST, ["a"], time.monotonic())
            with pytest.raises(ZeroDivisionError):
                await Prober(health, lambda: {"a": target}, broken, 0.1).run()

    run(main())


def test_after_an_error_it_can_be_run_again_and_misses_no_node(run: Run, until: Until):
    """Also those whose probes were under way, and those whose probes had not begun."""

    async def main() -> None:
        broken = True

        def on_change(changes: list[Change]) -> None:
            nonlocal broken
            if broken:
                broken = False
                raise ZeroDivisionError

        with socket.socket() as refuses, socket.create_server(("127.0.0.11", 0), backlog=500) as silent:
            refuses.bind(("127.0.0.11", 0))
            targets = {f"n{i}": silent.getsockname() for i in range(200)} | {"n0": refuses.getsockname()}
            health = Health(FAST, list(targets), time.monotonic())
            prober = Prober(health, lambda: targets, on_change, 0.1)
            with pytest.raises(ZeroDivisionError):
                await prober.run()
            again = asyncio.ensure_future(prober.run())
            await until(lambda: again.done() or {node.state for node in health.states().values()} == {"dead"})
            again.cancel()
            with pytest.raises(asyncio.CancelledError):
                await again
            assert {node.state for node in health.states().values()} == {"dead"}

    run(main())
