"""What a relay answers for the whole farm: its digest, to Squids that spoil it unless they get it in two parts, and purges."""

from __future__ import annotations

import json
import os
import time
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path

import pytest
from fakes import get, ok, post

from cachelb.control import Purged
from cachelb.handover import Published
from cachelb.relay import internal

rows = pytest.mark.parametrize
PATH = "/squid-internal-periodic/store_digest"
MADE_AT = 1_700_000_000  # past by any clock
LARGE = 5 << 20


def publish(farm, mask=b"mask", made_at=MADE_AT, name="digest-of-a-test"):
    """Give the relay a digest; all of it."""
    body = os.urandom(128) + mask
    fd = os.memfd_create(name)
    with open(fd, "wb", closefd=False) as file:
        file.write(body)
    farm.relay.call(lambda: farm.engine.publish_digest(Published(fd, len(body), made_at, made_at + 300)))
    return body


def ask(host="x.test", *fields, method="GET", version="1.1", path=PATH):
    """A request for the digest in origin form."""
    return get(path, f"Host: {host}", *fields, method=method, version=version)


def fetch(farm, *fields, method="GET"):
    client = farm.connect()
    client.send(ask("x.test", *fields, method=method))
    return client.read_answer(method)


@pytest.fixture
def at_once(make_farm):
    """A farm that sends digests without a pause."""
    return make_farm(digest={"pause_s": 0})


def mapped():
    """How many digests this process has in memory."""
    return Path("/proc/self/maps").read_text().count("memfd:digest-of-a-test")


# -- the digest


def test_the_digest_says_all_that_a_squid_wants_to_know(at_once):
    body = publish(at_once, b"m" * 1000)
    answer = fetch(at_once)
    assert answer.head.startswith(b"HTTP/1.1 200 Cache Digest OK\r\n")
    assert answer.body == body
    assert answer.fields[b"content-type"] == b"application/cache-digest"
    assert answer.fields[b"content-length"] == b"1128"
    assert answer.fields[b"last-modified"].decode() == formatdate(MADE_AT, usegmt=True)
    assert answer.fields[b"expires"].decode() == formatdate(MADE_AT + 300, usegmt=True)
    assert abs(parsedate_to_datetime(answer.fields[b"date"].decode()).timestamp() - time.time()) < 60
    assert answer.fields[b"via"] == f"1.1 {at_once.via} (cachelb)".encode()
    counters = at_once.counters()
    assert (counters["digests_served"], counters["local"], counters["hashed"]) == (1, 1, 0)
    assert counters["bytes_out"] == len(answer.head) + len(body)


def test_it_is_ours_whatever_the_host_and_without_one(at_once):
    body = publish(at_once)
    for request in (ask("a.test"), ask("a.test:25"), ask(""), b"GET %s HTTP/1.0\r\n\r\n" % PATH.encode()):
        client = at_once.connect()
        client.send(request)
        assert client.read_answer().body == body


@rows("host", ["127.0.0.1:{port}", "127.0.0.1:3128", "proxy.test:3128", "PROXY.test:{port}"])
def test_its_full_url_is_ours_where_it_names_us(make_farm, host):
    farm = make_farm(1, listen={"names": ["proxy.test"]}, digest={"pause_s": 0})
    body = publish(farm)
    host = host.format(port=farm.address[1])
    assert farm.ask(f"http://{host}{PATH}").body == body
    assert farm.nodes[0].is_left_alone()


@rows("host", ["127.0.0.2:3128", "proxy.test", "other.test:3128"])
def test_the_digest_of_somebody_else_is_relayed(make_farm, host):
    farm = make_farm(1, listen={"names": ["proxy.test"]})
    publish(farm)
    farm.nodes[0].serve()
    assert farm.ask(f"http://{host}{PATH}").body == f"127.0.0.11 http://{host}{PATH}".encode()


def test_to_head_it_says_the_same_without_a_body(at_once):
    publish(at_once, b"m" * 1000)
    client = at_once.connect()
    client.send(ask(method="HEAD") + ask())
    head, whole = client.read_answer("HEAD"), client.read_answer()
    assert head.head == whole.head
    assert at_once.counter("digests_served") == 1


