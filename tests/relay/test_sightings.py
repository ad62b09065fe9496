"""What the relay tells about the nodes' stores, from the answers that it relays."""

from __future__ import annotations

import email.utils
import socket
import time

import pytest
from fakes import PATIENCE_S, answer_head, chunk, get, ok, post

from cachelb.cluster.index import LATE_S
from cachelb.http.freshness import VARY_MARKER_S
from cachelb.relay import sightings

rows = pytest.mark.parametrize
MISS, HIT = "X-Cache: MISS from n", "X-Cache: HIT from n"
FRESH = "Cache-Control: max-age=600"


def date(offset_s: float = 0) -> str:
    return "Date: " + email.utils.formatdate(time.time() + offset_s, usegmt=True)


class Ear:
    """Hears what a farm's relay tells.  batches: as they came."""

    def __init__(self, farm):
        self.farm = farm
        self.batches = []
        self._answers = {}
        farm.relay.call(lambda: setattr(farm.engine, "tell_seen", self.batches.append))

    def serve(self, node, answer):
        """What a node says from now on."""
        if node not in self._answers:
            self.farm.nodes[node].serve(lambda _: self._answers[node])
        self._answers[node] = answer

    def told(self):
        """Everything told so far: slot, URL, and for how many seconds it is fresh; 0 where the node does not have it."""
        self.farm.relay.call(self.farm.engine.sightings.flush)
        now = time.time()
        return [(seen.slot, seen.url.decode(), seen.expires and seen.expires - now) for each in self.batches for seen in each]

    def clear(self):
        self.told()
        self.batches.clear()


@pytest.fixture
def ear(farm):
    return Ear(farm)


def about(seconds):
    return pytest.approx(seconds, abs=3)


def tell(ear, *fields, url="", status="200 OK", body=b"x" * 9, method="GET", request=()):
    """One request to node 0, answered so; what was told."""
    farm = ear.farm
    ear.serve(0, ok(body if method == "GET" else b"", *fields, status=status))
    url = url or farm.url(0)
    assert farm.ask(url, *request, method=method).status == int(status[:3])
    told = ear.told()
    assert all(seen[:2] == (0, url) for seen in told)
    return [seen[2] for seen in told]


# -- what one answer tells


@rows(
    ("fields", "left"),
    [
        ((HIT, FRESH, "Age: 100"), 500),
        ((HIT, FRESH, "Age: 599"), 1),
        ((HIT, FRESH, "Vary: Accept", "Age: 100"), VARY_MARKER_S - 100),
        (("Cache-Status: n;hit", FRESH, "Age: 100"), 500),
        ((MISS, FRESH), 600),
        ((MISS, FRESH, "Age: 100"), 500),
        (("Cache-Status: n;fwd=miss", FRESH), 600),
        ((MISS,), 0),
        ((FRESH,), 600),
    ],
)
def test_a_node_that_has_a_url_has_it_for_so_long(ear, fields, left):
    assert tell(ear, date(), *fields) == [about(left)]


@rows("fields", [(MISS, "Cache-Control: private"), (MISS, FRESH, "Vary: *"), (MISS, "Cache-Control: no-store"), ("Vary: *",)])
def test_a_miss_that_is_not_stored_says_that_the_node_does_not_have_it(ear, fields):
    assert tell(ear, date(), *fields) == [0]
    assert ear.batches[0][0].expires == 0


@rows("status", ["404 Not Found", "302 Found", "303 See Other", "403 Forbidden", "206 Partial Content", "502 Bad Gateway"])
def test_so_do_misses_that_are_no_whole_objects(ear, status):
    assert tell(ear, MISS, status=status) == [0]
    assert ear.batches[0][0].expires == 0


@rows("field", ["Cache-Control: no-cache", "cache-control: x, max-age=0", "Pragma: no-cache"])
def test_who_insists_on_the_origin_does_not_learn_what_the_node_has(ear, field):
    assert tell(ear, MISS, status="502 Bad Gateway", request=(field,)) == []
    assert tell(ear, MISS, status="404 Not Found", request=(field,)) == [0]  # but here Squid drops what it had


@rows("status", ["403 Forbidden", "503 Service Unavailable", "504 Gateway Timeout"])
def test_a_page_of_the_nodes_own_says_nothing(ear, status):
    assert tell(ear, MISS, "X-Squid-Error: ERR_X 0", status=status) == []


@rows("status", ["206 Partial Content", "304 Not Modified"])
def test_a_part_and_a_304_that_are_hits_tell_of_the_whole(ear, status):
    assert tell(ear, date(), HIT, FRESH, "Age: 100", status=status, body=b"", request=("Range: bytes=0-9",)) == [about(500)]


@rows("status", ["502 Bad Gateway", "304 Not Modified", "206 Partial Content"])
def test_without_word_of_hit_or_miss_others_say_nothing(ear, status):
    assert tell(ear, FRESH, status=status, body=b"") == []


