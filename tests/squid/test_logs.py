"""The director's access log says what really happened, in formats that others can read."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from fakes import Peer, get, post
from load import Client

from cachelb.demo.director import Director
from cachelb.demo.farm import SquidFarm, wait_until
from cachelb.demo.origin import OriginProcess
from cachelb.demo.squid import AccessEntry, parse_access_line

PATIENCE_S = 30.0
COMBINED = re.compile(
    r'(\S+) - - \[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000)\] "(\S+) (\S+) HTTP/1\.1" (\d{3}) (\d+|-) "([^"]*)" "([^"]*)"'
)


@pytest.fixture
def logging_director(
    squid_farm: SquidFarm, origin: OriginProcess, start_director: Callable[..., Director], tmp_path: Path
) -> Callable[[str], tuple[Director, Callable[[int], list[str]]]]:
    """``logging_director(format)``: a director, and a function that waits for so many lines of its access log."""

    def start(form: str) -> tuple[Director, Callable[[int], list[str]]]:
        path = tmp_path / f"{form}.log"
        more = f'[log]\naccess = "{path}"\naccess_format = "{form}"\n[access]\nconnect_ports = [{origin.port}]\n'
        director = start_director(squid_farm, more, relay="workers = 2")

        def lines(count: int) -> list[str]:
            assert wait_until(lambda: path.read_text().count("\n") >= count, PATIENCE_S), path.read_text()
            found = path.read_text().splitlines()
            assert len(found) == count
            return found

        return director, lines

    return start


def ask(director: Director, request: bytes) -> int:
    """Send a request on a connection of its own; the number of bytes that came back."""
    peer = Peer(socket.create_connection(director.http))
    peer.send(request)
    answer = peer.read_answer(request.decode("latin-1").split(" ")[0])
    peer.close()
    return len(answer.head) + len(answer.body)


def test_squids_format_names_the_node_or_the_origin(
    squid_farm: SquidFarm,
    origin: OriginProcess,
    logging_director: Callable[[str], tuple[Director, Callable[[int], list[str]]]],
    unique: str,
):
    director, lines = logging_director("squid")
    url = f"{origin.base}/static/{unique}?size=5000"
    began = time.time()
    upload, missing = f"{origin.base}/upload/{unique}", f"{origin.base}/any/{unique}?status=404"
    denied, slow = "http://127.0.0.1:22/", f"{origin.base}/slow/{unique}?ms=300&size=10"
    requests = [get(url), get(url), post(upload, b"x"), get(missing, "Authorization: x"), get(denied), get(slow)]
    sizes = [ask(director, request) for request in requests]
    entries = {(e.url, e.result): e for line in lines(len(sizes)) for e in [parse_access_line(line)]}
    keys = [(url, "TCP_MISS"), (url, "TCP_HIT"), (upload, "TCP_MISS"), (missing, "TCP_MISS")]
    keys += [(denied, "TCP_DENIED"), (slow, "TCP_MISS")]
    assert set(entries) == set(keys)
    assert [entries[key].size for key in keys] == sizes
    nodes = [f"CARP/{squid_farm.holders(each)[0]}" for each in (url, slow)]
    direct = f"HIER_DIRECT/{origin.host}"
    assert [(entries[key].status, entries[key].method, entries[key].hierarchy) for key in keys] == [
        (200, "GET", nodes[0]),
        (200, "GET", nodes[0]),
        (200, "POST", direct),
        (404, "GET", direct),
        (403, "GET", "HIER_NONE/-"),
        (200, "GET", nodes[1]),
    ]
    assert {e.client for e in entries.values()} == {"127.0.0.1"}
    assert [entries[key].content_type for key in keys[1:3]] == ["application/octet-stream", "application/json"]
    assert entries[keys[-1]].elapsed_ms >= 300
    assert all(began - 1 <= e.time <= time.time() + 1 for e in entries.values())


def test_it_agrees_with_the_squids_own_logs(
    squid_farm: SquidFarm,
    origin: OriginProcess,
    logging_director: Callable[[str], tuple[Director, Callable[[int], list[str]]]],
    unique: str,
):
    director, lines = logging_director("squid")
    client = Client(director.http, origin)
    for n in range(60):
        assert client.get(f"/static/{unique}-{n % 20}?size={n % 20 * 100}").problem == ""
    client.close()
    ours = [parse_access_line(line) for line in lines(60)]

    def told(entry: AccessEntry, node: str) -> tuple[str, str, bool]:
        return node, entry.url, entry.is_hit

    def theirs() -> list[tuple[str, str, bool]]:
        return sorted(
            told(entry, node.name)
            for node in squid_farm.nodes
            for entry in node.access_log()
            if f"/static/{unique}-" in entry.url and entry.method == "GET"
        )

    assert wait_until(lambda: len(theirs()) == 60, PATIENCE_S)
    assert sorted(told(entry, entry.hierarchy.removeprefix("CARP/")) for entry in ours) == theirs()


def test_a_dead_owner_is_seen_in_the_log(
    own_farm: Callable[..., SquidFarm],
    origin: OriginProcess,
    start_director: Callable[..., Director],
    unique: str,
    tmp_path: Path,
):
    farm = own_farm(2)
    path = tmp_path / "access.log"
    # so that the dead node stays the owner, and every request for it is one that has to be moved on
    health = "[health]\ninterval_s = 60.0\ntimeout_s = 1.0\npassive_failures = 1000\n"
    director = start_director(farm, f'{health}[log]\naccess = "{path}"\n')
    client = Client(director.http, origin)
    paths = [f"/static/{unique}-{n}?size=100" for n in range(20)]
    before = {p: client.get(p).node for p in paths}
    farm.nodes[0].kill()
    after = {p: client.get(p).node for p in paths}
    client.close()
    assert set(before.values()) == {"cache1", "cache2"}
    assert set(after.values()) == {"cache2"}
    assert wait_until(lambda: path.read_text().count("\n") == 40, PATIENCE_S)
    entries = [parse_access_line(line) for line in path.read_text().splitlines()]
    assert [e.hierarchy for e in entries[:20]] == [f"CARP/{before[p]}" for p in paths]
    assert [e.hierarchy for e in entries[20:]] == [
        "CARP/cache2" if before[p] == "cache2" else "FIRSTUP_PARENT/cache2" for p in paths
    ]


def test_the_combined_format(
    origin: OriginProcess, logging_director: Callable[[str], tuple[Director, Callable[[int], list[str]]]], unique: str
):
    director, lines = logging_director("combined")
    url = f"{origin.base}/static/{unique}"
    size = ask(director, get(url, 'User-Agent: a "browser"', "Referer: http://a.test/"))
    (line,) = lines(1)
    found = COMBINED.fullmatch(line.replace(r"\"", "'"))
    assert found is not None, line
    client, when, method, target, status, sent, referer, agent = found.groups()
    assert (client, method, target, status, int(sent)) == ("127.0.0.1", "GET", url, "200", size)
    assert (referer, agent) == ("http://a.test/", "a 'browser'")
    assert abs(datetime.strptime(when, "%d/%b/%Y:%H:%M:%S %z").timestamp() - time.time()) < 60


def test_the_json_format(
    squid_farm: SquidFarm,
    origin: OriginProcess,
    logging_director: Callable[[str], tuple[Director, Callable[[int], list[str]]]],
    unique: str,
):
    director, lines = logging_director("json")
    url = f"{origin.base}/static/{unique}"
    size = ask(director, get(url))
    peer = Peer(socket.create_connection(director.http))
    peer.send(get("http://127.0.0.1:22/", 'User-Agent: caf\xe9 "x"'))
    page = peer.read_answer()
    peer.close()
    good, denied = sorted((json.loads(line) for line in lines(2)), key=lambda entry: entry["status"])
    assert (good["url"], good["status"], good["bytes_out"], good["reason"]) == (url, 200, size, "done")
    assert (good["hierarchy"], [good["peer"]]) == ("CARP", squid_farm.holders(url))
    assert (denied["reason"], denied["status"], denied["hierarchy"]) == ("port_denied", 403, "HIER_NONE")
    assert denied["request_id"].encode() == page.fields[b"x-request-id"]
    assert denied["user_agent"] == 'caf\xe9 "x"'
    assert abs(datetime.fromisoformat(good["time"]).timestamp() - time.time()) < 60
