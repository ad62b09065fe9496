"""The icp package and real Squids: they answer our client, and a child of ours asks our service."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest
import uvloop

from cachelb.demo.farm import Squid, SquidFarm, free_port, wait_until
from cachelb.demo.origin import OriginProcess, body
from cachelb.demo.traffic import Errand, run_errands
from icp.answer import Answerer, Outcome
from icp.answer_htcp import HtcpAnswerer, HtcpOutcome
from icp.client import HtcpClient, IcpClient
from icp.htcp import CLR_ABSENT, CLR_GONE, TST_HIT, TST_MISS
from icp.packet import SRC_RTT, Opcode
from icp.service import Answer, Service

ASKED = 200
CHILD = "127.0.2.1"


def fetch(squid: Squid, origin: OriginProcess, names: Sequence[str], *, may_fail: bool = False) -> list[str]:
    """GET each of these through `squid`; their URLs."""
    paths = [f"/static/{name}" for name in names]
    errands = [Errand("", f"{path}?size=500", body(path, 500)) for path in paths]
    results = run_errands((squid.host, squid.http_port), (origin.host, origin.port), errands)
    assert may_fail or {result.problem for result in results} == {""}, squid.log_tail()
    return [f"{origin.base}{path}?size=500" for path in paths]


class InThread:
    """A service on uvloop in a thread, on a free port of `host`."""

    def __init__(self, host: str, answer: Answer) -> None:
        self.port = 0
        self._ready = threading.Event()
        self._host = host
        self._answer = answer
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        service = await Service.start([(self._host, 0)], self._answer)
        self.port = service.addresses[0][1]
        self._ready.set()
        await self._stopped.wait()
        service.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)


@pytest.fixture
def serve() -> Iterator[Callable[[str, Answer], InThread]]:
    started: list[InThread] = []

    def start(host: str, answer: Answer) -> InThread:
        started.append(InThread(host, answer))
        return started[-1]

    yield start
    for service in started:
        service.stop()


def child_of(farm: SquidFarm, udp_port: int, *, options: str = "", lines: Sequence[str] = ()) -> Squid:
    """A child whose parent speaks HTTP as the farm's first node and ICP or HTCP as we do."""
    node = farm.nodes[0]
    own_udp = free_port(CHILD, socket.SOCK_DGRAM)
    return farm.add_child(
        (node.host, node.http_port),
        lines=[
            f"cache_peer {node.host} parent {node.http_port} {udp_port} name=front no-digest no-netdb-exchange {options}",
            f"{'htcp' if 'htcp' in options else 'icp'}_port {own_udp}",
            f"udp_incoming_address {CHILD}",
            "minimum_direct_rtt 0",
            "minimum_direct_hops 0",
            # 5 ms by default; here the service shares an interpreter with the clients, and the machine with other tests
            "minimum_icp_query_timeout 200",
            *lines,
        ],
    )


def ways(child: Squid, urls: Sequence[str]) -> Counter[str]:
    """How often the child used which way to these URLs."""
    wanted = set(urls)

    def entries() -> list[str]:
        return [entry.hierarchy.partition("/")[0] for entry in child.access_log() if entry.url in wanted]

    assert wait_until(lambda: len(entries()) == len(urls), 10), child.log_tail()
    return Counter(entries())


def until_asked(child: Squid, origin: OriginProcess, unique: str, counted: Callable[[], int]) -> None:
    """A Squid uses its peers about a second after its start only."""
    tries = iter(range(1000))

    def asked() -> bool:
        fetch(child, origin, [f"{unique}try{next(tries)}"])
        return counted() > 0

    assert wait_until(asked, 15, step_s=0.2), child.log_tail()


# our client


