"""All that answers peers, wired together on loopback: what workers and nodes tell is what peers are told."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from cachelb import control
from cachelb.config import Config, parse
from cachelb.counters import PEERS
from cachelb.handover import Published
from cachelb.listen import CannotListenError
from cachelb.onecache import OneCache
from cachelb.snapshot import NodeView
from icp.client import HtcpClient, IcpClient
from icp.htcp import CLR_KEPT
from icp.packet import Opcode

URL = b"http://a.test/1"
SLOTS = {"a": 0, "b": 1}
PATIENCE_S = 10.0
NODES = """
[[node]]
name = "a"
host = "127.0.0.91"
http_port = 1
icp_port = 0
[[node]]
name = "b"
host = "127.0.0.92"
http_port = 1
icp_port = 0
"""


def free_udp(host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def config_of(more: str = "", icp: int = 0, nodes: str = NODES) -> Config:
    listen = f'http = "127.0.0.1:3128"\nicp = "127.0.0.1:{icp or free_udp()}"\nhtcp = "127.0.0.1:{free_udp()}"\n'
    return parse(f"[listen]\n{listen}{more}{nodes}", "c.toml")


def views(*states: str) -> list[NodeView]:
    return [
        NodeView(name, slot, (f"127.0.0.{91 + slot}",), 1, 1.0, state)  # type: ignore[arg-type]
        for (name, slot), state in zip(SLOTS.items(), states, strict=True)
    ]


class Workers:
    """In the place of all workers, and of each of them."""

    def __init__(self) -> None:
        self.published: list[Published] = []
        self.told: list[tuple[bytes, bytes]] = []
        self.writer = object()  # of the process that there is

    def publish_digest(self, published: Published) -> None:
        self.published.append(published)

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        self.told.append((kind, payload))


class Stage:
    """One OneCache that listens, and a peer that asks it."""

    def __init__(self, config: Config) -> None:
        self.subject = OneCache(config, SLOTS)
        self.workers = Workers()

    def place(self, kind: str) -> tuple[str, int]:
        (service,) = [service for name, service in self.subject.services.items() if name.startswith(kind + " ")]
        return service.addresses[0]

    def tell(self, *seen: control.Seen) -> None:
        self.subject.heard(self.workers, control.SEEN, control.pack_seen(list(seen)))  # type: ignore[arg-type]

    async def ask(self, url: bytes = URL, source: str = "") -> Opcode | None:
        async with IcpClient(source) as client:
            answer = await client.query(self.place("icp"), url, PATIENCE_S if not source else 0.3)
            return answer.reply.opcode if answer is not None else None


def fresh(slot: int, url: bytes = URL) -> control.Seen:
    return control.Seen(slot, int(time.time()) + 3600, url)


def run(test: Callable[[Stage], Awaitable[None]], config: Config | None = None) -> None:
    async def main() -> None:
        stage = Stage(config or config_of())
        await stage.subject.start()
        try:
            stage.subject.place(views("up", "up"))
            stage.subject.begin(stage.workers)  # type: ignore[arg-type]
            await test(stage)
        finally:
            await stage.subject.stop()

    uvloop.run(asyncio.wait_for(main(), 30))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  what it waits for happens in the code under test
            await asyncio.sleep(0.002)


def test_peers_are_told_what_workers_saw():
    async def test(stage: Stage) -> None:
        stage.subject.serve(True)
        assert await stage.ask() is Opcode.MISS
        stage.tell(fresh(0))
        assert await stage.ask() is Opcode.HIT
        stage.tell(control.Seen(0, 0, URL))
        assert await stage.ask() is Opcode.MISS
        assert await stage.ask(b"http://a b/") is Opcode.ERR
        counters = stage.subject.counters()
        assert (counters["icp_hit"], counters["icp_miss"], counters["icp_err"], counters["icp_received"]) == (1, 2, 1, 4)

    run(test)


def test_thousands_of_sightings_do_not_hold_up_the_event_loop():
    async def test(stage: Stage) -> None:
        urls = [b"http://a.test/%d" % number for number in range(4000)]
        stage.tell(*(control.Seen(0, fresh(0).expires, url) for url in urls))
        assert 0 < stage.subject.counters()["index_keys"] < 1000
        turns = 0
        while stage.subject.counters()["index_keys"] < 4000:
            await asyncio.sleep(0)
            turns += 1
        assert turns > 10
        assert stage.subject.counters()["index_overloads"] == 0

    run(test)


def test_nothing_is_to_be_fetched_before_the_workers_are_ready_nor_from_a_dead_farm():
    async def test(stage: Stage) -> None:
        stage.tell(fresh(0))
        assert await stage.ask() is Opcode.MISS_NOFETCH
        stage.subject.serve(True)
        assert await stage.ask() is Opcode.HIT
        stage.subject.place(views("dead", "up"))
        assert await stage.ask() is Opcode.MISS
        stage.subject.place(views("dead", "dead"))
        assert await stage.ask() is Opcode.MISS_NOFETCH
        stage.subject.place(views("drain", "dead"))
        assert await stage.ask() is Opcode.HIT
        stage.subject.serve(False)
        assert await stage.ask() is Opcode.MISS_NOFETCH

    run(test)


def test_htcp_tells_the_same_and_clears_only_for_those_who_may():
    async def test(stage: Stage) -> None:
        stage.subject.serve(True)
        stage.subject.place(views("dead", "dead"))  # none is there to be asked
        stage.subject.place(views("up", "dead"))
        stage.tell(fresh(0))
        async with HtcpClient() as client:
            answer = await client.test(stage.place("htcp"), URL, PATIENCE_S)
            assert answer is not None
            assert answer.reply.response == 0
            assert await client.clear(stage.place("htcp"), URL, 0.3) is None  # silence
        assert await stage.ask() is Opcode.HIT
        stage.subject.reload(config_of('[access]\npurge = ["127.0.0.1/32"]\n'))
        async with HtcpClient() as client:
            assert await client.clear(stage.place("htcp"), URL, PATIENCE_S) == CLR_KEPT  # the node does not answer
        assert await stage.ask() is Opcode.MISS  # but nobody is sent there any more
        assert stage.subject.counters()["htcp_kept"] == 1

    run(test)


def test_a_purge_of_a_worker_is_answered_with_its_number():
    async def test(stage: Stage) -> None:
        stage.subject.serve(True)
        stage.tell(fresh(1))
        purge = control.pack_purge(control.Purge(77, URL, b""))
        stage.subject.heard(stage.workers, control.PURGE, purge)  # type: ignore[arg-type]
        await until(lambda: stage.workers.told)
        ((kind, payload),) = stage.workers.told
        purged = control.unpack_purged(payload)
        assert kind == control.PURGED
        assert (purged.number, purged.confirmed) == (77, 0)
        assert len(purged.problems) == purged.asked == 2  # nobody listens at the nodes' addresses
        assert await stage.ask() is Opcode.MISS

    run(test)


def test_the_successor_of_a_worker_is_not_told_of_its_purges(monkeypatch: pytest.MonkeyPatch):
    async def test(stage: Stage) -> None:
        purged = asyncio.Event()

        async def slow(*_: object) -> control.Purged:
            stage.workers.writer = object()
            purged.set()
            return control.Purged(0, 0, 0, 0)

        monkeypatch.setattr(stage.subject.purger, "purge", slow)
        stage.subject.heard(stage.workers, control.PURGE, control.pack_purge(control.Purge(77, URL, b"")))  # type: ignore[arg-type]
        await purged.wait()
        await until(lambda: not stage.subject._tasks)
        assert stage.workers.told == []

    run(test)


def test_a_digest_is_there_before_any_worker_asks():
    async def test(stage: Stage) -> None:
        (empty,) = stage.workers.published
        assert empty.size_bytes >= 128
        assert empty.expires_at > empty.modified_at - 1

    run(test)


def test_who_may_ask_and_how_much_can_be_changed_while_running():
    async def test(stage: Stage) -> None:
        stage.subject.serve(True)
        stage.tell(fresh(0))
        assert await stage.ask() is Opcode.DENIED
        stage.subject.reload(config_of('[icp]\nallow = ["127.0.0.1/32"]\n'))
        assert await stage.ask() is Opcode.HIT
        stage.subject.reload(config_of("[icp]\nmode = 'forward'\n"))
        assert await stage.ask() is Opcode.HIT  # no owner speaks ICP: from the index
        assert stage.subject.counters()["forward_skipped"] == 1
        stage.subject.reload(config_of("[icp]\nrate_per_s = 1\n"))
        assert [await stage.ask(), stage.subject.icp.counters()["limited"]] == [Opcode.HIT, 0]

    run(test, config_of('[icp]\nallow = ["127.0.0.99/32"]\n'))


def test_a_node_s_store_log_reaches_the_index():
    key = "7F7F7A4F1B1F1CB79AAE1A82378AAB50"
    times = f"1795234877        -1 {int(time.time()) + 3600}"
    line = f"1795234877.944 SWAPOUT 00 0000001B {key}  200 {times} a/b 9/9 GET http://a/x\n"
    port = free_udp()
    text = NODES.replace('name = "b"', f'name = "b"\nstore_log = "127.0.0.1:{port}"')

    async def test(stage: Stage) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(line.encode(), ("127.0.0.1", port))
            await until(lambda: stage.subject.index.holdings.count(1) == 1)
        about = stage.subject.nodes(SLOTS)
        assert (about["a"]["keys"], about["b"]["keys"]) == (0, 1)
        assert about["b"]["store_log"] == {"datagrams": 1, "restarts": 0}
        assert stage.subject.counters()["store_log_line_stored"] == 1

    run(test, config_of(nodes=text))


def test_what_is_known_outlives_it(tmp_path: Path):
    config = config_of(f'[index]\nstate = "{tmp_path}"\n')

    async def first(stage: Stage) -> None:
        stage.tell(fresh(0))

    async def second(stage: Stage) -> None:
        stage.subject.serve(True)
        assert await stage.ask() is Opcode.HIT
        assert stage.subject.status()["index"]["problem"] == ""

    run(first, config)
    run(second, config)


def test_an_address_in_use_is_a_sentence():
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            subject = OneCache(config_of(icp=taken.getsockname()[1]), SLOTS)
            with pytest.raises(CannotListenError, match="another program uses it"):
                await subject.start()
            await subject.stop()

    uvloop.run(main())


def test_of_several_addresses_for_store_logs_the_one_in_use_is_named():
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            subject = OneCache(config_of(f'store_log = ["127.0.0.1:{free_udp()}", "127.0.0.1:{port}"]\n'), SLOTS)
            with pytest.raises(CannotListenError, match=rf"port {port}: another program uses it \(find it with: ss -lunp "):
                await subject.start()
            await subject.stop()

    uvloop.run(main())


def test_of_the_nodes_own_addresses_the_one_in_use_is_named(caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            text = NODES.replace('name = "b"', f'name = "b"\nstore_log = "127.0.0.1:{port}"')
            subject = OneCache(config_of(nodes=text), SLOTS)
            await subject.start()
            await subject.stop()
            told = f"a node's store log cannot be listened for at 127.0.0.1 port {port}: Address already in use"
            assert told in caplog.messages

    uvloop.run(main())


def test_every_counter_has_its_row_and_the_status_is_plain():
    async def test(stage: Stage) -> None:
        subject = stage.subject
        rows = {counter.name for counter in PEERS}
        assert set(subject.counters()) == rows
        parts = {"icp": subject.icp, "htcp": subject.htcp, "forward": subject.forward, "purge": subject.purger}
        found = {f"{prefix}_{word}" for prefix, part in parts.items() for word in part.counters()}
        found |= {f"{name.split()[0]}_{word}" for name, service in subject.services.items() for word in service.counters()}
        found |= {f"store_log_{word}" for word in subject.store_logs.counters()}
        assert found <= rows
        assert json.loads(json.dumps(subject.status())) == subject.status()

    run(test)
