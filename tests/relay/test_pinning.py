"""Connection-oriented authentication: a connection that a client has authenticated is that client's, and nobody else's."""

from __future__ import annotations

import socket
import subprocess

import pytest
from fakes import FakeSquid, Peer, get, ok, post
from ntlm import PASSWORD, USER, NtlmServer, message_1, message_3

from cachelb.relay.pinning import Pins

rows = pytest.mark.parametrize
NODES = {"mode": "nodes"}
BASIC = "Authorization: Basic eDp5"  # so that it takes the same way
WAYS = rows("mode", ["direct", "nodes", "off"])


@pytest.fixture
def unpinned(monkeypatch):
    """A relay as it would be without pinning."""
    monkeypatch.setattr(Pins, "takes", lambda *_: False)
    monkeypatch.setattr(Pins, "holds", lambda *_: False)


class Site:
    """Servers that speak NTLM, reached directly or as nodes."""

    def __init__(self, make_farm, mode, proxy=False, **sections):
        self.farm = make_farm(bypass={"mode": mode}, **sections)
        reached = [self.farm.origin] if mode == "direct" and not proxy else self.farm.nodes
        self.servers = [NtlmServer(server, proxy, f"{server.host} ").start() for server in reached]
        self.field = "Proxy-Authorization" if proxy else "Authorization"
        self.url = self.farm.origin_url() if reached == [self.farm.origin] else "http://www.test/page"

    def log_in(self, client, user=USER):
        """The three messages; the last answer."""
        client.send(get(self.url, f"{self.field}: {message_1()}"))
        challenge = client.read_answer()
        assert challenge.status in (401, 407)
        named = challenge.fields.get(b"www-authenticate") or challenge.fields[b"proxy-authenticate"]
        client.send(get(self.url, f"{self.field}: {message_3(named, user)}"))
        return client.read_answer()

    @property
    def broken(self):
        return sum(server.broken for server in self.servers)


def ask(client, url, *fields):
    client.send(get(url, *fields))
    return client.read_answer()


def curl(farm, url, *options):
    """curl through the relay; its answers' bodies."""
    proxy = "http://{}:{}".format(*farm.address)
    command = ["curl", "-sS", "-m", "10", "-x", proxy, *options, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=15)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skip_without_ntlm():
    try:
        version = subprocess.run(["curl", "--version"], capture_output=True, text=True, timeout=10).stdout
    except FileNotFoundError:
        pytest.skip("curl is not installed")
    if "NTLM" not in version:
        pytest.skip("this curl cannot speak NTLM")


@WAYS
def test_curl_authenticates_itself(make_farm, mode):
    skip_without_ntlm()
    site = Site(make_farm, mode)
    said = curl(site.farm, site.url, "--ntlm", "-u", f"{USER}:{PASSWORD}", site.url)
    assert said.count(f"hello {USER} on") == 2
    assert site.broken == 0
    assert site.farm.counter("pinned") == 1


def test_curl_is_refused_without_pinning(make_farm, unpinned):
    skip_without_ntlm()
    site = Site(make_farm, "nodes")
    assert "hello" not in curl(site.farm, site.url, "--ntlm", "-u", f"{USER}:{PASSWORD}")
    assert site.broken == 1


def test_curl_authenticates_itself_to_nodes(make_farm):
    skip_without_ntlm()
    site = Site(make_farm, "nodes", proxy=True)
    more = ["http://other.test/", "http://third.test/"]
    said = curl(site.farm, site.url, "--proxy-ntlm", "-U", f"{USER}:{PASSWORD}", *more)
    assert said.count(f"hello {USER} on") == 3
    assert len({line.split()[0] for line in said.replace("127", "\n127").split("\n") if line}) == 1
    assert site.broken == 0


@WAYS
def test_two_clients_at_a_time_never_share(make_farm, mode):
    site = Site(make_farm, mode)
    users = {f"user{i}": site.farm.connect() for i in range(4)}
    challenges = {}
    for user, client in users.items():
        challenges[user] = ask(client, site.url, f"Authorization: {message_1()}").fields[b"www-authenticate"]
    for user, client in users.items():
        assert f"hello {user} ".encode() in ask(client, site.url, f"Authorization: {message_3(challenges[user], user)}").body
    stranger = site.farm.connect()
    for _ in range(3):
        assert ask(stranger, site.url, BASIC).status == 401
        for user, client in users.items():
            assert f"hello {user} ".encode() in ask(client, site.url).body
    assert not any(server.is_mixed() for server in site.servers)
    assert site.farm.counter("pinned") == site.farm.counter("pinned_open") == 4
    assert site.farm.counter("pinned_requests") == 4 * 4
    for client in users.values():
        client.close()
    site.farm.wait_until(lambda: site.farm.counter("pinned_open") == 0)
    assert [ask(stranger, site.url, BASIC).status for _ in range(6)] == [401] * 6


