"""Lets a process that mostly sleeps have its turn at once when it wakes up, also beside busy ones.

    prompt()    # the supervisor answers ICP: a peer waits for each answer, workers wait for nobody

Linux gives all that want to run turns of the same length, some ms; who wakes up may have to wait until another one has had
his.  Whoever asks for short turns may interrupt longer ones (since 6.12), as long as he does not use more than his share.  No
privilege is needed.  Of 740 times that the supervisor woke up beside a worker at full load it had to wait for it for more
than 0.5 ms 11 to 25 times, and with short turns at most 6 times (2026-11, Linux 6.18, perf sched).

Left out: real-time scheduling and negative nice values, which need one; an operator can give them (systemd: ``Nice=``).

Source: Linux, kernel/sched/fair.c, PREEMPT_SHORT; sched_setattr(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

TURN_S = 0.0001  # the least that Linux grants
_CALL = {"x86_64": 314, "aarch64": 274, "riscv64": 274, "loongarch64": 274, "ppc64le": 355, "s390x": 345}  # sched_setattr
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, real-time priority, runtime, deadline, period
_RESET_ON_FORK = 1


def prompt(turn_s: float = TURN_S) -> bool:
    """Ask for short turns for this process; children get the usual ones.  Returns whether it was granted.

    Older systems take it and do nothing.  With a negative nice value nothing is asked for: children would lose that.
    """
    number = _CALL.get(platform.machine())
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if number is None or nice < 0 or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, round(turn_s * 1e9), 0, 0)
    try:
        return bool(ctypes.CDLL(None).syscall(number, 0, attributes, 0) == 0)
    except (OSError, AttributeError):
        return False
