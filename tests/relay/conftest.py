"""The contract's stage: one relay over real loopback sockets, with fake nodes around it.

``farm``: a relay with three nodes; ``make_farm(nodes=2, timeouts={"head_s": 0.1}, ...)``: with settings of a test's
own, section by section as in the configuration.  Both exist once per implementation of ``Relay``.

When a test is over, the stage is taken down and looked at: nobody may have met an internal error, every request to a
node must have ended, and every descriptor, pipe and connection must be gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import pytest
import uvloop
from fakes import PATIENCE_S, Answer, FakeSquid, Peer, get
from fakes_dns import FakeDns, Says
from fakes_service import TcpStage

from cachelb.config import Config
from cachelb.counters import read_farm, read_node
from cachelb.relay import engine as python_engine
from cachelb.relay import ticker as python_ticker
from cachelb.routing.ring import Member
from cachelb.routing.table import make_table
from cachelb.snapshot import NodeView, Snapshot

T = TypeVar("T")

VIA = "director.test:3128"


class PythonRelay:
    """``cachelb.relay.engine`` in a thread with a loop of its own."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.engine: python_engine.Engine = self.call(lambda: python_engine.Engine(self.loop))

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in the relay's thread."""

        async def run() -> T:
            return function()

        return self.run(run())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE_S)
        self.loop.close()

    def leaks(self) -> dict[str, int]:
        """What is still held; all zero when nothing runs."""
        engine = self.engine
        return {
            "clients": len(engine.clients),
            "guests": len(engine.door.guests),
            "addresses of clients": len(engine.door._per_client),
            "connections held for": len(engine.steering.templates._held),
            "pipes": engine.pipes.used + engine.small_pipes.used,
            "purges": len(engine.internal.purges),
            "reports": len(engine.internal.manager.asked),
        }


RELAYS = {"python": PythonRelay}


class Farm:
    """A relay in front of fake nodes ``n0``, ``n1``, ...; ``origin``: one more fake, for what goes around them."""

    def __init__(self, relay: PythonRelay, nodes: int, hosts_from: int, /, **sections: dict[str, Any]) -> None:
        self.relay = relay
        self.via = VIA
        self.engine = relay.engine  # for looking at; a scenario that changes it is none of the contract
        self.nodes = [FakeSquid(f"127.0.0.{hosts_from + i}", backlog=128) for i in range(nodes)]
        self.origin = FakeSquid("127.0.0.9")
        self.sections = sections
        self.states = ["up"] * nodes
        self.addresses = [(node.host,) for node in self.nodes]
        self.send_proxy = ""  # what nodes expect
        self.epoch = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address: tuple[str, int] = self.listener.getsockname()
        self.clients: list[Peer] = []
        self.drained = False
        self._table = make_table("ring", [Member(f"n{i}", 1.0) for i in range(nodes)]) if nodes else None
        self._numbers = iter(range(1_000_000))
        self.apply()
        relay.call(lambda: relay.engine.start([self.listener]))

    # -- steering

    def apply(self, **sections: dict[str, Any]) -> int:
        """Put the present states, addresses and settings into force, and ``sections`` with them."""
        self.sections |= sections
        settings = {"relay": {"via": VIA, **self.sections.get("relay", {})}}
        settings["bypass"] = {"allow_private": True, **self.sections.get("bypass", {})}
        settings = {**self.sections, **settings}
        config = Config.model_validate_json(json.dumps(settings))
        views = tuple(
            NodeView(f"n{i}", i, self.addresses[i], node.port, 1.0, self.states[i], send_proxy=self.send_proxy)
            for i, node in enumerate(self.nodes)
        )
        self.epoch += 1
        blob = Snapshot(self.epoch, config.model_dump_json(), views).pack()
        return self.relay.call(lambda: self.relay.engine.apply(blob))

    def declare(self, node: int, state: str) -> None:
        """Say what health would say."""
        self.states[node] = state
        self.apply()

    def drain(self, deadline_s: float, *, patient: bool = False) -> int:
        self.drained = True
        return self.relay.run(self.relay.engine.drain(deadline_s, patient=patient))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the relay from doing anything, so that it finds several events at once afterwards."""
        is_held, release = threading.Event(), threading.Event()

        def hold() -> None:
            is_held.set()
            release.wait(PATIENCE_S)

        self.relay.loop.call_soon_threadsafe(hold)
        is_held.wait(PATIENCE_S)
        try:
            yield
        finally:
            release.set()

    # -- asking

    def connect(self, source: str = "", receive_bytes: int = 0) -> Peer:
        """A new client.  receive_bytes: its kernel's buffer, for one that is slow."""
        sock = socket.socket()
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.settimeout(PATIENCE_S)
        if source:
            sock.bind((source, 0))
        sock.connect(self.address)
        self.clients.append(Peer(sock))
        return self.clients[-1]

    def ask(self, url: str, *fields: str, method: str = "GET") -> Answer:
        """One request on a connection of its own."""
        client = self.connect()
        client.send(get(url, "Connection: close", *fields, method=method))
        answer = client.read_answer(method)
        client.close()
        return answer

    def owners(self, url: str) -> list[int]:
        """The nodes for a URL, in order."""
        assert self._table is not None
        return list(self._table.owners(url.encode(), len(self.nodes)))

    def url(self, *owners: int, path: str = "page") -> str:
        """A URL nobody has asked for that belongs to these nodes, in this order (as far as given)."""
        while True:
            url = f"http://www{next(self._numbers)}.test/{path}"
            if tuple(self.owners(url)[: len(owners)]) == owners:
                return url

    def origin_url(self, path: str = "page") -> str:
        """A URL of the origin that nobody has asked for."""
        return f"http://{self.origin.address}/{path}{next(self._numbers)}"

    # -- looking

    def counter(self, name: str) -> int:
        """One of the farm's counters."""
        return self.counters()[name]

    def counters(self) -> dict[str, int]:
        return read_farm([self.relay.call(lambda: self.relay.engine.counters())])

    def node_counters(self, node: int) -> dict[str, int]:
        return read_node([self.relay.call(lambda: self.relay.engine.counters())], node)

    def ended(self) -> dict[str, int]:
        """How exchanges ended so far: each Reason's word and how often."""
        prefix = "ended_"
        return {name.removeprefix(prefix): n for name, n in self.counters().items() if name.startswith(prefix) and n}

    def wait_until(self, is_true: Callable[[], object], what: str = "") -> None:
        """Wait for a condition."""
        end = time.monotonic() + PATIENCE_S
        while not is_true():
            assert time.monotonic() < end, f"in vain: {what or is_true}"
            time.sleep(0.002)

    def wait_for_end(self, reason: str, times: int = 1) -> None:
        """Wait until exchanges ended for this Reason."""
        self.wait_until(lambda: self.ended().get(reason, 0) == times, f"{times} x {reason}, not {self.ended()}")

    # -- taking down

    def close(self) -> None:
        for client in self.clients:
            client.close()
        if not self.drained:
            self.drain(0.2)
        leaks = self.relay.leaks()
        counters = [self.node_counters(i) for i in range(len(self.nodes))]
        ended = self.ended()
        self.origin.stop()
        for node in self.nodes:
            node.stop()
        assert not any(leaks.values()), leaks
        assert "internal" not in ended, ended
        assert "audit_failed" not in ended, ended
        in_flight = [count["requests"] - count["ended"] for count in counters]
        assert not any(in_flight), f"requests to nodes that never ended: {in_flight}"


