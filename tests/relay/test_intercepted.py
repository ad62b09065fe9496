"""Intercepted connections of the relay alone: the kernel's part is played by a listener, and the server meant is ``origin``."""

from __future__ import annotations

import pytest
from fakes import ok

from cachelb.relay import intercepted
from cachelb.relay.intercepted import _is_http, _may_be_http
from cachelb.relay.interception import Place


def test_what_begins_as_a_request_of_a_server_is_http():
    for data in (b"GET / HTTP/1.1\r\n", b"\r\nPOST /x", b"M-SEARCH * HTTP/1.1", b"OPTIONS *"):
        assert _is_http(data) is not None, data
    for data in (b"\x16\x03\x01", b"SSH-2.0", b"GET http://a/ HTTP/1.1", b"CONNECT a:1", b"PRI * HTTP/2.0\r\n", b"get / HTTP/1"):
        assert _is_http(data) is None, data


def test_what_may_still_become_one_is_waited_for():
    for data in (b"", b"\r", b"\r\n", b"G", b"GET", b"GET "):
        assert _may_be_http(data) is not None, data
    for data in (b"g", b"\x16", b"GET  ", b"GET h", b"SSH-2"):
        assert _may_be_http(data) is None, data


@pytest.fixture
def make_taken(make_farm, monkeypatch: pytest.MonkeyPatch):
    """``make_taken(**sections)``: a farm whose clients are intercepted on their way to its origin."""

    def make(**sections):
        farm = make_farm(**sections)
        monkeypatch.setattr("cachelb.relay.interception.refusal", lambda place: "")
        monkeypatch.setattr(intercepted, "Place", lambda host, port: Place(farm.origin.host, farm.origin.port))

        def begin() -> None:
            farm.engine.door.intercepting = set(farm.engine.door.listeners)

        farm.relay.call(begin)
        return farm

    return make


@pytest.fixture
def taken(make_taken):
    return make_taken()


