from __future__ import annotations

import pytest
from cachelb.tools.bench.scaling import Use, busiest, scaling, table, used


def test_what_relays_is_told_from_what_does_not():
    use = used(1_000_000, {1: 5.0, 2: 1.0, 3: 0.0}, {1: 25.0, 2: 21.0, 3: 1.0}, 2)
    assert use == Use(1_000_000, us=pytest.approx(40.0), share=pytest.approx(0.5), other_us=pytest.approx(1.0))


def test_a_second_worker_that_does_nothing_does_not_relay():
    use = used(1_000_000, {1: 0.0, 2: 0.0}, {1: 20.0, 2: 0.1}, 2)
    assert (use.share, use.us) == (1.0, pytest.approx(20.0))


def test_two_even_workers_do_twice_as_much_and_uneven_ones_less():
    one, even, uneven = Use(1, 20.0, 1.0, 0.0), Use(1, 20.0, 0.5, 0.0), Use(1, 20.0, 0.75, 0.0)
    assert scaling({1: [one], 2: [even]}) == 2.0
    assert scaling({1: [one], 2: [uneven]}) == pytest.approx(4 / 3)
    assert scaling({1: [one], 2: [Use(1, 25.0, 0.5, 0.0)]}) == pytest.approx(1.6)  # dearer requests


def test_a_run_without_requests_is_no_figure():
    with pytest.raises(ValueError, match="nothing was done"):
        used(0, {}, {1: 1.0}, 1)


def test_the_table_has_a_line_for_each_number_of_workers():
    uses = {"haproxy": {1: [Use(1, 20.0, 1.0, 0.0)], 2: [Use(1, 20.0, 0.5, 0.1)]}}
    lines = table(uses).splitlines()[2:]
    assert [line.split()[:2] for line in lines] == [["haproxy,", "1"], ["haproxy,", "2"]]
    assert "2.00" in lines[1]


def test_those_that_relay_are_those_that_run_most():
    before, after = {1: 50.0, 2: 1.0}, {1: 50.1, 2: 3.0, 3: 0.2}
    assert busiest(before, after, 1) == [2]
    assert busiest(before, after, 2) == [2, 3]
