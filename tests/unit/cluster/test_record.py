"""Records: what their bytes say."""

from __future__ import annotations

from hashlib import md5

from cachelb.cluster.record import (
    GENERATION,
    RECENT,
    RECORD,
    SOURCE_SHIFT,
    TAG,
    TAG_AT,
    TAIL,
    TAIL_AT,
    Source,
    count_slots,
    head_of,
    lower,
)


def test_a_record_is_20_bytes_and_its_parts_lie_where_they_are_read():
    data = RECORD.pack(b"k" * 14, 0x11223344, 0x5566)
    assert len(data) == 20
    assert TAIL.unpack_from(data, TAIL_AT) == (0x11223344, 0x5566)
    assert TAG.unpack_from(data, TAG_AT) == (0x5566,)


def test_a_buckets_number_gives_the_bytes_that_its_records_leave_out():
    for number in range(100):
        key = md5(b"%d" % number, usedforsecurity=False).digest()
        assert head_of(key[0] << 10 | key[1] << 2 | key[2] >> 6) == key[:2]


def test_slots_are_counted_whatever_else_the_tags_say():
    tags = [5, 5 | RECENT, 5 | GENERATION | Source.DIGEST << SOURCE_SHIFT, 4095, 4095 | 3 << SOURCE_SHIFT]
    data = b"".join(RECORD.pack(bytes(14), 0, tag) for tag in tags)
    assert count_slots(memoryview(data)) == {5: 3, 4095: 2}


def test_lowered_records_keep_key_time_and_slot():
    data = bytearray(RECORD.pack(b"a" * 14, 7, 0xFFFF) + RECORD.pack(b"b" * 14, 8, 0xA123))
    lower(data)
    assert list(RECORD.iter_unpack(data)) == [(b"a" * 14, 7, 0x0FFF), (b"b" * 14, 8, 0x0123)]
