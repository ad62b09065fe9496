from __future__ import annotations

import pytest
from fakes_tls import extension, message, records, vector

from cachelb.wire.tls import BadTlsError, Fields, Handshake, extensions


def test_messages_come_out_as_they_went_in_however_they_are_cut():
    said = message(1, b"one") + message(2, b"") + message(4, b"x" * 40)
    for size in (1, 2, 7, 100):
        handshake = Handshake(100)
        for byte in records(said, size):
            handshake.feed(bytes([byte]))
        assert [handshake.next() for _ in range(4)] == [(1, b"one"), (2, b""), (4, b"x" * 40), None]


def test_what_stands_behind_a_record_of_another_type_is_not_read():
    handshake = Handshake(100)
    handshake.feed(records(message(2, b"hello")) + b"\x14\3\3\0\1\1" + b"\xff" * 50)
    assert handshake.next() == (2, b"hello")
    assert handshake.ended == 20


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\0", "type 0"),
        (b"\x16\x02", "version 2"),
        (b"\x16\x03\x01\x00\x00", "0 bytes"),
        (b"\x16\x03\x01\xff\xff", "65535 bytes"),
    ],
)
def test_records_that_are_none_are_refused(data: bytes, why: str):
    handshake = Handshake(100)
    handshake.feed(records(message(1, b"before")) + data + b"behind")
    assert handshake.next() == (1, b"before")
    with pytest.raises(BadTlsError, match=why):
        handshake.next()


def test_a_message_that_says_it_is_huge_is_refused_before_it_is_here():
    handshake = Handshake(100)
    handshake.feed(records(b"\1\xff\xff\xff"))
    with pytest.raises(BadTlsError, match="16777219 bytes"):
        handshake.next()


def test_fields_end_where_the_message_ends():
    fields = Fields(b"\1\2\0\3abc!")
    assert (fields.number(2), fields.vector(2), fields.left) == (258, b"abc", 1)
    with pytest.raises(BadTlsError, match="2 bytes where 1 are left"):
        fields.take(2)


def test_extensions():
    assert extensions(Fields(b"")) == {}
    assert extensions(Fields(vector(2, extension(5, b"x") + extension(0, b"")))) == {5: b"x", 0: b""}
    for bad in (vector(2, extension(5, b"") * 2), b"\0\0!", b"\0\3\0\5\0", b"\0"):
        with pytest.raises(BadTlsError):
            extensions(Fields(bad))
