from __future__ import annotations

import ssl

import pytest
from fakes_tls import extension, hello, hello_body, message, real_hello, records, server_name, vector
from hypothesis import given
from hypothesis import strategies as st

from cachelb.wire.client_hello import HELLO_BYTES, Hello, HelloReader, read_hello
from cachelb.wire.tls import BadTlsError


def read(data: bytes, size: int = 1 << 20) -> Hello | None:
    reader = HelloReader()
    for at in range(0, len(data), size):
        found = reader.feed(data[at : at + size])
        if found is not None:
            return found
    return None


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_openssls_hello_is_read_whole_and_in_bytes(newest: ssl.TLSVersion):
    data = real_hello("Shop.Example", newest)
    found = read(data)
    assert found is not None
    assert (found.name, found.ticket, found.resumes_13) == (b"shop.example", b"", False)
    assert read(data, 1) == found
    assert bool(found.session) == (newest is ssl.TLSVersion.TLSv1_3)


def test_every_truncation_waits_for_more():
    data = real_hello()
    assert [size for size in range(len(data)) if read(data[:size]) is not None] == []


def test_every_truncation_of_the_message_alone_is_refused():
    body = hello_body(server_name(b"a.b"), extension(35, b"ticket"), session=b"s" * 32)
    whole = read_hello(body)
    assert whole == Hello(b"a.b", b"s" * 32, b"ticket", False)
    for size in range(len(body)):
        if size == len(hello_body(session=b"s" * 32)):
            assert read_hello(body[:size]).name == b""  # a hello without extensions is one, too
            continue
        with pytest.raises(BadTlsError):
            read_hello(body[:size])


def test_fragments_over_records_are_put_together():
    found = read(hello(server_name(b"a.b")))
    assert found is not None
    for size in (1, 2, 3, 50):
        assert read(hello(server_name(b"a.b"), size=size)) == found
        assert read(hello(server_name(b"a.b"), size=size), 1) == found


def test_early_data_behind_it_is_no_concern():
    found = read(hello(server_name(b"a.b")) + b"\x14\3\3\0\1\1" + b"\x17\3\3\0\4data")
    assert found is not None
    assert found.name == b"a.b"


def test_a_session_of_tls_13_is_recognised():
    found = read(hello(extension(43, b"\2\3\4"), extension(41, b"psk")))
    assert found == Hello(b"", b"", b"", True)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "type 71"),
        (b"\x15\3\1\0\2\2\x28", "type 21"),
        (records(message(2, b"")), "type 2, not a ClientHello"),
        (records(message(1, b"")), "1 bytes where 0"),
        (records(message(1, b"\2\0" + bytes(40))), "not a version of TLS"),
        (hello(session=b"x" * 33), "wrong length"),
        (hello(server_name()), "malformed list"),
        (hello(server_name(b"a b")), "none of a host"),
        (hello(server_name(b"")), "none of a host"),
        (hello(server_name(b"a" * 255)), "none of a host"),
        (hello(server_name(b"a"), server_name(b"b")), "extension 0 twice"),
        (hello(extension(0, b"\0\5\0\0\1a")), "5 bytes where 4"),
        (records(b"\1\0\x40\1"), "more than 16384"),
    ],
)
def test_lies_are_refused(data: bytes, why: str):
    for size in (1, 1 << 20):
        with pytest.raises(BadTlsError, match=why):
            read(data, size)


def test_names_of_other_kinds_are_passed_over():
    found = read(hello(server_name(b"\xff\xfe", kind=7)))
    assert found is not None
    assert found.name == b""
    assert read(hello(extension(0, vector(2, b"\7\0\1x\0\0\1a\0\0\1b")))) == found._replace(name=b"a")


def test_bytes_are_bounded_however_small_the_records():
    data = hello(extension(21, b"\0" * 15000), size=1)
    assert read(data[: HELLO_BYTES - 1], 100) is None
    with pytest.raises(BadTlsError, match="within 16384 bytes"):
        read(data[:HELLO_BYTES], 100)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_the_cut_does_not_matter(data: bytes, size: int):
    def outcome(step: int) -> object:
        try:
            return read(hello(server_name(b"a.b"))[: len(data)] + data, step)
        except BadTlsError:
            return "refused"

    assert outcome(size) == outcome(1)
