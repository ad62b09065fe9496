"""The HTCP codec against captured packets (tests/vectors/htcp), every truncation, and what Squid does not send."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icp.errors import BadPacket, Fault
from icp.htcp import (
    CLR_ABSENT,
    MAX_BYTES,
    TST_HIT,
    TST_MISS,
    Detail,
    HtcpOpcode,
    HtcpQuery,
    HtcpReply,
    Specifier,
    pack_query,
    pack_reply,
    parse_query,
    parse_reply,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "htcp"
QUERIES = ("02-tst-query", "03-tst-query", "04-clr-query")
REPLIES = ("02-tst-reply", "03-tst-reply")
URL = b"http://127.0.0.10:8000/n2/obj1.html?q=1"


def captured(name: str) -> bytes:
    return (VECTORS / f"{name}.bin").read_bytes()


def fault_of(datagram: bytes, parse=parse_query) -> Fault:
    with pytest.raises(BadPacket) as caught:
        parse(datagram)
    return caught.value.fault


def resized(data: bytes, part: int = 0) -> bytes:
    """With the length fields that fit; `part`: what the data's is off by."""
    size = len(data)
    return size.to_bytes(2, "big") + data[2:4] + (size - 6 + part).to_bytes(2, "big") + data[6:]


def test_captured_queries_decode():
    assert parse_query(captured("02-tst-query")) == HtcpQuery(HtcpOpcode.TST, 2, Specifier(b"GET", URL), wants_reply=True)
    assert parse_query(captured("04-clr-query")) == HtcpQuery(HtcpOpcode.CLR, 4, Specifier(b"PURGE", URL), wants_reply=False)


def test_captured_replies_decode():
    hit = parse_reply(captured("02-tst-reply"))
    assert (hit.opcode, hit.msg_id, hit.response) == (HtcpOpcode.TST, 2, TST_HIT)
    assert hit.detail is not None
    assert hit.detail.response == b"Age: 753\r\n"
    assert parse_reply(captured("03-tst-reply")) == HtcpReply(HtcpOpcode.TST, 3, TST_MISS, Detail())


@pytest.mark.parametrize("name", QUERIES)
def test_captured_queries_encode_bit_for_bit(name: str):
    assert pack_query(parse_query(captured(name))) == captured(name)


@pytest.mark.parametrize("name", REPLIES)
def test_captured_replies_encode_bit_for_bit(name: str):
    assert pack_reply(parse_reply(captured(name))) == captured(name)


@pytest.mark.parametrize("name", [*QUERIES, *REPLIES])
def test_every_truncation_is_refused(name: str):
    data, parse = captured(name), parse_query if name in QUERIES else parse_reply
    for cut in range(len(data)):
        assert fault_of(data[:cut], parse) is (Fault.SHORT if cut < 14 else Fault.LENGTH)


@pytest.mark.parametrize("name", [*QUERIES, *REPLIES])
def test_every_shorter_data_part_is_refused(name: str):
    data, parse = captured(name), parse_query if name in QUERIES else parse_reply
    for cut in range(12, len(data) - 2):
        short = resized(data[:cut] + b"\0\2")
        if name in REPLIES and cut == 12:
            assert parse_reply(short).detail is None  # RFC 2756 knows replies without it
        else:
            assert fault_of(short, parse) is Fault.SECTION


def test_a_second_counted_string_too_long_is_refused():
    data = captured("02-tst-query")
    assert fault_of(data[:17] + b"\xff\xff" + data[19:]) is Fault.SECTION


def test_what_follows_the_last_field_is_refused():
    for name, parse in (("02-tst-query", parse_query), ("02-tst-reply", parse_reply)):
        data = captured(name)
        assert fault_of(resized(data[:-2] + b"x\0\2"), parse) is Fault.TRAILING
        assert fault_of(data + b"x", parse) is Fault.LENGTH


