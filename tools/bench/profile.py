"""Where a relayed request's microseconds go: kernel, interpreter, ours.  ``make profile``, or

    python -m cachelb.tools.bench.profile [--scenario small] [--urls 10000000] [--nodes 1000] [--cookies] [--seconds 5] [--pure]

A director with one worker runs under full load, as in the comparison.  perf samples its worker and says which file each sample
was in; the kernel's are split by what it was asked for.  Ours are the modules that were compiled ahead of time: where they are
not, what they do is the interpreter's, and cProfile or py-spy tell it apart:

    py-spy record --native --pid WORKER --duration 10 --output profile.svg      (pip install py-spy)

Without perf, or where it is forbidden, only the kernel's part is known, from /proc; ``strace -c -f -p WORKER`` counts the system
calls then (and slows them down: trust the counts, not the times).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from .compare import front_cpu_s, wrk
from .farm import LOAD_CPU, Farm
from .fronts import FRONTS, USUAL, Setting
from .load import SCENARIOS, Scenario
from .measure import measure
from .processes import SEARCH_PATH, BenchError, Processes, missing
from .report import number
from .resident import run_s
from .scaling import busiest

LOST_S = 60  # for perf to write its report
SYMBOLS = 12
OURS = re.compile(r"__mypyc|^cachelb")
LIBRARIES = re.compile(r"^(lib|ld-|\[vdso)")


class Sample(NamedTuple):
    """share: of all samples, in percent."""

    share: float
    file: str
    symbol: str


def parts(samples: list[Sample]) -> dict[str, float]:
    """Percent by whose code it was."""
    sums: Counter[str] = Counter()
    for sample in samples:
        sums[part(sample.file)] += sample.share
    return dict(sums.most_common())


def part(file: str) -> str:
    """Whose code is in a file that perf names."""
    if file.startswith(("[kernel", "[guest.kernel", "[k]")) or file.endswith(".ko"):
        return "kernel"
    if OURS.search(file):
        return "ours, compiled"
    if file.startswith(("python", "libpython")):
        return "interpreter"
    return "libraries" if LIBRARIES.match(file) else "extensions"


def parse(report: str) -> list[Sample]:
    """The lines of ``perf report --sort dso,symbol``."""
    found = re.finditer(r"^\s*([\d.]+)%\s+(\S+)\s+\[[.k]\]\s+(.+?)\s*$", report, re.MULTILINE)
    return [Sample(float(match[1]), match[2], match[3]) for match in found]


def table(samples: list[Sample], us: float | None) -> str:
    """The split, and the functions that took most.  us: what a request costs."""
    lines = [f"  {'part':44}{'%':>7}{'us/request':>12}"]
    for name, share in parts(samples).items():
        lines.append(f"  {name:44}{share:7.1f}{number(us and us * share / 100):>12}")
    lines.append("\n  most of it in")
    for sample in sorted(samples, reverse=True)[:SYMBOLS]:
        name = f"{part(sample.file)}: {sample.symbol}"[:44]
        lines.append(f"  {name:44}{sample.share:7.1f}{number(us and us * sample.share / 100):>12}")
    return "\n".join(lines)


def _record(worker: int, data: Path, load_s: int) -> subprocess.Popen[bytes]:
    command = ["taskset", "-c", str(LOAD_CPU), "perf", "record", "-q", "-F", "499", "-o", str(data), "-p", str(worker)]
    return subprocess.Popen([*command, "--", "sleep", str(load_s)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _report(data: Path) -> list[Sample]:
    command = ["perf", "report", "-i", str(data), "--stdio", "--no-children", "--sort", "dso,symbol", "--percent-limit", "0.01"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LOST_S, check=False)
    return parse(done.stdout)


def _split(worker: int) -> tuple[int, int]:
    """Clock ticks in user and in kernel mode."""
    words = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
    return int(words[11]), int(words[12])


def profile(front: str, scenario: Scenario, setting: Setting, seconds: int, command: str) -> str:
    """Run, and say where the time went.

    Raises:
        BenchError: Something is missing or failed.
    """
    if sentence := missing([("nginx", "nginx-light"), ("wrk", "wrk"), ("taskset", "util-linux")]):
        raise BenchError(sentence)
    with tempfile.TemporaryDirectory(prefix="cachelb-profile.") as name, Processes(Path(name)) as processes:
        farm = Farm(Path(name), processes, FRONTS, {"cachelb": command})
        farm.start_nodes()
        started = farm.front(front, setting)
        before = run_s(started.pid)
        wrk(started.port, scenario, 1, farm.script)  # warm
        (worker,) = busiest(before, run_s(started.pid), 1)
        ticks = _split(worker)
        data = Path(name) / "perf.data"
        perf = _record(worker, data, seconds) if shutil.which("perf", path=SEARCH_PATH) else None
        run = measure(lambda: wrk(started.port, scenario, seconds, farm.script), front_cpu_s)
        problem = "perf is not installed" if perf is None else _ended(perf, seconds)
        user, kernel = (after - was for after, was in zip(_split(worker), ticks, strict=True))
        samples = _report(data) if data.exists() and not problem else []
        head = f"{scenario.title}: {number(run.us)} us for each of {run.answers.requests} requests"
        if samples:
            return f"{head}\n{table(samples, run.us)}"
        share = 100 * kernel / max(1, user + kernel)
        return f"{head}\n  {problem}; from /proc: kernel {share:.0f} %, interpreter and ours {100 - share:.0f} %"


def _ended(perf: subprocess.Popen[bytes], seconds: int) -> str:
    """What perf complains of, or nothing."""
    try:
        _, errors = perf.communicate(timeout=seconds + LOST_S)
    except subprocess.TimeoutExpired:
        perf.kill()
        perf.communicate()
        return "perf did not end"
    return f"perf failed: {errors.decode(errors='replace').strip()[:200]}" if perf.returncode else ""


def main(argv: list[str] | None = None) -> int:
    """Run; exit status 1 if it could not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", choices=SCENARIOS, default="small")
    parser.add_argument("--urls", type=int, default=1000, help="different ones [%(default)s]")
    parser.add_argument("--nodes", type=int, default=USUAL.nodes, help="[%(default)s]")
    parser.add_argument("--cookies", action="store_true", help="no request has the fields of another")
    parser.add_argument("--seconds", type=int, default=5, help="[%(default)s]")
    parser.add_argument("--pure", action="store_true", help="what runs where nothing is compiled ahead of time")
    parser.add_argument("--cachelb", default=f"{sys.executable} -m cachelb", help="the command that is ours [%(default)s]")
    options = parser.parse_args(argv)
    os.sched_setaffinity(0, {LOAD_CPU})
    front = "cachelb-pure" if options.pure else "cachelb"
    scenario = SCENARIOS[options.scenario]._replace(urls=options.urls, cookies=options.cookies)
    setting = USUAL._replace(nodes=options.nodes)
    try:
        print(profile(front, scenario, setting, options.seconds, options.cachelb))
    except (BenchError, OSError) as exc:
        print(f"profile: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