def test_without_pinning_a_stranger_would_be_taken_for_the_user(make_farm, unpinned):
    site = Site(make_farm, "direct")
    client = site.farm.connect()
    assert b"hello" in site.log_in(client).body
    assert b"hello alice" in ask(site.farm.connect(), site.url, "Authorization: Basic eDp5").body


def test_nothing_that_was_not_authenticated_is_pinned(make_farm):
    site = Site(make_farm, "direct")
    client = site.farm.connect()
    assert ask(client, site.url, "Authorization: Basic bnRsbTp4").status == 401
    assert site.farm.counter("pinned") == 0


@rows("scheme", ["Negotiate", "negotiate", "NTLM", "Kerberos"])
def test_schemes(make_farm, scheme):
    farm = make_farm(bypass=NODES)
    for node in farm.nodes:
        node.serve()
    client = farm.connect()
    for url in (farm.url(0), farm.url(1), farm.url(2)):
        ask(client, url, f"Authorization: {scheme} YII=")
    assert farm.counter("pinned") == 3
    assert farm.counter("pinned_open") == 1


def test_other_origins_go_as_usual_and_the_pin_stays(make_farm):
    site = Site(make_farm, "direct")
    for node in site.farm.nodes:
        node.serve()
    client = site.farm.connect()
    site.log_in(client)
    for owner in (0, 1, 2):
        assert ask(client, site.farm.url(owner)).body.split()[0].decode() == site.farm.nodes[owner].host
    assert b"hello alice on 0" in ask(client, site.url).body


def test_all_methods_and_bodies_follow(make_farm):
    site = Site(make_farm, "nodes")
    client = site.farm.connect()
    at = site.log_in(client).body
    client.send(post(site.url, b"x" * 100_000))
    assert client.read_answer().body == at
    client.send(get(site.url, method="DELETE"))
    assert client.read_answer().body == at
    client.send(post(site.url, b"hello", method="PUT"))
    assert client.read_answer().body == at


def test_the_client_learns_that_its_connection_has_ended(make_farm):
    farm = make_farm(bypass=NODES)
    client = farm.connect()
    client.send(get(farm.url(0), f"Authorization: {message_1()}"))
    _, link = next_link(farm)
    link.read_head()
    link.send(ok(b"", "WWW-Authenticate: NTLM TlRMTVNTUAACAAAA", status="401 Unauthorized"))
    assert client.read_answer().status == 401
    link.close()
    assert client.read_to_end() == b""
    assert farm.ended() == {"done": 1, "pin_lost": 1}


def next_link(farm):
    """The node that is asked next, and its connection."""
    farm.wait_until(lambda: sum(farm.node_counters(i)["requests"] for i in range(3)))
    node = next(i for i in range(3) if farm.node_counters(i)["requests"])
    return farm.nodes[node], farm.nodes[node].accept()


def pinned_link(farm, url):
    """A client with a pinned connection; and that."""
    client = farm.connect()
    client.send(get(url, f"Authorization: {message_1()}"))
    _, link = next_link(farm)
    link.read_head()
    link.send(ok(b"in"))
    assert client.read_answer().body == b"in"
    return client, link


def test_a_request_that_meets_the_end_is_not_repeated_and_not_answered(make_farm):
    farm = make_farm(bypass=NODES)
    url = farm.url(0)
    client, link = pinned_link(farm, url)
    client.send(get(url))
    link.read_head()
    link.close()
    assert client.read_to_end() == b""
    assert all(node.is_left_alone() for node in farm.nodes)
    assert farm.ended() == {"done": 1, "pin_lost": 1}
    assert farm.counter("retries") == 0


def test_an_end_that_comes_while_the_client_asks_another_closes_it_after_that_answer(make_farm):
    farm = make_farm(bypass=NODES)
    client, link = pinned_link(farm, "http://auth.test/")
    client.send(get(farm.url(1)))
    other = farm.nodes[1].accept()
    other.read_head()
    link.close()
    farm.wait_until(lambda: farm.relay.call(lambda: next(iter(farm.engine.clients)).pin.link.closed))
    other.send(ok(b"other"))
    assert client.read_answer().body == b"other"
    assert client.is_closed()


def test_bytes_that_nobody_asked_for_end_it(make_farm):
    farm = make_farm(bypass=NODES)
    client, link = pinned_link(farm, farm.url(0))
    link.send(ok(b"forged"))
    assert client.is_closed()
    assert farm.counter("pinned_open") == 0