def request(path: str, host: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", *([f"Host: {host}"] if host else []), *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.sources
def test_a_host_that_leads_there_is_asked_of_its_owner_in_absolute_form(taken):
    url = f"http://{taken.origin.address}/page"
    client = taken.connect()
    client.send(request("/page", taken.origin.address))
    link = taken.nodes[taken.owners(url)[0]].accept()
    for number in range(3):  # from nothing, by the memos, and pipelined
        if number:
            client.send(request("/page", taken.origin.address) * number)
        for _ in range(number or 1):
            head = link.read_head()
            assert head.startswith(f"GET {url} HTTP/1.1\r\nHost: {taken.origin.address}\r\n".encode())
            link.send(ok(b"yes"))
            assert client.read_answer().body == b"yes"
    assert taken.counter("intercepted") == 1
    assert taken.counter("hashed") == 4


@pytest.mark.sources
@pytest.mark.parametrize("host", ["127.0.0.8", "www.popular.test:81", "127.0.0.9"])
def test_a_host_that_does_not_is_asked_of_the_server_itself(taken, host: str):
    client = taken.connect()
    client.send(request("/page", host, "X: 1") * 2)
    link = taken.origin.accept()
    for _ in range(2):
        head = link.read_head()
        assert head.startswith(f"GET /page HTTP/1.1\r\nHost: {host}\r\n".encode())
        link.send(ok(b"private", "Cache-Control: private"))
        assert client.read_answer().body == b"private"
    assert taken.counter("bypassed_unverified") == 2
    assert taken.counter("hashed") == 0
    assert taken.counter("learned_urls") == 0


@pytest.mark.sources
def test_a_body_goes_with_it_and_an_upgrade_too(taken):
    client = taken.connect()
    client.send(request("/form", "127.0.0.8", "Content-Length: 5", method="POST") + b"hello")
    link = taken.origin.accept()
    link.read_head()
    assert link.read_exactly(5) == b"hello"
    link.send(ok(b"done", "Connection: close"))
    assert client.read_answer().body == b"done"
    client.send(request("/ws", "127.0.0.8", "Connection: Upgrade", "Upgrade: echo"))
    link = taken.origin.accept()
    assert b"\r\nUpgrade: echo\r\n" in link.read_head()
    link.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
    assert client.read_head().startswith(b"HTTP/1.1 101 ")
    client.send(b"x")
    assert link.read_exactly(1) == b"x"


@pytest.mark.sources
def test_what_goes_around_the_farm_goes_to_where_it_was_sent_under_the_same_name(taken):
    client = taken.connect()
    client.send(request("/form", taken.origin.address, "Content-Length: 2", method="POST") + b"ab")
    link = taken.origin.accept()
    assert link.read_head().startswith(f"POST /form HTTP/1.1\r\nHost: {taken.origin.address}\r\n".encode())
    link.read_exactly(2)
    link.send(ok(b"done"))
    assert client.read_answer().body == b"done"
    assert taken.counter("bypassed_method") == 1


@pytest.mark.sources
def test_dns_says_whether_a_name_leads_there(make_taken, nameserver):
    nameserver.say("here.test", ["127.0.0.9"])
    nameserver.say("there.test", ["127.0.0.8"])
    taken = make_taken(resolver={"nameservers": [nameserver.address]})
    port = taken.origin.port
    for node in taken.nodes:
        node.serve()
    taken.origin.serve()
    client = taken.connect()
    for _ in range(3):
        client.send(request("/a", f"here.test:{port}") + request("/b", f"there.test:{port}") + request("/c", f"none.test:{port}"))
        for _ in range(3):
            assert client.read_answer().status == 200
    assert (taken.counter("hashed"), taken.counter("bypassed_unverified")) == (3, 6)
    assert nameserver.queries == {"here.test": 1, "there.test": 1, "none.test": 1}


@pytest.mark.sources
def test_who_goes_while_dns_is_asked_is_forgotten(make_taken, nameserver):
    nameserver.say("slow.test", silent=True)
    taken = make_taken(resolver={"nameservers": [nameserver.address], "timeout_s": 0.3})
    client = taken.connect()
    client.send(request("/a", f"slow.test:{taken.origin.port}"))
    taken.wait_until(lambda: nameserver.queries.get("slow.test"))
    client.reset()
    taken.wait_for_end("client_gone")
    other = taken.connect()
    other.send(request("/a", f"slow.test:{taken.origin.port}"))
    link = taken.origin.accept()  # nobody has said that it leads there
    link.read_head()
    link.send(ok(b"straight"))
    assert other.read_answer().body == b"straight"


@pytest.mark.sources
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_who_is_not_told_by_dns_in_time_is_answered_once(make_taken, nameserver, monkeypatch: pytest.MonkeyPatch, version: str):
    taken = make_taken(resolver={"nameservers": [nameserver.address]})
    client = taken.connect()
    client.send(request("/known", taken.origin.address))  # after which the connection is kept
    link = taken.nodes[taken.owners(f"http://{taken.origin.address}/known")[0]].accept()
    link.read_head()
    link.send(ok(b"known"))
    assert client.read_answer().body == b"known"
    monkeypatch.setattr(taken.engine.interception, "find_out", lambda *_: None)
    monkeypatch.setattr(taken.engine.interception, "wait_s", 0.1)
    client.send(request("/a", f"slow.test:{taken.origin.port}", version=version))
    answer = client.read_answer()
    assert (answer.status, answer.fields[b"connection"]) == (504, b"close")
    assert client.read_to_end() == b""
    assert taken.ended()["dns_timeout"] == 1


@pytest.mark.sources
def test_http_1_0_without_a_host_means_the_address_and_1_1_has_to_have_one(taken):
    for node in taken.nodes:
        node.serve()
    client = taken.connect()
    client.send(request("/old", "", version="1.0"))
    assert client.read_answer().body.endswith(f"http://{taken.origin.address}/old".encode())
    client = taken.connect()
    client.send(request("/new", "", version="1.1"))
    assert client.read_answer().status == 400
    client = taken.connect()
    client.send(request("/new", "a b"))
    assert client.read_answer().status == 400


@pytest.mark.sources
def test_what_is_ours_elsewhere_is_the_servers_here(taken):
    client = taken.connect()
    client.send(request("/squid-internal-periodic/store_digest", taken.origin.address))
    link = taken.origin.accept()
    assert link.read_head().startswith(b"GET /squid-internal-periodic/store_digest HTTP/1.1\r\n")
    link.send(ok(b"digest"))
    assert client.read_answer().body == b"digest"


@pytest.mark.sources
def test_what_is_not_http_is_tunnelled_or_cut(make_taken):
    taken = make_taken()
    client = taken.connect()
    client.send(b"\x16\x03hello")
    link = taken.origin.accept()
    assert link.read_exactly(7) == b"\x16\x03hello"
    link.send(b"welcome")
    assert client.read_exactly(7) == b"welcome"
    link.close()
    client.half_close()
    assert client.read_to_end() == b""
    taken.wait_until(lambda: taken.counter("intercepted_tunnels") == 1)

    taken.apply(intercept={"non_http": "refuse"})
    client = taken.connect()
    client.send(b"SSH-2.0-x\r\n")
    with pytest.raises(ConnectionResetError):
        client.read_to_end()
    taken.wait_for_end("not_http")


@pytest.mark.sources
def test_a_server_that_does_not_listen_cuts_the_tunnel(taken):
    taken.origin.stop()
    client = taken.connect()
    client.send(b"\x16\x03hello")
    with pytest.raises(ConnectionResetError):
        client.read_to_end()
    taken.wait_for_end("connect_refused")


@pytest.mark.sources
def test_who_may_not_come_in_gets_nothing_through(make_taken):
    taken = make_taken(access={"allow": ["10.0.0.0/8"]})
    for first in (request("/a", "127.0.0.8"), request("/a", taken.origin.address)):
        client = taken.connect()
        client.send(first)
        assert client.read_answer().status == 403
    client = taken.connect()
    client.send(b"\x16\x03hello")
    with pytest.raises(ConnectionResetError):
        client.read_to_end()
    taken.wait_for_end("access_denied", 3)