def test_a_head_that_is_a_hit_may_be_one_of_an_object_that_nobody_asks_for(ear):
    assert tell(ear, date(), HIT, FRESH, method="HEAD") == []


def test_a_head_that_is_a_miss_drops_the_object(ear):
    assert tell(ear, date(), MISS, FRESH, method="HEAD") == [0]
    assert ear.batches[0][0].expires == 0


def test_the_time_that_the_origin_took_is_subtracted(ear):
    farm = ear.farm
    farm.relay.call(lambda: setattr(farm.engine.poller, "clock", lambda: time.monotonic() - 50))
    client = farm.connect()
    client.send(get(farm.url(0)))
    link = farm.nodes[0].accept()
    link.read_head()
    farm.relay.call(lambda: setattr(farm.engine.poller, "clock", time.monotonic))
    link.send(ok(b"x", date(), MISS, FRESH))
    client.read_answer()
    assert [seen[2] for seen in ear.told()] == [about(550)]


# -- who is told of


def test_requests_that_are_not_hashed_say_nothing(make_farm):
    farm = make_farm(bypass={"mode": "nodes"})
    ear = Ear(farm)
    for node in farm.nodes:
        node.serve(ok(b"", MISS, FRESH))
    farm.ask(farm.url(0), method="POST")
    farm.ask(farm.url(0), "Authorization: Basic eDp5")
    client = farm.connect()
    client.send(post(farm.url(0), b"abc"))
    client.read_answer()
    assert ear.told() == []


def test_an_origin_says_nothing(ear):
    farm = ear.farm
    farm.origin.serve(ok(b"x", MISS, FRESH))
    farm.ask(farm.origin_url(), "Authorization: Basic eDp5")
    assert ear.told() == []


def test_it_is_the_node_that_answered(ear):
    farm = ear.farm
    farm.nodes[0].refuse()
    farm.nodes[2].serve(ok(b"x", date(), MISS, FRESH))
    url = farm.url(0, 2)
    farm.ask(url)
    assert ear.told() == [(2, url, about(600))]


def test_a_url_too_long_for_icp_is_not_told(ear):
    farm = ear.farm
    for length, told in ((sightings.URL_BYTES_MAX, 1), (sightings.URL_BYTES_MAX + 1, 0)):
        url = farm.url(0)
        while len(url) < length or farm.owners(url)[0]:
            url = farm.url(0) + "/" + "x" * (length - len(url) - 1)
            url += "y" * (length - len(url))
        assert len(tell(ear, date(), HIT, FRESH, url=url)) == told
        ear.clear()


# -- how often


def test_a_hit_is_told_again_only_after_a_while(ear):
    farm, url = ear.farm, ear.farm.url(0)
    assert tell(ear, date(), HIT, FRESH, url=url) == [about(600)]
    ear.clear()
    assert tell(ear, date(), HIT, FRESH, url=url) == []
    farm.relay.call(lambda: setattr(farm.engine, "clock", lambda: time.monotonic() + sightings.AGAIN_S + 1))
    farm.wait_until(lambda: farm.engine.now > time.monotonic() + sightings.AGAIN_S)
    assert tell(ear, date(), HIT, FRESH, url=url) == [about(600)]


def test_a_miss_that_is_stored_is_told_always(ear):
    url = ear.farm.url(0)
    for _ in range(3):
        assert tell(ear, date(), MISS, FRESH, url=url) == [about(600)]
        ear.clear()


def test_what_was_stored_just_now_is_told_again_with_its_first_hit_after_some_seconds(ear):
    farm, url = ear.farm, ear.farm.url(0)
    tell(ear, date(), MISS, FRESH, url=url)
    ear.clear()
    assert tell(ear, date(), HIT, FRESH, url=url) == []
    later = sightings.STORED_AGAIN_S + 1
    assert 2 * LATE_S < later < sightings.AGAIN_S  # the index does not believe the first if the URL was purged just now
    farm.relay.call(lambda: setattr(farm.engine, "clock", lambda: time.monotonic() + later))
    farm.wait_until(lambda: farm.engine.now > time.monotonic() + later - 1)
    assert tell(ear, date(), HIT, FRESH, url=url) == [about(600)]
    ear.clear()
    assert tell(ear, date(), HIT, FRESH, url=url) == []


@rows("fields", [(MISS,), (MISS, "Cache-Control: no-store, max-age=600"), (MISS, "Cache-Control: max-age=20")])
def test_misses_with_nothing_fresh_are_told_once_a_minute(make_farm, fields):
    farm = make_farm(bypass={"learn": False})
    ear, url = Ear(farm), farm.url(0)
    assert len(tell(ear, date(), *fields, url=url)) == 1
    ear.clear()
    assert tell(ear, date(), *fields, url=url) == []
    assert tell(ear, date(), MISS, FRESH, url=url) == [about(600)]
    ear.clear()
    assert len(tell(ear, date(), *fields, url=url)) == 1  # that it was stored meanwhile is no longer true