@rows(
    ("fields", "status"),
    [
        ([], 200),
        ([f"If-Modified-Since: {formatdate(MADE_AT, usegmt=True)}"], 304),
        ([f"if-modified-since:{formatdate(MADE_AT + 999, usegmt=True)}"], 304),
        ([f"If-Modified-Since: {formatdate(MADE_AT - 1, usegmt=True)}"], 200),
        (["If-Modified-Since: yesterday"], 200),
        (["If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT"], 200),  # of a clock that was wrong then, or is now
        (["If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT", "If-None-Match: *"], 200),
        (["If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT"] * 2, 200),
    ],
)
def test_only_who_asks_for_it_is_told_that_it_is_not_newer(at_once, fields, status):
    body = publish(at_once)
    client = at_once.connect()
    client.send(ask("x.test", *fields))
    answer = client.read_answer()
    assert (answer.status, answer.body) == (status, body if status == 200 else b"")
    client.send(ask())
    assert client.read_answer().body == body


def test_of_two_digests_within_a_second_the_second_is_sent_to_who_has_the_first(at_once):
    publish(at_once, b"m" * 1000)
    first = fetch(at_once).fields[b"last-modified"].decode()
    body = publish(at_once, b"n" * 1000)
    client = at_once.connect()
    client.send(ask("x.test", f"If-Modified-Since: {first}"))
    answer = client.read_answer()
    assert (answer.status, answer.body) == (200, body)
    client.send(ask("x.test", f"If-Modified-Since: {answer.fields[b'last-modified'].decode()}"))
    assert client.read_answer().status == 304


@rows(("method", "status"), [("POST", 405), ("PUT", 405), ("PURGE", 405), ("DELETE", 405)])
def test_a_digest_can_only_be_read(at_once, method, status):
    publish(at_once)
    answer = fetch(at_once, "Content-Length: 0", method=method)
    assert (answer.status, answer.fields[b"allow"]) == (status, b"GET, HEAD")


@rows(
    "path",
    [PATH, PATH + "?x", PATH + "/", "/squid-internal-dynamic/netdb", "/squid-internal-static/x"],
)
def test_pages_that_are_not_there_are_not_found_and_nobody_is_told(farm, caplog, path):
    if path != PATH:
        publish(farm)
    caplog.set_level("DEBUG")
    client = farm.connect()
    client.send(ask(path=path))
    answer = client.read_answer()
    assert answer.status == 404
    assert answer.fields[b"content-type"] == b"text/plain"
    assert farm.ended() == {"done": 1}
    assert all(node.is_left_alone() for node in farm.nodes)
    assert caplog.records == []


def test_who_may_not_use_the_director_gets_no_digest(make_farm):
    farm = make_farm(access={"allow": ["10.0.0.0/8"]})
    publish(farm)
    assert fetch(farm).status == 403


@rows(
    ("request_", "connection"),
    [
        (ask(), None),
        (ask("x", "Connection: close"), b"close"),
        (ask(version="1.0"), b"close"),
        (ask("x", "Connection: keep-alive", version="1.0"), b"keep-alive"),
    ],
)
@rows("pause_s", [0, 0.01])
def test_the_connection_goes_on_as_the_client_wants(make_farm, request_, connection, pause_s):
    farm = make_farm(digest={"pause_s": pause_s})
    body = publish(farm, b"m" * 100_000)
    client = farm.connect()
    for _ in range(2):
        client.send(request_)
        answer = client.read_answer()
        assert answer.body == body
        assert answer.fields.get(b"connection") == connection
        if connection == b"close":
            assert client.is_closed()
            return


# -- Squid's bug 5510


def test_the_control_block_comes_alone(make_farm):
    farm = make_farm(digest={"pause_s": 5.0})
    body = publish(farm, b"m" * 50_000)
    client = farm.connect()
    client.send(ask())
    head, _, first = client.sock.recv(1 << 20).partition(b"\r\n\r\n")
    assert b"Content-Length: 50128" in head
    assert first == body[:128]
    assert client.is_quiet()


def test_the_mask_comes_after_the_pause(make_farm):
    farm = make_farm(digest={"pause_s": 0.1})
    body = publish(farm, b"m" * 50_000)
    began = time.monotonic()
    assert fetch(farm).body == body
    assert time.monotonic() - began >= 0.1
    farm.wait_until(lambda: farm.counter("digests_served") == 1)


def test_a_pause_holds_nobody_else_up(make_farm):
    farm = make_farm(digest={"pause_s": 5.0})
    farm.nodes[0].serve()
    publish(farm)
    paused = [farm.connect() for _ in range(50)]
    for client in paused:
        client.send(ask())
        client.read_head()
    began = time.monotonic()
    assert farm.ask(farm.url(0)).status == 200
    assert time.monotonic() - began < 2.0


