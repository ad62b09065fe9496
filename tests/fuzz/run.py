"""Run the fuzz targets beside this file, several at once; exit 1 if an invariant is broken.

    python tests/fuzz/run.py --seconds 60           all of them, as `make fuzz` does
    python tests/fuzz/run.py icp --seed 123         one of them from a given seed: what a failure says to repeat it
    python tests/fuzz/run.py icp --input FILE       one input alone

A target is a file fuzz_NAME.py whose first line states its invariant, with two functions: ``make(chance)`` gives an input,
``check(data)`` says in a few words what became of it, beginning with "refused" where it was refused.  Whatever else it raises
breaks the invariant, and so does an input that takes more than a second of CPU time.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
CPU_LIMIT_S = 1.0  # for one input; the slowest sound ones take some milliseconds
DEATH_MARGIN_S = 60.0  # beyond the time asked for: a target that does not even stop then is ended
SHOWN_BYTES = 1000  # of an input that broke something; all of it is in the file
SHRINK_TRIES = 2000


class Target(NamedTuple):
    """One fuzz file.  invariant: its first line."""

    name: str
    invariant: str
    make: Callable[[random.Random], bytes]
    check: Callable[[bytes], str]


class Failure(NamedTuple):
    """What broke a target, and the seed that makes it again."""

    seed: int
    data: bytes
    problem: BaseException


class Tally(NamedTuple):
    """What a run found.  words: how many inputs became what."""

    inputs: int
    seconds: float
    slowest_s: float
    words: Counter[str]
    failure: Failure | None

    @property
    def taken(self) -> float:
        """The share of inputs that were not refused."""
        refused = sum(count for word, count in self.words.items() if word.startswith("refused"))
        return (self.inputs - refused) / self.inputs if self.inputs else 0.0


class TooSlow(Exception):
    """One input took more than its CPU time."""


def names() -> list[str]:
    """Of all targets."""
    return sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))


def load(name: str) -> Target:
    """Import one target; ``HERE`` must be in sys.path."""
    module = importlib.import_module(f"fuzz_{name}")
    return Target(name, (module.__doc__ or "").split("\n", 1)[0], module.make, module.check)


def pursue(target: Target, seconds: float, seed: int, limit: int = sys.maxsize) -> Tally:
    """Check inputs until the time is over, `limit` is reached or one breaks the invariant.

    Input number n comes from ``seed + n``.
    """
    words: Counter[str] = Counter()
    inputs, slowest_s, failure = 0, 0.0, None
    start = before = time.perf_counter()
    with _cpu_limit() as arm:
        while before - start < seconds and inputs < limit:
            data = target.make(random.Random(seed + inputs))
            arm()
            try:
                words[target.check(data)] += 1
            except Exception as problem:
                failure = Failure(seed + inputs, data, problem)
                break
            inputs += 1
            now = time.perf_counter()
            slowest_s = max(slowest_s, now - before)
            before = now
    return Tally(inputs, time.perf_counter() - start, slowest_s, words, failure)


def shrink(target: Target, failure: Failure) -> Failure:
    """The same problem with a shorter input, if leaving parts out finds one."""

    def breaks(data: bytes) -> BaseException | None:
        arm()
        try:
            target.check(data)
        except Exception as problem:
            return problem
        return None

    data, found, tries = failure.data, failure.problem, 0
    size = len(data) // 2
    with _cpu_limit() as arm:
        while size and tries < SHRINK_TRIES and not isinstance(found, TooSlow):
            at = 0
            while at < len(data) and tries < SHRINK_TRIES:
                shorter = data[:at] + data[at + size :]
                problem = breaks(shorter)
                tries += 1
                if type(problem) is type(found):
                    data, found = shorter, problem
                else:
                    at += size
            size //= 2
    return Failure(failure.seed, data, found)


@contextmanager
def _cpu_limit() -> Iterator[Callable[[], None]]:
    """Gives what begins an input's CPU time anew; beyond it, ``TooSlow`` is raised, whatever runs."""

    def over(*_: object) -> None:
        raise TooSlow(f"more than {CPU_LIMIT_S:g} s of CPU time")

    before = signal.signal(signal.SIGVTALRM, over)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_VIRTUAL, CPU_LIMIT_S) and None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def run_one(target: Target, seed: int, options: argparse.Namespace) -> int:
    """Run one target here and print its line."""
    tally = pursue(target, options.seconds, seed, options.inputs)
    if tally.failure is not None:
        print(_broken(target, shrink(target, tally.failure), tally.failure.data))
        return 1
    rate = tally.inputs / tally.seconds
    print(
        f"{target.name:12} {tally.inputs:9,} inputs {rate:7,.0f}/s {tally.taken:4.0%} taken, slowest "
        f"{tally.slowest_s * 1000:.0f} ms, seed {seed}: {target.invariant}"
    )
    if options.words:
        for word, count in tally.words.most_common():
            print(f"    {count:9,} {word}")
    return 0


