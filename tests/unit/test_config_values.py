"""Single values: what is taken, in which form, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb import config_values as values
from cachelb.config_values import Address, BadValue, shown


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:3128", Address("0.0.0.0", 3128)),
        (" 127.0.0.1:1 ", Address("127.0.0.1", 1)),
        ("[::]:65535", Address("::", 65535)),
        ("[2001:DB8:0::1]:80", Address("2001:db8::1", 80)),
    ],
)
def test_an_address_is_read_and_written_back(text: str, address: Address):
    assert values.parse_address(text) == address
    assert values.parse_address(str(address)) == address
    assert values.parse_address(address) is address


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (3128, '"0.0.0.0:3128"'),
        (":3128", '"0.0.0.0:3128"'),
        ("*:3128", '"0.0.0.0:3128"'),
        ("localhost:3128", '"127.0.0.1:3128"'),
        ("10.0.0.1", '"10.0.0.1:3128"'),
        ("::1:3128", '"[::]:3128"'),
        ("cache.example.net:3128", "not a name"),
        ("10.0.0.1:0", "1 to 65535"),
        ("10.0.0.1:65536", "1 to 65535"),
        ("10.0.0.1:http", "1 to 65535"),
        ("10.0.0.1:\u0663", "1 to 65535"),
        ("10.0.0.300:80", "not a name"),
        ("[10.0.0.1]:80", "not a name"),
        ("[::1:80", "not a name"),
        ("224.0.0.1:80", ""),
        ("", '"127.0.0.1:3128"'),
        (True, ""),
        (None, ""),
        ("1\n:1", ""),
    ],
)
def test_what_is_no_address_gets_a_hint(value: object, hint: str):
    with pytest.raises(BadValue) as caught:
        values.parse_address(value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("127.0.0.53", "127.0.0.53:53"),
        ("127.0.0.53:5353", "127.0.0.53:5353"),
        ("::1", "[::1]:53"),
        ("[::1]:54", "[::1]:54"),
    ],
)
def test_a_name_server_has_a_port(text: str, server: str):
    assert values.parse_server(text) == server
    assert values.parse_server(server) == server


@pytest.mark.parametrize("value", ["dns.example.net", "0.0.0.0:53", "", 53, "1.1.1.1:x"])
def test_what_is_no_name_server_is_refused(value: object):
    with pytest.raises(BadValue):
        values.parse_server(value)


def test_networks_are_read():
    assert values.parse_network("10.0.0.0/8") == ip_network("10.0.0.0/8")
    assert values.parse_network("::1") == ip_network("::1/128")
    assert values.parse_network(ip_network("::1")) == ip_network("::1/128")


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("10.0.0.1/8", 'did you mean "10.0.0.0/8"?'),
        ("all", '"0.0.0.0/0"'),
        ("10.0.0.0/33", "write it like"),
        ("example.net", "write it like"),
        ("", "write it like"),
        (10, ""),
    ],
)
def test_what_is_no_network_gets_a_hint(value: object, hint: str):
    with pytest.raises(BadValue) as caught:
        values.parse_network(value)
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["cache1", "a", "Cache-1.example.net", "x" * 64])
def test_names_of_nodes(name: str):
    assert values.check_name(name) == name


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "x" * 65, "n\u00e4he", "a\n", 5, None])
def test_what_cannot_be_a_name(name: object):
    with pytest.raises(BadValue):
        values.check_name(name)


@pytest.mark.parametrize(
    ("host", "form"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("[::1]", "::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("Cache1.Example.NET", "cache1.example.net"),
        ("cache_1", "cache_1"),
        ("a.", "a."),
    ],
)
def test_hosts_have_one_form(host: str, form: str):
    assert values.check_host(host) == form


@pytest.mark.parametrize(
    ("host", "hint"),
    [
        ("10.0.0.1:3128", "http_port = 3128"),
        ("http://cache1/", "without scheme"),
        ("10.0.0.300", ""),
        ("[::11", ""),
        ("::11]", ""),
        ("127.1", ""),
        ("0.0.0.0", ""),
        ("ff02::1", ""),
        ("fe80::1%eth0", ""),
        ("a..b", ""),
        ("-a", ""),
        ("x" * 64, ""),
        (".".join(["x" * 60] * 5), ""),
        ("", "address or DNS name"),
        (5, ""),
    ],
)
def test_what_cannot_be_a_host(host: object, hint: str):
    with pytest.raises(BadValue) as caught:
        values.check_host(host)
    assert hint in caught.value.hint


def test_via_s_name():
    assert values.check_pseudonym("cache.example.net:3128") == "cache.example.net:3128"
    assert values.check_pseudonym("") == ""
    for bad in ("a b", "a,b", "a(b", "x" * 256, 5):
        with pytest.raises(BadValue):
            values.check_pseudonym(bad)


def test_modes_of_sockets():
    assert [values.check_mode(mode) for mode in ("0600", "0660", "0666")] == ["0600", "0660", "0666"]
    for bad in ("600", "0700", "0777", "0066", "06600", "rw", 0o600, "", "0o600"):
        with pytest.raises(BadValue):
            values.check_mode(bad)


def test_bypass_rules_are_compiled_to_see_whether_they_can_be():
    assert values.check_host_rule(".example.net") == ".example.net"
    assert values.check_path_rule("/cart/*") == "/cart/*"
    assert values.check_header_rule("Cookie: *a*") == "Cookie: *a*"
    for check, bad in (
        (values.check_host_rule, "http://a"),
        (values.check_path_rule, "cart"),
        (values.check_header_rule, "a b: c"),
        (values.check_header_rule, 5),
    ):
        with pytest.raises(BadValue):
            check(bad)


def test_one_text_is_a_list_of_one():
    assert values.as_list("a") == ("a",)
    assert values.as_list("") == ()
    assert values.as_list(["a", "b"]) == ("a", "b")
    assert values.as_list(5) == (5,)


def test_values_are_shown_on_one_line_and_not_at_length():
    assert shown("a") == '"a"'
    assert shown(True) == "true"
    assert shown("\u00e9") == '"\u00e9"'
    assert shown("\x1b[31m\x9b\u202e") == '"\\u001b[31m\\u009b\\u202e"'
    assert len(shown("x" * 1000)) == 60
    assert len(shown(10**5000)) < 60


CHECKS: list[Callable[[object], object]] = [
    values.parse_address,
    values.parse_server,
    values.parse_network,
    values.parse_ports,
    values.check_workers,
    values.check_name,
    values.check_host,
    values.check_pseudonym,
    values.check_path,
    values.check_mode,
    values.check_host_rule,
    values.check_path_rule,
    values.check_header_rule,
]


@given(
    st.sampled_from(CHECKS),
    st.text() | st.text("0123456789.:[]/*-% abf", max_size=20) | st.integers() | st.floats() | st.none(),
)
def test_whatever_comes_there_is_a_value_or_a_sentence(check: Callable[[object], object], value: object):
    said = ""
    try:
        check(value)
    except BadValue as exc:
        said = str(exc)
    assert said.isprintable()
