"""Requests that go around the farm: which, how, on whose connections, and where they must not go."""

from __future__ import annotations

import pytest
from fakes import FakeSquid, answer_head, chunk, get, ok, post

rows = pytest.mark.parametrize


def test_a_post_goes_to_the_origin_itself(farm):
    url = farm.origin_url("form")
    client = farm.connect()
    client.send(post(url, b"hello", "Proxy-Authorization: secret", "Cookie: a=b"))
    link = farm.origin.accept()
    head = link.read_head()
    path = url.partition(farm.origin.address)[2]
    assert head.startswith(f"POST {path} HTTP/1.1\r\nHost: {farm.origin.address}\r\n".encode())
    assert b"\r\nCookie: a=b\r\n" in head
    assert b"secret" not in head
    assert f"\r\nVia: 1.1 {farm.via} (cachelb)\r\n".encode() in head
    assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in head
    assert link.read_exactly(5) == b"hello"
    link.send(ok(b"thanks"))
    assert client.read_answer().body == b"thanks"
    assert all(node.is_left_alone() for node in farm.nodes)
    assert farm.counter("bypassed") == 1
    assert farm.counter("hashed") == 0


@rows(
    ("method", "field"),
    [
        ("GET", "Authorization: Basic eDp5"),
        ("GET", "Cache-Control: no-store"),
        ("GET", "Cache-Control: max-age=0, no-store"),
        ("HEAD", "Authorization: Basic eDp5"),
        ("DELETE", "X: y"),
        ("PATCH", "X: y"),
        ("OPTIONS", "X: y"),
        ("REPORT", "X: y"),
    ],
)
def test_what_no_cache_could_store_never_reaches_a_node(farm, method, field):
    farm.origin.serve()
    assert farm.ask(farm.origin_url(), field, method=method).status == 200
    assert len(farm.origin.heads) == 1
    assert all(node.is_left_alone() for node in farm.nodes)


@rows(
    "rules",
    [{"hosts": ["127.0.0.9"]}, {"paths": ["/page*"]}, {"headers": ["Cookie: *session=*"]}],
    ids=["host", "path", "header"],
)
def test_the_operators_rules_go_around_the_farm(make_farm, rules):
    farm = make_farm(bypass=rules)
    farm.origin.serve()
    assert farm.ask(farm.origin_url(), "Cookie: session=1").status == 200
    assert len(farm.origin.heads) == 1
    for node in farm.nodes:
        node.serve()
    assert farm.ask(farm.url(0, path="other")).status == 200
    assert sum(len(node.heads) for node in farm.nodes) == 1


@rows("field", ["Cache-Control: private", "Cache-Control: no-store", "Vary: *"])
def test_an_uncacheable_url_reaches_its_node_once(farm, field):
    for node in farm.nodes:
        node.serve(ok(b"by node", field))
    farm.origin.serve(ok(b"by origin", field))
    url = farm.origin_url()
    assert farm.ask(url).body == b"by node"
    for _ in range(3):
        assert farm.ask(url).body == b"by origin"
    assert sum(len(node.heads) for node in farm.nodes) == 1
    assert farm.counter("learned_urls") == 1
    assert farm.counter("bypassed") == 3


def test_only_if_cached_asks_the_farm_whatever_was_learned(farm):
    for node in farm.nodes:
        node.serve(ok(b"by node", "Cache-Control: private"))
    url = farm.origin_url()
    assert farm.ask(url).body == b"by node"
    assert farm.ask(url, "Cache-Control: only-if-cached").body == b"by node"
    assert farm.origin.is_left_alone()


def test_a_segment_that_is_always_private_is_learned(farm):
    for node in farm.nodes:
        node.serve(ok(b"by node", "Cache-Control: private"))
    farm.origin.serve(ok(b"by origin", "Cache-Control: private"))
    for _ in range(8):
        assert farm.ask(farm.origin_url("account/")).body == b"by node"
    assert farm.ask(farm.origin_url("account/")).body == b"by origin"
    assert farm.ask(farm.origin_url("other/")).body == b"by node"
    assert farm.counter("learned_segments") == 1


