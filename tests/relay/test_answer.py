"""Answers on their way from a node to a client: bodies of every kind, interim answers, and nodes that answer badly."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import struct
import termios
import threading

import pytest
from fakes import answer_head, chunk, dechunk, get, ok

from cachelb.relay import attempts, upstream
from cachelb.relay.upstream import READ_BYTES

RANDOM = os.urandom(1 << 20)
SIZES = sorted({0, 1, 100, *(n + d for n in (16384, 32768, 65536, 1 << 20) for d in (-1, 0, 1)), 20 << 20})
GARBAGE = [
    ("no http", b"SSH-2.0-OpenSSH_9.2\r\n", "bad_response"),
    ("a body without head", b"<html>hello</html>", "bad_response"),
    ("bare line feeds", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "bad_response"),
    ("status of two digits", b"HTTP/1.1 20 OK\r\n\r\n", "bad_response"),
    ("length and coding", answer_head("Content-Length: 3", "Transfer-Encoding: chunked") + b"abc", "bad_response"),
    ("two lengths", answer_head("Content-Length: 3", "Content-Length: 4") + b"abc", "bad_response"),
    ("length that is none", answer_head("Content-Length: abc"), "bad_response"),
    ("negative length", answer_head("Content-Length: -1"), "bad_response"),
    ("unknown coding", answer_head("Transfer-Encoding: gzip, chunked"), "bad_response"),
    ("coding in http/1.0", answer_head("Transfer-Encoding: chunked", version="1.0"), "bad_response"),
    ("folded field", b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "bad_response"),
    ("a nul", b"HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", "bad_response"),
    ("101 that nobody asked for", answer_head("Upgrade: x", "Connection: Upgrade", status="101 S"), "bad_response"),
    ("a long head", answer_head("A: " + "b" * 70000), "response_too_large"),
    ("many fields", answer_head(*(f"A-{i}: b" for i in range(300))), "response_too_large"),
    ("a thousand interim answers", answer_head(status="102 Processing") * 1000, "bad_response"),
]
BAD_CHUNKS = [
    ("no size", b"hello"),
    ("size that is none", b"xyz\r\nhello\r\n0\r\n\r\n"),
    ("signed size", b"+5\r\nhello\r\n0\r\n\r\n"),
    ("size of 17 digits", b"00000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("data too long", b"5\r\nhello!\r\n0\r\n\r\n"),
    ("bare line feed", b"5\nhello\n0\n\n"),
    ("framing in a trailer", b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n"),
]
rows = pytest.mark.parametrize


def body_of(size: int) -> bytes:
    return (RANDOM * (size // len(RANDOM) + 1))[:size]


def started(farm, *fields, method="GET", version="1.1", **options):
    """A request on its way: the client, and the node's end of it."""
    client = farm.connect(**options)
    client.send(get(farm.url(0), *fields, method=method, version=version))
    link = farm.nodes[0].accept()
    link.read_head()
    return client, link


def asked_again(farm, client, link) -> bool:
    """Ask once more: whether the node gets it on the same connection."""
    client.send(get(farm.url(0)))
    kept = not link.is_closed()
    if not kept:
        link = farm.nodes[0].accept()
    assert link.read_head().startswith(b"GET ")
    link.send(ok(b"again"))
    assert client.read_answer().body == b"again"
    return kept


def send_in_background(peer, *pieces):
    def send():
        try:
            peer.send(*pieces)
        except OSError:
            pass

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


@rows("size", SIZES)
def test_a_body_of_known_length_arrives_unchanged(farm, size):
    body = body_of(size)
    client, link = started(farm)
    sender = send_in_background(link, ok(body))
    answer = client.read_answer()
    assert hashlib.sha1(answer.body).digest() == hashlib.sha1(body).digest()
    sender.join()
    assert asked_again(farm, client, link)
    farm.wait_for_end("done", 2)
    assert farm.counter("bytes_out") >= size


@rows("size", SIZES)
def test_head_and_body_in_separate_segments_make_no_difference(farm, size):
    body = body_of(size)
    client, link = started(farm)
    sender = send_in_background(link, answer_head(f"Content-Length: {size}"), body[:1], body[1:])
    answer = client.read_answer()
    assert hashlib.sha1(answer.body).digest() == hashlib.sha1(body).digest()
    sender.join()
    assert asked_again(farm, client, link)


