"""The director in front of the farm, and the guide's lines for a downstream Squid."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

from cachelb.demo.director import Director
from cachelb.demo.farm import SquidFarm, free_port, wait_until
from cachelb.demo.origin import OriginProcess, body
from cachelb.demo.traffic import Errand, run_errands

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"


def errands(word: str, count: int) -> list[Errand]:
    return [Errand("", f"/static/{word}{n}?size=3000", body(f"/static/{word}{n}", 3000)) for n in range(count)]


def test_each_url_is_on_one_node_and_fetched_once(
    squid_farm: SquidFarm, origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    director = start_director(squid_farm)
    wanted = errands(unique, 40)
    for _ in range(2):
        results = run_errands(director.http, (origin.host, origin.port), wanted)
        assert [result.problem for result in results if result.problem] == []
    holders = [squid_farm.holders(origin.base + errand.path) for errand in wanted]
    assert {len(names) for names in holders} == {1}
    assert len({names[0] for names in holders}) == 3
    assert {origin.counts()[f"GET {errand.path}"] for errand in wanted} == {1}


def test_admin_and_log_are_readable(squid_farm: SquidFarm, start_director: Callable[..., Director]):
    director = start_director(squid_farm, relay="workers = 2")
    assert all(node.name in str(director.status()) for node in squid_farm.nodes)
    assert "# HELP" in director.admin_get("/metrics")
    director.reload()
    assert director.is_running


def test_a_child_with_the_guides_lines_never_goes_around_the_director(
    own_farm: Callable[..., SquidFarm], origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    farm = own_farm(2)
    icp_port = free_port("127.0.0.1", socket.SOCK_DGRAM)
    director = start_director(farm, listen=f'icp = "127.0.0.1:{icp_port}"\n')
    snippet = re.findall(r"^```squidconf\n(icp_port .*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)[0]
    host, port = director.http
    snippet = snippet.replace("director.example.org parent 3128 3130", f"{host} parent {port} {icp_port}")
    snippet = snippet.replace("icp_port 3130", f"icp_port {free_port('0.0.0.0', socket.SOCK_DGRAM)}")
    child = farm.add_child(director.http, lines=snippet.splitlines())
    wanted = errands(unique, 10)
    for _ in range(2):
        results = run_errands((child.host, child.http_port), (origin.host, origin.port), wanted)
        assert [result.problem for result in results if result.problem] == []
    urls = {origin.base + errand.path for errand in wanted}

    def visits() -> list[str]:
        return [entry.hierarchy for entry in child.access_log() if entry.url in urls]

    assert wait_until(lambda: len(visits()) == 20, 5)
    assert {visit.partition("/")[2] for visit in visits()} == {host}
    assert {origin.counts()[f"GET {errand.path}"] for errand in wanted} == {1}
