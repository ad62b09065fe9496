"""The probe's request and a real Squid: what it answers, what that costs its log and its statistics."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import pytest

from cachelb.cluster.icpprobes import DENIED, IcpProbes
from cachelb.demo.farm import SquidFarm, wait_until
from cachelb.demo.squid import Squid
from cachelb.nodes.health import Change, Health, HealthPolicy
from cachelb.nodes.probes import Prober, probe
from cachelb.snapshot import NodeView
from icp.client import IcpClient


def counters(farm: SquidFarm) -> dict[str, str]:
    lines = farm.nodes[0].manager("counters").splitlines()
    return dict(line.split(" = ", 1) for line in lines if " = " in line)


async def said_by_icp(node: Squid) -> str:
    async with IcpClient() as client:
        probes = IcpProbes(client)
        probes.place([NodeView("n", 0, (node.host,), node.http_port, 1.0, "up", 1.0, node.icp_port)])
        task = asyncio.create_task(probes.run())
        async with asyncio.timeout(5):
            while not probes.told:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        task.cancel()
        return probes.told["n"]


def test_squid_answers_a_probe_itself_and_counts_no_hit(squid_farm: SquidFarm):
    node = squid_farm.nodes[0]
    before = counters(squid_farm)
    result = asyncio.run(probe(node.host, node.http_port, 2.0))
    assert result[:2] == (True, "HTTP status 200")
    after = counters(squid_farm)
    assert after["client_http.hits"] == before["client_http.hits"]
    assert after["server.all.requests"] == before["server.all.requests"]

    def logged() -> list[tuple[str, str]]:
        return [(e.result, e.hierarchy) for e in node.access_log() if e.url == "http://probe.invalid/" and e.method == "TRACE"]

    assert wait_until(lambda: bool(logged()), 2.0)
    assert set(logged()) == {("NONE_NONE", "HIER_NONE/-")}


@pytest.mark.parametrize(
    ("rule", "status"), [("http_access deny all", 403), ("acl t method TRACE\nhttp_access deny t", 403)]
)
def test_a_squid_that_denies_us_lives(own_farm: Callable[..., SquidFarm], rule: str, status: int):
    node = own_farm(1, extra=rule.splitlines()).nodes[0]
    assert asyncio.run(probe(node.host, node.http_port, 2.0))[:2] == (True, f"HTTP status {status}")


def test_probes_can_be_kept_out_of_squids_log():
    farm = SquidFarm(1)
    node = farm.nodes[0]
    log = f"access_log stdio:{node.directory}/access.log"
    # as docs/guide.md tells operators to write it
    node._settings = node._settings.replace(log, f"acl probe browser ^cachelb-probe\n{log} !probe")
    with farm:
        for _ in range(3):
            assert asyncio.run(probe(node.host, node.http_port, 2.0)).ok
        node.exchange(b"GET http://127.0.0.1:1/ HTTP/1.0\r\n\r\n")
        assert wait_until(lambda: any(e.method == "GET" for e in node.access_log()), 2.0)
        assert not any(e.url == "http://probe.invalid/" for e in node.access_log())


def test_squid_answers_a_probe_by_icp(squid_farm: SquidFarm):
    assert asyncio.run(said_by_icp(squid_farm.nodes[0])).startswith("MISS in ")


def test_a_squid_that_denies_icp_says_so(own_farm: Callable[..., SquidFarm]):
    node = own_farm(1, extra=["icp_access deny all"]).nodes[0]
    assert asyncio.run(said_by_icp(node)) == DENIED


def test_a_paused_squid_is_dead_within_three_intervals_and_a_killed_one_too(own_farm: Callable[..., SquidFarm]):
    farm = own_farm(3)
    policy = HealthPolicy(interval_s=0.6, timeout_s=0.3)
    changes: list[Change] = []

    async def happens(count: int, within_s: float) -> None:
        async with asyncio.timeout(within_s):
            while len(changes) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def main() -> None:
        targets = {node.name: (node.host, node.http_port) for node in farm.nodes}
        health = Health(policy, list(targets), time.monotonic(), seed=os.getpid())
        task = asyncio.ensure_future(Prober(health, lambda: targets, changes.extend, policy.timeout_s).run())
        await asyncio.sleep(1.0)
        assert changes == []
        farm.nodes[1].pause()
        await happens(1, 3 * policy.interval_s)
        farm.nodes[1].resume()
        await happens(2, 6.0)
        farm.nodes[2].kill()
        await happens(3, 3 * policy.interval_s)
        farm.nodes[2].launch()
        await happens(4, 6.0)
        task.cancel()

    asyncio.run(main())
    assert [(change.name, change.new) for change in changes] == [
        ("cache2", "dead"), ("cache2", "up"), ("cache3", "dead"), ("cache3", "up"),
    ]  # fmt: skip
