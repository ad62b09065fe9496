"""One table: start what it needs, let the cases take turns, sum up."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from . import report
from .farm import FRONT_CPU, LOAD_CPU, Farm, Started
from .fronts import LOCAL, USUAL
from .load import Answers, Scenario, parse_wrk, wrk_command
from .measure import Run, busy_s, figures, measure
from .processes import SEARCH_PATH, BenchError
from .resident import pss_kib
from .tables import Case, Table

IDLE_S = 1.0
NOISE_SHARE = 0.03  # one tick of 10 ms, and health checks, are no noise
WRK_EXTRA_S = 60.0  # wrk may wait for answers a little after its time; beyond this it hangs
RUN_OVERHEAD_S = 0.2
SCRAPE_S = 0.5
STAGGER_S = 2.5  # to start one front end


class Turns(NamedTuple):
    """How often each case is measured, and how long each time."""

    rounds: int
    seconds: int

    def estimate_s(self, table: Table) -> float:
        """About how long the table takes."""
        runs = len(table.cases) * (self.rounds + table.warm)
        unusual = {(case.front, case.setting) for case in table.cases if case.setting != USUAL}
        return runs * (self.seconds + RUN_OVERHEAD_S) + STAGGER_S * len(unusual)


def compare(table: Table, turns: Turns, farm: Farm, progress: report.Progress) -> report.Measured:
    """Measure one table.

    Raises:
        BenchError: Something did not start or has ended.
    """
    started = [farm.front(case.front, case.setting) for case in table.cases]
    runs: dict[str, list[Run]] = {case.label: [] for case in table.cases}
    memory: dict[str, int] = {}
    for number in range(-table.warm, turns.rounds):
        for case, front in zip(table.cases, started, strict=True):
            progress.step(f"{table.name}, round {number + 1} of {turns.rounds}: {case.label}")
            run = _turn(case, front, turns.seconds, farm)
            if number >= 0:
                runs[case.label].append(run)
                memory[case.label] = pss_kib(front.pid)
            farm.check()
    rows = {case.label: figures(runs[case.label], runs[case.base]) for case in table.cases}
    text = report.table(table.title, table.against, rows, memory if table.memory else {})
    return report.Measured(text, report.as_json(table, rows, runs, memory))


def _turn(case: Case, front: Started, seconds: int, farm: Farm) -> Run:
    load = partial(wrk, front.port, case.scenario, seconds, farm.script)
    with _scraping(case.front, front.admin) if case.setting.log else contextlib.nullcontext():
        return measure(load, front_cpu_s)


def front_cpu_s() -> float:
    """How long the front ends' CPU has been busy since boot, in seconds."""
    return busy_s(Path("/proc/stat").read_text(), FRONT_CPU, os.sysconf("SC_CLK_TCK"))


def warn_of_noise() -> None:
    """Say so if the front ends' CPU has something else to do."""
    before = front_cpu_s()
    time.sleep(IDLE_S)
    if warning := noise((front_cpu_s() - before) / IDLE_S):
        print(f"bench: {warning}", file=sys.stderr)


def noise(share: float) -> str:
    """A sentence on what else CPU 0 does, if that is enough to be felt.  share: how busy it is without load."""
    if share <= NOISE_SHARE:
        return ""
    return f"CPU {FRONT_CPU} is {share:.0%} busy with something else; figures will be too high, ratios less clear"


def wrk(port: int, scenario: Scenario, seconds: int, script: Path, cpus: int | str = LOAD_CPU, threads: int = 1) -> Answers:
    """Load 127.0.0.1:``port``, and say what was answered.

    Raises:
        BenchError: wrk failed or hangs.
    """
    command = ["taskset", "-c", str(cpus), *wrk_command(port, scenario, seconds, script, threads)]
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


@contextlib.contextmanager
def _scraping(front: str, admin: int) -> Iterator[None]:
    """Fetch the metrics twice a second; Squid has none that are shown by themselves."""
    if front == "squid":
        yield
        return
    done = threading.Event()
    problems: list[OSError] = []

    def scrape() -> None:
        while not done.wait(SCRAPE_S):
            try:
                with urllib.request.urlopen(f"http://{LOCAL}:{admin}/metrics", timeout=5) as answer:
                    answer.read()
            except OSError as exc:
                problems.append(exc)

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if problems:
        raise BenchError(f"the metrics of {front} cannot be fetched: {problems[0]}")
