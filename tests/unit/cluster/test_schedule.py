"""``Schedule``: when a node is asked for its digest."""

from __future__ import annotations

import pytest

from cachelb.cluster.schedule import HURRY_S, PERIOD_MAX_S, PERIOD_MIN_S, PERIOD_S, RETRY_MAX_S, RETRY_S, START_MAX_S, Schedule

NOW = 1000.0


def test_a_thousand_nodes_are_not_asked_in_the_same_second():
    dues = sorted(Schedule(f"cache{number}", NOW, 1000).due for number in range(1000))
    assert dues[0] >= NOW
    assert dues[-1] <= NOW + START_MAX_S
    seconds = [int(due) for due in dues]
    assert max(seconds.count(second) for second in set(seconds)) < 80
    later = [Schedule(f"cache{number}", NOW, 1000) for number in range(1000)]
    for schedule in later:
        schedule.got(3600.0, NOW)
    seconds = [int(schedule.due) for schedule in later]
    assert max(seconds.count(second) for second in set(seconds)) < 60
    assert min(seconds) >= NOW + 3600


def test_a_small_farm_is_asked_at_once():
    assert all(Schedule(f"cache{number}", NOW, 3).due < NOW + 0.2 for number in range(3))


@pytest.mark.parametrize(
    ("fresh_s", "least", "most"),
    [
        (10.0, 11.0, 11.5),
        (3600.0, 3601.0, 3661.0),
        (0.0, PERIOD_S, PERIOD_S + 61),
        (0.1, PERIOD_MIN_S, PERIOD_MIN_S + 2),
        (1e9, PERIOD_MAX_S, PERIOD_MAX_S + 61),
    ],
)
def test_the_next_digest_is_asked_for_a_little_after_it_is_made(fresh_s: float, least: float, most: float):
    schedule = Schedule("cache1", NOW, 1)
    schedule.got(fresh_s, NOW)
    assert NOW + least <= schedule.due <= NOW + most


def test_a_digest_that_is_overdue_is_asked_for_more_and_more_rarely():
    schedule = Schedule("cache1", NOW, 1)
    waits = []
    for _ in range(20):
        schedule.same(NOW)
        waits.append(schedule.due - NOW)
    assert waits[:4] == [5, 10, 20, 40]
    assert waits[-1] == PERIOD_S
    schedule.got(3600.0, NOW)
    schedule.same(NOW)
    assert schedule.due == NOW + 5


def test_errors_are_repeated_after_a_minute_then_twice_as_long_up_to_an_hour():
    schedule = Schedule("cache1", NOW, 1)
    waits = []
    for _ in range(10):
        schedule.failed(NOW)
        waits.append(schedule.due - NOW)
    assert all(RETRY_S * 2**number <= wait <= RETRY_S * 2**number * 1.05 for number, wait in enumerate(waits[:6]))
    assert RETRY_MAX_S <= waits[-1] <= RETRY_MAX_S * 1.05
    schedule.got(3600.0, NOW)
    schedule.failed(NOW)
    assert schedule.due < NOW + RETRY_S * 1.05


def test_a_restarted_node_is_asked_every_second_for_a_minute_or_until_it_has_a_digest():
    schedule = Schedule("cache1", NOW, 1)
    for _ in range(5):
        schedule.failed(NOW)
    schedule.hurry(NOW)
    assert schedule.due == NOW
    assert schedule.is_hurried(NOW)
    schedule.failed(NOW + 0.5)
    assert schedule.due == NOW + 1.5
    assert not schedule.is_hurried(NOW + HURRY_S)
    schedule.failed(NOW + HURRY_S)
    assert schedule.due >= NOW + HURRY_S + RETRY_S
    schedule.hurry(NOW)
    schedule.got(3600.0, NOW + 1)
    assert not schedule.is_hurried(NOW + 1)
