"""Steering a real farm by its admin API, under load, and watching it as Squid's own clients do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from itertools import cycle
from typing import Any

import pytest
from load import Load, static_paths

from cachelb.demo.director import Director
from cachelb.demo.farm import SquidFarm, wait_until
from cachelb.demo.origin import OriginProcess

TOKEN = "a-token-that-nobody-guesses"
PATIENCE_S = 30.0


def call(director: Director, path: str, method: str = "GET", body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{director.admin[0]}:{director.admin[1]}{path}", data, method=method)
    request.add_header("Authorization", f"Bearer {TOKEN}")
    request.add_header("Content-Type", "application/json")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=PATIENCE_S) as answer:
        return json.loads(answer.read())


@pytest.fixture
def director(own_farm: Callable[..., SquidFarm], start_director: Callable[..., Director], tmp_path, origin) -> Director:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    farm = own_farm(3)
    found = start_director(farm, more=f'[admin]\ntoken_file = "{token}"\n', relay="workers = 2")
    found.farm = farm
    return found


def nodes_of(outcomes: list, start: int) -> dict[str, set[str]]:
    """By path, the nodes that answered since then."""
    found: dict[str, set[str]] = {}
    for outcome in outcomes[start:]:
        found.setdefault(outcome.path, set()).add(outcome.node)
    return found


def least_epoch(director: Director) -> int:
    return min(worker["epoch"] for worker in call(director, "/api/v1/status")["workers"])


@pytest.mark.alone
def test_draining_under_load_loses_nothing_and_moves_only_the_nodes_own_keys(director: Director, origin: OriginProcess):
    paths = static_paths("drain", 60)
    with Load(director.http, origin, cycle(paths), clients=8) as load:
        load.wait_for(300)
        before = nodes_of(load.outcomes, len(load.outcomes) - 200)
        owned = {path: next(iter(nodes)) for path, nodes in before.items() if len(nodes) == 1}
        victim = max(set(owned.values()), key=list(owned.values()).count)
        assert call(director, f"/api/v1/nodes/{victim}", "PUT", {"state": "drain"})["state"] == "drain"
        assert wait_until(lambda: call(director, f"/api/v1/nodes/{victim}")["drain"]["done"], PATIENCE_S)
        start = len(load.outcomes) + 16  # what was on its way
        load.wait_for(400)
        during = nodes_of(load.outcomes, start)
        assert call(director, f"/api/v1/nodes/{victim}", "PUT", {"state": "up"})["drain"] is None
        wanted = call(director, "/api/v1/status")["epoch"]
        assert wait_until(lambda: least_epoch(director) >= wanted, PATIENCE_S)
        start = len(load.outcomes) + 16
        load.wait_for(400)
        after = nodes_of(load.outcomes, start)
    assert [outcome.problem for outcome in load.outcomes if outcome.problem] == []
    assert all(victim not in nodes for nodes in during.values())
    moved = [path for path, nodes in during.items() if owned.get(path) and nodes != {owned[path]}]
    assert {owned[path] for path in moved} == {victim}  # nobody else's keys moved
    assert len(moved) >= 5
    assert {path: nodes for path, nodes in after.items() if path in owned and nodes != {owned[path]}} == {}
    hosts = {node.name for node in director.farm.nodes} - {victim}  # type: ignore[attr-defined]
    assert set().union(*(during[path] for path in moved)) <= hosts


def test_what_is_drained_stays_drained_through_a_reload_until_the_file_says_otherwise(director: Director):
    name = director.farm.nodes[0].name  # type: ignore[attr-defined]
    call(director, f"/api/v1/nodes/{name}", "PUT", {"state": "drain"})
    assert call(director, "/api/v1/reload", "POST")["reloads"] == 1
    assert call(director, f"/api/v1/nodes/{name}")["state"] == "drain"
    text = director.config_path.read_text()
    director.write_config(text.replace(f'name = "{name}"\n', f'name = "{name}"\nstate = "down"\n'))
    call(director, "/api/v1/reload", "POST")
    node = call(director, f"/api/v1/nodes/{name}")
    assert (node["state"], node["operator"]["state"]) == ("down", None)
    kinds = [event["kind"] for event in call(director, "/api/v1/events")["events"]]
    assert kinds.count("operator") == 2


def test_a_hot_url_is_found_with_its_owner_and_the_rates_are_the_traffics(director: Director, origin: OriginProcess):
    hot, cold = static_paths("hot", 1), static_paths("cold", 40)
    with Load(director.http, origin, cycle([*hot * 20, *cold]), clients=4) as load:
        load.wait_for(1200)
        found: dict[str, Any] = {}

        def is_told() -> bool:
            found.update(call(director, "/api/v1/hot?limit=3"))
            return bool(found["requests"] >= 1000)

        assert wait_until(is_told, PATIENCE_S), found
        assert wait_until(lambda: call(director, "/api/v1/status")["rates"]["requests_per_s"] > 10, PATIENCE_S)
        rates = call(director, "/api/v1/status")["rates"]
        answered = {outcome.node for outcome in load.outcomes if outcome.path == hot[0]}
    top = found["urls_by_requests"][0]
    assert top["name"].endswith(hot[0])
    assert 0.2 < top["requests_share"] < 0.5
    assert {top["owner"]} == answered
    assert top["hit_ratio"] > 0.9
    assert 0 < rates["p50_ms"] <= rates["p99_ms"]
    assert found["hosts_by_requests"][0]["requests_share"] > 0.9


@pytest.mark.skipif(shutil.which("squidclient") is None, reason="squidclient is not installed (Debian: squidclient)")
def test_squids_own_client_reads_the_farm(director: Director, origin: OriginProcess):
    with Load(director.http, origin, cycle(static_paths("client", 10)), clients=2) as load:
        load.wait_for(50)
    requests = len(load.outcomes)
    assert wait_until(lambda: call(director, "/api/v1/status")["farm"]["requests"] >= requests, PATIENCE_S)

    def ask(page: str) -> str:
        host, port = director.http
        command = ["squidclient", "-h", host, "-p", str(port), f"mgr:{page}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        head, _, body = done.stdout.partition("\n\n")
        assert " 200 " in head.splitlines()[0]
        return body

    counters = dict(re.findall(r"^([a-z_.]+) = (\d+)$", ask("counters"), re.MULTILINE))
    assert int(counters["client_http.requests"]) >= requests
    assert int(counters["server.all.requests"]) >= requests
    assert re.search(r"\tNumber of HTTP requests received:\t\d+\n", ask("info"))
    listed = re.findall(r"^Parent     : (\w+)$", ask("server_list"), re.MULTILINE)
    assert listed == [node.name for node in director.farm.nodes]  # type: ignore[attr-defined]
    for page in ("5min", "60min", "menu", "store_digest", "service_times"):
        assert ask(page)


def test_without_the_token_nothing_is_changed(director: Director):
    name = director.farm.nodes[0].name  # type: ignore[attr-defined]
    url = f"http://{director.admin[0]}:{director.admin[1]}/api/v1/nodes/{name}"
    request = urllib.request.Request(url, b'{"state": "down"}', {"Content-Type": "application/json"}, method="PUT")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as caught:
        direct.open(request, timeout=PATIENCE_S)
    assert caught.value.code == 401
    assert call(director, f"/api/v1/nodes/{name}")["state"] == "up"
