"""Requests on their way to a node: their fields, their bodies, and those that the director answers by itself."""

from __future__ import annotations

import hashlib
import os
import threading

import pytest
from fakes import answer_head, chunk, get, ok, post

RANDOM = os.urandom(1 << 20)
SIZES = sorted({1, 100, *(n + d for n in (16384, 32768, 65536, 1 << 20) for d in (-1, 0, 1)), 20 << 20})
rows = pytest.mark.parametrize


def body_of(size: int) -> bytes:
    return (RANDOM * (size // len(RANDOM) + 1))[:size]


def fields_at_node(farm, *fields, method="GET", version="1.1", source=""):
    """The field lines that a node gets for a client's."""
    client = farm.connect(source)
    client.send(get(farm.url(0), *fields, method=method, version=version))
    link = farm.nodes[0].accept()
    lines = link.read_head()[:-4].decode("latin-1").split("\r\n")[1:]
    link.send(ok())
    assert client.read_answer(method).status == 200
    return [line for line in lines if not line.startswith("Host:")]


@pytest.fixture
def by_nodes(make_farm):
    """One node, which gets everything: also what no cache could store."""
    return make_farm(1, bypass={"mode": "nodes"})


def sent(farm, *pieces, background=False):
    """A request on its way: the client, and the node's end of it with the head read."""
    client = farm.connect()
    if background:
        threading.Thread(target=client.send, args=pieces, daemon=True).start()
    else:
        client.send(*pieces)
    link = farm.nodes[0].accept()
    return client, link, link.read_head()


# -- fields


def test_a_plain_request_arrives_with_via_and_forwarded_for_only(farm):
    fields = fields_at_node(farm, "User-Agent: x", "Accept: */*", "Cookie: a=b")
    via = f"Via: 1.1 {farm.via} (cachelb)"
    assert fields == ["User-Agent: x", "Accept: */*", "Cookie: a=b", via, "X-Forwarded-For: 127.0.0.1"]


def test_the_request_line_names_the_canonical_url(farm):
    farm.nodes[0].serve()
    url = farm.url(0)
    client = farm.connect()
    client.send(get(url.replace("http://www", "HTTP://WWW").replace(".test/", ".TEST:80/")))
    assert client.read_answer().status == 200
    host = url.split("/")[2]
    assert farm.nodes[0].heads[0].startswith(f"GET {url} HTTP/1.1\r\nHost: {host}\r\n".encode())


def test_hop_by_hop_fields_of_requests_are_removed(farm):
    hops = ["Connection: keep-alive, X-Mine", "X-Mine: 1", "Keep-Alive: 300", "Proxy-Connection: keep-alive"]
    fields = fields_at_node(farm, *hops, "TE: trailers", "Upgrade: h2c", "Trailer: X", "X-Theirs: 2")
    assert [line.split(":")[0] for line in fields] == ["X-Theirs", "Via", "X-Forwarded-For"]


def test_the_version_of_an_old_client_is_in_via(farm):
    assert f"Via: 1.0 {farm.via} (cachelb)" in fields_at_node(farm, version="1.0")


@rows(
    ("mode", "expected"),
    [
        ("append", ["X-Forwarded-For: 10.1.1.1, 10.2.2.2, 127.0.0.1"]),
        ("set", ["X-Forwarded-For: 127.0.0.1"]),
        ("delete", []),
        ("off", ["X-Forwarded-For: 10.1.1.1, 10.2.2.2"]),
    ],
)
def test_forwarded_for_is_written_as_configured(make_farm, mode, expected):
    farm = make_farm(relay={"forwarded_for": mode})
    fields = fields_at_node(farm, "X-Forwarded-For: 10.1.1.1", "X-Forwarded-For: 10.2.2.2")
    assert [line for line in fields if line.startswith("X-Forwarded-For")] == expected


def test_each_client_has_its_own_address_forwarded(farm):
    for source in ("127.0.0.1", "127.0.0.77", "127.0.0.1"):
        client = farm.connect(source)
        client.send(get(farm.url(1), "Connection: close", "Cookie: same"))
        link = farm.nodes[1].accept()
        assert f"\r\nX-Forwarded-For: {source}\r\n".encode() in link.read_head()
        link.send(ok(b"", "Connection: close"))
        assert client.read_answer().status == 200


def test_a_loop_is_refused(farm):
    answer = farm.ask(farm.url(0), f"Via: 1.1 other, 1.0 {farm.via} (cachelb)")
    assert answer.status == 508
    assert b"proxy_loop_detected" in answer.fields[b"proxy-status"]
    assert farm.ended() == {"loop": 1}
    assert farm.nodes[0].is_left_alone()


def test_other_vias_are_no_loop(farm):
    farm.nodes[0].serve()
    assert farm.ask(farm.url(0), f"Via: 1.1 not-{farm.via}, 1.1 other").status == 200


# -- answered here


def test_options_about_the_director_itself_is_answered_here(farm):
    answer = farm.ask("*", "Host: a.test", method="OPTIONS")
    assert answer.status == 200
    assert b"CONNECT" in answer.fields[b"allow"]
    assert answer.fields[b"via"].startswith(b"1.1 " + farm.via.encode())


def test_trace_with_no_hop_left_shows_the_request_without_its_secrets(farm):
    url = farm.url(0)
    answer = farm.ask(url, "Max-Forwards: 0", "Cookie: secret", "Authorization: secret", "X: shown", method="TRACE")
    assert answer.fields[b"content-type"] == b"message/http"
    assert answer.body.startswith(f"TRACE {url} HTTP/1.1\r\nHost: ".encode())
    assert b"X: shown" in answer.body
    assert b"secret" not in answer.body


def test_options_with_no_hop_left_is_answered_here(farm):
    assert b"allow" in farm.ask(farm.url(0), "Max-Forwards: 0", method="OPTIONS").fields


@rows("method", ["OPTIONS", "TRACE"])
def test_hops_left_are_counted_down(by_nodes, method):
    assert "Max-Forwards: 4" in fields_at_node(by_nodes, "Max-Forwards: 5", method=method)


def test_hops_left_mean_nothing_to_other_methods(farm):
    assert "Max-Forwards: 0" in fields_at_node(farm, "Max-Forwards: 0")


def test_internal_pages_of_the_nodes_are_not_shown(farm):
    client = farm.connect()
    client.send(b"GET /squid-internal-static/info HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert client.read_answer().status == 404
    assert all(node.is_left_alone() for node in farm.nodes)


@rows(
    ("target", "method", "field"),
    [("*", "OPTIONS", "X: y"), ("http://a.test/", "OPTIONS", "Max-Forwards: 0"), ("/squid-internal-mgr/info", "GET", "X: y")],
)
@rows("framing", ["length", "chunked"])
def test_a_body_of_what_is_answered_here_is_no_request(farm, target, method, field, framing):
    farm.nodes[0].serve()
    hidden = get(farm.url(0))
    length = f"Content-Length: {len(hidden)}" if framing == "length" else "Transfer-Encoding: chunked"
    body = hidden if framing == "length" else chunk(hidden)
    client = farm.connect()
    client.send(get(target, "Host: a.test", length, field, method=method, body=body))
    assert client.read_answer(method).fields[b"connection"] == b"close"
    assert client.is_closed()
    assert farm.nodes[0].heads == []


def test_an_error_page_says_what_happened(make_farm):
    farm = make_farm(bypass={"mode": "off"})
    for node in farm.nodes:
        node.refuse()
    url = farm.url(0)
    answer = farm.ask(url + "?<script>")
    assert answer.status == 503
    assert answer.fields[b"x-request-id"] in answer.body
    assert answer.fields[b"proxy-status"] == b"cachelb; error=connection_refused"
    assert answer.fields[b"retry-after"] == b"5"
    assert answer.fields[b"cache-control"] == b"no-store"
    assert url.encode() + b"?&lt;script&gt;" in answer.body
    assert b"<script>" not in answer.body


def test_an_error_page_for_head_has_no_body(farm):
    client = farm.connect()
    for node in farm.nodes:
        node.refuse()
    client.send(get(farm.url(0), method="HEAD") + get("*", "Host: a.test", method="OPTIONS"))
    assert client.read_answer("HEAD").status == 503
    assert client.read_answer().status == 200


# -- bodies


@rows("size", SIZES)
def test_a_request_body_of_known_length_arrives_unchanged(by_nodes, size):
    body = body_of(size)
    client, link, head = sent(by_nodes, post("http://a.test/", body), background=True)
    assert f"\r\nContent-Length: {size}\r\n".encode() in head
    assert hashlib.sha1(link.read_exactly(size)).digest() == hashlib.sha1(body).digest()
    link.send(ok(b"thanks"))
    assert client.read_answer().body == b"thanks"
    assert by_nodes.counter("bytes_in") == size
    client.send(get("http://a.test/"))
    assert link.read_head().startswith(b"GET ")
    link.send(ok())
    assert client.read_answer().status == 200


@rows("size", [0, *SIZES])
def test_a_chunked_request_body_arrives_byte_for_byte(by_nodes, size):
    wire = chunk(body_of(size), size=50_000, trailers=b"X-Sum: 1\r\n", extension=b";a")
    request = get("http://a.test/", "Transfer-Encoding: chunked", "Trailer: X-Sum", method="PUT")
    client, link, head = sent(by_nodes, request, wire, background=True)
    assert b"\r\nTransfer-Encoding: chunked\r\n" in head
    assert b"\r\nTrailer: X-Sum\r\n" in head
    assert link.read_chunked() == wire
    link.send(ok(b"thanks"))
    assert client.read_answer().body == b"thanks"


def test_a_request_body_may_arrive_byte_by_byte(by_nodes):
    wire = chunk(b"hello, world", size=5, trailers=b"X-Sum: 1\r\n", extension=b";x=y")
    client, link, _ = sent(by_nodes, get("http://a.test/", "Transfer-Encoding: chunked", method="POST"))
    client.send_slowly(wire)
    assert link.read_chunked() == wire
    link.send(ok(b"thanks"))
    assert client.read_answer().body == b"thanks"
    client.send_slowly(post("http://a.test/", b"again"))
    link = by_nodes.nodes[0].accept()  # what must not be repeated is never put on a kept connection
    assert link.read_head().startswith(b"POST ")
    assert link.read_exactly(5) == b"again"
    link.send(ok(b"thanks"))
    assert client.read_answer().body == b"thanks"


def test_a_body_waits_for_100_continue(by_nodes):
    request = get("http://a.test/", "Expect: 100-continue", "Content-Length: 5", method="POST")
    client, link, head = sent(by_nodes, request)
    assert b"\r\nExpect: 100-continue\r\n" in head
    assert client.is_quiet()
    link.send(answer_head(status="100 Continue"))
    assert client.read_answer().status == 100
    client.send(b"hello")
    assert link.read_exactly(5) == b"hello"
    link.send(ok(b"thanks"))
    assert client.read_answer().body == b"thanks"


def test_a_body_that_nobody_wants_is_not_waited_for(by_nodes):
    request = get("http://a.test/", "Expect: 100-continue", "Content-Length: 5", method="POST")
    client, link, _ = sent(by_nodes, request)
    link.send(ok(b"no", status="417 Expectation Failed"))
    answer = client.read_answer()
    assert (answer.status, answer.body) == (417, b"no")
    assert client.is_closed()  # the body may or may not come: nobody could tell it from the next request
    assert link.is_closed()


@rows("answer", [ok(b"too large", status="413 Content Too Large"), ok(b"x" * 100_000, status="413 X")])
def test_an_answer_that_overtakes_the_body_is_read(by_nodes, answer):
    size = 10 << 20
    client, link, _ = sent(by_nodes, get("http://a.test/", f"Content-Length: {size}", method="POST"))
    client.send(RANDOM)
    link.read_exactly(1000)
    link.send(answer)
    link.read_some()
    client.send(RANDOM[: 256 << 10])
    assert client.read_answer().status == 413
    client.close()


def test_a_malformed_chunked_request_body_is_refused(by_nodes):
    client, link, _ = sent(by_nodes, get("http://a.test/", "Transfer-Encoding: chunked", method="POST"))
    client.send(b"5\r\nhello\r\n")
    assert link.read_exactly(10) == b"5\r\nhello\r\n"
    client.send(b"xyz\r\n")
    answer = client.read_answer()
    assert answer.status == 400
    assert client.is_closed()
    assert link.is_closed()  # in the middle of the body: the node can tell
    assert by_nodes.ended() == {"bad_chunk": 1}


@rows("how", ["close", "reset"])
@rows("fields", [["Content-Length: 1000000"], ["Transfer-Encoding: chunked"]])
def test_a_client_that_vanishes_in_the_middle_of_its_body_frees_the_node(by_nodes, how, fields):
    client, link, _ = sent(by_nodes, get("http://a.test/", *fields, method="POST") + b"1000\r\n")
    link.read_some()
    getattr(client, how)()
    assert link.is_closed()
    by_nodes.wait_for_end("client_gone")


def test_a_node_that_reads_slowly_slows_the_client_down(by_nodes):
    client, link, _ = sent(by_nodes, get("http://a.test/", f"Content-Length: {256 << 20}", method="POST"))
    taken = client.send_until_stuck(RANDOM, most=256 << 20)
    assert taken < 96 << 20
    assert link.read_exactly(1 << 20) == RANDOM


def test_a_client_that_reads_and_writes_at_once_is_served(by_nodes):
    """Some servers answer while they read; the answer's first bytes end the upload, so all of it must have come."""
    body = body_of(3 << 20)
    client, link, _ = sent(by_nodes, post("http://a.test/", body), background=True)
    assert link.read_exactly(len(body)) == body
    link.send(ok(body))
    assert client.read_answer().body == body


def test_a_head_request_with_length_zero_is_still_plain(farm):
    assert "Content-Length: 0" in fields_at_node(farm, "Content-Length: 0")
    assert farm.counter("hashed") == 1