def test_a_clr_reply_with_data_is_refused():
    data = pack_reply(HtcpReply(HtcpOpcode.CLR, 1, CLR_ABSENT))
    assert len(data) == 14
    assert fault_of(resized(data[:-2] + b"xx\0\2"), parse_reply) is Fault.TRAILING


@pytest.mark.parametrize("tail", [b"\0\3x", b"\0\x0a12345678", b"\0\1", b"\0\0"])
def test_signed_packets_are_refused(tail: bytes):
    data = captured("02-tst-query")[:-2]
    signed = resized(data + tail, 2 - len(tail))
    assert fault_of(signed) is Fault.AUTH


@pytest.mark.parametrize(("major", "minor"), [(0, 2), (1, 0), (1, 1), (255, 255)])
def test_no_other_version_is_read(major: int, minor: int):
    data = captured("02-tst-query")
    assert fault_of(data[:2] + bytes([major, minor]) + data[4:]) is Fault.VERSION


def test_minor_version_0_is_read_and_kept():
    data = captured("02-tst-query")
    old = data[:3] + b"\0" + data[4:]
    assert pack_query(parse_query(old)) == old


@pytest.mark.parametrize("flags", [0x40, 0x80, 0xC0, 0x04])
def test_flags_in_the_old_layout_are_refused(flags: int):
    data = captured("02-tst-query")
    assert fault_of(data[:7] + bytes([flags]) + data[8:]) is Fault.VERSION


@pytest.mark.parametrize("opcode", [0, 2, 3, 5, 15])
def test_other_opcodes_are_told_apart(opcode: int):
    data = captured("02-tst-query")
    assert fault_of(data[:6] + bytes([opcode << 4]) + data[7:]) is Fault.OPCODE


def test_a_request_with_a_response_code_is_refused():
    data = captured("02-tst-query")
    assert fault_of(data[:6] + b"\x11" + data[7:]) is Fault.OPCODE


def test_queries_and_replies_are_not_mixed_up():
    assert fault_of(captured("02-tst-reply")) is Fault.UNSOLICITED
    assert fault_of(captured("02-tst-query"), parse_reply) is Fault.NOT_A_REPLY


def test_a_refusal_is_told_from_a_miss():
    reply = HtcpReply(HtcpOpcode.TST, 9, 2, None, is_refusal=True)
    assert parse_reply(pack_reply(reply)) == reply


def test_nothing_longer_than_a_receiver_takes_is_packed():
    room = MAX_BYTES - 12 - 2 - 2 * 4 - 3 - 3
    query = HtcpQuery(HtcpOpcode.TST, 1, Specifier(b"GET", b"u" * room))
    assert len(pack_query(query)) == MAX_BYTES
    assert parse_query(pack_query(query)) == query
    for size in (room + 1, MAX_BYTES + 1, 70_000):
        with pytest.raises(ValueError, match=f"at most {MAX_BYTES}"):
            pack_query(query._replace(what=Specifier(b"GET", b"u" * size)))


TEXT = st.binary(max_size=20)


@given(
    st.sampled_from([HtcpOpcode.TST, HtcpOpcode.CLR]),
    st.integers(0, 2**32 - 1),
    st.builds(Specifier, TEXT, TEXT, TEXT, TEXT),
    st.booleans(),
    st.integers(0, 65535),
)
def test_whatever_is_asked_is_read_back(opcode: HtcpOpcode, msg_id: int, what: Specifier, wants_reply: bool, reason: int):
    query = HtcpQuery(opcode, msg_id, what, wants_reply, reason if opcode is HtcpOpcode.CLR else 0)
    assert parse_query(pack_query(query)) == query


@given(st.integers(0, 2**32 - 1), st.integers(0, 15), st.none() | st.builds(Detail, TEXT, TEXT, TEXT), st.booleans())
def test_whatever_is_answered_is_read_back(msg_id: int, response: int, detail: Detail | None, is_refusal: bool):
    reply = HtcpReply(HtcpOpcode.TST, msg_id, response, detail, is_refusal)
    assert parse_reply(pack_reply(reply)) == reply
