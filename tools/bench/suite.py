"""What can be measured, by name, and one run of several of them."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import latency, memory, scaling
from .compare import Turns, compare, warn_of_noise
from .farm import FRONT_CPU, LOAD_CPU, Farm
from .fronts import FRONTS, Front
from .processes import BenchError, Processes, missing
from .report import Progress
from .tables import TABLES, table_of

OTHERS = {"workers": scaling, "latency": latency, "memory": memory}
NAMES = (*TABLES, *OTHERS)
START_STOP_S = 10.0


class Plan(NamedTuple):
    """What to measure.  known: all front ends; commands: how to call ours, by the name of the front end."""

    fronts: Sequence[str]
    scenarios: Sequence[str]
    turns: Turns
    commands: Mapping[str, str]
    known: Mapping[str, Front] = FRONTS

    @property
    def estimate_s(self) -> float:
        """About how long it takes."""
        return START_STOP_S + sum(self._estimate_s(name) for name in self.scenarios)

    def _estimate_s(self, name: str) -> float:
        if name in OTHERS:
            return OTHERS[name].estimate_s(self.fronts, self.turns)
        return self.turns.estimate_s(table_of(name, self.fronts))


def check(plan: Plan) -> None:
    """See that the machine can do it.

    Raises:
        BenchError: Programs or CPUs are missing.
    """
    programs = [("nginx", "nginx-light"), ("wrk", "wrk"), ("taskset", "util-linux")]
    programs += [(front.program, front.package) for front in map(plan.known.__getitem__, plan.fronts) if not front.ours]
    if sentence := missing(list(dict.fromkeys(programs))):
        raise BenchError(sentence)
    if not {FRONT_CPU, LOAD_CPU} <= os.sched_getaffinity(0):
        raise BenchError(f"CPUs {FRONT_CPU} and {LOAD_CPU} are needed: one for the front end, one for everything else")


def run(plan: Plan) -> dict[str, Any]:
    """Run the whole plan, printing as it goes; return everything measured.

    Raises:
        BenchError: Something needed is missing, did not start or has ended.
    """
    check(plan)
    os.sched_setaffinity(0, {LOAD_CPU})
    texts: dict[str, str] = {}
    tables: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="cachelb-bench.", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o777 if "squid" in plan.fronts else 0o755)  # Squid writes its pid file as another user
        with Processes(folder) as processes:
            farm = Farm(folder, processes, plan.known, plan.commands)
            farm.start_nodes()
            progress = Progress(plan.estimate_s, sys.stderr)
            for at, scenario in enumerate(plan.scenarios):
                if scenario in OTHERS:
                    measured = OTHERS[scenario].run(plan.fronts, plan.turns, farm, progress)
                else:
                    measured = compare(table_of(scenario, plan.fronts), plan.turns, farm, progress)
                progress.clear()
                print(f"\n{measured.text}", flush=True)
                texts[scenario], tables[scenario] = measured
                farm.stop_unusual()
                if not at:
                    warn_of_noise()
    when = f"{time.strftime('%Y-%m-%d')}, {plan.turns.rounds} rounds of {plan.turns.seconds} s"
    return {"machine": machine(), "when": dict.fromkeys(texts, when), "text": texts, "tables": tables}


def machine() -> str:
    """This machine in a line: its processor, CPUs, kernel and Python."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    cpus = os.cpu_count()
    return f"{model}, {cpus} CPUs, Linux {platform.release()}, Python {platform.python_version()}"
