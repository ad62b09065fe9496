"""One comparison: start nodes and front ends, let them take turns, report each scenario as it is done."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from . import report
from .fronts import FRONTS, command_of
from .load import LUA, SCENARIOS, Answers, Scenario, parse_wrk, wrk_command
from .measure import Run, busy_s, figures, measure
from .nodes import NODES, nginx_config, write_files
from .processes import SEARCH_PATH, BenchError, Processes, missing

FRONT_CPU, LOAD_CPU = 0, 1
SETTLE_S = 2.0  # Squid takes a second to trust its peers
IDLE_S = 1.0
NOISE_SHARE = 0.03  # one tick of 10 ms, and health checks, are no noise
WRK_EXTRA_S = 60.0  # wrk may wait for answers a little after its time; beyond this it hangs
RUN_OVERHEAD_S = 0.2
START_STOP_S = 10.0


class Plan(NamedTuple):
    """What to compare.  cachelb: the command that is ours."""

    fronts: Sequence[str]
    scenarios: Sequence[str]
    rounds: int
    seconds: int
    cachelb: str

    @property
    def base(self) -> str:
        """The front end that the others are compared with: HAProxy, or the first one."""
        return "haproxy" if "haproxy" in self.fronts else self.fronts[0]

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return len(self.fronts) * len(self.scenarios) * self.rounds

    @property
    def estimate_s(self) -> float:
        """About how long it takes."""
        return START_STOP_S + self.runs * (self.seconds + RUN_OVERHEAD_S)


def check(plan: Plan) -> None:
    """See that the machine can do it.

    Raises:
        BenchError: Programs or CPUs are missing.
    """
    programs = [("nginx", "nginx-light"), ("wrk", "wrk"), ("taskset", "util-linux")]
    programs += [(FRONTS[name].program, FRONTS[name].package) for name in plan.fronts if FRONTS[name].program]
    if sentence := missing(list(dict.fromkeys(programs))):
        raise BenchError(sentence)
    if not {FRONT_CPU, LOAD_CPU} <= os.sched_getaffinity(0):
        raise BenchError(f"CPUs {FRONT_CPU} and {LOAD_CPU} are needed: one for the front end, one for everything else")


def compare(plan: Plan) -> dict[str, Any]:
    """Run the whole plan, printing as it goes; return everything measured.

    Raises:
        BenchError: Something needed is missing, did not start or has ended.
    """
    check(plan)
    with tempfile.TemporaryDirectory(prefix="cachelb-bench.", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o777 if "squid" in plan.fronts else 0o755)  # Squid writes its pid file as another user
        with Processes(folder) as processes:
            _start(plan, folder, processes)
            return _measure(plan, folder / "load.lua", processes)


def _start(plan: Plan, folder: Path, processes: Processes) -> None:
    write_files(folder)
    (folder / "load.lua").write_text(LUA)
    config = folder / "nodes.conf"
    config.write_text(nginx_config(folder))
    processes.start("nodes", ["nginx", "-c", str(config)], LOAD_CPU, NODES[0])
    for name in plan.fronts:
        front = FRONTS[name]
        config = folder / f"{name}.conf"
        config.write_text(front.config(folder))
        processes.start(name, command_of(front, config, plan.cachelb), FRONT_CPU, ("127.0.0.1", front.port))
    time.sleep(SETTLE_S)
    before = _cpu()
    time.sleep(IDLE_S)
    if warning := noise((_cpu() - before) / IDLE_S):
        print(f"bench: {warning}", file=sys.stderr)


def noise(share: float) -> str:
    """A sentence on what else CPU 0 does, if that is enough to be felt.  share: how busy it is without load."""
    if share <= NOISE_SHARE:
        return ""
    return f"CPU {FRONT_CPU} is {share:.0%} busy with something else; figures will be too high, ratios less clear"


def _measure(plan: Plan, script: Path, processes: Processes) -> dict[str, Any]:
    progress = report.Progress(plan.runs, sys.stderr)
    result = {}
    for scenario in (SCENARIOS[name] for name in plan.scenarios):
        runs: dict[str, list[Run]] = {name: [] for name in plan.fronts}
        for number in range(plan.rounds):
            for name in plan.fronts:
                progress.step(f"{scenario.name}, round {number + 1} of {plan.rounds}: {name}")
                runs[name].append(measure(partial(_load, FRONTS[name].port, scenario, plan.seconds, script), _cpu))
                processes.check()
        rows = {name: figures(runs[name], runs[plan.base]) for name in plan.fronts}
        progress.clear()
        print("\n" + report.table(scenario, plan.base, rows), flush=True)
        result[scenario.name] = report.as_json(plan.base, rows, runs)
    return result


def _cpu() -> float:
    return busy_s(Path("/proc/stat").read_text(), FRONT_CPU, os.sysconf("SC_CLK_TCK"))


def _load(port: int, scenario: Scenario, seconds: int, script: Path) -> Answers:
    command = ["taskset", "-c", str(LOAD_CPU), *wrk_command(port, scenario, seconds, script)]
    environment = {**os.environ, "PATH": SEARCH_PATH}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + WRK_EXTRA_S, env=environment, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise BenchError(f"wrk did not end within {seconds + WRK_EXTRA_S:.0f} s") from exc
    if done.returncode:
        raise BenchError(f"wrk ended with status {done.returncode}: {done.stderr.strip()[:200]}")
    return parse_wrk(done.stdout)