def test_a_real_node_answers_our_client(squid_farm: SquidFarm, origin: OriginProcess, unique: str):
    node = squid_farm.nodes[0]
    address = (node.host, node.icp_port)
    held = fetch(node, origin, [f"{unique}h{number}" for number in range(ASKED)])
    absent = [f"{origin.base}/static/{unique}a{number}" for number in range(ASKED)]

    async def ask() -> None:
        async with IcpClient() as client:
            answers = []
            for some in (held[:100], held[100:], absent[:100], absent[100:]):  # its socket holds 256 and loses the rest
                answers += await asyncio.gather(*[client.query(address, url.encode(), 5) for url in some])
            assert [answer and answer.reply.opcode for answer in answers] == [Opcode.HIT] * ASKED + [Opcode.MISS] * ASKED
            assert [answer.reply.url.decode() for answer in answers if answer] == held + absent
            assert all(answer and 0 < answer.rtt_s < 5 for answer in answers)
            error = await client.query(address, b"http://a/with space", 5)
            assert error is not None
            assert error.reply.opcode is Opcode.ERR
            flagged = await client.query(address, held[0].encode(), 5, flags=SRC_RTT)
            assert flagged is not None
            assert flagged.reply.opcode is Opcode.HIT
            assert (client.stray, client.bad) == (0, 0)

    asyncio.run(ask())


def test_a_node_that_hangs_is_none(own_farm: Callable[..., SquidFarm]):
    node = own_farm(1).nodes[0]

    async def ask(timeout_s: float) -> object:
        async with IcpClient() as client:
            return await client.query((node.host, node.icp_port), b"http://a/", timeout_s)

    assert asyncio.run(ask(5)) is not None
    node.pause()
    assert asyncio.run(ask(0.05)) is None
    node.resume()


def test_a_real_node_answers_and_clears_by_htcp(own_farm: Callable[..., SquidFarm], origin: OriginProcess, unique: str):
    port = free_port("127.0.1.1", socket.SOCK_DGRAM)
    node = own_farm(1, extra=[f"htcp_port {port}", "htcp_access allow lo", "htcp_clr_access allow lo"]).nodes[0]
    url, other = (url.encode() for url in fetch(node, origin, [f"{unique}a", f"{unique}b"]))
    address = (node.host, port)

    async def ask() -> None:
        async with HtcpClient() as client:
            hit, miss = await client.test(address, url, 5), await client.test(address, url + b"x", 5)
            assert hit is not None
            assert miss is not None
            assert (hit.reply.response, miss.reply.response) == (TST_HIT, TST_MISS)
            assert hit.reply.detail is not None
            assert b"Age: " in hit.reply.detail.response
            with_headers = await client.test(address, url, 5, headers=b"Accept: */*\r\n")
            assert with_headers is not None
            assert with_headers.reply.response == TST_HIT
            assert await client.clear(address, url, 5) == CLR_GONE
            assert await client.clear(address, url, 5) == CLR_ABSENT
            gone, there = await client.test(address, url, 5), await client.test(address, other, 5)
            assert gone is not None
            assert there is not None
            assert (gone.reply.response, there.reply.response) == (TST_MISS, TST_HIT)
            assert client.bad == 0

    asyncio.run(ask())


# our service


def test_a_child_takes_our_word(own_farm: Callable[..., SquidFarm], serve, origin: OriginProcess, unique: str):
    farm = own_farm(1)
    answerer = Answerer(lambda url: unique.encode() + b"h" in url, lambda source: source == CHILD)
    service = serve(farm.nodes[0].host, answerer.answer)
    child = child_of(farm, service.port)
    until_asked(child, origin, unique, lambda: answerer.counts[Outcome.MISS])
    before = sum(answerer.counts)

    held = fetch(child, origin, [f"{unique}h{number}" for number in range(ASKED)])
    absent = fetch(child, origin, [f"{unique}a{number}" for number in range(ASKED)])
    assert ways(child, held) == {"PARENT_HIT": ASKED}
    assert ways(child, absent) == {"FIRST_PARENT_MISS": ASKED}
    assert sum(answerer.counts) - before == 2 * ASKED

    answerer.serving = False
    assert ways(child, fetch(child, origin, [f"{unique}hn{number}" for number in range(5)])) == {"FIRSTUP_PARENT": 5}
    assert answerer.counts[Outcome.FAILED] == answerer.counts[Outcome.BAD] == 0


