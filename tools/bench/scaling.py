"""How much more two workers can do than one, on a machine that has only two CPUs.

Two workers that have a CPU each leave none for the load and the nodes, so what they can do is not seen directly.  It is
computed from what they *use*.  Workers are pinned, the first to CPU 0, the second to CPU 1; the load and the nodes use
both CPUs in both cases.  The kernel counts the time that each worker runs (schedstat; softirqs in its turn are part of it,
as this kernel does not count them separately).

    capacity = requests / seconds that the busiest worker ran

is what the workers could do if each had its CPU for itself.  Two effects make it less than twice that of one worker: a
request costs more (shared caches, memory, locks of the kernel), or the workers' shares are uneven (each connection stays
with the worker that accepted it); then one has to wait for the other.  ``us`` and ``share`` show the two apart.  The time
of a supervisor, which relays nothing, is shown and is not part of the capacity: a third CPU would run it.

Each connection asks, waits a while, and asks again, so that the CPUs are not full: where they are, a worker whose CPU the
load happens to use less answers more, and the shares are the scheduler's (with 128 connections on each of two workers they
were seen as 61 and 39 %).  There are 128 connections for each worker, so that each has as much to do in both cases, and an
uneven spread is not the luck of a few.  Squid is left out: it has one worker without SMP.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .compare import Turns, wrk
from .farm import FRONT_CPU, LOAD_CPU, Farm, Started
from .fronts import USUAL
from .load import SCENARIOS, Scenario
from .report import Measured, Progress
from .resident import run_s

BOTH = f"{FRONT_CPU},{LOAD_CPU}"
COUNTS = (1, 2)
WARM_S = 1
CONNECTIONS = 128  # for each worker
PAUSE_MS = 10  # nearly thirteen thousand requests a second for each worker: two fifths of what one can do
RELAYING = 0.1  # of the time of the busiest: a thread that ran less does not relay


class Use(NamedTuple):
    """Of one run.  us: of all workers for each request.  share: of the busiest worker.  other_us: of all others.

    asked: requests, of as many as the pauses alone would allow; far below 1 the CPUs were full.
    """

    requests: int
    us: float
    share: float
    other_us: float
    asked: float = 1.0

    @property
    def capacity(self) -> float:
        """Requests per second, if each worker had its CPU for itself."""
        return 1e6 / (self.us * self.share)


def used(requests: int, before: Mapping[int, float], after: Mapping[int, float], workers: int) -> Use:
    """What the threads of a front end used, from the seconds that each had run.

    Raises:
        ValueError: Nothing was done.
    """
    times = sorted((seconds - before.get(thread, 0.0) for thread, seconds in after.items()), reverse=True)
    relaying = [seconds for seconds in times[:workers] if seconds >= times[0] * RELAYING]
    total = sum(relaying)
    if not requests or not total:
        raise ValueError("nothing was done")
    return Use(requests, total / requests * 1e6, relaying[0] / total, (sum(times) - total) / requests * 1e6)


def estimate_s(fronts: Sequence[str], turns: Turns) -> float:
    """About how long it takes."""
    return len(fronts) * len(COUNTS) * (turns.rounds * (turns.seconds + 0.3) + WARM_S + 3.0)


def run(fronts: Sequence[str], turns: Turns, farm: Farm, progress: Progress) -> Measured:
    """Measure it."""
    fronts = [front for front in fronts if front != "squid"]
    uses: dict[str, dict[int, list[Use]]] = {front: {count: [] for count in COUNTS} for front in fronts}
    farm.spread_nodes(BOTH)
    try:
        for front in fronts:
            for count in COUNTS:
                progress.step(f"workers: {front}, {count}")
                _pin(_start(front, count, farm), count, farm)
        for number in range(turns.rounds):
            for front in fronts:
                for count in COUNTS:
                    progress.step(f"workers, round {number + 1} of {turns.rounds}: {front}, {count}")
                    uses[front][count].append(_use(_start(front, count, farm), count, turns.seconds, farm))
    finally:
        farm.spread_nodes(str(LOAD_CPU))
    result = {
        front: {"scaling": scaling(of), "runs": {count: [use._asdict() for use in of[count]] for count in COUNTS}}
        for front, of in uses.items()
    }
    return Measured(table(uses), result)


def scenario(count: int) -> Scenario:
    """What so many workers are asked."""
    return SCENARIOS["many"]._replace(connections=count * CONNECTIONS, pause_ms=PAUSE_MS)


def _start(front: str, count: int, farm: Farm) -> Started:
    # one more client than usual, so that it is another one than that which is pinned to the front ends' CPU
    return farm.front(front, USUAL._replace(workers=count, clients=USUAL.clients + 1), BOTH)


def _use(started: Started, count: int, seconds: int, farm: Farm) -> Use:
    before = run_s(started.pid)
    answers = wrk(started.port, scenario(count), seconds, farm.script, BOTH, threads=2)
    after = run_s(started.pid)
    farm.check()
    return used(answers.requests, before, after, count)._replace(asked=answers.rps * PAUSE_MS / 1000 / (count * CONNECTIONS))


def _pin(started: Started, count: int, farm: Farm) -> None:
    """Give each thread that relays a CPU of its own; which they are is seen under load.  Others may use both."""
    before = run_s(started.pid)
    wrk(started.port, scenario(count), WARM_S, farm.script, BOTH, threads=2)
    for cpu, thread in enumerate(busiest(before, run_s(started.pid), count)):
        os.sched_setaffinity(thread, {cpu})


def busiest(before: Mapping[int, float], after: Mapping[int, float], count: int) -> list[int]:
    """The threads that ran most in between."""
    ran = {thread: seconds - before.get(thread, 0.0) for thread, seconds in after.items()}
    return sorted(sorted(ran, key=lambda thread: -ran[thread])[:count])


def scaling(of: Mapping[int, Sequence[Use]]) -> float:
    """How many times as much two workers can do as one: the median of the rounds."""
    return statistics.median(two.capacity / one.capacity for one, two in zip(of[1], of[2], strict=True))


def table(uses: Mapping[str, Mapping[int, Sequence[Use]]]) -> str:
    """A line per front end and number of workers."""
    load = f"400 bytes, {CONNECTIONS} connections for each, {PAUSE_MS} ms between requests"
    lines = [
        f"workers: 1 and 2, each with a CPU; {load}",
        f"  {'front':18}{'us/request':>12}{'share':>8}{'capacity':>12}{'times one':>12}{'others us':>12}{'asked':>8}",
    ]
    for front, of in uses.items():
        for count in COUNTS:
            fields = [(use.us, use.share, use.capacity, use.other_us, use.asked) for use in of[count]]
            us, share, capacity, other, asked = (statistics.median(values) for values in zip(*fields, strict=True))
            times = f"{scaling(of):.2f}" if count == 2 else "1.00"
            lines.append(f"  {f'{front}, {count}':18}{us:12.2f}{share:8.2f}{capacity:12.0f}{times:>12}{other:12.2f}{asked:8.2f}")
    return "\n".join(lines)