def test_requests_before_and_after_it_on_one_connection_are_answered_in_order(make_farm):
    farm = make_farm(digest={"pause_s": 0.02})
    farm.nodes[0].serve()
    body = publish(farm, b"m" * 300_000)
    client = farm.connect()
    urls = [farm.url(0) for _ in range(3)]
    client.send(get(urls[0]) + ask() + get(urls[1]) + ask() + ask(method="HEAD") + get(urls[2]))
    assert client.read_answer().body.endswith(urls[0].encode())
    assert client.read_answer().body == body
    assert client.read_answer().body.endswith(urls[1].encode())
    assert client.read_answer().body == body
    assert client.read_answer("HEAD").status == 200
    assert client.read_answer().body.endswith(urls[2].encode())


def test_a_client_that_says_no_more_is_still_answered(make_farm):
    farm = make_farm(digest={"pause_s": 0.02})
    body = publish(farm)
    client = farm.connect()
    client.send(ask())
    client.half_close()
    assert client.read_answer().body == body
    assert client.is_closed()


def test_a_client_that_goes_during_the_pause_leaves_nothing_behind(make_farm):
    farm = make_farm(digest={"pause_s": 5.0})
    publish(farm)
    before = mapped()
    client = farm.connect()
    client.send(ask())
    head = client.read_head()
    client.reset()
    farm.wait_for_end("client_gone")
    publish(farm)
    farm.wait_until(lambda: mapped() == before)  # the old one is held by nothing any more
    assert farm.counter("digests_served") == 0
    assert farm.counter("bytes_out") == len(head) + 128


def test_a_drain_lets_a_paused_digest_be_finished(make_farm):
    farm = make_farm(digest={"pause_s": 0.2})
    body = publish(farm, b"m" * 100_000)
    client = farm.connect()
    client.send(ask())
    client.read_until(body[:128])
    assert farm.drain(5.0) == 0
    assert client.read_exactly(100_000) == body[128:]
    assert client.is_closed()


def test_a_drain_that_is_over_cuts_it(make_farm):
    farm = make_farm(digest={"pause_s": 5.0})
    publish(farm)
    client = farm.connect()
    client.send(ask())
    client.read_head()
    assert farm.drain(0.02) == 1
    assert client.is_cut()


def test_an_idle_limit_shorter_than_the_pause_cuts_nobody(make_farm):
    farm = make_farm(digest={"pause_s": 0.2}, timeouts={"idle_body_s": 0.05})
    body = publish(farm)
    assert fetch(farm).body == body


def test_what_a_peers_kernel_does_not_have_yet_is_waited_for_but_not_for_ever(make_farm, monkeypatch):
    farm = make_farm(digest={"pause_s": 0.001})
    body = publish(farm)
    monkeypatch.setattr(internal, "ACKNOWLEDGED_S", 0.1)
    monkeypatch.setattr(internal, "_unacknowledged", lambda fd: True)
    began = time.monotonic()
    assert fetch(farm).body == body
    assert time.monotonic() - began >= 0.1


# -- large digests


@rows("pause_s", [0, 0.01])
def test_a_client_that_reads_slowly_gets_every_byte(make_farm, pause_s):
    farm = make_farm(digest={"pause_s": pause_s})
    body = publish(farm, os.urandom(LARGE))
    client = farm.connect(receive_bytes=4096)
    client.send(ask())
    assert client.read_answer().body == body
    assert farm.counter("bytes_out") > len(body)


def test_a_client_that_does_not_read_is_given_up_and_what_it_did_not_take_not_counted(make_farm):
    farm = make_farm(digest={"pause_s": 0.001}, timeouts={"idle_body_s": 0.1})
    publish(farm, bytes(4 * LARGE))
    client = farm.connect(receive_bytes=4096)
    client.send(ask())
    farm.wait_for_end("client_stalled")
    assert client.is_cut()
    counters = farm.counters()
    assert counters["digests_served"] == 0
    assert counters["bytes_out"] < 3 * LARGE


def test_a_new_digest_is_for_new_requests_and_the_old_one_stays_until_it_is_out(at_once):
    before = mapped()
    old = publish(at_once, os.urandom(2 * LARGE))
    client = at_once.connect(receive_bytes=4096)
    client.send(ask())
    head = client.read_head()
    new = publish(at_once, b"new", made_at=MADE_AT + 300)
    assert fetch(at_once).body == new
    assert mapped() == before + 2
    assert b"Content-Length: %d\r\n" % len(old) in head
    assert client.read_exactly(len(old)) == old
    client.send(ask())
    assert client.read_answer().body == new
    at_once.wait_until(lambda: mapped() == before + 1)