def test_a_hit_after_such_a_miss_is_told_at_once(ear):
    url = ear.farm.url(0)
    tell(ear, MISS, url=url)
    ear.clear()
    assert tell(ear, date(), HIT, FRESH, url=url) == [about(600)]


def test_a_hit_after_a_miss_after_a_hit_is_told_at_once(ear):
    url = ear.farm.url(0)
    for fields in ((HIT, FRESH), (MISS, "X: y"), (HIT, FRESH)):
        ear.clear()
        assert len(tell(ear, date(), *fields, url=url)) == 1


def test_an_answer_that_does_not_say_whether_it_is_a_hit_is_told_as_often_as_a_hit(ear):
    url = ear.farm.url(0)
    assert tell(ear, date(), FRESH, url=url) == [about(600)]
    ear.clear()
    assert tell(ear, date(), FRESH, url=url) == []


def test_another_node_that_answers_is_told_of_at_once(ear):
    farm = ear.farm
    url = farm.url(0, 2)
    tell(ear, date(), HIT, FRESH, "Connection: close", url=url)
    ear.clear()
    farm.nodes[0].refuse()
    ear.serve(2, ok(b"x", date(), HIT, FRESH))
    farm.ask(url)
    assert ear.told() == [(2, url, about(600))]


# -- bodies that do not arrive


def begin(ear, *fields, body=b"x" * 100):
    """A client and the node's connection, with the answer's head and part of its body on the way."""
    farm = ear.farm
    client = farm.connect()
    url = farm.url(0)
    client.send(get(url))
    link = farm.nodes[0].accept()
    link.read_head()
    link.send(answer_head(date(), *fields) + body)
    client.read_head()
    farm.wait_until(lambda: len(ear.told()) == 1)
    return client, link, url


@rows("length", ["Content-Length: 1000000", "Transfer-Encoding: chunked", "X: until-close"])
@rows("end", ["node", "client"])
def test_a_miss_whose_body_breaks_is_taken_back(ear, length, end):
    client, link, url = begin(ear, MISS, FRESH, length, body=chunk(b"x" * 100)[:50])
    assert ear.told() == [(0, url, about(600))]
    (link if end == "node" else client).reset()
    ear.farm.wait_until(lambda: ear.told()[1:] == [(0, url, 0)])


def test_a_hit_whose_body_breaks_is_not(ear):
    client, link, _ = begin(ear, HIT, FRESH, "Content-Length: 1000")
    link.reset()
    assert client.is_cut()
    assert len(ear.told()) == 1


def test_nor_is_a_miss_that_was_not_told_to_be_stored(ear):
    client, link, _ = begin(ear, MISS, "Cache-Control: private", "Content-Length: 1000")
    link.reset()
    assert client.is_cut()
    assert len(ear.told()) == 1


def test_nor_is_a_miss_that_the_node_has_given_whole(ear):
    farm = ear.farm
    client = farm.connect(receive_bytes=4096)
    client.send(get(farm.url(0)))
    link = farm.nodes[0].accept()
    link.read_head()
    (served,) = farm.engine.clients
    served.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    link.send(answer_head(date(), MISS, FRESH, "Transfer-Encoding: chunked"))
    client.read_head()
    link.send(chunk(b"x" * 60000))
    farm.wait_until(lambda: served.unsent is not None and served.exchange.download.has_all())
    client.reset()
    farm.wait_for_end("client_gone")
    assert len(ear.told()) == 1


# -- limits


@pytest.mark.sources
@rows("limit", ["SEEN_PER_TICK", "BYTES_PER_TICK"])
def test_what_is_too_much_for_one_tick_is_counted_and_dropped(ear, monkeypatch, limit):
    farm = ear.farm
    ear.serve(0, ok(b"x", date(), MISS, FRESH))
    with monkeypatch.context() as patch:
        patch.setattr(farm.engine.sightings, "flush", lambda: None)  # no tick
        patch.setattr(sightings, limit, 2 if limit == "SEEN_PER_TICK" else 2 * len(farm.url(0)) - 1)
        for _ in range(5):
            farm.ask(farm.url(0))
        assert farm.counter("sightings_dropped") == 3
    farm.relay.call(farm.engine.sightings.flush)
    farm.ask(farm.url(0))
    assert len(ear.told()) == 3
    assert farm.counter("sightings_dropped") == 3


def test_with_nobody_listening_nothing_is_kept(farm):
    farm.nodes[0].serve(ok(b"x", date(), MISS, FRESH))
    farm.ask(farm.url(0))
    assert farm.engine.sightings.seen == []


def test_what_was_seen_last_is_told_before_the_end(ear):
    farm = ear.farm
    farm.nodes[0].serve(ok(b"x", date(), MISS, FRESH))
    with farm.held():
        client = farm.connect()
        client.send(get(farm.url(0), "Connection: close"))
    client.read_answer()
    farm.drain(PATIENCE_S)
    assert sum(len(each) for each in ear.batches) == 1
