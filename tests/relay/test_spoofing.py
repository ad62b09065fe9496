"""Which connections belong to one client: those from its own address, those that begin with a PROXY header about it.

That they come from there, and what Squids make of the header: tests/transparent/test_spoofing.py.
"""

from __future__ import annotations

import socket

import pytest
from fakes import Peer, get, ok

from cachelb.relay import spoofing
from cachelb.relay.client import Client
from cachelb.relay.spoofing import KEPT_PER_CLIENT, usable
from cachelb.relay.upstream import Target
from cachelb.wire.proxy_protocol import V2_BYTES, Ends, parse

NODE = Target("n", ("10.0.0.11", "fd00::11"), 3128, slot=1)
ORIGIN = Target("o", ("192.0.2.1",), 80, hierarchy="ORIGINAL_DST")


def test_only_addresses_of_the_clients_ip_version_can_be_connected_to_from_it():
    assert usable(NODE.addresses, "10.1.1.1") == ("10.0.0.11",)
    assert usable(NODE.addresses, "fd01::1") == ("fd00::11",)
    assert usable(ORIGIN.addresses, "fd01::1") == ()
    for loopback in ("127.0.0.1", "::1", "fe80::1%eth0"):
        assert usable(NODE.addresses, loopback) == ()


@pytest.fixture
def spoofer(make_farm):
    """``spoofer(spoof)``: the Spoofing of a relay that is configured so; each call of it in the relay's thread."""

    def make(spoof: str):
        farm = make_farm(intercept={"spoof": spoof})
        return farm, farm.engine.spoofing

    return make


@pytest.mark.parametrize(
    ("spoof", "nodes", "origins"),
    [("off", False, False), ("origin", False, True), ("nodes", True, False), ("both", True, True)],
)
def test_what_is_asked_for_is_spoofed_and_nothing_else(spoofer, spoof: str, nodes: bool, origins: bool):
    _, subject = spoofer(spoof)
    assert subject.active == (nodes or origins)
    for target, wanted in ((NODE, nodes), (ORIGIN, origins)):
        found = subject.target(target, "10.1.1.1")
        assert (found is not target) == wanted
        assert found.source == ("10.1.1.1" if wanted else "")


def test_each_client_has_targets_of_its_own_that_count_for_the_node(spoofer):
    _, subject = spoofer("both")
    one, other = subject.target(NODE, "10.1.1.1"), subject.target(NODE, "10.1.1.2")
    assert one is subject.target(NODE, "10.1.1.1")
    assert one is not other
    assert subject.target(one, "10.1.1.1") is one
    assert one.counts is NODE.counts
    assert (one.name, one.is_node, one.addresses, one.idle_max) == ("n", True, ("10.0.0.11",), KEPT_PER_CLIENT)
    assert subject.target(ORIGIN, "10.1.1.1").hierarchy == "ORIGINAL_DST"
    assert subject.target(NODE, "127.0.0.1") is NODE


def test_a_reload_does_not_begin_to_spoof_for_which_there_are_no_rights(make_farm):
    farm = make_farm()
    farm.apply(intercept={"spoof": "both"})
    assert not farm.engine.spoofing.active


def test_pairs_are_bounded_and_what_is_beyond_is_not_kept(spoofer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spoofing, "PAIRS_MAX", 2)
    _, subject = spoofer("nodes")
    found = [subject.target(NODE, f"10.1.1.{number}") for number in range(5)]
    assert [target.idle_max for target in found] == [KEPT_PER_CLIENT] * 2 + [0] * 3
    assert {target.source for target in found} == {f"10.1.1.{number}" for number in range(5)}
    assert len(subject.pairs) == 2


def test_what_leads_to_a_dead_node_or_is_unused_is_forgotten(spoofer):
    _, subject = spoofer("nodes")
    node = Target("m", ("10.0.0.12",), 3128, slot=2)
    now = subject.engine.now
    own = subject.target(node, "10.1.1.1")
    subject.expire(now)
    assert subject.target(node, "10.1.1.1") is own
    node.state = "dead"
    subject.expire(now)
    assert subject.pairs == {}
    assert own.idle_max == 0  # what is still in use is closed when it is done
    node.state = "up"
    own = subject.target(node, "10.1.1.1")
    node.addresses = ("10.0.0.13",)
    subject.expire(now)
    assert subject.target(node, "10.1.1.1").addresses == ("10.0.0.13",)
    subject.expire(now + node.keep_s + 60)
    assert subject.pairs == {}


def test_a_client_on_loopback_is_served_as_ever(make_farm):
    farm = make_farm(intercept={"spoof": "both"})
    url = farm.url()
    client = farm.connect()
    client.send(get(url))
    link = farm.nodes[farm.owners(url)[0]].accept()
    for number in range(2):
        if number:
            client.send(get(url))
        served(client, link, b"yes")
    assert farm.counter("hashed") == 2


# -- the PROXY protocol


def test_a_node_that_expects_a_header_has_connections_for_each_client(spoofer):
    _, subject = spoofer("off")
    node = Target("m", ("10.0.0.12", "fd00::12"), 3128, slot=2)
    node.send_proxy = "v2"
    subject.place([NODE, node], 8)
    assert subject.active
    assert subject.target(NODE, "10.1.1.1") is NODE
    for ip in ("10.1.1.1", "127.0.0.1", "fd01::1"):  # unlike an address to connect from, what is said can be any
        own = subject.target(node, ip)
        assert own is not node
        assert (own.client, own.source, own.send_proxy, own.addresses) == (ip, "", "v2", node.addresses)
        assert subject.target(own, ip) is own
    subject.place([NODE], 8)
    assert not subject.active


@pytest.fixture
def greeted(make_farm):
    """A farm whose nodes expect PROXY headers."""
    farm = make_farm(nodes=1)
    farm.send_proxy = "v2"
    farm.apply()
    return farm


