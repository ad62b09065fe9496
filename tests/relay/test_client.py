"""Client connections: reading requests, answering in order, refusing what is malformed, giving up on the slow."""

from __future__ import annotations

import contextlib
import gc

import pytest
from fakes import chunk, get, ok, post

from cachelb.relay.client import Client
from cachelb.relay.exchange import Exchange

URL = "http://www.a.test/x"

# What is wrong with the request, the whole request, the status and the Reason.
MALFORMED = [
    ("no http at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a tls client hello", 400, "bad_request"),
    ("bare line feeds", b"GET http://a.test/ HTTP/1.1\nHost: a.test\n\n", 400, "bad_request"),
    ("space before colon", b"GET http://a.test/ HTTP/1.1\r\nHost : a.test\r\n\r\n", 400, "bad_request"),
    ("folded field", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nA: b\r\n c\r\n\r\n", 400, "bad_request"),
    ("nul in a value", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nA: b\0c\r\n\r\n", 400, "bad_request"),
    ("no host field", b"GET http://a.test/ HTTP/1.1\r\nA: b\r\n\r\n", 400, "bad_request"),
    ("two host fields", b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", 400, "bad_request"),
    ("a path without host", b"GET /x HTTP/1.0\r\n\r\n", 400, "bad_request"),
    ("a url without host", b"GET http:///x HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "bad_url"),
    ("length and coding", get(URL, "Content-Length: 3", "Transfer-Encoding: chunked", method="POST"), 400, "bad_framing"),
    ("two lengths", get(URL, "Content-Length: 3", "Content-Length: 3", method="POST"), 400, "bad_framing"),
    ("a list of lengths", get(URL, "Content-Length: 3, 3", method="POST"), 400, "bad_framing"),
    ("a signed length", get(URL, "Content-Length: +3", method="POST"), 400, "bad_framing"),
    ("a coding that is not last", get(URL, "Transfer-Encoding: chunked, gzip", method="POST"), 400, "bad_framing"),
    ("a coding in http/1.0", get(URL, "Transfer-Encoding: chunked", method="POST", version="1.0"), 400, "bad_framing"),
    ("an unknown coding", get(URL, "Transfer-Encoding: gzip, chunked", method="POST"), 501, "not_implemented"),
    ("an unknown expectation", get(URL, "Expect: cake"), 417, "expectation_failed"),
    ("another version", get(URL, version="2.0"), 505, "bad_version"),
    ("an http/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "bad_version"),
    ("a long url", get("http://a.test/" + "x" * 33000), 414, "url_too_long"),
    ("a long head", get(URL, "X: " + "y" * 66000), 431, "head_too_large"),
    ("many fields", get(URL, *(f"X-{i}: y" for i in range(300))), 431, "too_many_fields"),
]


def test_requests_on_one_connection_are_answered_one_by_one(farm):
    farm.nodes[0].serve()
    client = farm.connect()
    for _ in range(20):
        url = farm.url(0)
        client.send(get(url))
        assert client.read_answer().body.endswith(url.encode())
    assert farm.nodes[0].connections == 1
    assert farm.counter("clients_open") == 1


@pytest.mark.sources
def test_closed_connections_leave_nothing_to_the_collector(farm):
    farm.nodes[0].serve()
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            client = farm.connect()
            client.send(get(farm.url(0), "Connection: close"))
            client.read_answer()
            assert client.is_closed()
        farm.wait_until(lambda: not [thing for thing in gc.get_objects() if isinstance(thing, Client | Exchange)])
    finally:
        gc.enable()


def test_pipelined_requests_are_answered_in_order_by_their_own_nodes(farm):
    for node in farm.nodes:
        node.serve()
    client = farm.connect()
    urls = [farm.url(i % 3) for i in range(60)]
    client.send(b"".join(map(get, urls)))
    for i, url in enumerate(urls):
        assert client.read_answer().body == f"{farm.nodes[i % 3].host} {url}".encode()


def test_pipelined_answers_wait_for_a_slow_node(farm):
    slow, fast = farm.url(0), farm.url(1)
    farm.nodes[1].serve()
    client = farm.connect()
    client.send(get(slow) + get(fast))
    link = farm.nodes[0].accept()
    link.read_head()
    assert client.is_quiet()
    link.send(ok(b"slow"))
    assert client.read_answer().body == b"slow"
    assert client.read_answer().body.endswith(fast.encode())


def test_pipelined_local_answers_keep_their_places(farm):
    farm.nodes[0].serve()
    client = farm.connect()
    url = farm.url(0)
    trace = get(url, "Max-Forwards: 0", method="TRACE")
    client.send(trace + get(url) + get("*", "Host: a.test", method="OPTIONS") + get(url) + trace)
    assert client.read_answer().body.startswith(b"TRACE ")
    assert client.read_answer().body.endswith(url.encode())
    assert b"allow" in client.read_answer().fields
    assert client.read_answer().body.endswith(url.encode())
    assert client.read_answer().body.startswith(b"TRACE ")
    assert farm.counter("local") == 3


def test_a_request_pipelined_behind_a_body_is_found(make_farm):
    farm = make_farm(bypass={"mode": "nodes"})
    for node in farm.nodes:
        node.serve()
    client = farm.connect()
    url = farm.url(0)
    chunked = get(farm.url(0), "Transfer-Encoding: chunked", method="POST", body=chunk(b"two"))
    client.send(post(farm.url(0), b"one") + chunked + get(url))
    for _ in range(2):
        assert client.read_answer().status == 200
    assert client.read_answer().body.endswith(url.encode())
    assert sorted(body for node in farm.nodes for body in node.bodies) == [b"", b"one", b"two"]


def test_a_head_may_arrive_byte_by_byte(farm):
    farm.nodes[0].serve()
    client = farm.connect()
    url = farm.url(0)
    client.send_slowly(get(url, "Accept: */*") * 2)
    assert client.read_answer().body.endswith(url.encode())
    assert client.read_answer().body.endswith(url.encode())


def test_more_is_pipelined_than_is_kept(farm):
    farm.nodes[0].serve()
    client = farm.connect()
    urls = [farm.url(0, path="p" * 900) for _ in range(300)]
    client.send(b"".join(map(get, urls)))
    for url in urls:
        assert client.read_answer().body.endswith(url.encode())


def test_a_client_that_has_said_its_last_word_is_answered(farm):
    farm.nodes[0].serve()
    client = farm.connect()
    client.send(get(farm.url(0)) * 3)
    client.half_close()
    for _ in range(3):
        assert client.read_answer().status == 200
    assert client.is_closed()


def test_the_end_of_a_client_does_not_overtake_its_pipelined_request(farm):
    client = farm.connect()
    client.send(get(farm.url(0)) + get(farm.url(0)))
    link = farm.nodes[0].accept()
    link.read_head()
    with farm.held():  # so that the relay hears of the answer and of the client's end at once
        link.send(ok(b"one"))
        client.half_close()
    assert client.read_answer().body == b"one"
    link.read_head()
    link.send(ok(b"two"))
    assert client.read_answer().body == b"two"


def test_half_a_request_and_an_end_is_no_request(farm):
    client = farm.connect()
    client.send(get(URL)[:-2])
    client.half_close()
    assert client.is_closed()
    assert farm.ended() == {}


def test_empty_lines_before_a_request_are_forgiven(farm):
    farm.nodes[0].serve()
    client = farm.connect()
    client.send(b"\r\n" + get(farm.url(0)))
    assert client.read_answer().status == 200
    client.send(b"\r\n", get(farm.url(0)))
    assert client.read_answer().status == 200


def test_connection_close_is_obeyed(farm):
    farm.nodes[0].serve()
    client = farm.connect()
    client.send(get(farm.url(0), "Connection: close"))
    answer = client.read_answer()
    assert answer.fields[b"connection"] == b"close"
    assert client.is_closed()


def test_http_1_0_is_closed_after_one_answer(farm):
    farm.nodes[0].serve()
    client = farm.connect()
    client.send(get(farm.url(0), version="1.0"))
    assert client.read_answer().status == 200
    assert client.is_closed()


@pytest.mark.parametrize("field", ["Connection: keep-alive", "Proxy-Connection: Keep-Alive"])
def test_http_1_0_with_keep_alive_is_kept(farm, field):
    farm.nodes[0].serve()
    client = farm.connect()
    for _ in range(3):
        client.send(get(farm.url(0), field, version="1.0"))
        answer = client.read_answer()
        assert answer.fields[b"connection"] == b"keep-alive"
        assert answer.head.startswith(b"HTTP/1.1 200")


def test_an_old_client_needs_no_host_field(farm):
    farm.nodes[0].serve()
    client = farm.connect()
    url = farm.url(0)
    client.send(f"GET {url} HTTP/1.0\r\n\r\n".encode())
    assert client.read_answer().body.endswith(url.encode())
    assert b"\r\nHost: " + url.split("/")[2].encode() + b"\r\n" in farm.nodes[0].heads[0]


def test_an_accelerator_gets_the_url_from_host(farm):
    farm.nodes[0].serve()
    url = farm.url(0)
    client = farm.connect()
    client.send(f"GET /page HTTP/1.1\r\nHost: {url.split('/')[2].upper()}\r\n\r\n".encode())
    assert client.read_answer().body.endswith(url.encode())


@pytest.mark.parametrize(("request_", "status", "reason"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_what_is_malformed_is_refused_and_nothing_is_forwarded(farm, request_, status, reason):
    client = farm.connect()
    client.send(request_ + get(farm.url(0)))  # nothing after it can be trusted
    answer = client.read_answer()
    assert answer.status == status
    assert answer.fields[b"connection"] == b"close"
    assert reason.encode() in answer.body
    assert client.is_closed()
    assert farm.ended() == {reason: 1}
    assert farm.counter("refused") == 1
    assert all(node.is_left_alone() for node in farm.nodes)


@pytest.mark.parametrize("name", ["bare line feeds", "a long url", "a long head", "two lengths"])
def test_a_refusal_stays_whole_behind_good_requests(farm, name):
    bad = next(row[1] for row in MALFORMED if row[0] == name)
    farm.nodes[0].serve()
    client = farm.connect()
    client.send(get(farm.url(0)) + get(farm.url(0)) + bad)
    assert [client.read_answer().status for _ in range(3)][:2] == [200, 200]
    assert client.is_closed()


def test_each_error_page_has_an_id_of_its_own(farm):
    client = farm.connect()
    farm.nodes[0].refuse()
    farm.nodes[1].refuse()
    farm.nodes[2].refuse()
    client.send(get(farm.url(0)))
    first = client.read_answer()
    client.send(b"GET nonsense\r\n\r\n")
    second = client.read_answer()
    assert (first.status, second.status) == (503, 400)
    assert first.fields[b"x-request-id"] != second.fields[b"x-request-id"]
    assert second.fields[b"x-request-id"] in second.body


def test_neighbours_do_not_notice_a_malformed_request(farm):
    farm.nodes[0].serve()
    neighbour = farm.connect()
    neighbour.send(get(farm.url(0)))
    assert neighbour.read_answer().status == 200
    for _, request, status, _ in MALFORMED:
        client = farm.connect()
        client.send(request)
        assert client.read_answer().status == status
        neighbour.send(get(farm.url(0)))
        assert neighbour.read_answer().status == 200
    assert farm.nodes[0].connections == 1


def test_a_head_that_never_ends_is_given_up(make_farm):
    farm = make_farm(timeouts={"head_s": 0.1})
    client = farm.connect()
    client.send(get(URL)[:-2])
    answer = client.read_answer()
    assert answer.status == 408
    assert client.is_closed()
    assert farm.ended() == {"head_timeout": 1}


def test_dribbling_does_not_extend_the_time_for_a_head(make_farm):
    farm = make_farm(timeouts={"head_s": 0.2})
    client = farm.connect()
    client.send(b"GET http://a.test/ HTTP/1.1\r\n")
    for i in range(2000):
        client.send(b"X-%d: y\r\n" % i if i < 200 else b"")
        if not client.is_quiet():
            break
    assert client.read_answer().status == 408


def test_a_pipelined_head_that_never_ends_is_given_up(make_farm):
    farm = make_farm(timeouts={"head_s": 0.1})
    farm.nodes[0].serve()
    client = farm.connect()
    client.send(get(farm.url(0)) + b"GET http")
    assert client.read_answer().status == 200
    assert client.read_answer().status == 408


def test_idle_connections_are_closed_quietly(make_farm):
    farm = make_farm(timeouts={"keep_alive_s": 0.1})
    farm.nodes[0].serve()
    silent, used = farm.connect(), farm.connect()
    used.send(get(farm.url(0)))
    assert used.read_answer().status == 200
    assert silent.is_closed()
    assert used.is_closed()
    assert farm.ended() == {"done": 1}


def test_a_client_that_vanishes_while_it_waits_frees_its_node(farm):
    client = farm.connect()
    client.send(get(farm.url(0)))
    link = farm.nodes[0].accept()
    link.read_head()
    client.reset()
    assert link.is_closed()
    farm.wait_for_end("client_gone")


def test_a_client_that_does_not_take_answers_of_ours_is_given_up(make_farm):
    farm = make_farm(timeouts={"idle_body_s": 0.2})
    client = farm.connect(receive_bytes=4096)
    trace = get(URL, "Max-Forwards: 0", *(f"X-{i}: " + "y" * 1000 for i in range(50)), method="TRACE")
    with contextlib.suppress(ConnectionResetError):
        client.send_until_stuck(trace, most=64 << 20)
    farm.wait_until(lambda: farm.counter("clients_open") == 0, "the client is closed")


def test_a_client_that_breaks_while_it_gets_an_answer_of_ours_is_forgotten(farm):
    client = farm.connect(receive_bytes=4096)
    trace = get(URL, "Max-Forwards: 0", *(f"X-{i}: " + "y" * 1000 for i in range(50)), method="TRACE")
    client.send_until_stuck(trace, most=64 << 20)
    client.reset()
    farm.wait_until(lambda: farm.counter("clients_open") == 0, "the client is forgotten")


def test_a_client_that_goes_on_sending_after_a_refusal_still_reads_it(farm):
    client = farm.connect()
    client.send(get(URL, "Content-Length: x", method="POST"))
    client.send(b"z" * 200_000)
    answer = client.read_answer()
    assert answer.status == 400
    client.close()


def test_a_client_that_never_stops_sending_after_a_refusal_is_cut_off(farm):
    client = farm.connect()
    client.send(get(URL, "Content-Length: x", method="POST"))
    assert client.read_answer().status == 400
    with contextlib.suppress(OSError):
        client.send_until_stuck(b"z" * 65536, most=32 << 20)
    farm.wait_until(lambda: farm.counter("clients_open") == 0)


def test_a_client_that_breaks_while_its_requests_are_queued_is_forgotten(farm):
    client = farm.connect()
    client.send(get(farm.url(0)) * 10)
    link = farm.nodes[0].accept()
    link.read_head()
    with farm.held():
        link.send(ok(b"one"))
        client.reset()
    farm.wait_until(lambda: farm.counter("clients_open") == 0)
