"""What answers teach, for how long, and how it is unlearned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.routing.learned import MAX_KEY_BYTES, RETEST_EVERY, Learned, Lesson

SEGMENT = b"www.a.com/user/"
URL = b"http://www.a.com/user/1"
TTL_S = 600.0


def url(number: int) -> bytes:
    return b"http://www.a.com/user/%d" % number


def learned_segment(now: float = 0.0) -> Learned:
    learned = Learned()
    for number in range(8):
        learned.observe(url(number), SEGMENT, b"private", False, now)
    return learned


def test_nothing_is_known_at_first() -> None:
    learned = Learned()
    assert learned.size == 0
    assert learned.lookup(URL, SEGMENT, 0.0) is None


@pytest.mark.parametrize("why", ["private", "no-store", "vary-star"])
def test_an_uncacheable_answer_teaches_its_url(why: str) -> None:
    learned = Learned()
    assert learned.observe(URL, SEGMENT, why.encode(), False, 5.0) == [Lesson("url", URL, why, TTL_S)]
    assert learned.lookup(URL, SEGMENT, 6.0) == f"learned url {why}"
    assert learned.lookup(url(2), SEGMENT, 6.0) is None
    assert learned.size == 1


def test_the_same_answer_again_is_no_news() -> None:
    learned = Learned()
    learned.observe(URL, SEGMENT, b"private", False, 0.0)
    assert learned.observe(URL, SEGMENT, b"private", False, 1.0) == []


def test_what_was_learned_is_over_after_its_time_and_can_be_learned_anew() -> None:
    learned = Learned(ttl_s=10.0)
    learned.observe(URL, SEGMENT, b"private", False, 0.0)
    assert learned.lookup(URL, SEGMENT, 9.99) is not None
    assert learned.lookup(URL, SEGMENT, 10.0) is None
    assert learned.size == 0
    assert learned.observe(URL, SEGMENT, b"no-store", False, 11.0) == [Lesson("url", URL, "no-store", 10.0)]


def test_a_url_whose_time_is_over_is_learned_anew_even_if_nobody_looked_it_up() -> None:
    learned = Learned(ttl_s=10.0)
    learned.observe(URL, SEGMENT, b"private", False, 0.0)
    assert len(learned.observe(URL, SEGMENT, b"private", False, 10.0)) == 1
    assert learned.size == 1


def test_a_storable_answer_is_unlearned_at_once() -> None:
    learned = Learned()
    learned.observe(URL, SEGMENT, b"private", False, 0.0)
    assert learned.observe(URL, SEGMENT, b"", True, 1.0) == [Lesson("url", URL, "", 0.0)]
    assert learned.lookup(URL, SEGMENT, 1.0) is None
    assert learned.observe(URL, SEGMENT, b"", True, 2.0) == []


def test_an_answer_that_is_neither_teaches_nothing() -> None:
    learned = learned_segment()
    assert learned.observe(url(0), SEGMENT, b"", False, 1.0) == []
    assert learned.lookup(url(0), SEGMENT, 1.0) == "learned url private"
    assert learned.lookup(url(99), SEGMENT, 1.0) == "learned segment private"


def test_the_eighth_url_in_a_row_teaches_the_segment() -> None:
    learned = Learned()
    lessons = [learned.observe(url(number), SEGMENT, b"private", False, 0.0) for number in range(8)]
    assert [len(lesson) for lesson in lessons] == [1] * 7 + [2]
    assert lessons[7][1] == Lesson("segment", SEGMENT, "private", TTL_S)
    assert learned.lookup(url(99), SEGMENT, 1.0) == "learned segment private"
    assert learned.lookup(b"http://www.a.com/other/", b"www.a.com/other/", 1.0) is None


def test_one_url_asked_for_again_and_again_is_one_url() -> None:
    learned = Learned()
    for _ in range(50):
        learned.observe(URL, SEGMENT, b"private", False, 0.0)
    assert learned.lookup(url(2), SEGMENT, 0.0) is None


def test_a_storable_answer_breaks_the_row() -> None:
    learned = Learned()
    for number in range(7):
        learned.observe(url(number), SEGMENT, b"private", False, 0.0)
    learned.observe(url(100), SEGMENT, b"", True, 0.0)
    for number in range(7, 14):
        learned.observe(url(number), SEGMENT, b"private", False, 0.0)
    assert learned.lookup(url(99), SEGMENT, 0.0) is None
    learned.observe(url(14), SEGMENT, b"private", False, 0.0)
    assert learned.lookup(url(99), SEGMENT, 0.0) is not None


def test_a_segment_is_over_after_its_time() -> None:
    learned = learned_segment(now=100.0)
    assert learned.lookup(url(99), SEGMENT, 100.0 + TTL_S) is None
    assert learned.size == 8  # the URLs themselves, not yet looked up


def test_one_lookup_in_sixty_four_under_a_segment_is_a_test() -> None:
    learned = learned_segment()
    answers = [learned.lookup(url(1000 + number), SEGMENT, 1.0) for number in range(4 * RETEST_EVERY)]
    assert answers.count(None) == 4


def test_a_learned_url_is_not_tested_before_its_time() -> None:
    learned = learned_segment()
    assert all(learned.lookup(url(0), SEGMENT, 1.0) == "learned url private" for _ in range(200))


def test_a_learned_segment_is_not_prolonged_by_what_is_seen_under_it() -> None:
    learned = learned_segment(now=0.0)
    for number in range(100, 120):
        lessons = learned.observe(url(number), SEGMENT, b"private", False, TTL_S - 1)
        assert [lesson.kind for lesson in lessons] == ["url"]
    assert learned.lookup(url(999), SEGMENT, TTL_S) is None


def test_a_storable_answer_to_a_test_unlearns_the_segment() -> None:
    learned = learned_segment()
    assert learned.observe(url(1000), SEGMENT, b"", True, 1.0) == [Lesson("segment", SEGMENT, "", 0.0)]
    assert learned.lookup(url(1001), SEGMENT, 1.0) is None


def test_workers_that_exchange_lessons_know_the_same() -> None:
    here, there = Learned(), Learned()
    for number in range(8):
        for lesson in here.observe(url(number), SEGMENT, b"private", False, 0.0):
            there.learn(lesson, 3.0)
    assert there.size == here.size == 9
    assert there.lookup(url(0), SEGMENT, 3.0) == "learned url private"
    assert there.lookup(url(99), SEGMENT, 3.0) == "learned segment private"
    assert there.lookup(url(99), SEGMENT, 3.0 + TTL_S) is None
    for lesson in here.observe(url(0), SEGMENT, b"", True, 4.0):
        there.learn(lesson, 5.0)
    assert there.lookup(url(0), SEGMENT, 5.0) is None


def test_forgetting_what_is_not_known_is_nothing() -> None:
    learned = Learned()
    learned.learn(Lesson("url", URL, "", 0.0), 0.0)
    learned.learn(Lesson("segment", SEGMENT, "", 0.0), 0.0)
    assert learned.size == 0


def test_the_oldest_url_goes_first_when_the_memory_is_full() -> None:
    learned = Learned(max_urls=3, segment_threshold=100)
    for number in range(5):
        learned.observe(url(number), SEGMENT, b"private", False, float(number))
    assert [learned.lookup(url(number), SEGMENT, 5.0) is not None for number in range(5)] == [False] * 2 + [True] * 3
    assert learned.size == 3


def test_segments_and_rows_are_bounded_too() -> None:
    learned = Learned(max_segments=3, segment_threshold=2)
    for number in range(5):
        for twice in range(2):
            learned.observe(b"%d/%d" % (number, twice), b"%d/" % number, b"private", False, 0.0)
    assert [learned.lookup(b"x", b"%d/" % number, 0.0) is not None for number in range(5)] == [False] * 2 + [True] * 3
    for number in range(100):
        learned.observe(b"row %d" % number, b"row %d/" % number, b"private", False, 0.0)
    assert len(learned.runs) == 3


@pytest.mark.parametrize("excess", [0, 1])
def test_very_long_keys_are_not_learned(excess: int) -> None:
    learned = Learned()
    key = b"k" * (MAX_KEY_BYTES + excess)
    assert len(learned.observe(key, SEGMENT, b"private", False, 0.0)) == 1 - excess
    learned.learn(Lesson("url", key, "private", TTL_S), 0.0)
    assert learned.size == 1 - excess


def test_very_long_segments_are_not_learned() -> None:
    learned = Learned(segment_threshold=1)
    lessons = learned.observe(URL, b"s" * (MAX_KEY_BYTES + 1), b"private", False, 0.0)
    assert [lesson.kind for lesson in lessons] == ["url"]


def test_expire_forgets_what_is_over() -> None:
    learned = learned_segment(now=0.0)
    learned.learn(Lesson("url", b"short", "private", 5.0), 0.0)
    assert learned.expire(4.0) == 0
    assert learned.expire(5.0) == 1
    assert learned.expire(TTL_S) == 9
    assert learned.size == 0


def test_sizes_are_of_urls_and_of_segments() -> None:
    assert Learned().sizes() == (0, 0)
    assert learned_segment().sizes() == (8, 1)


def test_storable_answers_matter_once_anything_was_uncacheable() -> None:
    learned = Learned(ttl_s=10.0)
    assert not bool(learned.size or learned.runs)
    learned.observe(URL, SEGMENT, b"private", False, 0.0)
    learned.expire(10.0)
    assert learned.size == 0
    assert bool(learned.size or learned.runs), "the row of its segment has begun"
    learned.observe(URL, SEGMENT, b"", True, 11.0)
    assert not bool(learned.size or learned.runs)


event = st.tuples(
    st.integers(0, 5), st.integers(0, 2), st.sampled_from([b"", b"private"]), st.booleans(), st.floats(0, 30)
)


@given(st.lists(event, max_size=60))
def test_size_is_what_is_held_and_never_over_the_bounds(events: list[tuple[int, int, bytes, bool, float]]) -> None:
    learned = Learned(ttl_s=20.0, segment_threshold=2, max_urls=4, max_segments=2)
    now = 0.0
    for number, place, uncacheable, storable, step in events:
        now += step
        segment = b"%d/" % place
        key = segment + b"%d" % number
        learned.observe(key, segment, uncacheable, storable, now)
        learned.lookup(key, segment, now)
        assert learned.size == len(learned._urls) + len(learned._segments)
        assert len(learned._urls) <= 4
        assert len(learned._segments) <= 2
        assert len(learned.runs) <= 2
        if uncacheable:
            assert learned.lookup(key, segment, now) == "learned url private"
