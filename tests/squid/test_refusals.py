"""only-if-cached with real Squids: what a node has is found although its keys have moved to other nodes."""

from __future__ import annotations

import socket
from collections.abc import Callable

from fakes import Answer, Peer, get

from cachelb.demo.director import Director, director_config
from cachelb.demo.farm import SquidFarm, wait_until
from cachelb.demo.origin import OriginProcess, body

URLS = 24
PATIENCE_S = 30.0


def ask(director: Director, urls: list[str], *fields: str) -> list[Answer]:
    """GET all of them on one connection."""
    client = Peer(socket.create_connection(director.http))
    answers = []
    for url in urls:
        client.send(get(url, *fields))
        answers.append(client.read_answer())
    client.close()
    return answers


def is_hit(answer: Answer) -> bool:
    return answer.status == 200 and answer.fields[b"x-cache"].startswith(b"HIT")


def test_what_a_draining_node_has_is_a_hit_and_what_nobody_has_is_a_504(
    squid_farm: SquidFarm, origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    director = start_director(squid_farm)
    paths = [f"/static/{unique}-{n}" for n in range(URLS)]
    urls = [origin.base + path for path in paths]
    ask(director, urls)
    node = squid_farm.nodes[0]
    at_node = [url for url in urls if node.holds(url)]
    assert at_node
    tables = squid_farm.node_tables().replace(f'name = "{node.name}"\n', f'name = "{node.name}"\nstate = "drain"\n')
    director.write_config(director_config(tables, director.http, director.admin, more="[relay]\nworkers = 1\n"))
    director.reload()
    assert wait_until(lambda: [view["state"] for view in director.status()["nodes"]].count("drain") == 1, PATIENCE_S)
    assert wait_until(lambda: director.status()["workers"][0]["epoch"] == director.status()["epoch"], PATIENCE_S)
    answers = ask(director, urls, "Cache-Control: only-if-cached")
    assert all(is_hit(answer) for answer in answers)
    assert [answer.body for answer in answers] == [body(path, 1000) for path in paths]
    (nowhere,) = ask(director, [f"{origin.base}/static/{unique}-nowhere"], "Cache-Control: only-if-cached")
    assert nowhere.status == 504
    assert nowhere.fields[b"x-squid-error"].startswith(b"ERR_ONLY_IF_CACHED_MISS")
    assert wait_until(lambda: director.status()["farm"]["second_chances"] == len(at_node) + 2, PATIENCE_S)
