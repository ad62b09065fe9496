from __future__ import annotations

import pytest
from cachelb.tools.bench import compare
from cachelb.tools.bench.__main__ import _arguments as arguments
from cachelb.tools.bench.__main__ import main, plan_of
from cachelb.tools.bench.compare import Plan
from cachelb.tools.bench.processes import BenchError


def plan(*argv: str) -> Plan:
    return plan_of(arguments(list(argv)))


def test_the_base_is_haproxy_or_else_the_first():
    assert plan("--fronts", "nginx,haproxy").base == "haproxy"
    assert plan("--fronts", "nginx,cachelb").base == "nginx"


def test_by_default_all_front_ends_take_three_turns_of_three_seconds():
    usual = plan()
    assert usual.fronts == ["haproxy", "nginx", "squid", "cachelb"]
    assert (usual.scenarios, usual.rounds, usual.seconds) == (["small", "close", "64k", "1m", "10m", "many"], 3, 3)
    assert usual.cachelb.endswith("-m cachelb")


def test_quick_takes_less_than_three_minutes():
    assert plan("--quick").estimate_s < 180


def test_quick_leaves_what_is_said_explicitly():
    quick = plan("--quick", "--rounds", "1", "--scenarios", "8k")
    assert (quick.scenarios, quick.rounds, quick.seconds) == (["8k"], 1, 2)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--fronts", "haproxi"], "there is no front end 'haproxi'; known are haproxy, nginx, squid, cachelb"),
        (["--scenarios", "small,huge"], "there is no scenario 'huge'; known are small, close, 8k, 64k, 1m, 10m, many"),
        (["--scenarios", ","], "no scenario was given"),
        (["--rounds", "0"], "rounds and seconds must be 1 or more"),
        (["--seconds", "-1"], "rounds and seconds must be 1 or more"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(argv: list[str], sentence: str, capsys):
    assert main(argv) == 1
    assert capsys.readouterr().err.startswith(f"bench: {sentence}")


def test_missing_programs_and_cpus_are_said_before_anything_is_started(monkeypatch):
    monkeypatch.setattr(compare, "missing", lambda programs: "wrk is not installed")
    with pytest.raises(BenchError, match="wrk is not installed"):
        compare.check(plan())
    monkeypatch.setattr(compare, "missing", lambda programs: "")
    monkeypatch.setattr(compare.os, "sched_getaffinity", lambda pid: {0})
    with pytest.raises(BenchError, match="CPUs 0 and 1 are needed"):
        compare.check(plan())


def test_only_the_programs_of_chosen_front_ends_are_needed(monkeypatch):
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(compare, "missing", lambda programs: asked.extend(programs) or "")
    monkeypatch.setattr(compare.os, "sched_getaffinity", lambda pid: {0, 1})
    compare.check(plan("--fronts", "cachelb,nginx"))
    assert [program for program, _ in asked] == ["nginx", "wrk", "taskset"]


def test_other_work_on_the_cpu_is_said():
    assert compare.noise(0.01) == ""
    assert compare.noise(0.39).startswith("CPU 0 is 39% busy with something else")
