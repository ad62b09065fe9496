"""A shop that binds a session to the address that its requests come from, behind three real Squids with addresses of their own.

A visit is what a browser does: log in (POST), pages with pictures (GET), the checkout (CONNECT).  By URL alone these leave from
several addresses, and the shop locks the visitor out.  With the rule of docs/affinity.md they leave from one.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fakes import PATIENCE_S, Answer, Peer, get, post

from cachelb.demo.director import Director
from cachelb.demo.farm import SquidFarm

DOC = Path(__file__).parents[2] / "docs" / "affinity.md"
EGRESS = [f"acl on{n} localip 127.0.1.{n}\ntcp_outgoing_address 127.0.3.{n} on{n}" for n in (1, 2, 3)]


class Shop(ThreadingHTTPServer):
    """sessions: the address that each was begun from; locked: those that came from another one since."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.31", 0), Handler)
        self.sessions: dict[str, str] = {}
        self.locked: set[str] = set()
        self.seen: dict[str, set[str]] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Shop

    def _session(self) -> str:
        found = re.search(r"sid=(\w+)", self.headers.get("Cookie", ""))
        return found[1] if found else ""

    def do_POST(self) -> None:
        shop, sid = self.server, self._session()
        self.rfile.read(int(self.headers["Content-Length"]))
        shop.sessions.setdefault(sid, self.client_address[0])
        self._answer(sid, "no-store")

    def do_GET(self) -> None:
        is_picture = self.path.endswith(".png")
        self._answer(self._session(), "max-age=3600" if is_picture else "private")

    def _answer(self, sid: str, caching: str) -> None:
        shop, address = self.server, self.client_address[0]
        shop.seen.setdefault(sid, set()).add(address)
        if shop.sessions.get(sid) != address:
            shop.locked.add(sid)
        body = b"locked out" if sid in shop.locked else b"welcome"
        self.send_response(403 if sid in shop.locked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store" if sid in shop.locked else caching)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(PATIENCE_S)


class Visitor:
    """A browser at one address; a connection for each request, as several windows have them."""

    def __init__(self, director: Director, shop: Shop, number: int) -> None:
        self.director = director
        self.ip, self.sid = f"127.0.6.{number}", f"s{number}"
        self.authority = "{}:{}".format(*shop.server_address)

    def _connect(self) -> Peer:
        sock = socket.socket()
        sock.settimeout(PATIENCE_S)
        sock.bind((self.ip, 0))
        sock.connect(self.director.http)
        return Peer(sock)

    def _ask(self, request: bytes) -> Answer:
        client = self._connect()
        client.send(request)
        answer = client.read_answer()
        client.close()
        return answer

    def visit(self) -> list[int]:
        """The statuses of all that is asked for."""
        base, fields = f"http://{self.authority}", ("Connection: close", f"Cookie: sid={self.sid}")
        found = [self._ask(post(f"{base}/login", b"name=x", *fields)).status]
        for page in range(4):
            found.append(self._ask(get(f"{base}/page{page}?{self.sid}", *fields)).status)
            found += [self._ask(get(f"{base}/{self.sid}-{page}-{n}.png", *fields)).status for n in range(3)]
        found.append(self._ask(post(f"{base}/basket", b"item=1", *fields)).status)
        return [*found, self._checkout()]

    def _checkout(self) -> int:
        client = self._connect()
        client.send(get(self.authority, method="CONNECT"))
        assert client.read_answer("HEAD").status == 200
        client.send(get("/checkout", f"Host: {self.authority}", f"Cookie: sid={self.sid}", "Connection: close"))
        answer = client.read_answer()
        client.close()
        return answer.status


def rule_of_the_docs(shop: Shop) -> str:
    """The rule as docs/affinity.md shows it, for this shop."""
    blocks = re.findall(r"^```toml\n(.*?)^```", DOC.read_text(), re.DOTALL | re.MULTILINE)
    block = next(text for text in blocks if ".shop.example" in text)
    return block.replace(".shop.example", str(shop.server_address[0]))


def start(make: Callable[..., Director], farm: SquidFarm, shop: Shop, more: str = "") -> Director:
    return make(farm, f"[access]\nconnect_ports = [{shop.server_address[1]}]\n{more}", relay="workers = 2")


def test_without_a_rule_the_shop_locks_its_visitors_out(
    own_farm: Callable[..., SquidFarm], start_director: Callable[..., Director], shop: Shop
):
    director = start(start_director, own_farm(3, extra=EGRESS), shop)
    visits = [Visitor(director, shop, number).visit() for number in range(1, 4)]
    assert all(403 in statuses for statuses in visits)
    assert shop.locked == {"s1", "s2", "s3"}
    assert all(len(addresses) > 1 for addresses in shop.seen.values())


def test_with_one_rule_every_visitor_comes_from_one_address(
    own_farm: Callable[..., SquidFarm], start_director: Callable[..., Director], shop: Shop
):
    director = start(start_director, own_farm(3, extra=EGRESS), shop, rule_of_the_docs(shop))
    visits = [Visitor(director, shop, number).visit() for number in range(1, 7)]
    assert {status for statuses in visits for status in statuses} == {200}
    assert shop.locked == set()
    assert all(len(addresses) == 1 for addresses in shop.seen.values())
    used = [next(iter(addresses)) for addresses in shop.seen.values()]
    assert sorted(used) == sorted(["127.0.3.1", "127.0.3.2", "127.0.3.3"] * 2)