def test_what_has_become_storable_is_forgotten(farm):
    for node in farm.nodes:
        node.serve(ok(b"by node", "Cache-Control: private"))
    farm.origin.serve(ok(b"by origin", "Cache-Control: max-age=600"))
    url = farm.origin_url()
    assert [farm.ask(url).body for _ in range(3)] == [b"by node", b"by origin", b"by node"]


def test_what_expires_is_tried_through_the_farm_again(make_farm):
    farm = make_farm(bypass={"learn_ttl_s": 0.2})
    for node in farm.nodes:
        node.serve(ok(b"by node", "Cache-Control: private"))
    farm.origin.serve(ok(b"by origin", "Cache-Control: private"))
    url = farm.origin_url()
    assert farm.ask(url).body == b"by node"
    assert farm.ask(url).body == b"by origin"
    farm.wait_until(lambda: farm.ask(url).body == b"by node")


@rows("bypass", [{"learn": False}, {"mode": "off"}])
def test_nothing_is_learned_where_that_is_off(make_farm, bypass):
    farm = make_farm(bypass=bypass)
    for node in farm.nodes:
        node.serve(ok(b"by node", "Cache-Control: private"))
    url = farm.origin_url()
    for _ in range(3):
        assert farm.ask(url).body == b"by node"


def test_an_error_of_the_node_teaches_nothing(farm):
    for node in farm.nodes:
        node.serve(ok(b"by node", "Cache-Control: private", "X-Squid-Error: ERR_X 0"))
    url = farm.origin_url()
    assert [farm.ask(url).body for _ in range(2)] == [b"by node"] * 2


def test_a_login_teaches_nothing_about_the_url(farm):
    farm.origin.serve(ok(b"by origin", "Cache-Control: private"))
    for node in farm.nodes:
        node.serve(ok(b"by node"))
    url = farm.origin_url()
    assert farm.ask(url, "Authorization: x").body == b"by origin"
    assert farm.ask(url).body == b"by node"


def test_bypass_by_nodes_spreads_over_all_of_them(make_farm):
    farm = make_farm(bypass={"mode": "nodes"})
    for node in farm.nodes:
        node.serve()
    client = farm.connect()
    for _ in range(9):
        client.send(post("http://a.test/", b"hello"))
        assert client.read_answer().status == 200
    assert [len(node.heads) for node in farm.nodes] == [3, 3, 3]
    assert farm.origin.is_left_alone()
    assert farm.nodes[0].heads[0].startswith(b"POST http://a.test/ HTTP/1.1\r\n")


def test_bypass_off_asks_the_owner(make_farm):
    farm = make_farm(bypass={"mode": "off"})
    for node in farm.nodes:
        node.serve()
    client = farm.connect()
    for _ in range(4):
        client.send(post(farm.url(1), b"hello"))
        assert client.read_answer().status == 200
    assert [len(node.heads) for node in farm.nodes] == [0, 4, 0]
    assert farm.counter("bypassed") == 0


def test_connections_to_origins_are_kept(farm):
    farm.origin.serve()
    for _ in range(5):
        assert farm.ask(farm.origin_url(), "Authorization: x").status == 200
    assert farm.origin.connections == 1
    assert farm.counter("direct_connects") == 1
    assert farm.counter("direct_reuses") == 4


def test_a_stale_connection_to_an_origin_costs_nothing(farm):
    client = farm.connect()
    client.send(get(farm.origin_url(), "Authorization: x"))
    link = farm.origin.accept()
    link.read_head()
    link.send(ok())
    assert client.read_answer().status == 200
    client.send(get(farm.origin_url(), "Authorization: x"))
    link.read_head()
    link.close()
    fresh = farm.origin.accept()
    fresh.read_head()
    fresh.send(ok(b"fresh"))
    assert client.read_answer().body == b"fresh"


@rows("answer", [b"nonsense", answer_head("Content-Length: x"), b""], ids=["garbage", "bad length", "nothing"])
def test_an_origin_that_answers_badly_is_a_502(farm, answer):
    farm.origin.serve(answer + b"" if answer else b"")
    assert farm.ask(farm.origin_url(), "Authorization: x").status == 502


def test_a_chunked_answer_of_an_origin_is_passed_on(farm):
    farm.origin.serve(answer_head("Transfer-Encoding: chunked") + chunk(b"hello"))
    for _ in range(2):
        assert farm.ask(farm.origin_url(), "Authorization: x").body == b"hello"