def test_a_server_that_closes_after_its_answer_closes_the_client_too(make_farm):
    farm = make_farm(bypass=NODES)
    url = farm.url(0)
    client, link = pinned_link(farm, url)
    client.send(get(url))
    link.read_head()
    link.send(ok(b"last", "Connection: close"))
    answer = client.read_answer()
    assert answer.body == b"last"
    assert answer.fields[b"connection"] == b"close"
    assert client.is_closed()


def test_a_node_that_has_died_is_not_asked_again(make_farm):
    farm = make_farm(bypass=NODES)
    url = farm.url(0)
    client, _ = pinned_link(farm, url)
    node = next(i for i in range(3) if farm.node_counters(i)["requests"])
    farm.declare(node, "dead")
    client.send(get(url))
    assert client.read_to_end() == b""
    assert farm.ended() == {"done": 1, "pin_lost": 1}


def test_a_node_that_drains_keeps_whom_it_has(make_farm):
    farm = make_farm(bypass=NODES)
    url = farm.url(0)
    client, link = pinned_link(farm, url)
    for node in range(3):
        if farm.node_counters(node)["requests"]:
            farm.declare(node, "drain")
    client.send(get(url))
    link.read_head()
    link.send(ok(b"still"))
    assert client.read_answer().body == b"still"


def test_a_reload_ends_what_was_allowed_by_the_settings_before(make_farm):
    site = Site(make_farm, "direct")
    client = site.farm.connect()
    site.log_in(client)
    site.farm.apply(bypass={"mode": "direct", "allow_private": False})
    client.send(get(site.url))
    assert client.read_to_end() == b""


def test_a_rule_that_refuses_still_does(make_farm):
    site = Site(make_farm, "nodes")
    client = site.farm.connect()
    site.log_in(client)
    site.farm.apply(rule=[{"refuse": True}])
    assert ask(client, site.url).status == 403


def test_only_if_cached_does_not_give_the_connection_away(make_farm):
    farm = make_farm(bypass=NODES)
    for node in farm.nodes:
        node.serve(ok(b"no", status="504 Gateway Timeout"))
    client = farm.connect()
    answer = ask(client, farm.url(0), f"Authorization: {message_1()}", "Cache-Control: only-if-cached")
    assert answer.status == 504
    assert farm.counter("pinned_open") == 1
    assert sum(farm.node_counters(i)["idle"] for i in range(3)) == 0


def test_drain_ends_idle_ones(make_farm):
    farm = make_farm(bypass=NODES)
    client, link = pinned_link(farm, farm.url(0))
    assert farm.drain(1.0) == 0
    assert client.is_closed()
    assert link.is_closed()


def test_a_client_that_is_silent_for_too_long_gives_it_up(make_farm):
    farm = make_farm(bypass=NODES, timeouts={"keep_alive_s": 0.1})
    client, link = pinned_link(farm, farm.url(0))
    assert link.is_closed()
    assert client.is_closed()


def test_clients_of_a_proxy_are_told_that_it_can(make_farm):
    farm = make_farm()
    url = farm.url(0)
    farm.nodes[0].serve(ok(b"", "WWW-Authenticate: Basic realm=x", "WWW-Authenticate: Negotiate", status="401 Unauthorized"))
    assert farm.ask(url).fields[b"proxy-support"] == b"Session-Based-Authentication"
    host = url.split("/")[2]
    client = farm.connect()
    client.send(get("/page", f"Host: {host}"))
    assert b"proxy-support" not in client.read_answer().fields
    other = farm.url(1)
    farm.nodes[1].serve(ok(b"", "WWW-Authenticate: Basic realm=ntlm", status="401 Unauthorized"))
    assert b"proxy-support" not in farm.ask(other).fields


def test_a_websocket_of_an_authenticated_user_follows(make_farm):
    farm = make_farm(bypass=NODES)
    url = farm.url(0)
    client, link = pinned_link(farm, url)
    client.send(get(url, "Connection: Upgrade", "Upgrade: websocket"))
    assert b"Upgrade: websocket" in link.read_head()
    link.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    assert client.read_answer().status == 101
    client.send(b"ping")
    assert link.read_exactly(4) == b"ping"
    link.send(b"pong")
    assert client.read_exactly(4) == b"pong"


def test_the_server_of_these_tests_tells_a_wrong_user_from_a_right_one():
    server = FakeSquid("127.0.0.1")
    try:
        NtlmServer(server).start()
        client = Peer(socket.create_connection((server.host, server.port)))
        client.send(get("/", "Host: x", f"Authorization: {message_1()}"))
        challenge = client.read_answer().fields[b"www-authenticate"]
        wrong = message_3(b"NTLM " + b"A" * 64)
        client.send(get("/", "Host: x", f"Authorization: {wrong}"))
        assert client.read_answer().status == 401
        assert challenge.startswith(b"NTLM TlRM")
        client.close()
    finally:
        server.stop()
