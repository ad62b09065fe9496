"""Digests on the wire: captured ones both ways, and everything that is not quite one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digest.bloom import Mask
from digest.key import store_key
from digest.wire import (
    CONTROL_BYTES,
    MASK_LIMIT_BYTES,
    BadDigest,
    Digest,
    Geometry,
    pack_control,
    pack_digest,
    parse_digest,
)

GOOD = pack_digest(Digest(Geometry(10, 5), Mask.from_bytes(b"\x0f\0\0\0\0\0\xf0"), 3, 1))
geometries = st.builds(Geometry, st.integers(1, 500), st.integers(1, 127))


def changed(at: int, layout: str, value: int) -> bytes:
    data = bytearray(GOOD)
    struct.pack_into(f">{layout}", data, at, value)
    return bytes(data)


def test_captured_digests_come_back_bit_for_bit(captured: tuple[str, bytes]):
    assert pack_digest(parse_digest(captured[1])) == captured[1]


def test_captured_digests_contain_all_their_urls(captured: tuple[str, bytes], captured_urls: list[bytes]):
    mask = parse_digest(captured[1]).mask
    assert [url for url in captured_urls if not mask.contains(store_key(url))] == []
    assert not mask.contains(store_key(b"http://127.0.0.10:8000/nobody/has/this/2"))


def test_a_count_above_the_capacity_is_carried_along(captured: tuple[str, bytes]):
    name, data = captured
    digest = parse_digest(data)
    if name == "digest-node1-final":
        assert (digest.count, digest.geometry) == (132, Geometry(82, 5))
    assert not digest.is_useless


def test_every_truncation_and_every_surplus_of_a_captured_digest_is_refused(captured: tuple[str, bytes]):
    data = captured[1]
    for cut in {*range(min(len(data), 400)), len(data) - 1}:
        with pytest.raises(BadDigest):
            parse_digest(data[:cut])
    with pytest.raises(BadDigest, match=r"follow the control block, which announces \d+"):
        parse_digest(data + b"\0")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "0 bytes are less than a control block of 128"),
        (GOOD[:127], "127 bytes are less"),
        (changed(0, "h", 6), "version 6/3, not 5/3"),
        (changed(0, "h", 2), "version 2/3"),
        (changed(0, "h", -5), "version -5/3"),
        (changed(2, "h", 5), "version 5/5"),
        (changed(4, "i", 0), "capacity 0"),
        (changed(4, "i", -10), "capacity -10"),
        (changed(4, "i", 2**31 - 1), "capacity 2147483647 at 5 bits"),
        (changed(4, "i", 12), "makes a mask of 8 bytes, not 7"),
        (changed(16, "i", 0), "makes a mask of 7 bytes, not 0"),
        (changed(16, "i", -7), "not -7"),
        (changed(16, "i", 2**31 - 1), "not 2147483647"),
        (changed(20, "B", 0), "0 bits per entry, not 1 to 127"),
        (changed(20, "B", 128), "128 bits per entry"),
        (changed(20, "B", 255), "255 bits per entry"),
        (changed(21, "B", 0), "0 hash functions, not 4"),
        (changed(21, "B", 5), "5 hash functions"),
        (changed(22, "B", 1), "reserved"),
        (changed(127, "B", 1), "reserved"),
        (GOOD[:-1], "6 bytes follow the control block, which announces 7"),
        (GOOD + b"\0", "8 bytes follow"),
    ],
)
def test_what_lies_about_itself_is_refused_with_the_numbers(data: bytes, text: str):
    with pytest.raises(BadDigest, match=text):
        parse_digest(data)


@pytest.mark.parametrize("count", [-(2**31), -1, 0, 2**31 - 1])
def test_whatever_the_counts_say_is_accepted_and_kept(count: int):
    for data in (changed(8, "i", count), changed(12, "i", count)):
        assert pack_digest(parse_digest(data)) == data
    assert parse_digest(changed(8, "i", count)).count == count


def test_a_mask_above_the_limit_is_refused_before_anything_is_copied():
    assert parse_digest(GOOD, limit_bytes=7).mask.size_bytes == 7
    with pytest.raises(BadDigest, match="a mask of 7 bytes is above the limit of 6"):
        parse_digest(GOOD, limit_bytes=6)
    announced = Geometry(2**24, 127)
    huge = struct.pack(">hhiiiiBB106x", 5, 3, announced.capacity, 0, 0, announced.mask_bytes, 127, 4)
    with pytest.raises(BadDigest, match=f"above the limit of {MASK_LIMIT_BYTES}"):
        parse_digest(huge)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do_and_is_copied(kind: type):
    data = bytearray(GOOD)
    digest = parse_digest(kind(data))
    data[-1] = 0
    assert pack_digest(digest) == GOOD


@given(st.data(), geometries)
def test_what_is_packed_is_read_again(data: st.DataObject, geometry: Geometry):
    size = geometry.mask_bytes
    counts = st.integers(-(2**31), 2**31 - 1)
    mask = Mask.from_bytes(data.draw(st.binary(min_size=size, max_size=size)))
    digest = Digest(geometry, mask, data.draw(counts), data.draw(counts))
    packed = pack_digest(digest)
    assert parse_digest(packed) == digest
    assert packed[:CONTROL_BYTES] == pack_control(digest)
    assert packed[CONTROL_BYTES:] == mask.to_bytes()


@given(st.binary(max_size=300))
def test_garbage_is_refused_in_our_own_words(data: bytes):
    with pytest.raises(BadDigest):
        parse_digest(data)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_one_changed_byte_is_refused_or_kept(at: int, value: int):
    data = GOOD[:at] + bytes([value]) + GOOD[at + 1 :]
    try:
        assert pack_digest(parse_digest(data)) == data
    except BadDigest:
        assert at < CONTROL_BYTES


def test_the_size_of_a_mask_is_squids():
    # the three captured geometries and both edges of the rounding
    assert [Geometry(capacity, 5).mask_bytes for capacity in (133, 129, 82)] == [84, 81, 52]
    assert [Geometry(capacity, 1).mask_bytes for capacity in (1, 8, 9)] == [1, 1, 2]


@pytest.mark.parametrize("shape", [(0, 5), (-1, 5), (1, 0), (1, 128), (1, -1), (2**31 - 8, 1), (2**30, 2)])
def test_geometries_that_no_squid_could_read_cannot_be_made(shape: tuple[int, int]):
    with pytest.raises(ValueError, match="bits per entry"):
        Geometry(*shape)


def test_the_largest_geometry_can_be_made():
    assert Geometry(2**31 - 9, 1).mask_bytes == 2**28 - 1


def test_a_digest_is_useless_above_65_percent():
    def digest(ones: int) -> Digest:
        return Digest(Geometry(160, 1), Mask.from_bytes(((1 << ones) - 1).to_bytes(20, "little")))

    assert [digest(ones).is_useless for ones in (0, 104, 105, 160)] == [False, False, True, True]


def test_an_empty_digest_contains_nothing():
    digest = Digest.empty(Geometry(1000, 8))
    assert (digest.mask.ones, digest.count, len(pack_digest(digest))) == (0, 0, 1128)
