from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachelb.simulate.plan import Side
from cachelb.simulate.policies import Node
from cachelb.simulate.running import RunningError, ask, side_of

NODES = [{"name": "cache1", "weight": 1.0, "state": "up"}, {"name": "cache2", "weight": 2, "state": "dead"}]
STATUS = {"hash": {"algorithm": "ring"}, "nodes": NODES}


@pytest.fixture
def admin() -> Iterator[Callable[..., str]]:
    """``admin(body, status=200)``: the URL of an admin API that answers so; it wants the token "word" if status is 401."""
    servers = []

    def start(body: bytes, status: int = 200) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                knows = self.headers.get("Authorization") == "Bearer word"
                self.send_response(200 if knows else status if self.path == "/api/v1/status" else 404)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_running_director_tells_its_farm(admin: Callable[..., str]):
    url = admin(json.dumps(STATUS).encode())
    wanted = Side(url, "ring", (Node("cache1"), Node("cache2", 2.0)))
    assert ask(url) == ask(url + "/") == ask(url + "/api/v1/status") == wanted
    assert ask(url.removeprefix("http://")).nodes == wanted.nodes


def test_the_token_is_read_from_its_file(admin: Callable[..., str], tmp_path: Path):
    url = admin(json.dumps(STATUS).encode(), status=401)
    with pytest.raises(RunningError, match="401 Unauthorized; say where its token is with --token-file"):
        ask(url)
    (tmp_path / "token").write_text("word\n")
    assert ask(url, token_file=tmp_path / "token").algorithm == "ring"
    with pytest.raises(RunningError, match="No such file"):
        ask(url, token_file=tmp_path / "none")


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff"])
def test_what_is_no_status_is_told(body: bytes, admin: Callable[..., str]):
    with pytest.raises(RunningError, match="is this its"):
        ask(admin(body))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "127.0.0.1:1", "http://no host/", "ftp://127.0.0.1:1/x", "file:///etc/passwd"]
)
def test_what_cannot_be_asked_is_told(url: str):
    with pytest.raises(RunningError):
        ask(url)


@pytest.mark.parametrize(
    "more",
    [
        {"hash": {"algorithm": "carp"}},
        {"algorithm": "carp"},
        {"farm": {"hash": "carp"}},
        {"config": {"hash": {"algorithm": "carp"}}},
    ],
)
def test_the_algorithm_is_found_where_it_may_stand(more: dict[str, Any]):
    assert side_of({"nodes": NODES, **more}, "x").algorithm == "carp"


def test_a_director_that_does_not_say_its_algorithm_needs_help():
    with pytest.raises(RunningError, match=r"does not say its hash algorithm .* --algorithm ring\|carp"):
        side_of({"nodes": NODES, "farm": {"requests": 1}}, "x")
    assert side_of({"nodes": NODES}, "x", "carp").algorithm == "carp"
    with pytest.raises(RunningError, match="hashes by ring, not by carp"):
        side_of(STATUS, "x", "carp")


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([], "lists no nodes"),
        (None, "lists no nodes"),
        ([{"name": "a"}], "does not say weight, state of a node"),
        (["a"], "does not say name, weight, state"),
        ([{"name": "a", "weight": "heavy", "state": "up"}], "the weight of a is 'heavy'"),
    ],
)
def test_what_is_missing_is_named(nodes: Any, why: str):
    with pytest.raises(RunningError, match=why):
        side_of({"algorithm": "ring", "nodes": nodes}, "x")


def test_operators_states_count_and_a_death_does_not():
    states = ["up", "drain", "down", "dead", "slow"]
    nodes = [{"name": state, "weight": 1, "state": state} for state in states]
    assert [node.state for node in side_of({"algorithm": "ring", "nodes": nodes}, "x").nodes] == [
        "up",
        "drain",
        "down",
        "up",
        "up",
    ]
