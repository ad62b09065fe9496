"""The cache manager's pages, as a worker serves them: who may ask, and what happens if the supervisor does not answer."""

from __future__ import annotations

import pytest
from fakes import get

from cachelb.control import Ask, Report
from cachelb.relay import manager
from cachelb.relay.manager import page_of

rows = pytest.mark.parametrize
INFO = "/squid-internal-mgr/info"


@pytest.fixture
def reporting(farm):
    """A farm whose supervisor knows one page; ``asked``: for which ones it was asked."""
    farm.asked = []

    def answer(ask: Ask) -> bool:
        farm.asked.append(ask.page)
        text = b"all is well\n" if ask.page == b"info" else b""
        farm.engine.loop.call_soon(farm.engine.internal.manager.told, Report(ask.number, text))
        return True

    farm.engine.internal.manager.ask_supervisor = answer
    return farm


@rows("target", [INFO, "http://127.0.0.1:3128" + INFO, "cache_object://localhost/info", "cache_object://[::1]/info@secret"])
@rows("version", ["1.0", "1.1"])
def test_a_page_is_asked_for_in_the_ways_that_squids_clients_have(reporting, target, version):
    client = reporting.connect()
    client.send(get(target, "Host: localhost", version=version))
    answer = client.read_answer()
    assert (answer.status, answer.body) == (200, b"all is well\n")
    assert answer.fields[b"content-type"] == b"text/plain;charset=utf-8"
    assert reporting.asked == [b"info"]
    assert reporting.ended() == {"done": 1}
    assert all(node.is_left_alone() for node in reporting.nodes)


def test_several_pages_come_on_one_connection_in_order(reporting):
    client = reporting.connect()
    client.send(get(INFO, "Host: x") + get("/squid-internal-mgr/nothing", "Host: x") + get(INFO, "Host: x"))
    assert [client.read_answer().status for _ in range(3)] == [200, 404, 200]


def test_head_has_no_body_and_other_methods_are_not_for_pages(reporting):
    client = reporting.connect()
    client.send(get(INFO, "Host: x", method="HEAD"))
    answer = client.read_answer("HEAD")
    assert (answer.status, answer.fields[b"content-length"]) == (200, b"12")
    client.send(get(INFO, "Host: x", "Content-Length: 0", method="POST"))
    answer = client.read_answer()
    assert (answer.status, answer.fields[b"allow"]) == (405, b"GET, HEAD")


@rows("field", ["Via: 1.1 front", "X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "x-FORWARDED-for: 10.0.0.1"])
def test_who_asks_by_way_of_another_proxy_is_refused(reporting, field):
    client = reporting.connect()
    client.send(get(INFO, "Host: x", field))
    assert client.read_answer().status == 403
    assert reporting.asked == []
    assert reporting.ended() == {"manager_denied": 1}


def test_other_networks_are_refused_and_those_that_are_configured_are_not(reporting):
    reporting.apply(access={"manager": ["127.0.0.77/32"]})
    assert reporting.ask(INFO, "Host: x").status == 403
    client = reporting.connect(source="127.0.0.77")
    client.send(get(INFO, "Host: x"))
    assert client.read_answer().status == 200


def test_a_supervisor_that_cannot_be_asked_is_a_503(farm):
    assert farm.ask(INFO, "Host: x").status == 503
    farm.engine.internal.manager.ask_supervisor = lambda ask: False
    assert farm.ask(INFO, "Host: x").status == 503
    assert farm.ended() == {"manager_unavailable": 2}


def test_a_supervisor_that_does_not_answer_is_a_503_in_time(farm, monkeypatch):
    monkeypatch.setattr(manager, "ANSWER_S", 0.05)
    farm.engine.internal.manager.ask_supervisor = lambda ask: True
    assert farm.ask(INFO, "Host: x").status == 503
    assert farm.engine.internal.manager.asked == {}


def test_a_client_that_goes_leaves_nothing_and_a_late_answer_is_nobodys(farm):
    asks = []
    farm.engine.internal.manager.ask_supervisor = lambda ask: asks.append(ask) or True
    client = farm.connect()
    client.send(get(INFO, "Host: x"))
    farm.wait_until(lambda: asks)
    client.reset()
    farm.wait_until(lambda: not farm.engine.internal.manager.asked)
    farm.relay.call(lambda: farm.engine.internal.manager.told(Report(asks[0].number, b"late")))
    assert farm.ended() == {"client_gone": 1}


def test_no_more_are_asked_for_at_a_time_than_is_bearable(farm, monkeypatch):
    monkeypatch.setattr(manager, "ASKED_MAX", 1)
    farm.engine.internal.manager.ask_supervisor = lambda ask: True
    client = farm.connect()
    client.send(get(INFO, "Host: x"))
    farm.wait_until(lambda: farm.engine.internal.manager.asked)
    assert farm.ask(INFO, "Host: x").status == 503
    client.reset()
    farm.wait_until(lambda: not farm.engine.internal.manager.asked)


@rows(
    ("url", "page"),
    [
        (b"http://a.test/squid-internal-mgr/info", b"info"),
        (b"http://a.test/squid-internal-mgr/", b""),
        (b"http://a.test/squid-internal-mgr", b""),
        (b"http://a.test/squid-internal-mgr/5min?x=1", b"5min"),
        (b"cache_object://a.test/counters", b"counters"),
        (b"cache_object://a.test/", b""),
        (b"cache_object://a.test/info@pass", b"info"),
        (b"cache_object://a.test/" + b"x" * 1000, b"x" * 64),
    ],
)
def test_the_name_of_a_page_is_what_is_left_of_the_url(url, page):
    assert page_of(url) == page
