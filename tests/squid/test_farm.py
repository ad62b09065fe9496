"""The farm itself: what the other tests of this directory rely on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cachelb.demo.farm import Squid, SquidError, SquidFarm, wait_until
from cachelb.demo.origin import OriginProcess, body
from cachelb.demo.traffic import Errand, run_errands


def fetch(squid: Squid, origin: OriginProcess, *paths: str) -> None:
    errands = [Errand("", f"{path}?size=5000", body(path, 5000)) for path in paths]
    for errand in errands:
        (result,) = run_errands((squid.host, squid.http_port), (origin.host, origin.port), [errand])
        assert result.problem == ""


def test_a_node_holds_what_it_fetched_and_no_other_does(squid_farm: SquidFarm, origin: OriginProcess, unique: str):
    url = f"{origin.base}/static/{unique}?size=5000"
    assert squid_farm.holders(url) == []
    fetch(squid_farm.nodes[1], origin, f"/static/{unique}", f"/static/{unique}")
    assert squid_farm.holders(url) == ["cache2"]
    assert origin.counts()[f"GET /static/{unique}?size=5000"] == 1


def test_the_log_tells_hits_from_misses_with_the_query(squid_farm: SquidFarm, origin: OriginProcess, unique: str):
    node = squid_farm.node("cache3")
    fetch(node, origin, f"/static/{unique}", f"/static/{unique}")
    url = f"{origin.base}/static/{unique}?size=5000"

    def hits() -> list[bool]:
        return [entry.is_hit for entry in node.access_log() if (entry.url, entry.method) == (url, "GET")]

    assert wait_until(lambda: len(hits()) == 2, 5)
    assert hits() == [False, True]


def test_what_may_not_be_stored_is_not_held(squid_farm: SquidFarm, origin: OriginProcess, unique: str):
    paths = [f"/private/{unique}", f"/nostore/{unique}"]
    fetch(squid_farm.nodes[0], origin, *paths)
    assert [squid_farm.holders(f"{origin.base}{path}?size=5000") for path in paths] == [[], []]


def test_the_log_names_the_forwarded_client(squid_farm: SquidFarm, origin: OriginProcess, unique: str):
    node = squid_farm.nodes[0]
    url = f"{origin.base}/static/{unique}"
    request = f"GET {url} HTTP/1.0\r\nX-Forwarded-For: 10.9.8.7\r\n\r\n"
    assert b" 200 " in node.exchange(request.encode()).split(b"\r\n", 1)[0]
    assert wait_until(lambda: any((e.url, e.client) == (url, "10.9.8.7") for e in node.access_log()), 5)


def test_manager_reports_are_read(squid_farm: SquidFarm):
    assert "Squid Object Cache" in squid_farm.nodes[0].manager("info")
    with pytest.raises(SquidError, match="no report nonsense"):
        squid_farm.nodes[0].manager("nonsense")


def test_a_killed_node_comes_back_with_its_disk_cache(
    own_farm: Callable[..., SquidFarm], origin: OriginProcess, unique: str
):
    farm = own_farm(1)
    (node,) = farm.nodes
    fetch(node, origin, f"/static/{unique}")
    url = f"{origin.base}/static/{unique}?size=5000"
    node.kill()
    assert not node.is_running
    assert farm.holders(url) == []
    node.start()
    assert wait_until(lambda: node.holds(url), 10)


def test_a_paused_node_accepts_and_does_not_answer(own_farm: Callable[..., SquidFarm]):
    (node,) = own_farm(1).nodes
    node.pause()
    with pytest.raises(TimeoutError):
        node.exchange(b"TRACE http://x.test/ HTTP/1.0\r\nMax-Forwards: 0\r\n\r\n", timeout_s=0.2)
    node.resume()
    assert node.exchange(b"TRACE http://x.test/ HTTP/1.0\r\nMax-Forwards: 0\r\n\r\n").startswith(b"HTTP/1.")


def test_a_squid_with_a_bad_configuration_shows_its_log(own_farm: Callable[..., SquidFarm]):
    with pytest.raises(SquidError, match="cache1: squid -z failed"):
        own_farm(1, extra=["http_port nowhere:nothing"])


def test_a_child_sends_everything_to_its_parent(own_farm: Callable[..., SquidFarm], origin: OriginProcess, unique: str):
    farm = own_farm(1)
    (node,) = farm.nodes
    child = farm.add_child((node.host, node.http_port))
    fetch(child, origin, f"/static/{unique}", f"/static/{unique}")
    assert origin.counts()[f"GET /static/{unique}?size=5000"] == 1
    url = f"{origin.base}/static/{unique}?size=5000"
    assert node.holds(url)
    assert wait_until(lambda: len([e for e in child.access_log() if e.url == url]) == 2, 5)
    assert {entry.hierarchy for entry in child.access_log() if entry.url == url} == {"FIRSTUP_PARENT/127.0.1.1"}


def test_a_node_can_be_added(own_farm: Callable[..., SquidFarm]):
    farm = own_farm(1)
    assert farm.add_node().name == "cache2"
    assert farm.holders("http://never.test/") == []
    assert farm.node_tables().count("[[node]]") == 2


def test_nothing_is_left_behind():
    with SquidFarm(1) as farm:
        pid = farm.nodes[0].pid
        assert farm.directory.exists()
    assert not farm.directory.exists()
    with pytest.raises(SquidError):
        _ = farm.nodes[0].pid
    assert pid > 0


def test_a_squid_that_ends_at_its_start_tells_why(own_farm: Callable[..., SquidFarm]):
    farm = own_farm(1)
    with pytest.raises(SquidError, match=r"(?s)child1 ended at its start.*cache_peer"):
        farm.add_child(("127.0.0.1", 1), lines=["cache_peer"])
