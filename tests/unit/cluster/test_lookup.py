"""``held`` says of any table what a look at every record says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cachelb.cluster.lookup import held
from cachelb.cluster.record import RECORD

BITS = [1 << (slot % 7) if slot % 5 else 0 for slot in range(4096)]  # every fifth slot is nobody's

# few keys, and such as contain each other's bytes, so that a match may begin in the middle of a record
rests = st.lists(st.sampled_from([0, 1]), min_size=14, max_size=14).map(bytes)
times = st.sampled_from([0, 99, 100, 101, 0xFFFFFFFF]) | st.integers(0, 0xFFFFFFFF)
records = st.tuples(rests | st.just(bytes(14)), times, st.integers(0, 0xFFFF))


@given(st.lists(records, max_size=6), rests | st.just(bytes(14)), st.integers(0, 127))
def test_it_finds_what_is_there_and_nothing_else(bucket: list[tuple[bytes, int, int]], rest: bytes, live: int):
    table = (bytearray().join(RECORD.pack(*record) for record in bucket), bytearray())
    here, elsewhere = b"\0\0" + bytes((rest[0] & 0x3F,)) + rest[1:], b"\0\0\x40" + rest[1:]
    expected = any(
        known == here[2:] and live & BITS[tag & 4095] and (expires > 100 or not expires) for known, expires, tag in bucket
    )
    assert held(table, BITS, [here, elsewhere, here], 100, live) == [expected, False, expected]


def test_the_first_18_bits_of_a_key_choose_its_bucket():
    table = tuple(bytearray() for _ in range(1 << 18))
    key = bytes((0xAB, 0xCD, 0xEF)) + bytes(13)
    table[0xABCDEF >> 6].extend(RECORD.pack(key[2:], 0, 1))
    assert held(table, BITS, [key], 0, 1 << 1) == [True]
    assert held(table, BITS, [key, bytes(16)], 0, 1 << 2) == [False, False]
