"""What a front end adds to the time of an answer, at rates that it can bear.

Requests begin at fixed times (an open loop): whether answers are late or not, the next request is due when it is due, and
its time counts from then, although it may have to wait for a free connection (no coordinated omission).  The rates are
shares of what HAProxy can do in the same run: its CPU's second divided by what a request costs it.  Each front end, and
the nodes themselves asked directly, take turns; what is added is the percentile minus that of the nodes.  So what the load
generator, on the nodes' CPU, adds itself is the same on both sides.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .compare import Turns, front_cpu_s, wrk
from .farm import LOAD_CPU, Farm
from .load import SCENARIOS
from .measure import measure
from .nodes import NODES
from .processes import BenchError
from .report import Measured, Progress
from .tables import base_of

SHARES = (0.25, 0.5, 0.75)
PERCENTILES = (50, 99)
DIRECT = "direct"
SLOW = 0.98  # of the rate: the generator could not keep up, or answers did not come


class Times(NamedTuple):
    """One run.  p50_us, p99_us: since each request was due.  per_s: answers.  late_us: the median the generator sent late."""

    p50_us: float
    p99_us: float
    per_s: float
    late_us: float


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value that so many percent do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def estimate_s(fronts: Sequence[str], turns: Turns) -> float:
    """About how long it takes."""
    return turns.seconds * 2 + len(SHARES) * (len(fronts) + 1) * turns.rounds * (turns.seconds + 0.8)


def run(fronts: Sequence[str], turns: Turns, farm: Farm, progress: Progress) -> Measured:
    """Measure it."""
    base = base_of(fronts)
    ports = {front: ("127.0.0.1", farm.front(front).port) for front in fronts}
    progress.step(f"latency: what {base} can do")
    cost = measure(lambda: wrk(ports[base][1], SCENARIOS["small"], turns.seconds, farm.script), front_cpu_s).us
    if cost is None:
        raise BenchError(f"{base} answers nothing")
    full = 1e6 / cost
    result: dict[str, Any] = {"saturation": full, "of": base, "rates": {}}
    texts = []
    for share in SHARES:
        runs: dict[str, list[Times]] = {name: [] for name in (DIRECT, *fronts)}
        for number in range(turns.rounds):
            for name in runs:
                progress.step(f"latency at {share:.0%}, round {number + 1} of {turns.rounds}: {name}")
                runs[name].append(ask(ports.get(name, NODES[0]), full * share, turns.seconds))
                farm.check()
        texts.append(table(share, full * share, base, runs))
        result["rates"][f"{share}"] = {name: [times._asdict() for times in of] for name, of in runs.items()}
    return Measured("\n\n".join(texts), result)


def ask(address: tuple[str, int], rate: float, seconds: int) -> Times:
    """Ask at this rate, from a process of its own on the load's CPU.

    Raises:
        BenchError: It failed.
    """
    words = [address[0], str(address[1]), f"{rate:.1f}", str(seconds)]
    command = ["taskset", "-c", str(LOAD_CPU), sys.executable, "-m", "cachelb.tools.bench.open_loop", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False, env=os.environ)
    if done.returncode:
        raise BenchError(f"the load at a fixed rate failed: {done.stderr.strip()[-300:]}")
    return Times(**json.loads(done.stdout))


def added(runs: Mapping[str, Sequence[Times]], name: str, percent: int) -> float:
    """Microseconds that a front end adds to a percentile: the median of the rounds."""
    field = f"p{percent}_us"
    pairs = zip(runs[name], runs[DIRECT], strict=True)
    return statistics.median(getattr(times, field) - getattr(direct, field) for times, direct in pairs)


def table(share: float, rate: float, base: str, runs: Mapping[str, Sequence[Times]]) -> str:
    """A line per front end."""
    lines = [
        f"latency: {rate:.0f} requests a second, {share:.0%} of what {base} can do",
        f"  {'front':15}{'p50 us':>10}{'p99 us':>10}{'added p50':>12}{'added p99':>12}{f'p99 vs {base}':>16}  notes",
    ]
    for name, of in runs.items():
        p50, p99 = (statistics.median(getattr(times, f"p{percent}_us") for times in of) for percent in PERCENTILES)
        more = [added(runs, name, percent) for percent in PERCENTILES]
        ratio = more[1] / added(runs, base, 99) if name != DIRECT and added(runs, base, 99) > 0 else None
        got = statistics.median(times.per_s for times in of)
        note = f"only {got:.0f} answers a second" if got < rate * SLOW else ""
        cells = f"{'-':>12}{'-':>12}" if name == DIRECT else f"{more[0]:12.0f}{more[1]:12.0f}"
        lines.append(f"  {name:15}{p50:10.0f}{p99:10.0f}{cells}{'-' if ratio is None else f'{ratio:.2f}':>16}  {note}".rstrip())
    return "\n".join(lines)
