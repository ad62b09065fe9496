from __future__ import annotations

import pytest
from cachelb.tools.bench import steps


@pytest.mark.parametrize(("name", "_target", "prepare"), steps.STEPS, ids=[name for name, *_ in steps.STEPS])
def test_every_step_can_be_set_up_and_run(name: str, _target: float | None, prepare):
    step = prepare()
    first = step()
    if "learned" not in name:
        assert first is not None
    step()


def test_what_is_added_up_is_measured():
    assert set(steps.WARM) <= {name for name, *_ in steps.STEPS}
    assert steps.warm_us([steps.StepTime(name, None, None) for name in steps.WARM]) is None


def test_names_differ():
    assert len({name for name, *_ in steps.STEPS}) == len(steps.STEPS)


def test_a_step_that_does_nothing_costs_next_to_nothing():
    assert 0.0 <= steps.time_us(lambda: None, best_of=2, run_s=0.001) < 1.0


def test_a_slower_step_costs_more():
    assert steps.time_us(lambda: sum(range(5000)), best_of=2, run_s=0.001) > 5.0


def test_a_step_that_cannot_be_set_up_does_not_hide_the_others(monkeypatch):
    def broken():
        raise ImportError("no module named x")

    monkeypatch.setattr(steps, "STEPS", (("a", 1.0, broken), ("b", None, lambda: lambda: None)))
    monkeypatch.setattr(steps, "time_us", lambda step: 7.0)
    assert steps.step_times() == [
        steps.StepTime("a", 1.0, None, "ImportError: no module named x"),
        steps.StepTime("b", None, 7.0),
    ]
