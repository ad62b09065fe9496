"""HAProxy before us, behind us and beside us: it believes our PROXY headers, we believe its, and both route names alike."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeSquid
from fakes_tls import hello, server_name
from live_director import wait_until
from tcp_servers import are_up, farm_counters, is_open, node, program

from cachelb.demo.squid import free_port

rows = pytest.mark.parametrize
VERSIONS = rows("version", ["v1", "v2"])
HEAD = "global\n  maxconn 100\ndefaults\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n"


@pytest.fixture
def haproxy(run, tmp_path: Path) -> Callable[[str, int], None]:
    """``haproxy(text, port)``: one with that configuration, when it accepts on a port of 127.0.0.1."""
    path = program("haproxy")

    def start(text: str, port: int) -> None:
        config = tmp_path / f"haproxy{port}.cfg"
        config.write_text(HEAD + text)
        run([path, "-db", "-f", config])
        wait_until(lambda: is_open("127.0.0.1", port), f"HAProxy on {port}")

    return start


def curl(url: str, *options: str) -> str:
    command = [program("curl"), "-s", "--max-time", "20", *options, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout


@VERSIONS
def test_haproxy_behind_us_believes_our_header(haproxy, start, version):
    """It says whom it takes the client for, and where that has connected to."""
    port, here = free_port("127.0.0.1"), free_port("127.0.0.1")
    answer = 'http-request return status 200 content-type text/plain lf-string "%[src] %[dst] %[dst_port]"'
    frontend = f"frontend f\n  mode http\n  bind 127.0.0.1:{port} accept-proxy\n  {answer}\n"
    haproxy(frontend, port)
    service = f'[[tcp]]\nname = "web"\nlisten = "127.0.0.1:{here}"\nport = {port}\nsend_proxy = "{version}"\n'
    start(service, node("n0", "127.0.0.1", port))
    for source in ("127.0.0.1", "127.0.0.61"):
        assert curl(f"http://127.0.0.1:{here}/", "--interface", source) == f"{source} 127.0.0.1 {here}"


@VERSIONS
def test_we_believe_haproxy_before_us(haproxy, start, version):
    """For HTTP and for a TCP service, which tells the node in its turn."""
    squid = FakeSquid("127.0.0.62")
    squid.serve()
    port, tcp, here, web = (free_port("127.0.0.1") for _ in range(4))
    send = "send-proxy" if version == "v1" else "send-proxy-v2"
    answer = 'http-request return status 200 content-type text/plain lf-string "%[src]"'
    nodes = f'[[node]]\nname = "n0"\nhost = "127.0.0.62"\nhttp_port = {squid.port}\n' + node("h", "127.0.0.1", port, "weight = 0")
    pool = '[[pool]]\nname = "h"\nnodes = "h"\nweights = { h = 1 }\n'
    service = f'[[tcp]]\nname = "web"\nlisten = "127.0.0.1:{tcp}"\npool = "h"\nport = {port}\nsend_proxy = "v2"\n'
    director = start(pool + service, nodes, listen='proxy_protocol = "127.0.0.1"')
    text = f"frontend back\n  mode http\n  bind 127.0.0.1:{port} accept-proxy\n  {answer}\n"
    for name, front, target in (("a", here, director.http[1]), ("b", web, tcp)):
        text += f"listen {name}\n  mode tcp\n  bind 127.0.0.1:{front}\n  server d 127.0.0.1:{target} {send}\n"
    haproxy(text, here)
    wait_until(lambda: are_up(director))
    try:
        for source in ("127.0.0.63", "127.0.0.64"):
            proxy = f"http://127.0.0.1:{here}"
            assert curl("http://www.test/page", "--interface", source, "-x", proxy) == "127.0.0.62 http://www.test/page"
            asked = [head for head in squid.heads if not head.startswith(b"TRACE ")]  # which are health's
            assert f"\r\nX-Forwarded-For: {source}\r\n".encode() in asked[-1]
            assert curl(f"http://127.0.0.1:{web}/", "--interface", source) == source
        # HAProxy's own checks, and others that have no header
        assert curl("http://www.test/page", "-x", f"http://127.0.0.1:{director.http[1]}") == ""
        wait_until(lambda: farm_counters(director)["ended_bad_proxy_header"] == 1)
    finally:
        squid.stop()


def test_names_lead_to_the_same_nodes_as_with_haproxy(haproxy, start):
    nodes = [FakeSquid("127.0.0.65")]
    nodes += [FakeSquid(f"127.0.0.{66 + i}", nodes[0].port) for i in range(2)]
    port, ours, theirs = nodes[0].port, free_port("127.0.0.1"), free_port("127.0.0.1")
    for number, server in enumerate(nodes):
        server.serve_calls(b"%d" % number)
    pools = "".join(f'[[pool]]\nname = "p{i}"\nnodes = "n{i}"\n' for i in range(3))
    chosen = 'tls = "sni"\npool = "p2"\npools = { "shop.example" = "p0", ".mail.example" = "p1" }'
    service = f'[[tcp]]\nname = "tls"\nlisten = "127.0.0.1:{ours}"\nport = {port}\n{chosen}\n'
    director = start(pools + service, "".join(node(f"n{i}", server.host, port) for i, server in enumerate(nodes)))
    frontend = f"frontend f\n  mode tcp\n  bind 127.0.0.1:{theirs}\n  tcp-request inspect-delay 5s\n"
    frontend += "  tcp-request content accept if { req.ssl_hello_type 1 }\n  tcp-request content reject\n"
    frontend += "  use_backend b0 if { req.ssl_sni -i shop.example }\n"
    frontend += "  use_backend b1 if { req.ssl_sni -m dom -i mail.example }\n  default_backend b2\n"
    backends = "".join(f"backend b{i}\n  mode tcp\n  server s {server.host}:{port}\n" for i, server in enumerate(nodes))
    haproxy(frontend + backends, theirs)
    names = [b"shop.example", b"SHOP.Example", b"www.shop.example", b"mail.example", b"a.b.mail.example", b"example", b""]
    try:
        for name in names:
            said = hello(server_name(name)) if name else hello()
            for data in (said, said[:3], b"GET / HTTP/1.1\r\n\r\n"):
                assert _answer(ours, data, said) == _answer(theirs, data, said), (name, data)
        wait_until(lambda: farm_counters(director)["ended_bad_hello"] == len(names))
    finally:
        for server in nodes:
            server.stop()


def _answer(port: int, first: bytes, said: bytes) -> bytes:
    """Which node answers a client that says ``first``, and then the rest of ``said`` where it is a part of that."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(first)
        if said.startswith(first):
            sock.sendall(said[len(first) :])
        data = b""
        try:
            while more := sock.recv(100):
                data += more
        except ConnectionResetError:
            pass
        return data