def test_an_origin_that_refuses_is_a_503(farm):
    farm.origin.refuse()
    answer = farm.ask(farm.origin_url(), "Authorization: x")
    assert answer.status == 503
    assert farm.ended() == {"connect_refused": 1}


def test_a_name_that_does_not_exist_is_a_503(make_farm, nameserver):
    farm = make_farm(resolver={"nameservers": [nameserver.address]})
    answer = farm.ask("http://nowhere.test/", "Authorization: x")
    assert answer.status == 503
    assert b"dns_error" in answer.fields[b"proxy-status"]
    assert farm.ended() == {"dns_error": 1}


def test_a_name_server_that_is_silent_is_a_504(make_farm, nameserver):
    nameserver.say("silent.test", silent=True)
    farm = make_farm(resolver={"nameservers": [nameserver.address], "timeout_s": 0.3})
    answer = farm.ask("http://silent.test/", "Authorization: x")
    assert answer.status == 504
    assert farm.ended() == {"dns_timeout": 1}


def test_a_name_is_resolved_once(make_farm, nameserver):
    farm = make_farm(resolver={"nameservers": [nameserver.address]})
    farm.origin.serve()
    nameserver.say("www.test", addresses=[farm.origin.host])
    for _ in range(3):
        url = f"http://www.test:{farm.origin.port}/"
        assert farm.ask(url, "Authorization: x", "Connection: close").status == 200
    assert nameserver.queries["www.test"] == 1
    assert farm.origin.heads[0].startswith(f"GET / HTTP/1.1\r\nHost: www.test:{farm.origin.port}\r\n".encode())


def test_the_address_that_answers_is_used(make_farm, nameserver):
    farm = make_farm(resolver={"nameservers": [nameserver.address]})
    farm.origin.serve()
    nameserver.say("many.test", addresses=["127.0.0.200", "127.0.0.201", farm.origin.host])
    url = f"http://many.test:{farm.origin.port}/"
    assert farm.ask(url, "Authorization: x").status == 200


def test_a_client_that_vanishes_while_a_name_is_resolved_is_forgotten(make_farm, nameserver):
    nameserver.say("silent.test", silent=True)
    farm = make_farm(resolver={"nameservers": [nameserver.address], "timeout_s": 0.3})
    client = farm.connect()
    client.send(get("http://silent.test/", "Authorization: x"))
    farm.wait_until(lambda: nameserver.queries["silent.test"])
    client.reset()
    farm.wait_for_end("client_gone")


def test_settings_may_change_while_a_name_is_resolved(make_farm, nameserver):
    nameserver.say("silent.test", silent=True)
    farm = make_farm(resolver={"nameservers": [nameserver.address], "timeout_s": 0.5})
    client = farm.connect()
    client.send(get("http://silent.test/", "Authorization: x"))
    farm.wait_until(lambda: nameserver.queries["silent.test"])
    farm.apply(timeouts={"connect_s": 1.0})
    assert client.read_answer().status in (503, 504)
    farm.origin.serve()
    client.send(get(farm.origin_url(), "Authorization: x"))
    assert client.read_answer().status == 200


# -- where they must not go


@rows("host", ["127.0.0.9", "127.1", "0x7f000009", "2130706441", "[::1]", "[::ffff:127.0.0.9]", "localhost", "0.0.0.0"])
def test_private_addresses_are_not_connected_to(make_farm, host):
    farm = make_farm(bypass={"allow_private": False})
    answer = farm.ask(f"http://{host}:{farm.origin.port}/", "Authorization: x")
    assert answer.status in (400, 403, 503)
    assert farm.origin.is_left_alone()


def test_a_refused_destination_says_so(make_farm):
    farm = make_farm(bypass={"allow_private": False})
    answer = farm.ask(farm.origin_url(), "Authorization: x")
    assert answer.status == 403
    assert answer.fields[b"proxy-status"] == b"cachelb; error=destination_ip_prohibited"
    assert b"127.0.0.9 is a loopback address" in answer.body
    assert farm.ended() == {"destination_denied": 1}


