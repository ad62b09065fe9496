from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb import control
from cachelb.routing.learned import Lesson

MESSAGES = [(control.SNAPSHOT, b"x" * 1000), (control.REOPEN, b""), (control.DRAIN, b"30"), (control.LESSONS, bytes(range(256)))]
STREAM = b"".join(control.pack(kind, payload) for kind, payload in MESSAGES)


def read_all(data, step=0):
    """All messages that ``receive`` makes of a stream."""

    async def main():
        reader = asyncio.StreamReader()
        for start in range(0, len(data), step or len(data) or 1):
            reader.feed_data(data[start : start + (step or len(data))])
        reader.feed_eof()
        found = []
        while (message := await control.receive(reader)) is not None:
            found.append(message)
        return found

    return asyncio.run(main())


@pytest.mark.parametrize("step", [0, 1, 3])
def test_messages_arrive_as_they_were_sent(step):
    assert read_all(STREAM, step) == MESSAGES


@pytest.mark.parametrize("cut", range(0, len(STREAM), 17))
def test_a_cut_stream_ends_after_its_last_whole_message(cut):
    found = read_all(STREAM[:cut])
    assert found == MESSAGES[: len(found)]


@pytest.mark.parametrize("length", [0, control.MESSAGE_BYTES + 1, 2**32 - 1])
def test_a_length_that_cannot_be_ends_the_stream(length):
    assert read_all(length.to_bytes(4, "big") + b"S" + b"x" * 100) == []


def test_an_end_is_no_message():
    assert read_all(b"") == []


lessons = st.builds(
    Lesson, st.sampled_from(["url", "segment"]), st.binary(max_size=50), st.sampled_from(["private", ""]), st.floats(0, 1e6)
)


@given(st.lists(lessons, max_size=10))
def test_lessons_survive(lessons):
    assert control.unpack_lessons(control.pack_lessons(lessons)) == lessons


seen = st.builds(control.Seen, st.integers(0, 65535), st.integers(0, 2**32 - 1), st.binary(max_size=300))


@given(st.lists(seen, max_size=10))
def test_what_was_seen_survives(seen):
    assert list(control.unpack_seen(control.pack_seen(seen))) == seen


@given(st.builds(control.Purge, st.integers(0, 2**64 - 1), st.binary(max_size=300), st.binary(max_size=300)))
def test_a_purge_survives(purge):
    assert control.unpack_purge(control.pack_purge(purge)) == purge


def test_what_became_of_a_purge_survives():
    purged = control.Purged(7, 3, 2, 1, ("cache3: no answer",))
    assert control.unpack_purged(control.pack_purged(purged)) == purged


def test_the_largest_message_arrives_and_one_that_nobody_would_read_is_not_made():
    payload = bytes(control.MESSAGE_BYTES - 1)
    assert read_all(control.pack(control.SNAPSHOT, payload)) == [(control.SNAPSHOT, payload)]
    with pytest.raises(AssertionError, match="bytes for one message"):
        control.pack(control.SNAPSHOT, payload + b"x")


def test_questions_for_templates_survive_the_way():
    finds = [
        control.Find(0, control.NO_SLOT, "shop", "", "wlc", b"\x0a\0\0\1"),
        control.Find(0xFFFFFFFF, 2047, "g" * 64, "p" * 64, "url", bytes(16)),
    ]
    assert list(control.unpack_finds(control.pack_finds(finds))) == finds
    found = [control.Found(0, 5, control.NO_SLOT), control.Found(0xFFFFFFFF, control.NO_SLOT, 7)]
    assert control.unpack_found(control.pack_found(found)) == found
    used = [control.Used(5, "shop", bytes(4)), control.Used(control.NO_SLOT, "g" * 64, b""), control.Used(0, "x", bytes(16))]
    assert list(control.unpack_used(control.pack_used(used))) == used
    assert list(control.unpack_used(b"")) == list(control.unpack_finds(b"")) == []
