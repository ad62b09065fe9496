from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cachelb.relay.memo import Memo


def test_what_was_put_is_found():
    memo: Memo[str, int] = Memo(2)
    memo.put("a", 1)
    assert memo.get("a") == 1
    assert memo.get("b") is None


def test_it_never_holds_more_than_two_generations():
    memo: Memo[int, int] = Memo(10)
    for i in range(1000):
        memo.put(i, i)
        assert len(memo.young) <= 10
        assert len(memo.old) <= 10
    assert memo.get(999) == 999
    assert memo.get(0) is None


def test_large_entries_count_as_several():
    memo: Memo[bytes, bytes] = Memo(10, len)
    for i in range(1000):
        key = b"%05d" % i
        memo.put(key, key)
        memo.get(b"%05d" % (i - 3))  # what is made young again is as large as before
        assert len(memo.young) <= 2
        assert len(memo.old) <= 2
    assert memo.get(b"00999") == b"00999"


def test_what_is_in_use_stays():
    memo: Memo[int, int] = Memo(10)
    memo.put(-1, -1)
    for i in range(1000):
        memo.put(i, i)
        assert memo.get(-1) == -1


def test_a_memo_for_nothing_still_works():
    memo: Memo[int, int] = Memo(0)
    for i in range(10):
        memo.put(i, i)
    assert len(memo.young) + len(memo.old) <= 2


def test_clear_forgets_both_generations():
    memo: Memo[int, int] = Memo(2)
    for i in range(4):
        memo.put(i, i)
    memo.clear()
    assert [memo.get(i) for i in range(4)] == [None] * 4


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30))), st.integers(1, 5))
def test_it_never_tells_a_wrong_value(steps, most):
    memo: Memo[int, str] = Memo(most)
    for is_put, key in steps:
        if is_put:
            memo.put(key, str(key))
        else:
            assert memo.get(key) in (None, str(key))


def test_what_is_offered_is_remembered_while_there_is_room():
    memo: Memo[bytes, int] = Memo(2)
    memo.offer(b"a", 1)
    memo.offer(b"b", 2)
    assert (memo.get(b"a"), memo.get(b"b")) == (1, 2)


def test_a_full_memo_remembers_what_is_offered_twice():
    memo: Memo[int, int] = Memo(2)
    for key in range(3):
        memo.offer(key, key)
    memo.offer(1000, 1)
    assert memo.get(1000) is None
    memo.offer(1000, 2)
    assert memo.get(1000) == 2


def test_a_flood_of_what_comes_once_pushes_nothing_out():
    memo: Memo[int, int] = Memo(4)
    for key in range(5):
        memo.put(key, key)
    for key in range(100, 164):  # their tags are in different places
        memo.offer(key, key)
    assert [memo.get(key) for key in range(5)] == list(range(5))


def test_only_what_was_noted_before_has_been_met_once_the_memo_has_been_full():
    memo: Memo[int, int] = Memo(4)
    for i in range(5):  # 0 to 3 are old now
        assert memo.met(i)
        memo.offer(i, i)
    assert not memo.met(2)  # it came before there was anything to forget
    memo.note(2)
    assert memo.met(2)
    assert not memo.met(99)
    memo.offer(99, 99)
    assert memo.met(99)
    assert memo.get(99) is None
    memo.clear()
    assert memo.met(3)