@rows("size", [0, 127, 10**6])
def test_a_digest_that_cannot_be_is_not_taken(at_once, size):
    body = publish(at_once)
    fd = os.memfd_create("short")
    os.write(fd, bytes(200))
    with pytest.raises(ValueError, match=r"digest|length"):
        at_once.relay.call(lambda: at_once.engine.publish_digest(Published(fd, size, 1, 2)))
    assert fetch(at_once).body == body


# -- the access log


@pytest.fixture
def logged(make_farm, tmp_path):
    """A farm with an access log, and a function that waits for so many lines of it."""
    path = tmp_path / "access.log"
    farm = make_farm(log={"access": str(path)}, access={"purge": ["127.0.0.1"]}, digest={"pause_s": 0.001})

    def lines(count):
        farm.wait_until(lambda: path.exists() and path.read_text().count("\n") >= count, f"{count} lines")
        return [line.split() for line in path.read_text().splitlines()]

    return farm, lines


def test_digests_and_purges_are_logged_as_squid_logs_its_own(logged):
    farm, lines = logged
    publish(farm, b"m" * 1000)
    answer_purges(farm, asked=2, confirmed=2, found=0)
    client = farm.connect()
    client.send(ask("a.test") + get("http://a.test/x", method="PURGE") + ask(path="/squid-internal-x") + b"nonsense\r\n\r\n")
    head = client.read_answer().head
    client.read_to_end()
    found = [[line[3], *line[4:7], line[8], line[9]] for line in lines(4)]
    digest, purge, page, nonsense = found
    size = str(len(head) + 1128)
    assert digest == ["TCP_MISS/200", size, "GET", f"http://a.test{PATH}", "HIER_NONE/-", "application/cache-digest"]
    assert [purge[0], *purge[2:]] == ["TCP_MISS/404", "PURGE", "http://a.test/x", "HIER_NONE/-", "text/plain"]
    assert page[0] == "NONE_NONE/404"
    assert nonsense[0] == "NONE_NONE/400"


# -- purges


def answer_purges(farm, **counts):
    """Play the supervisor that answers every purge at once; the list of what it was asked."""
    asked = []

    def answer(purge):
        asked.append(purge)
        farm.engine.loop.call_soon(farm.engine.purged, Purged(purge.number, **counts))
        return True

    farm.engine.ask_purge = answer
    return asked


def keep_purges(farm):
    """Play a supervisor that says nothing; the list of what it was asked."""
    asked = []

    def keep(purge):
        asked.append(purge)
        return True

    farm.engine.ask_purge = keep
    return asked


def tell(farm, purge, *counts):
    """Tell what has become of a purge."""
    farm.relay.call(lambda: farm.engine.purged(Purged(purge.number, *counts)))


@pytest.fixture
def purging(make_farm):
    """A farm of which the client may purge."""
    return make_farm(access={"purge": ["127.0.0.1"]})


@rows(
    ("counts", "status"),
    [
        ((2, 2, 1), 200),
        ((2, 2, 0), 404),
        ((2, 1, 1, ("cache2 has not confirmed",)), 502),
        ((2, 0, 0), 502),
        ((0, 0, 0, ("there is no node in service",)), 502),
        ((1, 1, 1, ("cache2 is dead: will be purged when it is back",)), 200),
        ((1, 1, 0, ("cache2 is dead: will be purged when it is back",)), 404),
    ],
)
@rows("as_json", [False, True])
def test_a_purge_is_told_what_became_of_it(purging, counts, status, as_json):
    answer_purges(purging, **dict(zip(Purged._fields[1:], counts, strict=False)))
    fields = ["Accept: text/html, application/json;q=0.9"] if as_json else ["Accept: */*"]
    answer = purging.ask("http://a.test/x", *fields, method="PURGE")
    assert answer.status == status
    if as_json:
        assert json.loads(answer.body)["confirmed"] == counts[1]
    else:
        assert answer.body.startswith(b"purged from %d of %d nodes\n" % (counts[1], counts[0]))
        assert answer.body.decode().splitlines()[2:] == list(*counts[3:])
    assert purging.ended() == {"purge_incomplete" if status == 502 else "done": 1}
    assert purging.counter("purges") == 1


