"""What no cache could store never reaches a Squid, or once at most where only an answer could tell.

The witnesses are the Squids' own access logs.
"""

from __future__ import annotations

import itertools
import socket
from collections import Counter
from collections.abc import Callable

from fakes import Peer, chunk, get, post
from load import Client, Load

from cachelb.demo.director import Director
from cachelb.demo.farm import SquidFarm, wait_until
from cachelb.demo.origin import OriginProcess, body

CLIENTS = 16  # enough to have connections to both workers
TWO_WORKERS = "workers = 2"
PATIENCE_S = 30.0

# What a client may say so that no cache could store the answer.
REQUESTS: dict[str, Callable[[str], bytes]] = {
    "post": lambda url: post(url, b"some bytes"),
    "chunked-post": lambda url: get(url, "Transfer-Encoding: chunked", method="POST", body=chunk(b"some bytes")),
    "put": lambda url: post(url, b"some bytes", method="PUT"),
    "delete": lambda url: get(url, method="DELETE"),
    "options": lambda url: get(url, method="OPTIONS"),
    "unknown-method": lambda url: get(url, method="BREW"),
    "authorization": lambda url: get(url, "Authorization: Basic ZGVtbzpkZW1v"),
    "head-authorization": lambda url: get(url, "Authorization: Basic ZGVtbzpkZW1v", method="HEAD"),
    "userinfo": lambda url: get(url.replace("http://", "http://demo:demo@"), "Host: a.test"),
    "no-store": lambda url: get(url, "Cache-Control: no-store"),
    "no-store-among-others": lambda url: get(url, "cache-control: max-age=0, No-Store"),
}


def visits(farm: SquidFarm, origin: OriginProcess, word: str) -> Counter[str]:
    """How often the Squids were asked what: all requests that `word` is part of, and all CONNECTs to the origin."""
    entries = [entry for node in farm.nodes for entry in node.access_log()]
    about = [e for e in entries if word in e.url or (e.method, e.url) == ("CONNECT", f"{origin.host}:{origin.port}")]
    return Counter(f"{e.method} {e.url.removeprefix(origin.base)}" for e in about)


def wait_for_logs(farm: SquidFarm, director: Director, origin: OriginProcess, mark: str) -> None:
    """Return when each Squid has logged a request that was sent after all others, so that theirs are logged too."""
    client = Client(director.http, origin)
    asked: set[str] = set()
    for n in itertools.count():
        asked.add(client.get(f"/static/{mark}-{n}?size=10").node)
        if len(asked) == len(farm.nodes):
            break
    client.close()
    assert wait_until(lambda: all(any(mark in e.url for e in n.access_log()) for n in farm.nodes), PATIENCE_S)


def test_what_the_request_tells_reaches_no_squid(
    squid_farm: SquidFarm, origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    director = start_director(squid_farm, relay=TWO_WORKERS)
    for _ in range(CLIENTS):
        peer = Peer(socket.create_connection(director.http))
        for kind, request in REQUESTS.items():
            data = request(f"{origin.base}/any/uncacheable-{unique}-{kind}?size=700")
            peer.send(data)
            answer = peer.read_answer(data.decode("latin-1").split(" ")[0])
            assert answer.status == 200, kind
            assert b"x-cache" not in answer.fields, kind
        peer.close()
    wait_for_logs(squid_farm, director, origin, f"mark-{unique}")
    assert visits(squid_farm, origin, f"uncacheable-{unique}") == {}
    asked = {target.split(" ")[1]: n for target, n in origin.counts().items() if f"uncacheable-{unique}" in target}
    assert set(asked.values()) == {CLIENTS}
    assert len(asked) == len(REQUESTS)
    assert wait_until(lambda: director.status()["farm"]["bypassed"] == CLIENTS * len(REQUESTS), PATIENCE_S)


def test_tunnels_reach_no_squid(
    squid_farm: SquidFarm, origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    director = start_director(squid_farm, f"[access]\nconnect_ports = [{origin.port}]\n", relay=TWO_WORKERS)
    path = f"/static/tunnel-{unique}"
    for _ in range(CLIENTS):
        peer = Peer(socket.create_connection(director.http))
        peer.send(get(f"{origin.host}:{origin.port}", method="CONNECT"))
        assert peer.read_head().startswith(b"HTTP/1.1 200 ")
        peer.send(get(path, f"Host: {origin.host}"))
        assert peer.read_answer().body == body(path, 1000)
        peer.close()
        peer = Peer(socket.create_connection(director.http))
        peer.send(get(f"{origin.base}/upgrade/tunnel-{unique}", "Connection: Upgrade", "Upgrade: echo"))
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        peer.send(b"hello")
        assert peer.read_exactly(5) == b"hello"
        peer.close()
    wait_for_logs(squid_farm, director, origin, f"mark-{unique}")
    assert visits(squid_farm, origin, f"tunnel-{unique}") == {}
    assert wait_until(lambda: director.status()["farm"]["tunnels"] == 2 * CLIENTS, PATIENCE_S)


def test_what_an_answer_told_reaches_a_squid_once_over_all_workers(
    squid_farm: SquidFarm, origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    director = start_director(squid_farm, relay=TWO_WORKERS)
    word = f"learned-{unique}"
    kinds = ("private", "nostore", "vary")
    paths = [f"/{kind}/{word}-{n}?size=500" for kind in kinds for n in range(5)]  # a segment is learned from 8 on
    with Load(director.http, origin, paths, 1) as first:
        first.join()
    assert first.problems == []
    assert {o.node for o in first.outcomes} <= {node.name for node in squid_farm.nodes}  # nobody could know
    # both workers know: one was taught by the answers, the other by the one
    assert wait_until(lambda: director.status()["farm"]["learned_urls"] == 2 * len(paths), PATIENCE_S)
    with Load(director.http, origin, paths * 20, CLIENTS) as load:
        load.join()
    assert load.problems == []
    assert {o.node for o in load.outcomes} == {""}
    wait_for_logs(squid_farm, director, origin, f"mark-{unique}")
    assert visits(squid_farm, origin, word) == {f"GET {path}": 1 for path in paths}


def test_neighbours_of_private_urls_are_spared_the_visit(
    squid_farm: SquidFarm, origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    director = start_director(squid_farm, relay=TWO_WORKERS)
    word = f"neighbour-{unique}"
    eight = [f"/private/{word}-{n}?size=500" for n in range(8)]
    others = [f"/private/{word}-other-{n}?size=500" for n in range(200)]
    cacheable = [f"/static/{word}-{n}?size=500" for n in range(50)]
    with Load(director.http, origin, eight, 1) as first:
        first.join()
    assert wait_until(lambda: director.status()["farm"]["learned_segments"] == 2, PATIENCE_S)
    with Load(director.http, origin, others * 3 + cacheable * 2, CLIENTS) as load:
        load.join()
    assert first.problems + load.problems == []
    wait_for_logs(squid_farm, director, origin, f"mark-{unique}")
    seen = visits(squid_farm, origin, word)
    assert max(seen[f"GET {path}"] for path in eight + others) == 1
    tested = sum(seen[f"GET {path}"] for path in others)
    print(f"{tested} of {len(others)} neighbours were tested")
    assert tested <= 600 / 64 + 2  # each worker tests one in 64, to find out whether its lesson still holds
    assert [path for path in cacheable if seen[f"GET {path}"] != 2] == []
