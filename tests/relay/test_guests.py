"""Proxies before the director that say who their client is: the PROXY protocol on every listener."""

from __future__ import annotations

import pytest
from fakes import get, ok

from cachelb.wire.proxy_protocol import SIGNATURE, Ends, make

TRUSTED = {"listen": {"proxy_protocol": ["127.0.0.1/32"]}}
CLIENT = Ends("127.0.0.44", 4711, "127.0.0.1", 80)
rows = pytest.mark.parametrize
VERSIONS = rows("version", ["v1", "v2"])


@VERSIONS
def test_the_header_says_who_the_client_is(make_farm, version):
    farm = make_farm(**TRUSTED)
    farm.nodes[0].serve(ok(b"hello"))
    client = farm.connect()
    client.send(make(version, CLIENT) + get(farm.url(0)))
    assert client.read_answer().body == b"hello"
    client.send(get(farm.url(0)))
    assert client.read_answer().body == b"hello"
    assert all(b"\r\nX-Forwarded-For: 127.0.0.44\r\n" in head for head in farm.nodes[0].heads)
    assert len(farm.nodes[0].heads) == 2


@VERSIONS
def test_a_header_in_bytes_is_read(make_farm, version):
    farm = make_farm(**TRUSTED)
    farm.nodes[0].serve(ok(b"hello"))
    client = farm.connect()
    client.send_slowly(make(version, CLIENT) + get(farm.url(0)))
    assert client.read_answer().body == b"hello"
    assert b"\r\nX-Forwarded-For: 127.0.0.44\r\n" in farm.nodes[0].heads[0]


@VERSIONS
def test_who_speaks_for_itself_has_its_own_address(make_farm, version):
    farm = make_farm(**TRUSTED)
    farm.nodes[0].serve(ok(b"hello"))
    client = farm.connect()
    client.send(make(version, None) + get(farm.url(0)))
    assert client.read_answer().body == b"hello"
    assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in farm.nodes[0].heads[0]


def test_access_rules_are_about_the_client(make_farm):
    farm = make_farm(**TRUSTED, access={"allow": ["127.0.0.44/32"]})
    farm.nodes[0].serve(ok(b"hello"))
    for ip, status in (("127.0.0.44", 200), ("127.0.0.45", 403), ("2001:db8::1", 403)):
        client = farm.connect()
        client.send(make("v2", CLIENT._replace(source=ip)) + get(farm.url(0)))
        assert client.read_answer().status == status


def test_limits_are_about_the_client(make_farm):
    farm = make_farm(**TRUSTED, limits={"connections_per_client": 1})
    farm.nodes[0].serve(ok(b"hello"))
    clients = []
    for ip, status in (("127.0.0.44", 200), ("127.0.0.45", 200), ("127.0.0.44", 429)):
        clients.append(farm.connect())
        clients[-1].send(make("v1", CLIENT._replace(source=ip)) + get(farm.url(0)))
        assert clients[-1].read_answer().status == status


@VERSIONS
def test_from_others_a_header_is_a_bad_request(make_farm, version):
    farm = make_farm(**TRUSTED)
    client = farm.connect("127.0.0.2")
    client.send(make(version, CLIENT) + get(farm.url(0)))
    assert client.read_answer().status == 400
    assert client.is_closed()
    assert farm.ended() == {"bad_request": 1}


def test_others_need_none(make_farm):
    farm = make_farm(**TRUSTED)
    farm.nodes[0].serve(ok(b"hello"))
    client = farm.connect("127.0.0.2")
    client.send(get(farm.url(0)))
    assert client.read_answer().body == b"hello"


@rows(
    ("said", "reason"),
    [
        (get("http://a.test/"), "bad_proxy_header"),
        (b"PROXY TCP4 1.2.3.4\r\n", "bad_proxy_header"),
        (b"PROXY " + b"x" * 200, "bad_proxy_header"),
        (SIGNATURE + b"\x21\x11\xff\xff", "bad_proxy_header"),
        (SIGNATURE + b"\x31\x11\0\0", "bad_proxy_header"),
        (b"", "proxy_header_timeout"),
        (b"PROXY TCP4 1.2", "proxy_header_timeout"),
        (SIGNATURE + b"\x21\x11\x10\0" + b"x" * 4000, "proxy_header_timeout"),
    ],
)
def test_from_trusted_ones_it_has_to_come_and_to_be_right(make_farm, said, reason):
    farm = make_farm(**TRUSTED, timeouts={"head_s": 0.2})
    client = farm.connect()
    client.send(said)
    assert client.is_closed()
    assert farm.ended() == {reason: 1}


def test_who_goes_before_its_header_is_whole_is_counted(make_farm):
    farm = make_farm(**TRUSTED)
    client = farm.connect()
    client.send(b"PROXY")
    client.close()
    farm.wait_for_end("client_gone")


def test_a_drain_does_not_wait_for_who_has_said_nothing(make_farm):
    farm = make_farm(**TRUSTED)
    client = farm.connect()
    farm.wait_until(lambda: farm.counter("clients_open") == 1)
    assert farm.drain(5.0) == 0
    assert client.is_closed()


def test_a_reload_changes_who_is_trusted(make_farm):
    farm = make_farm()
    farm.nodes[0].serve(ok(b"hello"))
    client = farm.connect()
    client.send(make("v1", CLIENT) + get(farm.url(0)))
    assert client.read_answer().status == 400
    farm.apply(**TRUSTED)
    client = farm.connect()
    client.send(make("v1", CLIENT) + get(farm.url(0)))
    assert client.read_answer().status == 200
    farm.apply(listen={})
    client = farm.connect()
    client.send(get(farm.url(0)))
    assert client.read_answer().status == 200


# -- before a TCP service


@VERSIONS
def test_a_service_takes_headers_and_sends_its_own(make_service, version):
    stage = make_service(1, sections=TRUSTED, send_proxy=version)
    client = stage.call()
    client.send_slowly(make("v2", CLIENT) + b"hi")
    link = stage.nodes[0].accept()
    wanted = make(version, CLIENT) + b"hi"
    assert link.read_exactly(len(wanted)) == wanted


@VERSIONS
def test_a_node_is_told_the_client_of_a_connection_without_a_header(make_service, version):
    stage = make_service(1, send_proxy=version)
    client = stage.call("127.0.0.5")
    link = stage.nodes[0].accept()
    wanted = make(version, stage.ends(client))
    assert link.read_exactly(len(wanted)) == wanted
    link.send(b"220 ready")
    assert client.read_exactly(9) == b"220 ready"


@rows("sections", [TRUSTED, {}], ids=["some are trusted", "nodes are told"])
@VERSIONS
def test_an_untrusted_clients_header_ends_its_connection(make_service, sections, version):
    stage = make_service(1, sections=sections, send_proxy="" if sections else "v1")
    client = stage.call("127.0.0.2")
    client.send(make(version, CLIENT) + b"hi")
    assert client.is_cut()
    assert stage.farm.ended() == {"bad_proxy_header": 1}
    assert b"127.0.0.44" not in stage.nodes[0].accept().received_or_reset()


def test_where_nobody_speaks_the_protocol_it_is_just_bytes(make_service):
    stage = make_service(1)
    client = stage.call()
    client.send(make("v1", CLIENT))
    assert stage.nodes[0].accept().read_exactly(5) == b"PROXY"