def test_a_private_origin_that_answers_private_stays_with_the_farm(make_farm):
    farm = make_farm(bypass={"allow_private": False})
    for node in farm.nodes:
        node.serve(ok(b"by node", "Cache-Control: private"))
    url = farm.origin_url()
    for _ in range(3):
        assert farm.ask(url).body == b"by node"
    assert farm.counter("learned_urls") == 1
    assert farm.ended() == {"done": 3}
    assert farm.origin.is_left_alone()


def test_a_dead_farm_is_what_a_client_of_a_private_origin_hears_of(make_farm):
    farm = make_farm(bypass={"allow_private": False})
    for node in range(len(farm.nodes)):
        farm.declare(node, "dead")
    answer = farm.ask(farm.origin_url())
    assert answer.status == 503
    assert b"and around it: 127.0.0.9 is a loopback address" in answer.body
    assert farm.ended() == {"no_node": 1}
    assert farm.origin.is_left_alone()


def test_a_name_is_judged_by_its_addresses(make_farm, nameserver):
    nameserver.say("inside.test", addresses=["127.0.0.9"])
    farm = make_farm(bypass={"allow_private": False}, resolver={"nameservers": [nameserver.address]})
    answer = farm.ask(f"http://inside.test:{farm.origin.port}/", "Authorization: x")
    assert answer.status == 403
    assert farm.origin.is_left_alone()


def test_a_tunnel_is_judged_like_a_request(make_farm):
    farm = make_farm(bypass={"allow_private": False}, access={"connect_ports": ["1-65535"]})
    client = farm.connect()
    client.send(get(farm.origin.address, method="CONNECT"))
    assert client.read_answer().status == 403
    assert farm.origin.is_left_alone()


def test_the_director_is_no_origin_of_its_own(farm):
    farm.apply(listen={"http": [f"127.0.0.1:{farm.address[1]}"]})
    answer = farm.ask(f"http://127.0.0.1:{farm.address[1]}/", "Authorization: x")
    assert answer.status == 403
    assert b"the director itself" in answer.body


def test_a_director_that_listens_everywhere_is_no_origin_by_any_of_its_addresses(farm):
    port = farm.address[1]
    farm.apply(listen={"http": [f"0.0.0.0:{port}"]})
    for host in ("127.0.0.1", "127.0.0.2", "[::ffff:127.0.0.3]"):
        answer = farm.ask(f"http://{host}:{port}/", "Authorization: x")
        assert answer.status == 403
        assert b"the director itself" in answer.body


def test_the_directors_port_elsewhere_is_an_origin(farm):
    other = FakeSquid("127.0.0.10", farm.address[1])
    try:
        other.serve()
        farm.apply(listen={"http": [f"127.0.0.1:{farm.address[1]}"]})
        assert farm.ask(f"http://{other.address}/", "Authorization: x").status == 200
    finally:
        other.stop()


def test_unsafe_ports_are_refused(farm):
    answer = farm.ask("http://127.0.0.9:25/")
    assert answer.status == 403
    assert farm.ended() == {"port_denied": 1}


# -- no node at all


def test_with_all_nodes_dead_requests_go_direct(farm):
    farm.origin.serve()
    farm.states = ["dead"] * 3
    farm.apply()
    assert farm.ask(farm.origin_url()).status == 200
    assert farm.counter("bypassed") == 1


@rows("mode", ["nodes", "off"])
@rows("method", ["GET", "POST"])
def test_with_all_nodes_dead_and_no_way_around_it_is_a_503(make_farm, mode, method):
    farm = make_farm(bypass={"mode": mode})
    farm.states = ["dead"] * 3
    farm.apply()
    answer = farm.ask(farm.origin_url(), method=method)
    assert answer.status == 503
    assert answer.fields[b"retry-after"] == b"5"
    assert farm.ended() == {"no_node": 1}
    assert farm.origin.is_left_alone()


def test_only_if_cached_does_not_go_around_a_dead_farm(farm):
    farm.states = ["dead"] * 3
    farm.apply()
    assert farm.ask(farm.origin_url(), "Cache-Control: only-if-cached").status in (503, 504)
    assert farm.origin.is_left_alone()


def test_other_schemes_need_a_node(farm):
    farm.states = ["dead"] * 3
    farm.apply()
    assert farm.ask("https://www.a.test/").status == 503


def test_without_a_single_node_requests_go_direct(make_farm):
    farm = make_farm(0)
    farm.origin.serve()
    assert farm.ask(farm.origin_url()).status == 200