def test_a_child_takes_what_was_found_out_first(own_farm: Callable[..., SquidFarm], serve, origin: OriginProcess, unique: str):
    """As a director would that asks the owner."""
    farm = own_farm(1)
    node = farm.nodes[0]
    client: list[IcpClient] = []

    async def ask(url: bytes) -> bool | None:
        client[:] = client or [IcpClient()]
        answer = await client[0].query((node.host, node.icp_port), url, 1)
        return answer and answer.reply.opcode is Opcode.HIT

    answerer = Answerer(lambda url: None, lambda source: True, ask=ask)
    service = serve(node.host, answerer.answer)
    held = fetch(node, origin, [f"{unique}h{number}" for number in range(20)])
    child = child_of(farm, service.port, lines=["icp_query_timeout 1000"])
    until_asked(child, origin, unique, lambda: answerer.counts[Outcome.MISS])
    fetch(child, origin, [f"{unique}h{number}" for number in range(20)])
    assert ways(child, held) == {"PARENT_HIT": 20}


@pytest.mark.parametrize(("budget", "way"), [(95, "PARENT_HIT"), (1_000_000, "HIER_DIRECT")])
def test_a_child_that_was_denied_too_often_removes_its_parent_and_ours_is_not(
    own_farm: Callable[..., SquidFarm], serve, origin: OriginProcess, unique: str, budget: int, way: str
):
    farm = own_farm(1)
    answerer = Answerer(lambda url: True, lambda source: False, denied_budget=budget)
    service = serve(farm.nodes[0].host, answerer.answer)
    child = child_of(farm, service.port)
    until_asked(child, origin, unique, lambda: answerer.counts[Outcome.DENIED])
    # the requests that wait for a parent at the moment of its removal fail
    fetch(child, origin, [f"{unique}d{number}" for number in range(150)], may_fail=budget > 95)
    assert (answerer.counts[Outcome.DENIED] == 95) == (budget == 95)
    answerer.configure(lambda source: True)
    assert ways(child, fetch(child, origin, [f"{unique}h{number}" for number in range(5)])) == {way: 5}


def test_a_child_takes_our_word_by_htcp_and_has_us_forget(
    own_farm: Callable[..., SquidFarm], serve, origin: OriginProcess, unique: str
):
    farm = own_farm(1)
    forgotten: list[str] = []

    async def clear(url: bytes) -> int:
        forgotten.append(url.decode())
        return 1

    answerer = HtcpAnswerer(
        lambda url: unique.encode() + b"h" in url, clear, lambda source: True, may_clear=lambda source: source == CHILD
    )
    service = serve(farm.nodes[0].host, answerer.answer)
    purge = ["acl purge method PURGE", "http_access allow purge lo"]
    child = child_of(farm, service.port, options="htcp", lines=purge)
    # only a Squid that held the object tells its peers to forget it
    child.kill()
    settings = child.directory / "squid.conf"
    settings.write_text(settings.read_text().replace("cache deny all\n", ""))
    child.start()
    until_asked(child, origin, unique, lambda: answerer.counts[HtcpOutcome.MISS])
    held = fetch(child, origin, [f"{unique}h{number}" for number in range(50)])
    absent = fetch(child, origin, [f"{unique}a{number}" for number in range(50)])
    assert ways(child, held) == {"PARENT_HIT": 50}
    assert ways(child, absent) == {"FIRST_PARENT_MISS": 50}

    child.exchange(f"PURGE {held[0]} HTTP/1.0\r\n\r\n".encode())
    assert wait_until(lambda: bool(forgotten), 5)
    assert set(forgotten) == {held[0]}
    assert answerer.counts[HtcpOutcome.BAD] == 0
