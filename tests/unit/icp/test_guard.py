from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icp.guard import DeniedBudget, Sources


def everyone(source: str) -> bool:
    return True


def test_a_source_may_send_its_burst_and_no_more():
    sources = Sources(everyone, rate_per_s=10, burst=5)
    assert [sources.standing("a", 100.0) for _ in range(7)] == [True] * 5 + [None] * 2


def test_the_bucket_fills_at_its_rate():
    sources = Sources(everyone, rate_per_s=10, burst=5)
    for _ in range(5):
        sources.standing("a", 100.0)
    assert sources.standing("a", 100.04) is None
    assert sources.standing("a", 100.1001) is True
    assert sources.standing("a", 100.1001) is None
    assert [sources.standing("a", 200.0) for _ in range(6)] == [True] * 5 + [None]


def test_in_the_long_run_the_rate_holds():
    sources = Sources(everyone, rate_per_s=10, burst=5)
    taken = sum(sources.standing("a", number / 1000) is True for number in range(10_000))
    assert 100 <= taken <= 106


def test_sources_do_not_share_a_bucket():
    sources = Sources(everyone, rate_per_s=1, burst=1)
    assert sources.standing("a", 1.0) is True
    assert sources.standing("a", 1.0) is None
    assert sources.standing("b", 1.0) is True


def test_rate_0_is_no_limit():
    sources = Sources(everyone, rate_per_s=0, burst=1)
    assert all(sources.standing("a", 1.0) for _ in range(1000))


def test_who_is_allowed_is_asked_once():
    asked: list[str] = []
    sources = Sources(lambda source: bool(asked.append(source)) or source == "a", rate_per_s=0, burst=1)
    assert [sources.standing(source, 1.0) for source in "abab"] == [True, False, True, False]
    assert asked == ["a", "b"]


def test_the_table_is_bounded_and_the_first_seen_goes():
    sources = Sources(everyone, rate_per_s=1, burst=1, max_sources=3)
    for source in "abcd":
        sources.standing(source, 1.0)
    assert len(sources) == 3
    assert sources.standing("d", 1.0) is None
    assert sources.standing("a", 1.0) is True


def test_denied_is_said_95_times():
    budget = DeniedBudget()
    assert not budget.told
    assert sum(budget.may_deny("a") for _ in range(500)) == 95
    assert budget.told == {"a": [95, 95, 0]}
    assert budget.may_deny("b")


def test_budget_0_never_says_denied():
    budget = DeniedBudget(0)
    assert not budget.may_deny("a")
    assert not budget.told


def test_when_the_table_is_full_strangers_get_silence():
    budget = DeniedBudget(max_sources=2)
    assert [budget.may_deny(source) for source in "abca"] == [True, True, False, True]


def test_answers_buy_more_denials():
    budget = DeniedBudget()
    for _ in range(95):
        budget.may_deny("a")
    for _ in range(6):
        budget.answered("a")
    assert sum(budget.may_deny("a") for _ in range(500)) == 19 * 6 - 95


def test_a_child_that_was_restarted_is_not_drowned_on_old_credit():
    budget = DeniedBudget()
    budget.may_deny("a")
    for _ in range(10_000):
        budget.answered("a")
    assert sum(budget.may_deny("a") for _ in range(500)) == 95


def test_answers_to_those_never_denied_are_not_remembered():
    budget = DeniedBudget()
    budget.answered("a")
    assert not budget.told


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 120)), max_size=30))
def test_no_squid_ever_removes_us(turns: list[tuple[bool, int]]):
    """neighbors.cc: removed when pings_acked > 100 and 100 * DENIED / pings_acked > 95, in integers."""
    budget = DeniedBudget()
    acked = denied = 0
    for is_denied, count in turns:
        for _ in range(count):
            if not is_denied:
                budget.answered("a")
                acked += 1
            elif budget.may_deny("a"):
                denied += 1
                acked += 1
                assert acked <= 100 or 100 * denied // acked <= 95


@pytest.mark.parametrize("burst", [1, 2, 100])
def test_bursts_are_exact(burst: int):
    sources = Sources(everyone, rate_per_s=3, burst=burst)
    assert sum(sources.standing("a", 7.7) is True for _ in range(200)) == burst
