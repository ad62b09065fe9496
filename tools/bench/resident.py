"""The memory and the CPU time of a process and its children, from /proc."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

PROC = Path("/proc")


def family(pid: int) -> list[int]:
    """The process, then its children, their children, and so on; those that have just ended may be missing."""
    found, at = [pid], 0
    while at < len(found):
        for task in (PROC / str(found[at]) / "task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(word) for word in task.read_text().split()]
        at += 1
    return found


def pss_kib(pid: int) -> int:
    """KiB of memory resident for the family of a process; what is shared counts once."""
    total = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            total += pss_of((PROC / str(member) / "smaps_rollup").read_text())
    return total


def pss_of(rollup: str) -> int:
    """KiB, from the text of smaps_rollup."""
    match = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    return int(match[1]) if match else 0


def run_s(pid: int) -> dict[int, float]:
    """Seconds of CPU of each thread of the family, by its id; softirqs in its turn included."""
    times = {}
    for member in family(pid):
        for task in (PROC / str(member) / "task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                times[int(task.parent.name)] = int(task.read_text().split()[0]) / 1e9
    return times