@rows("size", SIZES)
def test_a_chunked_body_arrives_byte_for_byte(farm, size):
    wire = chunk(body_of(size), size=50_000, trailers=b"X-Sum: 1\r\nX-More: 2\r\n", extension=b';a="b"')
    client, link = started(farm)
    sender = send_in_background(link, answer_head("Transfer-Encoding: chunked", "Trailer: X-Sum") + wire)
    head = client.read_head()
    assert b"\r\nTransfer-Encoding: chunked\r\n" in head
    assert b"\r\nTrailer: X-Sum\r\n" in head
    assert client.read_chunked() == wire
    sender.join()
    assert asked_again(farm, client, link)


def test_a_chunked_body_may_arrive_byte_by_byte(farm):
    wire = chunk(b"hello, world", size=5, trailers=b"X-Sum: 1\r\n", extension=b";x=y")
    client, link = started(farm)
    link.send_slowly(answer_head("Transfer-Encoding: chunked") + wire)
    client.read_head()
    assert client.read_chunked() == wire
    assert asked_again(farm, client, link)


@rows("size", [0, 1, 65536, 1 << 20])
def test_an_old_client_gets_the_payload_of_a_chunked_body(farm, size):
    body = body_of(size)
    client, link = started(farm, "Connection: keep-alive", version="1.0")
    wire = chunk(body, size=10_000, trailers=b"X-Sum: 1\r\n", extension=b";x=y")
    sender = send_in_background(link, answer_head("Transfer-Encoding: chunked"), wire)
    head = client.read_head()
    assert b"chunked" not in head
    assert b"\r\nConnection: close\r\n" in head
    assert client.read_to_end() == body
    sender.join()


def test_an_old_client_gets_the_payload_as_it_comes(farm):
    client, link = started(farm, version="1.0")
    link.send(answer_head("Transfer-Encoding: chunked"))
    client.read_head()
    for byte in chunk(b"hello, world", size=5):
        link.send(bytes([byte]))
    assert client.read_to_end() == b"hello, world"


@rows("size", [0, 1, 65536, 1 << 20, 20 << 20])
@rows("version", ["1.0", "1.1"])
def test_a_body_until_close_is_passed_on_until_close(farm, size, version):
    body = body_of(size)
    client, link = started(farm)

    def answer():
        link.send(answer_head("X: y", version=version), body)
        link.close()

    sender = threading.Thread(target=answer)
    sender.start()
    head = client.read_head()
    assert b"\r\nConnection: close\r\n" in head
    assert client.read_to_end() == body
    sender.join()
    farm.wait_for_end("done")


@rows("method", ["GET", "HEAD"])
def test_head_has_no_body_whatever_its_fields_say(farm, method):
    client, link = started(farm, method="HEAD")
    link.send(answer_head("Content-Length: 12345"))
    answer = client.read_answer("HEAD")
    assert answer.fields[b"content-length"] == b"12345"
    client.send(get(farm.url(0), method=method))
    link.read_head()
    link.send(ok(b"") if method == "GET" else answer_head("Transfer-Encoding: chunked"))
    assert client.read_answer(method).status == 200
    assert farm.ended() == {"done": 2}


@rows("status", ["204 No Content", "304 Not Modified"])
@rows("field", ["X: y", "Content-Length: 0", 'ETag: "1"'])
def test_204_and_304_have_no_body(farm, status, field):
    client, link = started(farm)
    link.send(answer_head(field, status=status))
    assert client.read_answer().status == int(status[:3])
    assert asked_again(farm, client, link)


def test_304_keeps_the_length_that_it_speaks_of(farm):
    client, link = started(farm)
    link.send(answer_head("Content-Length: 500", status="304 Not Modified"))
    assert client.read_answer().fields[b"content-length"] == b"500"
    assert asked_again(farm, client, link)


def test_a_204_that_claims_a_body_ends_its_connection(farm):
    client, link = started(farm)
    link.send(answer_head("Content-Length: 5", status="204 No Content") + b"hello")
    answer = client.read_answer()
    assert answer.status == 204
    assert b"content-length" not in answer.fields
    assert not asked_again(farm, client, link)


def test_interim_answers_are_passed_on(farm):
    client, link = started(farm)
    link.send(answer_head("Link: </a>", status="103 Early Hints"))
    early = client.read_answer()
    assert (early.status, early.fields[b"link"]) == (103, b"</a>")
    link.send(answer_head(status="102 Processing") + ok(b"final"))
    assert client.read_answer().status == 102
    assert client.read_answer().body == b"final"
    assert asked_again(farm, client, link)


