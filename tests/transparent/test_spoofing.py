"""Origins and nodes that see the client's own address, whichever way the client came."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes_site import POPULAR, Names, Site
from live_director import wait_until
from netbed import Bed, Space
from processes import nobodys_environment, open_to_nobody, python_of_nobody
from pyroute2 import IPRoute

from cachelb.demo.director import Director
from cachelb.demo.origin import OriginProcess

Start = Callable[..., Director]
VERSIONS = pytest.mark.parametrize("version", ["v4", "v6"])


def sections(names: Names, spoof: str) -> str:
    return (
        f'[intercept]\nlisten = ["127.0.0.1:3129", "[::1]:3129"]\ninterfaces = ["client"]\nspoof = "{spoof}"\n'
        f'[resolver]\nnameservers = ["{names.server.address}"]\n'
    )


def curl(bed: Bed, address: str, *words: str) -> str:
    place = f"{POPULAR}:80:[{address}]" if ":" in address else f"{POPULAR}:80:{address}"
    return bed.client.run("curl", "-gsS", "--max-time", "20", "--resolve", place, *words)


@VERSIONS
@pytest.mark.parametrize("spoof", ["off", "origin", "nodes", "both"])
def test_the_origin_sees_the_client_where_that_is_asked_for(
    bed: Bed, start: Start, names: Names, site: Site, version: str, spoof: str
):
    start(sections(names, spoof))
    url = f"http://{POPULAR}/peer"
    seen = curl(bed, getattr(bed.origin, version), "-d", "", url, "-d", "", url)  # twice on one connection
    client = getattr(bed.client, version)
    routers = {"v4": "10.77.2.1", "v6": "fd00:77:0:2::1"}[version]
    assert seen == (client if spoof in ("origin", "both") else routers) * 2
    proxy = ["-x", "http://10.77.1.1:3128"]  # and who asks it as a proxy, by IPv4
    seen = curl(bed, bed.origin.v4, *proxy, "-d", "", f"http://{bed.origin.v4}/peer")
    assert (seen == bed.client.v4) == (spoof in ("origin", "both"))


@VERSIONS
@pytest.mark.parametrize("spoof", ["off", "nodes", "both"])
def test_the_nodes_see_the_client_where_that_is_asked_for(
    bed: Bed, start: Start, names: Names, make_site: Callable[..., Site], version: str, spoof: str
):
    site = make_site(["follow_x_forwarded_for deny all"])
    nodes = "".join(f'[[node]]\nname = "{space.name}"\nhost = "{getattr(space, version)}"\n' for space in bed.nodes)
    director = start(sections(names, spoof), nodes=nodes)
    urls = [f"http://{POPULAR}/static/{number}" for number in range(30)]
    for _ in range(2):
        curl(bed, getattr(bed.origin, version), "-o", "/dev/null", *urls)
    wait_until(lambda: len(site.asked("/static/")) == 60)
    client = getattr(bed.client, version)
    seen = {entry.client for entry in site.asked("/static/")}
    assert (seen == {client}) == (spoof != "off")
    assert (client in seen) == (spoof != "off")
    assert sum(entry.is_hit for entry in site.asked("/static/")) == 30
    with bed.router:
        wait_until(lambda: director.status()["farm"]["hashed"] == 60)
        connects = sum(node["counters"]["connects"] for node in director.status()["nodes"])
    assert connects <= 6  # kept connections are used again: one or two to each node


GREETED = ["http_port 3129 require-proxy-header", "proxy_protocol_access allow all", "follow_x_forwarded_for deny all"]


@VERSIONS
@pytest.mark.parametrize("spoken", ["v1", "v2"])
def test_the_nodes_are_told_of_the_client_by_a_proxy_header(
    bed: Bed, start: Start, names: Names, make_site: Callable[..., Site], version: str, spoken: str
):
    site = make_site(GREETED)
    nodes = "".join(
        f'[[node]]\nname = "{space.name}"\nhost = "{getattr(space, version)}"\nhttp_port = 3129\nsend_proxy = "{spoken}"\n'
        for space in bed.nodes
    )
    director = start(sections(names, "off"), nodes=nodes)
    with bed.router:  # probes begin with a header, too: without one these Squids hang up
        wait_until(lambda: all("HTTP status 200" in node["cause"] for node in director.status()["nodes"]))
    urls = [f"http://{POPULAR}/static/{number}" for number in range(30)]
    for _ in range(2):
        curl(bed, getattr(bed.origin, version), "-o", "/dev/null", *urls)
    curl(bed, bed.origin.v4, "-x", "http://10.77.1.1:3128", "-o", "/dev/null", *urls)  # as a proxy, by IPv4
    wait_until(lambda: len(site.asked("/static/")) == 90)
    clients = [entry.client for entry in site.asked("/static/")]
    assert set(clients) == {getattr(bed.client, version), bed.client.v4}
    assert clients.count(bed.client.v4) == (90 if version == "v4" else 30)
    assert sum(entry.is_hit for entry in site.asked("/static/")) == 60
    with bed.router:
        wait_until(lambda: director.status()["farm"]["hashed"] == 90)
        connects = sum(node["counters"]["connects"] for node in director.status()["nodes"])
    assert connects <= 12  # kept connections are used again: by each client, one or two to each node


def test_where_one_side_alone_speaks_the_proxy_protocol_health_says_so(
    bed: Bed, start: Start, names: Names, make_site: Callable[..., Site]
):
    make_site(GREETED)
    told = [("v2", 3128), ("v1", 3128), ("", 3129)]
    nodes = "".join(
        f'[[node]]\nname = "{space.name}"\nhost = "{space.v4}"\nhttp_port = {port}\nsend_proxy = "{spoken}"\n'
        for space, (spoken, port) in zip(bed.nodes, told, strict=True)
    )
    director = start(sections(names, "off") + "[health]\ninterval_s = 0.3\ntimeout_s = 0.2\n", nodes=nodes)
    with bed.router:
        wait_until(lambda: [node["state"] for node in director.status()["nodes"]] == ["dead"] * 3)
        causes = [node["cause"] for node in director.status()["nodes"]]
    assert all(cause.endswith("HTTP status 400: its port expects no PROXY header (send_proxy)") for cause in causes[:2])
    assert causes[2].endswith("connection closed without an answer")


def test_a_kept_connection_serves_its_own_client_only(bed: Bed, start: Start, names: Names, make_site: Callable[..., Site]):
    site = make_site(["follow_x_forwarded_for deny all"])
    start(sections(names, "both"))
    others = [f"10.77.1.{number}" for number in (7, 8, 9)]
    for address in others:
        bed.client.add_address("eth0", address, 24)
    for _ in range(3):
        for address in others:
            curl(bed, bed.origin.v4, "--interface", address, "-o", "/dev/null", f"http://{POPULAR}/static/{address}")
            assert curl(bed, bed.origin.v4, "--interface", address, "-d", "", f"http://{POPULAR}/peer") == address
    wait_until(lambda: len(site.asked("/static/")) == 9)
    assert all(entry.url.endswith("/" + entry.client) for entry in site.asked("/static/"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_workers_that_are_not_root_can_do_it(bed: Bed, start: Start, names: Names, site: Site):
    python = python_of_nobody()
    before = bed.router.snapshot()
    director = start('[service]\nuser = "nobody"\n' + sections(names, "both"), ready=False)
    open_to_nobody(director.config_path.parent)
    director.command, director.environment = [*python, "-m", "cachelb"], nobodys_environment()
    with bed.router:
        director.start()
        [pid] = [worker["pid"] for worker in director.status()["workers"]]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    assert next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")) == 1 << 13  # CAP_NET_RAW
    assert curl(bed, bed.origin.v4, "-d", "", f"http://{POPULAR}/peer") == bed.client.v4
    assert director.stop() == 0
    assert bed.router.snapshot() == before


def test_a_node_that_dies_under_spoofed_connections_costs_no_request(
    bed: Bed, start: Start, names: Names, make_site: Callable[..., Site]
):
    site = make_site()
    director = start(sections(names, "nodes") + "[health]\ninterval_s = 0.3\ntimeout_s = 0.2\n")
    urls = [f"http://{POPULAR}/static/{number}" for number in range(30)]
    curl(bed, bed.origin.v4, "-o", "/dev/null", *urls)
    with bed.nodes[0]:
        site.squids[0].kill()
    codes = curl(bed, bed.origin.v4, "-w", "%{http_code}\n", *[word for url in urls for word in ("-o", "/dev/null", url)])
    assert codes.split() == ["200"] * 30
    with bed.router:
        wait_until(lambda: any(node["state"] == "dead" for node in director.status()["nodes"]))


def test_a_packet_that_is_too_large_on_the_way_is_told_to_the_spoofed_connection(
    bed: Bed, start: Start, names: Names, site: Site
):
    """Behind the origin's host there is another one; the way there takes 1,300 bytes, and only an ICMP error says so."""
    far = Space("far")
    with bed.origin, IPRoute() as ip:
        ip.link("add", ifname="far", kind="veth", peer={"ifname": "eth0", "net_ns_fd": f"/proc/self/fd/{far.fd}"})
        index = ip.link_lookup(ifname="far")[0]
        ip.link("set", index=index, state="up", mtu=1300)
        ip.addr("add", index=index, address="10.77.99.1", prefixlen=24)
        bed.origin.sysctl("net.ipv4.ip_forward", "1")
    with far, IPRoute() as ip:
        index = ip.link_lookup(ifname="eth0")[0]
        ip.link("set", index=index, state="up")
        ip.addr("add", index=index, address="10.77.99.2", prefixlen=24)
        ip.route("add", dst="default", gateway="10.77.99.1")
        server = OriginProcess("10.77.99.2", 80)
    try:
        bed.router.run("ip", "route", "add", "10.77.99.0/24", "via", bed.origin.v4)
        start(sections(names, "origin"))
        answer = curl(bed, "10.77.99.2", "-d", "x" * 100_000, "http://10.77.99.2/upload")
        assert '"length": 100000' in answer
        assert curl(bed, "10.77.99.2", "-d", "", "http://10.77.99.2/peer") == bed.client.v4
    finally:
        server.stop()
        far.close()
