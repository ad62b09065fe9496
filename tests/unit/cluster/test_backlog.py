"""``Backlog``: what is remembered, what is dropped, and that its bounds hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cachelb.cluster.backlog import OVERHEAD_BYTES, Backlog, Purge


def purge(number: int, fields: bytes = b"") -> Purge:
    return Purge(b"http://a.com/%d" % number, fields)


def test_the_oldest_come_first_and_stay_until_they_are_done():
    backlog = Backlog()
    for number in range(5):
        assert backlog.add("a", purge(number), 0.0)
    assert backlog.oldest("a", 2) == [purge(0), purge(1)]
    assert backlog.done("a", purge(0))
    assert not backlog.done("a", purge(0))
    assert backlog.oldest("a", 9) == [purge(number) for number in (1, 2, 3, 4)]
    assert (len(backlog), backlog.count("a"), backlog.dropped) == (4, 4, 0)


def test_each_node_has_its_own():
    backlog = Backlog()
    backlog.add("a", purge(1), 0.0)
    backlog.add("b", purge(1), 0.0)
    assert backlog.done("a", purge(1))
    assert (backlog.count("a"), backlog.count("b"), backlog.count("c")) == (0, 1, 0)
    assert not backlog.done("c", purge(1))
    assert backlog.oldest("c", 1) == []


def test_the_same_again_is_the_youngest_and_there_once():
    backlog = Backlog()
    for number in (1, 2, 1):
        backlog.add("a", purge(number), 0.0)
    assert backlog.oldest("a", 9) == [purge(2), purge(1)]


def test_other_fields_are_another_variant():
    backlog = Backlog()
    backlog.add("a", purge(1, b"Accept: a\r\n"), 0.0)
    backlog.add("a", purge(1, b"Accept: b\r\n"), 0.0)
    assert len(backlog) == 2


def test_of_too_many_for_a_node_the_oldest_are_dropped():
    backlog = Backlog(per_node=3)
    assert [backlog.add("a", purge(number), 0.0) for number in range(5)] == [True, True, True, False, False]
    backlog.add("b", purge(0), 0.0)
    assert backlog.oldest("a", 9) == [purge(2), purge(3), purge(4)]
    assert backlog.dropped == 2
    assert backlog.count("b") == 1


def test_when_all_is_full_a_node_makes_room_of_its_own_only():
    size = len(purge(0).url) + OVERHEAD_BYTES
    backlog = Backlog(in_all_bytes=3 * size)
    for node in ("a", "a", "b"):
        assert backlog.add(node, purge(len(backlog)), 0.0)
    assert not backlog.add("c", purge(7), 0.0)
    assert not backlog.add("a", purge(8), 0.0)
    assert [backlog.oldest(node, 9) for node in "abc"] == [[purge(1), purge(8)], [purge(2)], []]
    assert backlog.dropped == 2


def test_one_that_is_larger_than_everything_is_dropped():
    backlog = Backlog(in_all_bytes=1000)
    assert backlog.add("a", purge(1), 0.0)
    assert not backlog.add("a", purge(2, b"x" * 1000), 0.0)
    assert len(backlog) == 0
    assert backlog.dropped == 2


def test_what_is_too_old_is_dropped():
    backlog = Backlog(kept_s=10.0)
    backlog.add("a", purge(1), 0.0)
    backlog.add("b", purge(1), 3.0)
    backlog.add("a", purge(2), 5.0)
    backlog.expire(9.9)
    assert len(backlog) == 3
    backlog.expire(13.0)
    assert [backlog.oldest(node, 9) for node in "ab"] == [[purge(2)], []]
    assert backlog.dropped == 2


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from("abc"), st.integers(0, 9)),
            st.tuples(st.just("done"), st.sampled_from("abc"), st.integers(0, 9)),
            st.tuples(st.just("expire"), st.just(""), st.just(0)),
        ),
        max_size=60,
    )
)
def test_whatever_is_done_the_bounds_hold_and_nothing_is_lost_uncounted(steps):
    size = len(purge(0).url) + OVERHEAD_BYTES
    backlog = Backlog(per_node=4, in_all_bytes=9 * size, kept_s=10.0)
    added = done = 0
    for now, (step, node, number) in enumerate(steps):
        if step == "add":
            added += purge(number) not in backlog.oldest(node, 99)
            backlog.add(node, purge(number), float(now))
        elif step == "done":
            done += backlog.done(node, purge(number))
        else:
            backlog.expire(float(now))
        assert all(backlog.count(name) <= 4 for name in "abc")
        assert backlog._bytes == len(backlog) * size <= 9 * size
        assert len(backlog) == added - done - backlog.dropped
