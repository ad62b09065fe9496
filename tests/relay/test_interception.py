from __future__ import annotations

import pytest

from cachelb.errors import BadRequest
from cachelb.relay import interception
from cachelb.relay.interception import Place, refusal


def test_a_place_is_as_urls_have_it():
    assert Place("10.0.0.1", 80).authority == b"10.0.0.1"
    assert Place("fd00::1", 8080).authority == b"[fd00::1]:8080"


@pytest.mark.parametrize(
    ("host", "what"),
    [
        ("127.0.0.1", "a loopback address"),
        ("0.0.0.0", "the unspecified address"),
        ("224.0.0.1", "a multicast address"),
        ("169.254.169.254", "a link-local address"),
        ("fe80::1", "a link-local address"),
    ],
)
def test_where_no_client_can_have_been_routed_to_is_refused(host: str, what: str):
    assert refusal(Place(host, 80)) == f"{host} is {what}"


def test_private_addresses_are_what_the_routes_of_this_host_let_through():
    assert refusal(Place("10.255.255.77", 80)) == ""


def test_a_host_is_believed_for_a_while_and_doubted_for_less(farm):
    place = Place("127.0.0.9", 80)

    def ask(host: bytes) -> bytes | None:
        return farm.relay.call(lambda: farm.engine.interception.authority(host, place))

    assert ask(b"127.0.0.9") == b"127.0.0.9"
    assert ask(b"127.0.0.8") == b""
    assert ask(b"127.0.0.9:81") == b""
    assert ask(b"no-name-here.test") is None
    with pytest.raises(BadRequest):
        ask(b"a/b")
    known = farm.engine.interception.known
    now = farm.engine.now
    assert known[b"127.0.0.9", place][1] - now > interception.DOUBTED_S
    assert known[b"127.0.0.8", place][1] - now <= interception.DOUBTED_S
    assert (b"no-name-here.test", place) not in known


def test_what_is_known_is_bounded(farm, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interception, "KNOWN_MAX", 3)
    place = Place("127.0.0.9", 80)
    for number in range(10):
        farm.relay.call(lambda number=number: farm.engine.interception.authority(b"127.0.0.%d" % number, place))
    assert len(farm.engine.interception.known) <= 3


def test_the_connections_to_a_place_are_not_those_that_a_name_leads_to(farm):
    place = Place("10.255.255.77", 80)
    target = farm.relay.call(lambda: farm.engine.interception.target(place))
    assert target is farm.relay.call(lambda: farm.engine.interception.target(place))
    assert target.hierarchy == "ORIGINAL_DST"
    assert (b"10.255.255.77", 80) not in farm.engine.origins.known
    assert farm.relay.call(lambda: farm.engine.interception.target(Place("127.0.0.1", 80))) == "127.0.0.1 is a loopback address"