@rows("size", [5000, 200_000])
def test_an_answer_waits_for_what_is_left_of_an_interim_one(farm, size: int):
    farm.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    client, link = started(farm, receive_bytes=4096)
    link.send(answer_head("Link: </" + "a" * 30_000 + ">", status="103 Early Hints") + ok(body_of(size)))
    early = client.read_answer()
    assert (early.status, len(early.fields[b"link"])) == (103, 30_003)
    answer = client.read_answer()
    assert (answer.status, answer.body) == (200, body_of(size))
    assert asked_again(farm, client, link)


def test_old_clients_are_spared_interim_answers(farm):
    client, link = started(farm, version="1.0")
    link.send(answer_head(status="103 Early Hints") + ok(b"final"))
    assert client.read_answer().body == b"final"


def test_hop_by_hop_fields_of_answers_are_removed(farm):
    client, link = started(farm)
    fields = ["Connection: keep-alive, X-Mine", "X-Mine: 1", "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive"]
    link.send(ok(b"hello", *fields, "Upgrade: h2c", "X-Theirs: 2", "Via: 1.1 other"))
    answer = client.read_answer()
    assert set(answer.fields) == {b"content-length", b"x-theirs", b"via"}
    assert answer.fields[b"via"] == b"1.1 other, 1.1 %s (cachelb)" % farm.via.encode()
    assert answer.body == b"hello"


def test_a_node_that_speaks_http_1_0_is_answered_as_1_1(farm):
    client, link = started(farm)
    link.send(ok(b"hello", version="1.0"))
    answer = client.read_answer()
    assert answer.head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.body == b"hello"
    assert not asked_again(farm, client, link)


def test_a_node_connection_that_says_close_is_not_kept(farm):
    client, link = started(farm)
    link.send(ok(b"hello", "Connection: close"))
    assert client.read_answer().body == b"hello"
    assert link.is_closed()
    assert not asked_again(farm, client, link)


def test_hits_are_counted(farm):
    client, link = started(farm)
    link.send(ok(b"", "X-Cache: HIT from n0"))
    assert client.read_answer().status == 200
    assert asked_again(farm, client, link)
    assert farm.counter("hits") == 1
    assert farm.node_counters(0)["hits"] == 1


def test_an_error_page_of_a_node_is_passed_on_and_counted(farm):
    client, link = started(farm)
    link.send(ok(b"sorry", "X-Squid-Error: ERR_CONNECT_FAIL 111", status="503 Service Unavailable"))
    answer = client.read_answer()
    assert (answer.status, answer.body) == (503, b"sorry")
    assert farm.node_counters(0)["origin_errors"] == 1
    assert farm.node_counters(0)["bad_responses"] == 0


@rows(("answer", "reason"), [row[1:] for row in GARBAGE], ids=[row[0] for row in GARBAGE])
def test_an_answer_that_cannot_be_understood_becomes_a_502(farm, answer, reason):
    client, link = started(farm)
    link.send(answer)
    page = client.read_answer()
    while page.status < 200:
        page = client.read_answer()
    assert page.status == 502
    assert b"error=" in page.fields[b"proxy-status"]
    assert b"n0" in page.body
    assert link.is_closed()
    assert farm.ended() == {reason: 1}
    assert farm.node_counters(0)["bad_responses"] == 1
    assert not asked_again(farm, client, link)  # the client stays, the node's connection does not


def test_an_answer_that_ends_within_its_head_becomes_a_502(farm):
    client, link = started(farm)
    link.send(ok(b"hello")[:20])
    farm.wait_until(lambda: link.is_quiet())
    link.close()
    assert client.read_answer().status == 502
    assert farm.ended() == {"bad_response": 1}