class Nameserver:
    """A name server in a thread with a loop of its own.  ``queries``: how often the address of a name was asked for."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.dns = FakeDns()
        self._call(self.dns.start())
        self.address = self.dns.address

    def say(self, name: str, addresses: Sequence[str] = (), silent: bool = False) -> None:
        """Script a name; a silent one is not answered about at all."""
        says = Says(tuple(addresses), silent=silent)
        self.dns.say(name, says, Says(silent=True) if silent else None)

    @property
    def queries(self) -> dict[str, int]:
        return Counter({name: n for (name, kind), n in list(self.dns.queries.items()) if kind == "A"})

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)

    def stop(self) -> None:
        async def close() -> None:
            self.dns.stop()

        self._call(close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE_S)
        self.loop.close()


class ErrorsOnly(logging.Handler):
    """Keeps what a relay logs as an error: there must be none, whatever its peers do."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(self.format(record))


def open_descriptors() -> dict[str, str]:
    """Descriptors of this process and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # that of the directory itself
    return found


@pytest.fixture(scope="session", autouse=True)
def _first_loop() -> None:
    """The first event loop of a process leaves a pipe of libuv's behind, for signals."""
    PythonRelay().close()


@pytest.fixture
def relay_errors() -> Iterator[list[str]]:
    """Messages of internal errors.  A test that provokes one empties the list."""
    handler = ErrorsOnly()
    logger = logging.getLogger("cachelb")
    logger.addHandler(handler)
    yield handler.seen
    logger.removeHandler(handler)
    assert handler.seen == []


@pytest.fixture(params=sorted(RELAYS))
def make_farm(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, relay_errors: list[str]
) -> Iterator[Callable[..., Farm]]:
    """Makes farms; nothing of them may be left afterwards."""
    monkeypatch.setattr(python_ticker, "TICK_S", 0.01)  # timeouts of a tenth of a second are kept to the hundredth
    before = open_descriptors()
    farms: list[Farm] = []

    def make(nodes: int = 3, **sections: dict[str, Any]) -> Farm:
        farms.append(Farm(RELAYS[request.param](), nodes, 11 + 10 * len(farms), **sections))
        return farms[-1]

    yield make
    try:
        for farm in farms:
            farm.close()
    finally:
        for farm in farms:
            farm.relay.close()
    end = time.monotonic() + PATIENCE_S
    while left := {name: what for name, what in open_descriptors().items() if before.get(name) != what}:
        assert time.monotonic() < end, left
        time.sleep(0.01)  # c-ares closes its own from a thread of its own


@pytest.fixture
def farm(make_farm: Callable[..., Farm]) -> Farm:
    """A relay with three nodes and the default settings."""
    return make_farm()


@pytest.fixture
def make_service(make_farm: Callable[..., Farm]) -> Iterator[Callable[..., TcpStage]]:
    """Makes TCP services, each with a farm of its own."""
    stages: list[TcpStage] = []

    def make(nodes: int = 3, **settings: Any) -> TcpStage:
        stages.append(TcpStage(make_farm, nodes, **settings))
        return stages[-1]

    yield make
    for stage in stages:
        stage.stop()


@pytest.fixture
def nameserver() -> Iterator[Nameserver]:
    """A name server that knows nothing yet."""
    server = Nameserver()
    yield server
    server.stop()