def read_header(link: Peer) -> Ends | None:
    """The PROXY header that a connection begins with."""
    fixed = link.read_exactly(V2_BYTES)
    header = parse(fixed + link.read_exactly(int.from_bytes(fixed[14:], "big")))
    assert header is not None
    return header.ends


def served(client: Peer, link: Peer, body: bytes) -> bytes:
    """The node answers the request that has come on ``link``, and the client has the answer; the request's head."""
    head = link.read_head()
    link.send(ok(body))
    assert client.read_answer().body == body
    return head


def test_a_node_is_told_whose_connection_it_is_and_a_kept_one_serves_its_client(greeted):
    client = greeted.connect()
    url = greeted.url()
    client.send(get(url))
    link = greeted.nodes[0].accept()
    here, there = client.sock.getsockname(), client.sock.getpeername()
    assert read_header(link) == Ends(*here, *there)
    for number in range(3):
        if number:
            client.send(get(url))
        assert served(client, link, b"yes").startswith(b"GET " + url.encode())
    other = greeted.connect()  # of the same address: the kept connection is good for it
    other.send(get(url))
    served(other, link, b"again")
    assert greeted.counter("requests") == 4


def test_clients_of_two_addresses_share_no_connection(greeted):
    links = {}
    for number in (1, 2, 1, 2):
        ip = f"127.0.0.{number}"
        client = greeted.connect(source=ip)
        client.send(get(greeted.url()))
        if ip not in links:
            links[ip] = greeted.nodes[0].accept()
            ends = read_header(links[ip])
            assert ends is not None
            assert ends.source == ip
        served(client, links[ip], ip.encode())
        client.close()


def test_a_kept_connection_that_the_node_has_closed_costs_no_request(greeted):
    client = greeted.connect()
    client.send(get(greeted.url()))
    link = greeted.nodes[0].accept()
    read_header(link)
    served(client, link, b"first")
    link.close()
    client.send(get(greeted.url()))
    link = greeted.nodes[0].accept()
    assert read_header(link) is not None
    served(client, link, b"second")


def test_a_node_that_expects_it_no_more_gets_new_connections(greeted):
    client = greeted.connect()
    client.send(get(greeted.url()))
    old = greeted.nodes[0].accept()
    read_header(old)
    served(client, old, b"first")
    greeted.send_proxy = ""
    greeted.apply()
    client.send(get(greeted.url()))
    link = greeted.nodes[0].accept()
    assert served(client, link, b"second").startswith(b"GET ")


@pytest.mark.parametrize("trusted", [[], ["127.0.0.0/8"]])
def test_an_ipv6_client_is_told_of_as_such(make_farm, trusted: list[str]):
    farm = make_farm(nodes=1, listen={"proxy_protocol": trusted})
    farm.send_proxy = "v2"
    farm.apply()
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    farm.relay.call(lambda: farm.engine.door.open([*farm.engine.door.listeners, listener]))
    client = Peer(socket.create_connection(listener.getsockname()[:2]))
    farm.clients.append(client)
    client.send(get(farm.url()))
    link = farm.nodes[0].accept()
    assert read_header(link) == Ends(*client.sock.getsockname()[:2], *client.sock.getpeername()[:2])
    served(client, link, b"six")


@pytest.mark.sources
def test_a_request_never_goes_out_as_the_directors_own(greeted, monkeypatch: pytest.MonkeyPatch):
    """A client that has said its last word may have vanished unseen when the connection to the node is open."""
    monkeypatch.setattr(Client, "ends", lambda self: None)
    client = greeted.connect()
    client.send(get(greeted.url()))
    link = greeted.nodes[0].accept()
    assert link.read_to_end() == b""
    greeted.wait_for_end("client_gone")


def test_who_has_vanished_has_no_ends(make_farm):
    farm = make_farm()
    client = farm.connect()
    client.send(b"GET ")
    farm.wait_until(lambda: len(farm.engine.clients) == 1)
    [served] = farm.engine.clients
    assert served.ends() == Ends(*client.sock.getsockname(), *client.sock.getpeername())
    with farm.held():
        client.reset()
        assert served.ends() is None


def test_a_header_goes_before_spoofing_that_the_kernel_still_does_since_before_a_reload(spoofer):
    _, subject = spoofer("nodes")
    node = Target("m", ("10.0.0.12",), 3128, slot=2)
    node.send_proxy = "v1"
    subject.place([node], 8)
    for ip in ("10.1.1.1", "fd01::1", "127.0.0.1"):
        own = subject.target(node, ip)
        assert (own is not node, own.client, own.source, own.addresses) == (True, ip, "", node.addresses)


def test_what_is_kept_for_all_clients_together_is_bounded_and_counted(greeted):
    greeted.apply(limits={"idle_per_node": 2, "idle_direct": 0})
    for number in range(1, 5):
        client = greeted.connect(source=f"127.0.0.{number}")
        client.send(get(greeted.url()))
        link = greeted.nodes[0].accept()
        read_header(link)
        served(client, link, b"yes")
    spoofing = greeted.engine.spoofing
    greeted.relay.call(lambda: spoofing.expire(greeted.engine.now))
    kept = [own.client for own in spoofing.pairs.values() if own.idle]
    assert len(kept) == 2
    assert greeted.node_counters(0)["idle"] == 2


def test_a_pinned_connection_hears_what_becomes_of_its_node(spoofer):
    _, subject = spoofer("nodes")
    node = Target("m", ("10.0.0.12",), 3128, slot=2)
    own = subject.target(node, "10.1.1.1")
    node.state = "down"
    assert own.everybodys() is node
    assert own.everybodys().state == "down"
    assert node.everybodys() is node
