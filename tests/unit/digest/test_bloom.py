"""Masks, against a slow twin that sets bits in a bytearray one by one as Squid's macro does."""

from __future__ import annotations

import os
import struct
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digest.bloom import _KEYS_AT_A_TIME, HASHES, Mask

keys = st.binary(min_size=16, max_size=16)
sizes = st.integers(1, 300)


def twin(size_bytes: int, members: list[bytes]) -> bytes:
    """CBIT_SET(mask, word % bits) for each of a key's four words in network order."""
    mask = bytearray(size_bytes)
    for key in members:
        for start in range(0, 16, 4):
            bit = int.from_bytes(key[start : start + 4], "big") % (size_bytes * 8)
            mask[bit >> 3] |= 1 << (bit & 7)
    return bytes(mask)


def many(count: int, salt: bytes = b"") -> list[bytes]:
    return [md5(salt + b"%d" % number).digest() for number in range(count)]


@given(sizes, st.lists(keys, max_size=20))
def test_bits_lie_where_squid_puts_them(size_bytes: int, members: list[bytes]):
    one_by_one, together = Mask(size_bytes), Mask(size_bytes)
    for key in members:
        one_by_one.add(key)
    together.add_many(b"".join(members))
    assert one_by_one.to_bytes() == together.to_bytes() == twin(size_bytes, members)


@given(sizes, st.lists(keys, max_size=20), st.lists(keys, max_size=20))
def test_what_was_added_is_contained_and_one_answer_is_like_many(size_bytes: int, members: list[bytes], others: list[bytes]):
    mask = Mask(size_bytes)
    mask.add_many(b"".join(members))
    assert all(mask.contains(key) for key in members)
    expected = bytes(twin(size_bytes, [*members, key]) == mask.to_bytes() for key in others)
    assert mask.contains_many(b"".join(others)) == expected
    assert bytes(mask.contains(key) for key in others) == expected


@pytest.mark.parametrize("step", [-1, 0, 1])
def test_no_key_is_lost_where_one_slice_ends_and_the_next_begins(step: int):
    members = many(_KEYS_AT_A_TIME + step)
    mask = Mask(16384)
    mask.add_many(b"".join(members))
    assert mask.to_bytes() == twin(16384, members)
    assert mask.contains_many(b"".join(members)) == b"\1" * len(members)


@pytest.mark.parametrize("position", range(4))
def test_a_key_is_contained_only_if_all_four_words_are(position: int):
    words = [1, 2, 3, 4]
    mask = Mask(2)
    mask.add(struct.pack(">4I", *words))
    assert mask.ones == HASHES
    words[position] = 9
    assert not mask.contains(struct.pack(">4I", *words))
    assert mask.contains_many(struct.pack(">4I", *words)) == b"\0"


def test_fill_and_false_positives_tell_what_strangers_will_see():
    mask = Mask(4000)
    mask.add_many(b"".join(many(4000)))
    assert mask.fill == mask.ones / 32000
    assert mask.fill == pytest.approx(0.394, abs=0.01)  # 1 - exp(-4 / 8)
    strangers = mask.contains_many(b"".join(many(20000, b"stranger")))
    assert sum(strangers) / 20000 == pytest.approx(mask.false_positives, abs=0.006)
    assert mask.false_positives == pytest.approx(0.024, abs=0.003)


def test_a_new_mask_contains_nothing():
    mask = Mask(100)
    assert (mask.ones, mask.fill, mask.false_positives, mask.size_bytes) == (0, 0.0, 0.0, 100)
    assert not mask.contains(bytes(16))
    assert mask.contains_many(b"") == b""


@given(sizes, st.lists(keys, max_size=10), st.lists(keys, max_size=10))
def test_a_union_is_what_adding_both_would_have_made(size_bytes: int, ours: list[bytes], theirs: list[bytes]):
    one, other = Mask.from_bytes(twin(size_bytes, ours)), Mask.from_bytes(twin(size_bytes, theirs))
    one.unite(other)
    assert one.to_bytes() == twin(size_bytes, ours + theirs)
    assert other.to_bytes() == twin(size_bytes, theirs)


def test_masks_of_unequal_size_are_not_united():
    with pytest.raises(ValueError, match="16 bits cannot be united with one of 8"):
        Mask(1).unite(Mask(2))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do_and_is_copied(kind: type):
    data = bytearray(os.urandom(64))
    mask = Mask.from_bytes(kind(data))
    before = bytes(data)
    mask.add_many(kind(data))
    mask.add(kind(data[:16]))
    assert mask.contains(kind(data[:16]))
    assert mask.contains_many(kind(data)) == b"\1" * 4
    assert bytes(data) == before
    assert mask.size_bytes == 64


def test_a_copy_goes_its_own_way():
    mask = Mask(8)
    copy = mask.copy()
    assert copy == mask
    copy.add(many(1)[0])
    assert copy != mask
    assert mask.ones == 0
    assert mask != b"\0" * 8


def test_bytes_that_are_not_whole_keys_are_refused():
    mask = Mask(8)
    for wrong in (b"x", bytes(15), bytes(17)):
        with pytest.raises(ValueError, match=f"{len(wrong)} bytes together"):
            mask.add_many(wrong)
        with pytest.raises(ValueError, match="bytes together"):
            mask.contains_many(wrong)
        with pytest.raises(struct.error):
            mask.contains(wrong)
        with pytest.raises(struct.error):
            mask.add(wrong)
    assert mask.ones == 0


def test_a_mask_has_at_least_one_byte():
    with pytest.raises(ValueError, match="0 bytes"):
        Mask(0)
    with pytest.raises(ValueError, match="-1 bytes"):
        Mask(-1)
    with pytest.raises(ValueError, match="0 bytes"):
        Mask.from_bytes(b"")
