"""Clients without a proxy setting, through the kernel of the router, real Squids behind it."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable

import pytest
from fakes_site import ATTACKER_V4, ATTACKER_V6, OTHER, POPULAR, Names, Site
from live_director import wait_until
from netbed import Bed

from cachelb.demo.director import Director
from cachelb.demo.origin import body

Start = Callable[..., Director]


def sections(names: Names, more: str = "") -> str:
    return (
        '[intercept]\nlisten = ["127.0.0.1:3129", "[::1]:3129"]\ninterfaces = ["client"]\n'
        f'{more}\n[resolver]\nnameservers = ["{names.server.address}"]\n'
    )


def curl(bed: Bed, *words: str, ok: bool = True) -> str:
    return bed.client.run("curl", "-gsS", "--max-time", "20", *words, ok=ok)


def to(host: str, address: str) -> list[str]:
    """That a name is at an address, for curl."""
    return ["--resolve", f"{host}:80:[{address}]" if ":" in address else f"{host}:80:{address}"]


def farm(director: Director, bed: Bed) -> dict[str, int]:
    with bed.router:
        return dict(director.status()["farm"])


def count(director: Director, bed: Bed, name: str, value: int) -> None:
    wait_until(lambda: farm(director, bed)[name] == value, f"{name} = {value}: {farm(director, bed)[name]}")


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_what_is_asked_of_a_server_is_answered_by_the_farm(bed: Bed, start: Start, names: Names, site: Site, version: str):
    director = start(sections(names))
    address = getattr(bed.origin, version)
    urls = [f"http://{POPULAR}/static/{version}{number}?size=300" for number in range(1000)]
    config = bed.client.run("sh", "-c", "mktemp").strip()
    with open(config, "w") as file:
        file.write("".join(f'url = "{url}"\noutput = "/dev/null"\n' for url in urls))
    for _ in range(2):
        curl(bed, *to(POPULAR, address), "-K", config, "-w", "%{http_code}\n")
    bed.client.run("rm", config)
    assert set(site.counts(bed.origin.v4).values()) == {1}  # the nodes know it by IPv4
    assert len(site.counts(bed.origin.v4)) == 1000
    holders = [site.holders(url) for url in urls[:50]]
    assert all(len(found) == 1 for found in holders)
    assert len({found[0] for found in holders}) == 3
    wait_until(lambda: len(site.asked("/static/")) == 2000)
    entries = site.asked("/static/")
    assert Counter(entry.is_hit for entry in entries) == {True: 1000, False: 1000}
    assert {entry.client for entry in entries} == {getattr(bed.client, version)}  # X-Forwarded-For
    count(director, bed, "hashed", 2000)
    assert farm(director, bed)["bypassed"] == 0
    assert farm(director, bed)["intercepted"] >= 2


@pytest.mark.parametrize(("version", "attacker"), [("v4", ATTACKER_V4), ("v6", ATTACKER_V6)])
def test_a_host_that_does_not_lead_there_never_reaches_a_cache(
    bed: Bed, start: Start, names: Names, site: Site, version: str, attacker: str
):
    director = start(sections(names))
    url = f"http://{POPULAR}/static/prize"
    evil = ["-H", f"Host: {POPULAR}", f"http://[{attacker}]/static/prize" if ":" in attacker else f"http://{attacker}/static/prize"]
    for _ in range(3):
        assert curl(bed, *evil) == curl(bed, *evil)
    curl(bed, *to(POPULAR, attacker), url)
    count(director, bed, "bypassed_unverified", 7)
    assert site.counts(attacker) == {"GET /static/prize": 7}  # the server that the client has asked
    assert site.holders(url) == []
    assert site.counts(bed.origin.v4) == {}
    assert site.asked("prize") == []

    # What the attacker's answers say is no lesson for the popular site, and that one is cached as ever.
    for _ in range(8):
        curl(bed, *to(POPULAR, attacker), f"http://{POPULAR}/private/{_}")
    curl(bed, *to(POPULAR, getattr(bed.origin, version)), url)
    curl(bed, *to(POPULAR, getattr(bed.origin, version)), url)
    assert len(site.holders(url)) == 1
    assert site.counts(bed.origin.v4) == {"GET /static/prize": 1}
    with bed.router:
        assert director.status()["farm"]["learned_urls"] == 0


def test_a_port_that_host_does_not_say_is_another_origin(bed: Bed, start: Start, names: Names, site: Site):
    director = start(sections(names))
    for host in (f"{POPULAR}:8080", OTHER + ":81"):
        curl(bed, "-H", f"Host: {host}", f"http://{bed.origin.v4}/static/port")
    count(director, bed, "bypassed_unverified", 2)
    assert site.counts(bed.origin.v4) == {"GET /static/port": 2}


def test_a_name_that_is_not_known_is_asked_of_the_address(bed: Bed, start: Start, names: Names, site: Site):
    director = start(sections(names))
    assert curl(bed, *to("no.such.test", ATTACKER_V4), "http://no.such.test/static/x") != ""
    count(director, bed, "bypassed_unverified", 1)
    assert curl(bed, f"http://{bed.origin.v4}/static/literal") != ""
    assert curl(bed, "-0", "-H", "Host:", f"http://{bed.origin.v4}/static/old") != ""
    count(director, bed, "hashed", 2)  # an address leads to itself, and HTTP/1.0 needs no Host
    assert len(site.holders(f"http://{bed.origin.v4}/static/old")) == 1


def test_what_no_cache_could_store_goes_to_where_it_was_sent(bed: Bed, start: Start, names: Names, site: Site):
    director = start(sections(names))
    answer = json.loads(curl(bed, *to(POPULAR, bed.origin.v4), "--data", "x" * 1000, f"http://{POPULAR}/upload"))
    assert answer["length"] == 1000
    count(director, bed, "bypassed_method", 1)
    assert farm(director, bed)["direct_connects"] == 1
    queries = dict(names.server.queries)
    assert queries == {(POPULAR, "A"): 1, (POPULAR, "AAAA"): 1}  # verified once, and not resolved to go there
    text = curl(bed, *to(POPULAR, bed.origin.v6), f"http://{POPULAR}/echo")
    assert f"\nHost: {POPULAR}\n" in text


def raw(bed: Bed, address: str, port: int = 80) -> socket.socket:
    with bed.client:
        sock = socket.create_connection((address, port), 10)
    sock.settimeout(10)
    return sock


def serve_echo(bed: Bed, address: str, port: int) -> socket.socket:
    with bed.origin:
        server = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    server.settimeout(10)
    return server


@pytest.mark.parametrize("version", ["v4", "v6"])
@pytest.mark.parametrize(
    "hello", [b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-x\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"CONNECT a:443 HTTP/1.1\r\n"]
)
def test_what_is_not_http_is_tunnelled_to_where_it_was_sent(bed: Bed, start: Start, names: Names, version: str, hello: bytes):
    director = start(sections(names, "ports = [80, 8022]"))
    server = serve_echo(bed, getattr(bed.origin, version), 8022)
    client = raw(bed, getattr(bed.origin, version), 8022)
    client.sendall(hello)
    peer, _ = server.accept()
    peer.settimeout(10)
    assert peer.recv(100) == hello
    peer.sendall(b"welcome")
    assert client.recv(100) == b"welcome"
    client.shutdown(socket.SHUT_WR)
    assert peer.recv(100) == b""
    peer.sendall(b"bye")
    peer.close()
    assert client.recv(100) == b"bye"
    assert client.recv(100) == b""
    client.close()
    server.close()
    count(director, bed, "intercepted_tunnels", 1)


def test_what_is_not_http_is_refused_where_that_is_configured(bed: Bed, start: Start, names: Names):
    director = start(sections(names, 'non_http = "refuse"'))
    client = raw(bed, bed.origin.v4)
    client.sendall(b"\x16\x03\x01\x02\x00\x01")
    with pytest.raises(ConnectionResetError):
        assert client.recv(100) == b""
    client.close()
    count(director, bed, "ended_not_http", 1)


def test_a_head_in_crumbs_and_pipelined_requests_are_one_after_the_other(bed: Bed, start: Start, names: Names, site: Site):
    start(sections(names))
    client = raw(bed, bed.origin.v4)
    request = f"GET /static/a HTTP/1.1\r\nHost: {POPULAR}\r\n\r\n".encode()
    for byte in request:
        client.sendall(bytes((byte,)))
    more = b"".join(f"GET /static/{name} HTTP/1.1\r\nHost: {POPULAR}\r\nX: {name}\r\n\r\n".encode() for name in "bcd")
    client.sendall(more)
    data = b""
    wanted = [body(f"/static/{name}", 1000) for name in "abcd"]
    while not all(text in data for text in wanted):
        data += client.recv(65536)
    assert [data.index(text) for text in wanted] == sorted(data.index(text) for text in wanted)
    client.close()


def test_the_director_gone_clients_reach_the_servers_themselves(bed: Bed, start: Start, names: Names, site: Site):
    director = start(sections(names))
    director.kill()
    wait_until(lambda: curl(bed, f"http://{bed.origin.v4}/peer", ok=False) == bed.client.v4)
    with bed.router:
        director.start()
    assert curl(bed, *to(POPULAR, bed.origin.v4), f"http://{POPULAR}/peer") != bed.client.v4


def test_who_asks_the_port_itself_has_not_been_intercepted(bed: Bed, start: Start, names: Names):
    start(sections(names).replace("127.0.0.1:3129", "0.0.0.0:3129"))
    answer = curl(bed, "-w", "%{http_code}", f"http://{bed.router.v4 or '10.77.1.1'}:3129/")
    assert answer.endswith("403")
    assert "for connections that the kernel has brought here" in answer


def test_who_may_not_use_the_cache_is_told_so(bed: Bed, start: Start, names: Names):
    config = sections(names, 'clients = ["10.77.1.0/24"]') + '[access]\nallow = ["10.99.0.0/16"]\n'
    start(config)
    assert curl(bed, "-o", "/dev/null", "-w", "%{http_code}", f"http://{bed.origin.v4}/static/1") == "403"