def test_the_url_is_canonical_and_the_fields_are_those_that_a_vary_may_name(purging):
    asked = answer_purges(purging, asked=1, confirmed=1, found=1)
    client = purging.connect()
    client.send(
        get(
            "HTTP://A.test:80", "Accept-Encoding: gzip", "Cookie: a=b", "Connection: X-Hop", "X-Hop: 1", "TE: trailers",
            "Content-Type: x", "Content-Length: 0", "Via: 1.1 other", "X-Forwarded-For: 1.2.3.4", "Proxy-Authorization: x",
            "Keep-Alive: 5", "Accept-Language: de", method="PURGE",
        )
    )  # fmt: skip
    assert client.read_answer().status == 200
    client.send(get("/y?z", "Host: B.test", method="PURGE"))
    assert client.read_answer().status == 200
    first, second = asked
    assert first.url == b"http://a.test/"
    assert first.fields == b"Accept-Encoding: gzip\r\nCookie: a=b\r\nAccept-Language: de\r\n"
    assert second[1:] == (b"http://b.test/y?z", b"")


@rows("mode", ["direct", "nodes", "off"])
@rows("purge", [[], ["127.0.0.2"]])
def test_who_may_not_purge_is_refused_and_nobody_is_asked(make_farm, mode, purge):
    farm = make_farm(bypass={"mode": mode}, access={"purge": purge})
    asked = keep_purges(farm)
    answer = farm.ask(farm.origin_url(), method="PURGE")
    assert answer.status == 403
    assert b"[access] purge" in answer.body
    assert farm.ended() == {"purge_denied": 1}
    assert asked == []
    assert farm.origin.is_left_alone()
    assert all(node.is_left_alone() for node in farm.nodes)


def test_a_reload_changes_at_once_who_may_purge(purging):
    answer_purges(purging, asked=1, confirmed=1, found=1)
    client = purging.connect()
    for networks, status in ((["127.0.0.0/8"], 200), ([], 403), (["127.0.0.1"], 200), (["10.0.0.1"], 403)):
        purging.apply(access={"purge": networks})
        client.send(get("http://a.test/x", method="PURGE"))
        assert client.read_answer().status == status


def test_who_may_purge_need_not_be_let_use_the_caches(make_farm):
    farm = make_farm(access={"allow": ["10.0.0.0/8"], "purge": ["127.0.0.1"]})
    answer_purges(farm, asked=1, confirmed=1, found=1)
    publish(farm)
    assert farm.ask("http://a.test/x", method="PURGE").status == 200
    assert farm.ask("http://a.test/x").status == 403
    assert fetch(farm).status == 403
    farm.apply(access={"allow": ["10.0.0.0/8"]})
    assert farm.ask("http://a.test/x", method="PURGE").status == 403
    assert farm.ended()["access_denied"] == 3


def test_without_an_answer_in_time_it_is_a_timeout_and_a_late_one_is_for_nobody(purging, monkeypatch):
    monkeypatch.setattr(internal, "PURGE_S", 0.05)
    asked = keep_purges(purging)
    client = purging.connect()
    client.send(get("http://a.test/x", method="PURGE"))
    assert client.read_answer().status == 504
    assert purging.ended() == {"purge_timeout": 1}
    monkeypatch.setattr(internal, "PURGE_S", 60.0)
    client.send(get("http://a.test/y", method="PURGE"))
    purging.wait_until(lambda: len(asked) == 2)
    tell(purging, asked[0], 1, 1, 1)
    assert client.is_quiet()
    tell(purging, asked[1], 1, 1, 0)
    assert client.read_answer().status == 404
    tell(purging, asked[1], 1, 1, 0)


@rows("supervisor", [None, lambda purge: False])
def test_without_a_supervisor_that_takes_it_it_is_unavailable(purging, supervisor):
    purging.engine.ask_purge = supervisor
    client = purging.connect()
    for _ in range(2):
        client.send(get("http://a.test/x", method="PURGE"))
        answer = client.read_answer()
        assert answer.status == 503
        assert int(answer.fields[b"retry-after"]) > 0
    assert purging.ended() == {"purge_unavailable": 2}