@rows("size", [10, 40_000, 1 << 20])
@rows("end", ["close", "reset"])
def test_a_body_that_ends_early_cuts_the_client(farm, size, end):
    client, link = started(farm)
    link.send(answer_head(f"Content-Length: {size}"), body_of(size // 2))
    client.read_head()
    client.read_exactly(size // 2)
    getattr(link, end)()
    assert client.is_cut()
    farm.wait_for_end("truncated")
    assert farm.node_counters(0)["bad_responses"] == 1


@rows("end", ["close", "reset"])
def test_a_chunked_body_that_ends_early_cuts_the_client(farm, end):
    client, link = started(farm)
    link.send(answer_head("Transfer-Encoding: chunked") + b"5\r\nhello\r\n")
    client.read_head()
    assert client.read_exactly(10) == b"5\r\nhello\r\n"
    getattr(link, end)()
    assert client.is_cut()
    farm.wait_for_end("truncated")


def test_a_body_until_close_that_is_reset_cuts_the_client(farm):
    client, link = started(farm)
    link.send(answer_head("X: y") + b"hello")
    client.read_head()
    assert client.read_exactly(5) == b"hello"
    link.reset()
    assert client.is_cut()
    farm.wait_for_end("truncated")


@rows("body", [row[1] for row in BAD_CHUNKS], ids=[row[0] for row in BAD_CHUNKS])
def test_a_malformed_chunked_body_cuts_the_client(farm, body):
    client, link = started(farm)
    link.send(answer_head("Transfer-Encoding: chunked"))
    client.read_head()
    link.send(body)
    assert client.is_cut()
    assert link.is_closed()
    farm.wait_for_end("bad_chunked_answer")
    assert farm.node_counters(0)["bad_responses"] == 1


@rows("size", [10, 20_000, 100_000])
def test_more_than_the_declared_length_is_never_passed_on(farm, size):
    body = body_of(size)
    client, link = started(farm)
    link.send(ok(body) + ok(b"evil"))
    assert client.read_answer().body == body
    assert not asked_again(farm, client, link)


@rows("size", [10, 20_000, 100_000])
def test_more_than_the_declared_length_does_not_answer_a_pipelined_request(farm, size):
    body = body_of(size)
    client = farm.connect()
    client.send(get(farm.url(0)) + get(farm.url(0)))
    link = farm.nodes[0].accept()
    link.read_head()
    with farm.held():
        link.send(ok(body) + ok(b"evil"))
    assert client.read_answer().body == body
    again = farm.nodes[0].accept()
    again.read_head()
    again.send(ok(b"good"))
    assert client.read_answer().body == b"good"


def test_more_than_a_chunked_body_is_never_passed_on(farm):
    wire = chunk(b"hello")
    client, link = started(farm)
    link.send(answer_head("Transfer-Encoding: chunked") + wire + ok(b"evil"))
    client.read_head()
    assert client.read_chunked() == wire
    assert not asked_again(farm, client, link)


def test_what_is_left_in_the_kernel_by_a_read_of_full_size_answers_no_other_request(farm):
    client = farm.connect()
    client.send(get(farm.url(0)) + get(farm.url(0)))
    link = farm.nodes[0].accept()
    link.read_head()
    body = body_of(READ_BYTES - len(ok(b"x" * 70_000)) + 70_000)
    whole = ok(body)
    assert len(whole) == READ_BYTES
    with farm.held():
        link.send(whole + ok(b"evil"))
        farm.wait_until(lambda: struct.unpack("i", fcntl.ioctl(link.sock, termios.TIOCOUTQ, bytes(4)))[0] == 0, "all has arrived")
    assert client.read_answer().body == body
    second = farm.nodes[0].accept()
    second.read_head()
    second.send(ok(b"good"))
    assert client.read_answer().body == b"good"


@pytest.fixture
def narrow(farm, monkeypatch: pytest.MonkeyPatch):
    """The farm, whose first node takes little of a request at once."""

    def open_narrow(*of):
        link = upstream.open_link(*of)
        link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return link

    monkeypatch.setattr(attempts, "open_link", open_narrow)
    farm.nodes[0].listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return farm


@pytest.mark.sources
def test_a_request_that_is_answered_already_is_not_repeated(narrow):
    """The node hangs up on the rest of it, while the client still takes the answer."""
    narrow.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    client = narrow.connect(receive_bytes=4096)
    client.send(get(narrow.url(0, 1), "X: " + "y" * 60_000))
    link = narrow.nodes[0].accept()
    link.read_some()
    body = body_of(60_000)
    link.send(ok(body))
    head = client.read_head()
    link.reset()
    narrow.wait_until(lambda: all(exchange.link is None or exchange.link.unsent is None for exchange in exchanges(narrow)))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert client.read_exactly(len(body)) == body
    assert narrow.nodes[1].is_left_alone()
    assert narrow.node_counters(0)["requests"] == 1
    client.send(get(narrow.url(1)))
    narrow.nodes[1].serve(ok(b"next"))
    assert client.read_answer().body == b"next"


def exchanges(farm):
    return [client.exchange for client in list(farm.engine.clients)]


@pytest.mark.sources
def test_an_answer_that_overtakes_the_requests_head_ends_its_connection(narrow):
    farm = narrow
    client = farm.connect()
    client.send(get(farm.url(0), "X: " + "y" * 60_000))
    link = farm.nodes[0].accept()
    link.read_some()
    link.send(ok(b"hasty"))
    assert client.read_answer().body == b"hasty"
    client.send(get(farm.url(0)))
    second = farm.nodes[0].accept()  # the first is still being sent a head
    second.read_head()
    second.send(ok(b"calm"))
    assert client.read_answer().body == b"calm"


def test_words_out_of_turn_end_an_idle_connection(farm):
    client, link = started(farm)
    link.send(ok(b"hello"))
    assert client.read_answer().body == b"hello"
    link.send(ok(b"evil"))
    assert link.is_closed()
    assert not asked_again(farm, client, link)


def test_a_client_that_vanishes_in_the_middle_of_an_answer_frees_its_node(farm):
    neighbour = farm.connect()
    farm.nodes[1].serve()
    client, link = started(farm)
    link.send(answer_head(f"Content-Length: {1 << 30}"))
    client.read_head()
    client.reset()
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        link.send(*[RANDOM] * 1000)
    farm.wait_for_end("client_gone")
    neighbour.send(get(farm.url(1)))
    assert neighbour.read_answer().status == 200


@rows("framing", ["length", "chunked", "close"])
def test_a_slow_reader_slows_its_node_down(farm, framing):
    fields = {"length": f"Content-Length: {256 << 20}", "chunked": "Transfer-Encoding: chunked", "close": "X: y"}
    client, link = started(farm, receive_bytes=4096)
    link.send(answer_head(fields[framing]))
    wire = b"100000\r\n" + RANDOM + b"\r\n" if framing == "chunked" else RANDOM
    taken = link.send_until_stuck(wire, most=256 << 20)
    assert taken < 96 << 20  # what the kernels of both sides hold, and one pipe
    buffered = [client.unsent for client in farm.engine.clients if client.unsent is not None]
    assert sum(map(len, buffered)) <= 256 << 10
    client.read_head()
    got = client.read_exactly(4 << 20)
    assert got[: len(wire)] == wire
    assert farm.counter("clients_open") == 1


def test_a_reader_in_small_steps_gets_everything(farm):
    body = body_of(3 << 20)
    client, link = started(farm, receive_bytes=4096)
    sender = send_in_background(link, ok(body))
    client.read_head()
    got = b"".join(client.read_exactly(min(10_000, len(body) - at)) for at in range(0, len(body), 10_000))
    assert got == body
    sender.join()
    farm.wait_for_end("done")


def test_a_node_in_small_steps_is_followed(farm):
    body = body_of(40_000)
    client, link = started(farm)
    sender = threading.Thread(target=lambda: link.send_slowly(ok(body), step=997))
    sender.start()
    assert client.read_answer().body == body
    sender.join()


def test_answers_of_all_framings_follow_each_other_on_one_connection(farm):
    client, link = started(farm)
    big = body_of(300_000)
    for turn in range(3):
        link.send(ok(b"small"))
        assert client.read_answer().body == b"small", turn
        for answer, body in ((ok(big), big), (answer_head("Transfer-Encoding: chunked") + chunk(big), big)):
            client.send(get(farm.url(0)))
            link.read_head()
            link.send(answer)
            assert client.read_answer().body == body
        client.send(get(farm.url(0), method="HEAD"))
        link.read_head()
        link.send(answer_head("Content-Length: 7"))
        client.read_answer("HEAD")
        client.send(get(farm.url(0)))
        link.read_head()
    link.send(ok())
    assert client.read_answer().body == b""
    assert dechunk(chunk(big)) == big


def test_an_old_client_is_not_told_of_chunks_by_head(farm):
    client, link = started(farm, method="HEAD", version="1.0")
    link.send(answer_head("Transfer-Encoding: chunked"))
    assert b"chunked" not in client.read_head()
    assert client.is_closed()
