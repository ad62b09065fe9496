"""The codec against captured packets (tests/vectors/icp), every truncation, and every single-byte change."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icp.errors import BadPacket, Fault
from icp.packet import (
    HIT_OBJ,
    MAX_URL,
    SRC_RTT,
    Message,
    Opcode,
    Query,
    header_fault,
    pack,
    pack_query,
    pack_reply,
    parse_query,
    parse_reply,
    unpack,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "icp"
CAPTURED = sorted(path.stem for path in VECTORS.glob("*.bin"))
# what a Squid answered with ERR or silence for the packet's own sake
MALFORMED = {
    "badlen+1-query": Fault.LENGTH,
    "badlen-1-query": Fault.LENGTH,
    "nonul-query": Fault.NO_NUL,
    "trailing-query": Fault.STRAY_NUL,
    "v1-query": Fault.VERSION,
    "op-25-query": Fault.OPCODE,
}
URL = b"http://127.0.0.10:8000/n1/obj0.html?q=0"


def captured(name: str) -> bytes:
    return (VECTORS / f"{name}.bin").read_bytes()


def fault_of(datagram: bytes, parse=parse_query) -> Fault:
    with pytest.raises(BadPacket) as caught:
        parse(datagram)
    return caught.value.fault


def test_there_are_captured_packets():
    assert len(CAPTURED) > 40


@pytest.mark.parametrize("name", [name for name in CAPTURED if name not in MALFORMED])
def test_captured_packets_decode_and_encode_bit_for_bit(name: str):
    assert pack(unpack(captured(name))) == captured(name)


@pytest.mark.parametrize(("name", "fault"), MALFORMED.items())
def test_captured_malformed_packets_are_refused_by_kind(name: str, fault: Fault):
    assert fault_of(captured(name), unpack) is fault
    assert fault_of(captured(name), parse_query) is fault


@pytest.mark.parametrize("name", ["nonul", "trailing"])
def test_err_is_due_where_a_real_squid_sends_one(name: str):
    with pytest.raises(BadPacket) as caught:
        parse_query(captured(f"{name}-query"))
    assert caught.value.fault.is_err_due
    assert pack_reply(Opcode.ERR, caught.value.reqnum, b"") == captured(f"{name}-reply")


def test_the_query_of_a_child_is_read():
    assert parse_query(captured("child-query")) == Query(1, b"http://127.0.0.10:8000/absent/1")


def test_our_query_is_what_a_child_sends():
    assert pack_query(1, b"http://127.0.0.10:8000/absent/1") == captured("child-query")


@pytest.mark.parametrize(
    ("name", "opcode"),
    [("accepted-hit", Opcode.HIT), ("accepted-miss", Opcode.MISS), ("denied", Opcode.DENIED), ("badurl-noscheme", Opcode.ERR)],
)
def test_our_reply_is_what_squids_send_and_take(name: str, opcode: Opcode):
    message = parse_reply(captured(f"{name}-reply"))
    assert message.opcode is opcode
    assert pack_reply(opcode, message.reqnum, message.url) == captured(f"{name}-reply")


def test_addresses_in_a_query_are_kept_but_not_part_of_what_is_answered():
    message = unpack(captured("reqhost-set-query"))
    assert (message.sender, message.requester) == (0x7F000009, 0x7F090909)
    assert message.option_data == 0xDEADBEEF
    assert parse_query(captured("reqhost-set-query")) == Query(0x01020304, URL)


def test_flags_of_a_query_are_seen():
    assert parse_query(captured("hit-srcrtt-query")).flags == SRC_RTT
    assert parse_query(captured("hit-hitobjflag-query")).flags == HIT_OBJ


def test_rtt_is_hops_and_milliseconds():
    assert parse_reply(captured("hit-srcrtt-reply")).rtt == (0, 1)
    assert parse_reply(captured("hit-reply")).rtt is None
    assert parse_reply(pack_reply(Opcode.HIT, 1, URL, (12, 345))).rtt == (12, 345)
    assert parse_reply(pack_reply(Opcode.MISS, 1, URL, (70_000, 70_000))).rtt == (65_535, 65_535)


@pytest.mark.parametrize("cut", range(len(captured("hit-query"))))
def test_every_truncation_is_refused(cut: int):
    assert fault_of(captured("hit-query")[:cut]) is (Fault.SHORT if cut < 20 else Fault.LENGTH)


@pytest.mark.parametrize("cut", range(len(captured("hit-query"))))
def test_every_truncation_with_a_right_length_field_is_refused(cut: int):
    data = captured("hit-query")[:cut]
    data = data[:2] + len(data).to_bytes(2, "big") + data[4:]
    expected = Fault.SHORT if cut < 20 else Fault.NO_URL if cut <= 24 else Fault.NO_NUL
    assert fault_of(data) is expected


def test_a_query_without_requester_address_ends_before_its_url():
    assert fault_of(b"\1\2\0\x15\0\0\0\1" + bytes(12) + b"\0") is Fault.NO_URL


@pytest.mark.parametrize("name", CAPTURED)
def test_the_quick_look_at_a_header_finds_what_the_reader_finds(name: str):
    header_faults = {Fault.SHORT, Fault.VERSION, Fault.LENGTH}
    for cut in range(len(captured(name)) + 1):
        data = captured(name)[:cut]
        try:
            unpack(data)
            fault = None
        except BadPacket as problem:
            fault = problem.fault
        assert header_fault(data) is (fault if fault in header_faults else None)


@pytest.mark.parametrize("more", [b"\0", b"x", b"junk\0"])
def test_what_follows_the_packet_is_refused(more: bytes):
    assert fault_of(captured("hit-query") + more) is Fault.LENGTH


@pytest.mark.parametrize("version", [0, 1, 3, 4, 255])
def test_no_other_version_is_read(version: int):
    data = captured("hit-query")
    assert fault_of(data[:1] + bytes([version]) + data[2:]) is Fault.VERSION


def test_a_nul_within_the_url_is_refused():
    for at in range(24, 63):
        data = captured("hit-query")
        assert fault_of(data[:at] + b"\0" + data[at + 1 :]) is Fault.STRAY_NUL


def test_every_opcode_is_judged():
    data = captured("hit-query")
    faults: dict[Fault | None, list[int]] = {}
    for opcode in range(256):
        try:
            parse_query(bytes([opcode]) + data[1:])
            fault = None
        except BadPacket as problem:
            fault = problem.fault
        faults.setdefault(fault, []).append(opcode)
    assert faults[None] == [Opcode.QUERY]
    assert faults[Fault.ECHO] == [Opcode.SECHO]
    assert faults[Fault.HIT_OBJ] == [Opcode.HIT_OBJ]
    assert faults[Fault.UNSOLICITED] == [2, 3, 4, 21, 22]
    assert faults[Fault.STRAY_NUL] == [Opcode.DECHO]  # it has no requester address
    assert len(faults[Fault.OPCODE]) == 256 - 9


def test_a_decho_is_a_query_whose_echo_is_awaited():
    assert parse_query(captured("op-decho-query")) == Query(0x01020304, URL, 0, True)


def test_an_echoed_decho_is_a_reply():
    assert parse_reply(captured("op-decho-query")).opcode is Opcode.DECHO


def test_reqnum_0_is_not_answered_and_not_taken():
    assert fault_of(captured("reqnum0-query")) is Fault.REQNUM_ZERO
    assert fault_of(captured("reqnum0-reply"), parse_reply) is Fault.REQNUM_ZERO
    with pytest.raises(AssertionError):
        pack_reply(Opcode.HIT, 0, URL)


@pytest.mark.parametrize("name", ["hit-query", "op-secho-query"])
def test_what_is_no_reply_is_not_taken_for_one(name: str):
    assert fault_of(captured(name), parse_reply) is Fault.NOT_A_REPLY


def test_the_longest_url_is_read_and_the_next_is_not():
    assert parse_query(pack_query(1, b"h" * MAX_URL)).url == b"h" * MAX_URL
    with pytest.raises(ValueError, match="8192 bytes"):
        pack_query(1, b"h" * (MAX_URL + 1))
    size = 25 + MAX_URL + 1
    data = b"\1\2" + size.to_bytes(2, "big") + b"\0\0\0\7" + bytes(16) + b"h" * (MAX_URL + 1) + b"\0"
    with pytest.raises(BadPacket) as caught:
        parse_query(data)
    assert (caught.value.fault, caught.value.reqnum) == (Fault.LONG_URL, 7)


def test_a_url_with_a_nul_is_not_packed():
    with pytest.raises(ValueError, match="NUL"):
        pack_query(1, b"http://a/\0")


@given(
    st.sampled_from([opcode for opcode in Opcode if opcode is not Opcode.HIT_OBJ]),
    st.binary(max_size=60).map(lambda text: text.replace(b"\0", b"")),
    st.tuples(*[st.integers(0, 2**32 - 1)] * 5),
)
def test_whatever_is_packed_is_read_back(opcode: Opcode, url: bytes, numbers: tuple[int, ...]):
    message = Message(opcode, numbers[0], url, *numbers[1:4], numbers[4] if opcode == Opcode.QUERY else 0)
    assert unpack(pack(message)) == message


@given(st.binary(max_size=80))
def test_garbage_is_refused_with_a_bad_packet_or_read_exactly(data: bytes):
    try:
        message = unpack(data)
    except BadPacket:
        return
    assert pack(message) == data