def test_so_many_purges_at_a_time_and_no_more(purging, monkeypatch):
    monkeypatch.setattr(internal, "PURGES_MAX", 3)
    asked = keep_purges(purging)
    clients = [purging.connect() for _ in range(4)]
    for client in clients[:3]:
        client.send(get("http://a.test/x", method="PURGE"))
    purging.wait_until(lambda: len(asked) == 3)
    clients[3].send(get("http://a.test/x", method="PURGE"))
    assert clients[3].read_answer().status == 503
    assert len({purge.number for purge in asked}) == 3
    for purge in reversed(asked):
        tell(purging, purge, 1, 1, purge.number == asked[1].number)
    assert sorted(client.read_answer().status for client in clients[:3]) == [200, 404, 404]
    clients[3].send(get("http://a.test/x", method="PURGE"))
    purging.wait_until(lambda: len(asked) == 4)
    clients[3].reset()


def test_an_answer_for_a_worker_that_has_died_fits_no_purge_of_the_next(make_farm):
    asked = []
    for _ in range(2):
        farm = make_farm(access={"purge": ["127.0.0.1"]})
        asked.append(answer_purges(farm, asked=1, confirmed=1, found=1))
        for _ in range(5):
            farm.ask("http://a.test/x", method="PURGE")
    first, second = ({purge.number for purge in purges} for purges in asked)
    assert not first & second


def test_a_client_that_goes_is_forgotten(purging):
    asked = keep_purges(purging)
    client = purging.connect()
    client.send(get("http://a.test/x", method="PURGE"))
    purging.wait_until(lambda: asked)
    client.reset()
    purging.wait_for_end("client_gone")
    assert not purging.relay.leaks()["purges"]
    tell(purging, asked[0], 1, 1, 1)


def test_purges_and_pages_on_one_connection_are_answered_in_order(purging):
    purging.nodes[0].serve()
    answer_purges(purging, asked=1, confirmed=1, found=1)
    url = purging.url(0)
    client = purging.connect()
    client.send((get(url) + get(url, method="PURGE")) * 3)
    for _ in range(3):
        assert client.read_answer().body.startswith(b"127.0.0.11 ")
        assert client.read_answer().body.startswith(b"purged from 1 of 1 ")


def test_a_supervisor_may_answer_before_it_has_taken_the_question(purging):
    def answer(purge):
        purging.engine.purged(Purged(purge.number, 1, 1, 1))
        return True

    purging.engine.ask_purge = answer
    assert purging.ask("http://a.test/x", method="PURGE").status == 200
    assert purging.ended() == {"done": 1}


def test_the_body_of_a_purge_is_not_the_next_request(purging):
    answer_purges(purging, asked=1, confirmed=1, found=1)
    client = purging.connect()
    client.send(post("http://a.test/x", get("http://a.test/evil", method="PURGE"), method="PURGE"))
    answer = client.read_answer()
    assert (answer.status, answer.fields[b"connection"]) == (200, b"close")
    assert client.is_closed()
    assert purging.counter("purges") == 1


def test_old_clients_and_those_that_close_can_purge(purging):
    answer_purges(purging, asked=1, confirmed=1, found=1)
    for request in (
        get("http://a.test/x", method="PURGE", version="1.0"),
        get("http://a.test/x", "Connection: close", method="PURGE"),
    ):
        client = purging.connect()
        client.send(request)
        assert client.read_answer().status == 200
        assert client.is_closed()


def test_a_purge_is_waited_for_while_draining_and_cut_when_that_is_over(make_farm):
    farm = make_farm(access={"purge": ["127.0.0.1"]})
    asked = keep_purges(farm)
    client = farm.connect()
    client.send(get("http://a.test/x", method="PURGE"))
    farm.wait_until(lambda: asked)
    assert farm.drain(0.05) == 1
    assert client.read_answer().status == 503


def test_a_purge_in_a_loop_is_refused(purging):
    keep_purges(purging)
    assert purging.ask("http://a.test/x", f"Via: 1.1 {purging.via}", method="PURGE").status == 508


def test_a_node_that_dies_does_not_disturb_a_purge(purging):
    asked = keep_purges(purging)
    client = purging.connect()
    client.send(get(purging.url(0), method="PURGE"))
    purging.wait_until(lambda: asked)
    purging.declare(0, "dead")
    tell(purging, asked[0], 2, 2, 1)
    assert client.read_answer().status == 200


def test_the_answer_of_a_node_to_the_next_request_is_not_taken_for_ours(purging):
    """A request after a purge on the same connection has nothing of it."""
    purging.nodes[0].serve(ok(b"page"))
    answer_purges(purging, asked=1, confirmed=1, found=1)
    client = purging.connect()
    client.send(get("http://a.test/x", method="PURGE"))
    assert client.read_answer().status == 200
    client.send(get(purging.url(0)))
    assert client.read_answer().body == b"page"
