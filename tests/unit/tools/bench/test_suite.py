from __future__ import annotations

import pytest
from cachelb.tools.bench import suite
from cachelb.tools.bench.__main__ import _arguments as arguments
from cachelb.tools.bench.__main__ import main, plan_of
from cachelb.tools.bench.compare import Turns
from cachelb.tools.bench.processes import BenchError
from cachelb.tools.bench.suite import NAMES, Plan


def plan(*argv: str) -> Plan:
    return plan_of(arguments(list(argv)))


def test_by_default_everything_is_measured_in_five_rounds():
    usual = plan()
    assert usual.fronts == ["haproxy", "nginx", "squid", "cachelb"]
    assert (usual.scenarios, usual.turns) == (list(NAMES), Turns(5, 3))
    assert usual.commands["cachelb"].endswith("-m cachelb")


def test_quick_takes_less_than_three_minutes():
    assert plan("--quick").estimate_s < 180


def test_quick_leaves_what_is_said_explicitly():
    quick = plan("--quick", "--rounds", "1", "--scenarios", "8k")
    assert (quick.scenarios, quick.turns) == (["8k"], Turns(1, 2))


def test_another_version_of_ours_is_one_more_front_end():
    both = plan("--cachelb", "old=/x/old run", "--quick")
    assert both.fronts == ["haproxy", "nginx", "squid", "cachelb", "old"]
    assert both.commands["old"] == "/x/old run"
    assert both.known["old"].ours


@pytest.mark.parametrize("name", NAMES)
def test_everything_has_an_estimate_that_grows_with_the_front_ends(name: str):
    few, many = (plan("--scenarios", name, "--fronts", fronts) for fronts in ("haproxy", "haproxy,nginx,cachelb"))
    assert 0 < few.estimate_s < many.estimate_s


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--fronts", "haproxi"], "there is no front end 'haproxi'; known are haproxy, nginx, squid, cachelb, cachelb-pure"),
        (["--scenarios", "small,huge"], "there is no scenario 'huge'; known are small, close, chunked, 8k, 64k, 1m, 10m, many"),
        (["--scenarios", ","], "no scenario was given"),
        (["--rounds", "0"], "rounds and seconds must be 1 or more"),
        (["--seconds", "-1"], "rounds and seconds must be 1 or more"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(argv: list[str], sentence: str, capsys):
    assert main(argv) == 1
    assert capsys.readouterr().err.startswith(f"bench: {sentence}")


def test_missing_programs_and_cpus_are_said_before_anything_is_started(monkeypatch):
    monkeypatch.setattr(suite, "missing", lambda programs: "wrk is not installed")
    with pytest.raises(BenchError, match="wrk is not installed"):
        suite.check(plan())
    monkeypatch.setattr(suite, "missing", lambda programs: "")
    monkeypatch.setattr(suite.os, "sched_getaffinity", lambda pid: {0})
    with pytest.raises(BenchError, match="CPUs 0 and 1 are needed"):
        suite.check(plan())


def test_only_the_programs_of_chosen_front_ends_are_needed(monkeypatch):
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(suite, "missing", lambda programs: asked.extend(programs) or "")
    monkeypatch.setattr(suite.os, "sched_getaffinity", lambda pid: {0, 1})
    suite.check(plan("--fronts", "cachelb,nginx"))
    assert [program for program, _ in asked] == ["nginx", "wrk", "taskset"]


def test_the_machine_is_named_with_its_cpus_and_kernel():
    assert " CPUs, Linux " in suite.machine()