def run_input(target: Target, path: Path) -> int:
    """Check one input and say what became of it."""
    data = path.read_bytes()
    try:
        print(target.check(data))
    except Exception as problem:
        print(_broken(target, Failure(0, data, problem), None))
        return 1
    return 0


def run_all(wanted: Sequence[str], options: argparse.Namespace, seed: int) -> int:
    """Run targets in processes of their own, `options.jobs` at once; print the line of each when it is done."""
    total_s = -(-len(wanted) // options.jobs) * options.seconds
    print(f"{len(wanted)} targets, {options.seconds:g} s each, {options.jobs} at once: about {total_s:.0f} s", flush=True)
    broken = []
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = {pool.submit(_run_apart, name, options.seconds, seed): name for name in wanted}
        for number, run in enumerate(as_completed(runs), 1):
            status, text = run.result()
            print(f"[{number}/{len(runs)}] {text.rstrip()}", flush=True)
            if status:
                broken.append(runs[run])
    if broken:
        print(f"broken: {', '.join(sorted(broken))}")
    return 1 if broken else 0


def _run_apart(name: str, seconds: float, seed: int) -> tuple[int, str]:
    command = [sys.executable, __file__, name, "--seconds", str(seconds), "--seed", str(seed)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds + DEATH_MARGIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, f"{name}: BROKEN: does not end, seed {seed}"
    text = done.stdout + done.stderr
    if done.returncode < 0:  # no exception, but the end of the process: something written in C
        text += f"{name}: BROKEN: died of signal {-done.returncode}, seed {seed}"
    return done.returncode, text


def _broken(target: Target, failure: Failure, whole: bytes | None) -> str:
    """What to print.  whole: the input before it was shortened, to be kept in a file; None: it is in one."""
    lines = [f"{target.name}: BROKEN: {target.invariant}"]
    lines += traceback.format_exception(failure.problem)
    shown = repr(failure.data[:SHOWN_BYTES]) + ("..." if len(failure.data) > SHOWN_BYTES else "")
    lines.append(f"input, {len(failure.data)} bytes: {shown}")
    if whole is not None:
        with tempfile.NamedTemporaryFile(prefix=f"fuzz-{target.name}-", suffix=".bin", delete=False) as file:
            file.write(failure.data)
        lines.append(f"it is in {file.name}; to repeat it:")
        lines.append(f"  python tests/fuzz/run.py {target.name} --input {file.name}")
        lines.append(f"  python tests/fuzz/run.py {target.name} --seed {failure.seed}    ({len(whole)} bytes, not shortened)")
    return "\n".join(line.rstrip("\n") for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="NAME", help=f"all of: {', '.join(names())}")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (60)")
    parser.add_argument("--inputs", type=int, default=sys.maxsize, help="of one target: stop after so many")
    parser.add_argument("--seed", type=int, help="a number below 2**32; without it, a new one each time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once (all cores)")
    parser.add_argument("--words", action="store_true", help="of one target: how many inputs became what")
    parser.add_argument("--input", type=Path, metavar="FILE", help="check this input of one target")
    options = parser.parse_args(argv)
    wanted = options.targets or names()
    if unknown := set(wanted) - set(names()):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    if (options.input or options.words or options.inputs < sys.maxsize) and len(wanted) != 1:
        parser.error("--input, --inputs and --words want one target")
    if options.seconds <= 0 or options.jobs < 1:
        parser.error("--seconds and --jobs must be above 0")
    seed = secrets.randbits(32) if options.seed is None else options.seed
    if len(wanted) > 1:
        return run_all(wanted, options, seed)
    target = load(wanted[0])
    return run_input(target, options.input) if options.input else run_one(target, seed, options)


if __name__ == "__main__":
    sys.exit(main())
