from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.wire.proxy_protocol import SIGNATURE, BadProxyHeaderError, Ends, Header, is_header, make, own_header, parse

V4 = Ends("192.0.2.1", 56324, "198.51.100.7", 443)
V6 = Ends("2001:db8::1", 1, "2001:db8::2", 65535)
# As HAProxy's text has them, and as HAProxy 2.6 sends them.
LINE = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
BINARY = SIGNATURE + bytes.fromhex("2111000c c0000201 c6336407 dc04 01bb")

addresses = st.one_of(
    st.tuples(st.ip_addresses(v=4).map(str), st.ip_addresses(v=4).map(str)),
    st.tuples(*[st.integers(1 << 60, (1 << 128) - 1).map(lambda n: str(IPv6Address(n)))] * 2),
)
ports = st.integers(0, 65535)


def test_the_bytes_are_those_of_the_specification():
    assert make("v1", V4) == LINE
    assert make("v2", V4) == BINARY
    assert make("v1", None) == b"PROXY UNKNOWN\r\n"
    assert make("v2", None) == SIGNATURE + b"\x20\0\0\0"


@given(addresses, ports, ports, st.sampled_from(("v1", "v2")), st.binary(max_size=20))
def test_what_is_made_is_read(pair: tuple[str, str], port: int, other: int, version: str, behind: bytes):
    ends = Ends(pair[0], port, pair[1], other)
    data = make(version, ends)
    assert parse(data + behind) == Header(len(data), ends)
    assert is_header(data)
    assert [size for size in range(len(data)) if parse(data[:size]) is not None] == []


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_ends_of_two_families_become_those_of_one(version: str):
    ends = Ends("192.0.2.1", 5, "2001:db8::2", 6)
    assert parse(make(version, ends)) == Header(len(make(version, ends)), ends)  # written as IPv6, read as what it is


def test_local_and_unknown_leave_the_connections_own_addresses():
    assert parse(b"PROXY UNKNOWN\r\n") == Header(15, None)
    assert parse(b"PROXY UNKNOWN ffff:: whatever 1 2\r\nmore") == Header(35, None)
    assert parse(make("v2", None) + b"more") == Header(16, None)
    assert parse(SIGNATURE + b"\x20\x11\0\x0c" + bytes(12)) == Header(28, None)
    assert parse(SIGNATURE + b"\x21\0\0\3abc") == Header(19, None)  # AF_UNSPEC


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_connection_of_our_own_begins_with_a_header_that_says_so(version: str):
    header = own_header(version)
    assert parse(header) == Header(len(header), None)
    assert own_header("") == b""


def test_tlvs_are_passed_over():
    data = SIGNATURE + b"\x21\x11\0\x13" + BINARY[16:] + b"\x04\0\4abcd"
    assert parse(data) == Header(len(data), V4)
    assert [size for size in range(len(data)) if parse(data[:size]) is not None] == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "no PROXY header"),
        (b"\r\n\r\nGET", "no PROXY header"),
        (b"PROXX", "no PROXY header"),
        (b"PROXY TCP4 " + b"1" * 100, "no line"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "two ports"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", "above 65535"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", "two ports"),
        (b"PROXY TCP4 ::1 ::2 1 2\r\n", "none of its family"),
        (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", "none of its family"),
        (b"PROXY TCP4 1.2.3.999 5.6.7.8 1 2\r\n", "none of its family"),
        (b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", "family"),
        (b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", "family"),
        (b"PROXY \r\n", "family"),
        (SIGNATURE + b"\x11", "0x11"),
        (SIGNATURE + b"\x22", "0x22"),
        (SIGNATURE + b"\x21\x11\x10\x01", "4097 bytes"),
        (SIGNATURE + b"\x21\x11\0\x0b", "do not hold"),
        (SIGNATURE + b"\x21\x21\0\x0c", "do not hold"),
        (SIGNATURE + b"\x21\x12\0\x0c" + bytes(12), "0x12, not TCP"),
        (SIGNATURE + b"\x21\x31\0\x02ab", "0x31, not TCP"),
    ],
)
def test_what_is_malformed_is_refused(data: bytes, why: str):
    with pytest.raises(BadProxyHeaderError, match=why):
        parse(data)


@given(st.binary(max_size=60), st.sampled_from((b"", b"PROXY ", b"PROXY TCP6 ", SIGNATURE, SIGNATURE + b"\x21\x11")))
def test_anything_is_read_or_refused_and_never_later_than_it_could_be(tail: bytes, start: bytes):
    outcomes = []
    for size in range(len(start + tail) + 1):
        try:
            outcomes.append(parse((start + tail)[:size]))
        except BadProxyHeaderError:
            outcomes.append("refused")
    first = next((place for place, outcome in enumerate(outcomes) if outcome is not None), len(outcomes))
    assert all(outcome == outcomes[first] for outcome in outcomes[first:])


def test_an_ipv4_address_within_ipv6_is_that_one():
    data = make("v2", Ends("::ffff:192.0.2.1", 1, "::ffff:198.51.100.7", 2))
    header = parse(data)
    assert header is not None
    assert header.ends == Ends("192.0.2.1", 1, "198.51.100.7", 2)
    assert str(IPv4Address("192.0.2.1")) == header.ends.source


def test_whether_somebody_begins_so():
    assert is_header(LINE)
    assert is_header(BINARY)
    assert is_header(b"PROXY UNKNOWN\r\n")
    assert not is_header(b"PROXY http://a/ HTTP/1.1\r\n")
    assert not is_header(b"PROXY TCP")
    assert not is_header(b"\r\n\r\n")
