from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.routing.guard import allowed_addresses, forbidden

PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::808:808", "2002:808:808::1"]
PRIVATE = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"],
    "link-local": ["169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"],
    "private": [
        "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fc00::1", "fd12::1", "192.0.2.1", "198.18.0.1",
        "240.0.0.1", "255.255.255.255", "2001:db8::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "0.1.2.3",
        "::127.0.0.1", "::a00:1", "64:ff9b:1::1", "4000::1", "fec0::1",
    ],
}  # fmt: skip
NEVER = ["0.0.0.0", "::", "224.0.0.1", "239.1.2.3", "ff02::1", "::ffff:0.0.0.0", "64:ff9b::e000:1", "", "a.test", "1.2.3"]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_connected_to(address):
    assert forbidden(address, allow_private=False) == ""
    assert forbidden(address, allow_private=True) == ""


@pytest.mark.parametrize(("kind", "address"), [(kind, address) for kind in PRIVATE for address in PRIVATE[kind]])
def test_private_addresses_may_not_unless_the_operator_says_so(kind, address):
    assert kind in forbidden(address, allow_private=False)
    assert forbidden(address, allow_private=True) == ""


@pytest.mark.parametrize("address", NEVER)
@pytest.mark.parametrize("allow_private", [False, True])
def test_what_no_server_can_have_is_always_refused(address, allow_private):
    assert forbidden(address, allow_private=allow_private)


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_in_every_disguise(ip):
    plain = forbidden(str(ip), allow_private=False)
    disguises = (f"::ffff:{ip}", f"64:ff9b::{ip}", str(ipaddress.IPv6Address((0x2002 << 112) | (int(ip) << 80))))
    for disguise in disguises:
        assert bool(forbidden(disguise, allow_private=False)) == bool(plain), disguise


@given(st.text())
def test_no_text_makes_it_raise(text):
    forbidden(text, allow_private=False)


def test_good_addresses_are_kept_in_order_and_the_last_refusal_is_said():
    good, why = allowed_addresses(["8.8.8.8", "127.0.0.1", "2606:2800:220::1", "10.0.0.1"], allow_private=False)
    assert good == ["8.8.8.8", "2606:2800:220::1"]
    assert why == "10.0.0.1 is a private or reserved address"


def test_nothing_refused_is_nothing_said():
    assert allowed_addresses(["8.8.8.8"], allow_private=False) == (["8.8.8.8"], "")
    assert allowed_addresses([], allow_private=False) == ([], "")
