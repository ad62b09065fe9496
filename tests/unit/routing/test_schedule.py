"""In turn, and by how busy the nodes are."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cachelb.routing.schedule import Turns, least_busy

weights = st.lists(st.sampled_from((0.5, 1.0, 2.0, 3.0, 7.0)), min_size=1, max_size=8)


def test_equal_nodes_take_turns():
    turns = Turns()
    assert [turns.next([3, 5, 8], [1.0] * 3) for _ in range(7)] == [3, 5, 8, 3, 5, 8, 3]


def test_a_heavy_node_has_its_turns_spread():
    turns = Turns()
    took = [turns.next([0, 1], [3.0, 1.0]) for _ in range(8)]
    assert Counter(took) == {0: 6, 1: 2}
    assert "1111" not in "".join(map(str, took))
    assert "0000" not in "".join(map(str, took))


@given(weights, st.integers(1, 40))
def test_turns_are_as_the_weights_say(weights: list[float], rounds: int):
    nodes = list(range(len(weights)))
    turns = Turns()
    count = int(2 * sum(weights)) * rounds
    took = Counter(turns.next(nodes, weights) for _ in range(count))
    for node, weight in enumerate(weights):
        assert abs(took[node] - count * weight / sum(weights)) <= len(weights)


def test_who_has_left_gets_no_turn_and_who_comes_does():
    turns = Turns()
    turns.next([0, 1], [1.0, 1.0])
    assert {turns.next([1, 2], [1.0, 1.0]) for _ in range(2)} == {1, 2}


def test_the_least_busy_node_is_first_and_others_follow():
    assert least_busy([4, 5, 6], [9, 0, 3], [1.0] * 3, 3) == [5, 6, 4]
    assert least_busy([4, 5, 6], [9, 0, 3], [1.0] * 3, 1) == [5]


def test_a_heavy_node_may_be_busier():
    assert least_busy([0, 1], [3, 1], [4.0, 1.0], 2) == [0, 1]


def test_among_equals_turns_decide():
    assert [least_busy([0, 1, 2], [0, 0, 0], [1.0] * 3, 1, turn)[0] for turn in range(4)] == [0, 1, 2, 0]


@given(st.lists(st.tuples(st.integers(0, 1000), st.sampled_from((0.05, 1.0, 2.0))), min_size=1, max_size=20), st.integers(0, 99))
def test_nobody_with_less_to_do_is_passed_over(nodes: list[tuple[int, float]], turn: int):
    loads, weights = [load for load, _ in nodes], [weight for _, weight in nodes]
    first = least_busy(range(len(nodes)), loads, weights, 1, turn)[0]
    assert all((loads[first] + 1) / weights[first] <= (load + 1) / weight for load, weight in nodes)
