"""Literals, names and the hosts file."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.nodes.names import Hosts, canonical_name, interleave, literal, parse_hosts


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[2001:DB8:0:0::1]", "2001:db8::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("[::ffff:7f00:1]", "127.0.0.1"),
    ],
)
def test_literals_are_understood_in_every_form_and_given_in_one(host: str, address: str):
    assert literal(host) == [address]


@pytest.mark.parametrize(
    "host",
    ["", "a", "a.b", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.2.3.4.5", "1.2.3.256", "fe80::1%eth0",
     "[fe80::1%25eth0]", "[", "]", ":", "[]", "1.2.3.4.", "１.2.3.4", "::1]x", "a:80"],
)  # fmt: skip
def test_what_only_looks_like_an_address_is_none(host: str):
    assert literal(host) is None


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "a.0x7f", "x.1", "1.2.3.4."])
def test_a_name_whose_last_label_is_a_number_is_no_name_either(host: str):
    assert canonical_name(host) is None


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_every_address_is_its_own_literal(address: ipaddress.IPv4Address | ipaddress.IPv6Address):
    text = str(address)
    if "%" in text:
        return
    (found,) = literal(text) or [""]
    assert found == text or ipaddress.ip_address(text).ipv4_mapped == ipaddress.ip_address(found)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("WWW.Example.COM.", "www.example.com"),
        ("a_b.c-d.x1", "a_b.c-d.x1"),
        ("localhost", "localhost"),
        ("x" * 63 + ".de", "x" * 63 + ".de"),
        ("x" * 64 + ".de", None),
        (".".join(["x" * 49] * 5), ".".join(["x" * 49] * 5)),
        (".".join(["x" * 50] * 5), None),  # 254 characters
        ("", None),
        (".", None),
        ("a..b", None),
        (".a", None),
        ("a..", None),
        ("-a.de", None),
        ("a-.de", None),
        ("a b", None),
        ("a\n", None),
        ("a\0b", None),
        ("m\xfcller.de", None),
        ("a/b", None),
        ("\u212a.de", None),  # KELVIN SIGN, which lower() makes a k
    ],
)
def test_names_are_checked_and_given_in_lower_case_without_the_final_dot(host: str, name: str | None):
    assert canonical_name(host) == name


@given(st.text(max_size=80))
def test_any_text_is_a_name_a_literal_or_nothing(text: str):
    name = canonical_name(text)
    assert name is None or (name.isascii() and canonical_name(name) == name)
    if literal(text):
        assert literal(literal(text)[0]) == literal(text)  # type: ignore[index]


def test_families_take_turns_and_nothing_is_said_twice():
    assert interleave(["6a", "6b", "6c"], ["4a"]) == ["6a", "4a", "6b", "6c"]
    assert interleave([], ["4a", "4b", "4a"]) == ["4a", "4b"]
    assert interleave() == []


HOSTS = """\
127.0.0.1 localhost
::1       localhost ip6-localhost   # a comment
10.0.0.1  cache1.test CACHE1
10.0.0.2  cache1.test
fd00::1   cache1.test.
#10.9.9.9 commented.test
10.0.0.3
nonsense  bad.test
fe80::1%lo0 zoned.test
\t10.0.0.4\ttabs.test\r
"""


def test_a_hosts_file_gives_all_addresses_of_a_name():
    assert parse_hosts(HOSTS) == {
        "localhost": ["::1", "127.0.0.1"],
        "ip6-localhost": ["::1"],
        "cache1.test": ["fd00::1", "10.0.0.1", "10.0.0.2"],
        "cache1": ["10.0.0.1"],
        "tabs.test": ["10.0.0.4"],
    }


@given(st.text(max_size=200))
def test_no_hosts_file_is_too_strange(text: str):
    parse_hosts(text)


def test_a_changed_hosts_file_is_read_again_but_not_looked_at_all_the_time(tmp_path: Path):
    path = tmp_path / "hosts"
    path.write_text("10.0.0.1 a.test\n")
    hosts = Hosts(path)
    assert hosts.lookup("a.test", 100.0) == ["10.0.0.1"]
    path.write_text("10.0.0.22 a.test\n")
    assert hosts.lookup("a.test", 100.9) == ["10.0.0.1"]
    assert hosts.lookup("a.test", 101.1) == ["10.0.0.22"]
    path.unlink()
    assert hosts.lookup("a.test", 103.0) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_hosts_file_is_an_empty_one(tmp_path: Path):
    path = tmp_path / "hosts"
    path.write_text("10.0.0.1 a.test\n")
    path.chmod(0)
    assert Hosts(path).lookup("a.test", 1.0) is None


def test_localhost_is_loopback_without_any_file(tmp_path: Path):
    hosts = Hosts(tmp_path / "none")
    assert hosts.lookup("localhost", 1.0) == hosts.lookup("x.localhost", 1.0) == ["::1", "127.0.0.1"]
    assert hosts.lookup("notlocalhost", 1.0) is None


def test_a_hosts_file_that_is_a_directory_is_an_empty_one(tmp_path: Path):
    assert Hosts(tmp_path).lookup("a.test", 1.0) is None
