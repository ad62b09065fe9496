"""Health against a clock of our own: transcripts of single nodes, and a simulated farm for what must hold over time."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachelb.nodes.health import (
    EJECTION_S,
    FORGIVEN_S,
    RETURN_S,
    Change,
    Health,
    HealthPolicy,
)

POLICY = HealthPolicy()
EXACT = POLICY._replace(jitter=0.0)
NAMES = ("a", "b", "c")


def proven(policy: HealthPolicy = EXACT, names: tuple[str, ...] = NAMES) -> Health:
    """A farm whose nodes have all answered their first probe at time 0."""
    health = Health(policy, names, 0.0)
    answer(health, 0.0, *health.due(0.0))
    return health


def answer(health: Health, now: float, *names: str) -> list[Change]:
    return [change for name in names for change in health.observe_probe(name, True, "HTTP status 200", now)]


def refuse(health: Health, now: float, *names: str) -> list[Change]:
    return [change for name in names for change in health.observe_probe(name, False, "connection refused", now)]


def up(health: Health) -> list[str]:
    return [name for name, node in health.states().items() if node.state == "up"]


class Farm:
    """A simulated world: nodes that answer at once, refuse at once or hang; probes are sent when they are due."""

    def __init__(self, policy: HealthPolicy, names: tuple[str, ...] = NAMES, seed: int = 1) -> None:
        self.policy = policy
        self.now = 0.0
        self.health = Health(policy, names, 0.0, seed)
        self.hung: set[str] = set()
        self.refusing: set[str] = set()
        self.flying: list[tuple[float, str]] = []
        self.changes: list[Change] = []
        self.probes: list[tuple[float, str]] = []
        self.rounds = 0

    def run_until(self, end: float) -> None:
        while True:
            self.rounds += 1
            self._step()
            coming = min([at for at, _ in self.flying], default=math.inf)
            following = min(self.health.next_due(self.now), coming)
            if following > end:
                self.now = end
                return
            assert self.rounds < 100_000, "time does not pass"
            self.now = following

    def _step(self) -> None:
        self.changes += self.health.tick(self.now)
        for at, name in [flight for flight in self.flying if flight[0] <= self.now]:
            self.flying.remove((at, name))
            if name in self.hung:
                self.changes += self.health.observe_probe(name, False, "no answer within 1 s", self.now)
            else:
                self.changes += answer(self.health, self.now, name)
        for name in self.health.due(self.now):
            self.probes.append((self.now, name))
            if name in self.refusing:
                self.changes += refuse(self.health, self.now, name)
            elif name in self.hung:
                self.flying.append((self.now + self.policy.timeout_s, name))
            else:
                self.changes += answer(self.health, self.now, name)


# -- the start


def test_every_node_is_up_and_probed_at_once_at_the_start():
    health = Health(POLICY, NAMES, 100.0)
    assert up(health) == list(NAMES)
    assert health.due(100.0) == list(NAMES)
    assert all(node.share == 1.0 and node.since == 100.0 for node in health.states().values())


def test_the_first_failed_probe_of_a_node_that_never_answered_is_enough():
    health = Health(EXACT, NAMES, 0.0)
    health.due(0.0)
    assert refuse(health, 0.01, "b") == [Change("b", "up", "dead", "the first probe failed: connection refused", 0.01)]
    assert up(health) == ["a", "c"]


def test_a_probe_under_way_is_not_sent_again():
    health = Health(EXACT, NAMES, 0.0)
    assert health.due(0.0) == list(NAMES)
    assert health.due(1000.0) == []
    answer(health, 1000.0, "b")
    assert health.due(1000.0) == ["b"]


def test_the_cause_says_what_the_first_probe_was_answered():
    assert proven().states()["a"].cause == "probes are answered: HTTP status 200"


# -- death


def test_one_failed_probe_of_a_proven_node_is_repeated_quickly_and_forgiven():
    health = proven()
    assert health.due(2.0) == list(NAMES)
    answer(health, 2.0, "a", "c")
    assert refuse(health, 2.0, "b") == []
    assert health.next_due(2.0) == pytest.approx(2.5)  # a quarter of the interval
    assert health.due(2.5) == ["b"]
    assert answer(health, 2.5, "b") == []
    health.due(4.5)
    assert refuse(health, 4.5, "b") == []


def test_fall_probes_in_a_row_are_death():
    health = proven(EXACT._replace(fall=3))
    for now in (2.0, 2.5):
        health.due(now)
        assert refuse(health, now, "b") == []
    health.due(3.0)
    (change,) = refuse(health, 3.0, "b")
    assert str(change) == "node b is dead: 3 probes in a row failed, last: connection refused"
    assert health.states()["b"] == ("dead", 0.0, 3.0, "3 probes in a row failed, last: connection refused")


def test_a_failure_that_took_its_time_is_repeated_without_a_pause():
    health = proven()
    health.due(2.0)
    refuse(health, 3.0, "b")  # after its timeout
    assert health.next_due(3.0) == 3.0


@pytest.mark.parametrize("seed", range(20))
def test_a_hung_node_is_dead_within_three_intervals_whenever_it_hangs(seed: int):
    farm = Farm(POLICY, seed=seed)
    farm.run_until(20.0 + seed / 10)
    farm.hung = {"b"}
    hung_at = farm.now
    farm.run_until(hung_at + 3 * POLICY.interval_s)
    assert [change.name for change in farm.changes] == ["b"]
    assert farm.changes[0].at - hung_at <= 4.2 + 1e-6  # as HealthPolicy says


@pytest.mark.parametrize(("interval_s", "timeout_s"), [(0.2, 0.1), (1.0, 0.5), (10.0, 1.0)])
def test_a_hung_node_is_dead_within_three_intervals_for_other_intervals(interval_s: float, timeout_s: float):
    farm = Farm(POLICY._replace(interval_s=interval_s, timeout_s=timeout_s))
    farm.run_until(5 * interval_s)
    farm.hung = {"b"}
    hung_at = farm.now
    farm.run_until(hung_at + 3 * interval_s)
    assert [change.name for change in farm.changes] == ["b"]


def test_death_by_probe_takes_the_last_node_too():
    farm = Farm(POLICY)
    farm.run_until(5.0)
    farm.refusing = set(NAMES)
    farm.run_until(10.0)
    assert up(farm.health) == []


# -- return


@pytest.mark.parametrize("away_s", [0.5, 3.0, 10.0, 100.0, 5000.0])
@pytest.mark.parametrize("how", ["refusing", "hung"])
def test_a_node_that_is_back_is_noticed_in_time_however_long_it_was_away(how: str, away_s: float):
    farm = Farm(POLICY, seed=int(away_s))
    farm.run_until(10.0)
    setattr(farm, how, {"b"})
    farm.run_until(15.0 + away_s)
    assert [change.new for change in farm.changes] == ["dead"]
    setattr(farm, how, set())
    farm.run_until(farm.now + RETURN_S + POLICY.timeout_s)
    assert [change.new for change in farm.changes] == ["dead", "up"]
    assert farm.changes[-1].at - (15.0 + away_s) <= RETURN_S


def test_probes_of_a_dead_node_become_rarer():
    farm = Farm(EXACT)
    farm.run_until(3.0)
    farm.refusing = {"b"}
    farm.run_until(100.0)
    times = [at for at, name in farm.probes if name == "b" and at > farm.changes[0].at]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[:3] == pytest.approx([1.0, 2.0, 4.0])
    assert gaps[3:] == pytest.approx([EXACT.dead_gap_s] * len(gaps[3:]))


def test_the_longest_pause_is_never_above_the_configured_back_off():
    assert EXACT._replace(backoff_max_s=1.5).dead_gap_s == 1.5
    assert EXACT._replace(interval_s=100.0, backoff_max_s=60.0).dead_gap_s == 60.0


@pytest.mark.parametrize(("rise", "jitter"), [(1, 0.0), (2, 0.1), (3, 0.5)])
def test_the_longest_pause_with_jitter_and_rise_is_still_in_time(rise: int, jitter: float):
    policy = POLICY._replace(rise=rise, jitter=jitter)
    assert policy.dead_gap_s * (1 + jitter) + (rise - 1) * policy.quick_s == pytest.approx(RETURN_S)


def test_rise_probes_in_a_row_bring_a_node_back():
    health = proven(EXACT._replace(rise=3))
    for now in (2.0, 2.5):
        health.due(now)
        refuse(health, now, "b")
    assert up(health) == ["a", "c"]
    health.due(3.0)
    assert answer(health, 3.0, "b") == []
    health.due(3.5)
    assert refuse(health, 3.5, "b") == []
    now = 3.5
    for _ in range(2):
        now = max(health.next_due(now), now)
        while "b" not in health.due(now):
            answer(health, now, "a", "c")
            now = health.next_due(now) + 0.01
        assert answer(health, now, "b") == []
    while "b" not in health.due(now):
        answer(health, now, "a", "c")
        now = health.next_due(now) + 0.01
    (change,) = answer(health, now, "b")
    assert str(change) == "node b is up: 3 probes in a row were answered, last: HTTP status 200"


def test_a_node_returns_with_a_growing_share():
    farm = Farm(EXACT)
    farm.run_until(3.0)
    farm.refusing = {"b"}
    farm.run_until(10.0)
    assert farm.health.states()["b"].share == 0.0
    farm.refusing = set()
    farm.run_until(20.0)
    back_at = farm.changes[-1].at
    shares = []
    health = farm.health
    for tenth in range(12):
        health.tick(back_at + tenth + 0.5)
        shares.append(health.states()["b"].share)
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0])


def test_each_step_of_the_share_is_due_and_counts_as_a_new_version():
    farm = Farm(EXACT)
    farm.run_until(3.0)
    farm.refusing = {"b"}
    farm.run_until(10.0)
    farm.refusing = set()
    while farm.changes[-1].new != "up":
        farm.run_until(farm.now + 0.1)
    before = farm.health.version
    rounds = farm.rounds
    farm.run_until(farm.now + 15.0)
    assert farm.health.version - before == 9
    assert farm.rounds - rounds < 60
    assert farm.health.states()["b"].share == 1.0


def test_without_slow_start_the_share_is_full_at_once():
    farm = Farm(EXACT._replace(slow_start_s=0.0))
    farm.run_until(3.0)
    farm.refusing = {"b"}
    farm.run_until(10.0)
    farm.refusing = set()
    farm.run_until(20.0)
    assert farm.health.states()["b"].share == 1.0


def test_a_farm_that_starts_after_its_director_takes_all_keys_without_delay():
    farm = Farm(POLICY, tuple("abcdefgh"))
    farm.refusing = set("abcdefgh")
    farm.run_until(30.0)
    assert up(farm.health) == []
    farm.refusing = set()
    farm.run_until(30.0 + RETURN_S)
    shares = [node.share for node in farm.health.states().values()]
    assert sum(shares) >= len(shares) / 2  # enough to carry the load; the others follow slowly
    assert min(shares) > 0


def test_a_returning_node_takes_everything_when_the_others_die():
    farm = Farm(EXACT)
    farm.run_until(3.0)
    farm.refusing = {"b"}
    farm.run_until(10.0)
    farm.refusing = set()
    while farm.changes[-1].new != "up":
        farm.run_until(farm.now + 0.1)
    assert farm.health.states()["b"].share < 1
    farm.refusing = {"a", "c"}
    farm.run_until(farm.now + 4.0)
    assert farm.health.states()["b"].share == 1.0


# -- traffic


def test_failures_of_traffic_cause_a_probe_at_once():
    health = proven()
    health.observe_passive("b", POLICY.passive_failures - 1, 0, 0.5)
    assert health.due(0.5) == []
    assert health.observe_passive("b", 1, 0, 0.6) == []
    assert health.due(0.6) == ["b"]
    assert up(health) == list(NAMES)


def test_one_failed_probe_of_a_suspect_is_death():
    health = proven()
    health.observe_passive("b", 7, 0, 0.6)
    health.due(0.6)
    (change,) = refuse(health, 0.6, "b")
    assert change.cause == "7 failures in a row, then a probe: connection refused"


def test_a_success_of_traffic_clears_failures_and_suspicion():
    health = proven()
    for now in (0.1, 0.2, 0.3):
        health.observe_passive("b", 4, 0, now)
        health.observe_passive("b", 0, 1, now)
    assert health.due(0.3) == []
    health.observe_passive("b", 5, 0, 0.4)
    health.observe_passive("b", 0, 1, 0.4)
    health.due(0.4)
    assert refuse(health, 0.4, "b") == []


def test_failures_and_successes_at_the_same_time_are_no_failures_in_a_row():
    health = proven()
    health.observe_passive("b", 1000, 1, 0.1)
    assert health.due(0.1) == []


def test_a_probe_sent_before_the_trouble_does_not_acquit():
    health = proven()
    assert health.due(2.0) == list(NAMES)
    health.observe_passive("b", 5, 0, 2.3)
    answer(health, 2.4, "b")
    assert health.due(2.4) == ["b"]
    (change,) = refuse(health, 2.4, "b")
    assert change.new == "dead"


def test_a_probe_sent_before_the_trouble_that_fails_is_death():
    health = proven()
    health.due(2.0)
    health.observe_passive("b", 5, 0, 2.3)
    assert [change.new for change in refuse(health, 3.0, "b")] == ["dead"]


def eject(health: Health, name: str, now: float) -> list[Change]:
    """Failures, a probe that passes, failures again."""
    health.observe_passive(name, 5, 0, now)
    answer(health, now, *health.due(now))
    return health.observe_passive(name, 5, 0, now)


def test_failures_that_go_on_although_probes_pass_are_ejection():
    health = proven()
    (change,) = eject(health, "b", 1.0)
    assert str(change) == "node b is dead: 5 failures in a row although probes are answered; ejected for 30 s"
    assert up(health) == ["a", "c"]


def test_a_success_between_is_a_new_start_for_a_suspect_that_was_acquitted():
    health = proven()
    health.observe_passive("b", 5, 0, 1.0)
    answer(health, 1.0, *health.due(1.0))
    health.observe_passive("b", 0, 1, 1.1)
    assert health.observe_passive("b", 5, 0, 1.2) == []
    assert health.due(1.2) == ["b"]


def test_an_ejected_node_is_back_after_its_time_and_not_before():
    farm = Farm(EXACT)
    farm.run_until(1.0)
    eject(farm.health, "b", 1.0)
    farm.run_until(1.0 + EJECTION_S - 0.1)
    assert farm.changes == []
    farm.run_until(1.0 + EJECTION_S)
    assert [str(change) for change in farm.changes] == ["node b is up: its ejection is over and probes are answered"]
    assert farm.health.states()["b"].share == pytest.approx(0.1)


def test_each_ejection_is_longer_up_to_a_limit_and_good_behaviour_is_remembered():
    health = proven(EXACT._replace(backoff_max_s=80.0))
    now, times = 1.0, []
    for _ in range(4):
        eject(health, "b", now)
        start = now
        while not health.tick(now):
            now += 1.0
        times.append(now - start)
    now += FORGIVEN_S + 1
    eject(health, "b", now)
    start = now
    while not health.tick(now):
        now += 1.0
    assert [*times, now - start] == [30.0, 60.0, 80.0, 80.0, 30.0]


def test_an_ejected_node_that_dies_stays_dead_beyond_its_ejection():
    farm = Farm(EXACT)
    farm.run_until(1.0)
    eject(farm.health, "b", 1.0)
    farm.refusing = {"b"}
    farm.run_until(100.0)
    assert farm.changes == []  # it was dead to the relay all the time
    assert farm.health.states()["b"].cause == "2 probes in a row failed, last: connection refused"
    farm.refusing = set()
    farm.run_until(100.0 + RETURN_S)
    assert [change.new for change in farm.changes] == ["up"]


def test_an_ejection_that_ends_while_probes_fail_is_not_a_return():
    health = proven(EXACT._replace(fall=5))
    eject(health, "b", 1.0)
    health.due(1.0 + EJECTION_S)
    refuse(health, 1.0 + EJECTION_S, "b")
    assert health.tick(1.0 + EJECTION_S) == []
    assert health.states()["b"].state == "dead"


def test_no_more_than_the_configured_share_is_ejected():
    health = proven(names=tuple("abcdef"))
    for name in "abcdef":
        eject(health, name, 1.0)
    assert up(health) == ["d", "e", "f"]


def test_the_last_living_node_is_never_ejected():
    farm = Farm(EXACT._replace(max_ejected_share=1.0))
    farm.run_until(1.0)
    farm.refusing = {"a", "c"}
    farm.run_until(6.0)
    assert eject(farm.health, "b", 6.0) == []
    assert up(farm.health) == ["b"]


def test_what_traffic_says_about_a_dead_node_is_ignored():
    health = Health(EXACT, NAMES, 0.0)
    health.due(0.0)
    refuse(health, 0.0, "b")
    assert health.observe_passive("b", 100, 0, 0.1) == []
    assert health.observe_passive("b", 0, 100, 0.1) == []
    assert up(health) == ["a", "c"]


# -- the rest


def test_a_skipped_probe_changes_nothing_and_is_repeated():
    health = proven()
    health.due(2.0)
    for now in (2.1, 2.5, 3.0, 3.5):
        health.skip_probe("b", now)
        health.due(max(health.next_due(now), now))
    assert up(health) == list(NAMES)


def test_a_reload_keeps_what_is_known_of_nodes_that_stay():
    health = proven()
    for now in (2.0, 2.5):
        health.due(now)
        refuse(health, now, "b")
    health.reload(EXACT._replace(interval_s=1.0), ("b", "d", "a"), 3.0)
    assert list(health.states()) == ["b", "d", "a"]
    assert health.states()["b"].state == "dead"
    assert health.states()["a"].since == 0.0
    assert "d" in health.due(3.0)
    assert answer(health, 3.0, "c") == []  # its probe was under way


def test_results_for_unknown_nodes_are_ignored():
    health = proven()
    assert refuse(health, 1.0, "z") == []
    assert health.observe_passive("z", 9, 9, 1.0) == []
    health.skip_probe("z", 1.0)


def test_an_empty_farm_is_never_due():
    health = Health(POLICY, (), 0.0)
    assert health.next_due(0.0) == math.inf
    assert health.tick(0.0) == []


def test_intervals_differ_by_the_jitter_and_follow_the_seed():
    def gaps(seed: int) -> list[float]:
        farm = Farm(POLICY, ("a",), seed)
        farm.run_until(200.0)
        times = [at for at, _ in farm.probes]
        return [later - earlier for earlier, later in pairwise(times)]

    first = gaps(1)
    assert min(first) >= 1.8 - 1e-9
    assert max(first) <= 2.2 + 1e-9
    assert max(first) - min(first) > 0.3
    assert first == gaps(1) != gaps(2)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["probe", "pass", "fail", "skip", "passive", "tick", "reload"]),
        st.sampled_from("abcd"),
        st.floats(0, 40),
        st.integers(0, 8),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_whatever_happens_changes_alternate_and_states_agree(actions: list[tuple[str, str, float, int]]):
    now = 0.0
    names = list("abc")
    health = Health(POLICY, names, now)
    state = dict.fromkeys(names, "up")
    for verb, name, seconds, number in actions:
        now += seconds
        changes: list[Change] = []
        if verb == "probe":
            assert set(health.due(now)) <= set(names)
        elif verb in ("pass", "fail"):
            changes = health.observe_probe(name, verb == "pass", "x", now)
        elif verb == "skip":
            health.skip_probe(name, now)
        elif verb == "passive":
            changes = health.observe_passive(name, number, number % 3 == 2, now)
        elif verb == "tick":
            changes = health.tick(now)
        else:
            names = list("abcd"[number % 4 :])
            health.reload(POLICY, names, now)
            state = {name: state.get(name, "up") for name in names}
        version = health.version
        for change in changes:
            assert state[change.name] == change.old != change.new
            state[change.name] = change.new
        known = health.states()
        assert {name: node.state for name, node in known.items()} == state
        assert all((node.share > 0) == (node.state == "up") and node.share <= 1 for node in known.values())
        assert health.next_due(now) >= now
        assert health.version == version


def test_what_another_director_knew_to_be_dead_is_dead_and_probed_at_once():
    health = Health(EXACT, NAMES, 0.0)
    before = health.version
    health.adopt({"a": "connection refused", "gone": "whatever"}, 1.0)
    assert health.version > before
    states = health.states()
    assert {name: known.state for name, known in states.items()} == {"a": "dead", "b": "up", "c": "up"}
    assert (states["a"].share, states["a"].cause) == (0.0, "connection refused")
    assert "a" in health.due(1.0)
    assert answer(health, 1.0, "a") == []
    assert "a" in health.due(1.0 + EXACT.quick_s)
    (change,) = answer(health, 1.0 + EXACT.quick_s, "a")
    assert (change.name, change.new) == ("a", "up")
