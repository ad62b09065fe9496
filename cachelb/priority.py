"""Lets a process that mostly sleeps have its turn at once when it wakes up, also beside busy ones.

    prompt()    # the supervisor answers ICP: a peer waits for each answer, workers wait for nobody

Linux gives all that want to run turns of the same length, some ms; who wakes up may have to wait until another one has had
his.  Whoever asks for short turns may interrupt longer ones (since 6.12), as long as he has not just had more than his share:
after a turn of 0.5 ms a peer's next query would wait as long, or for the clock's next tick.  With a negative nice value the
share is larger, so that this hardly happens.  Of ICP's answers beside a worker at full load 0.5 to 15 % came later than 1 ms with
short turns alone, 0.2 to 1.1 % with a nice value of -10, 0.2 to 0.4 % with -20; 0.2 % with real-time scheduling (2026-11, Linux
6.18, three runs each, of which one on a machine with other work).

Short turns need no privilege; the nice value needs root, CAP_SYS_NICE or RLIMIT_NICE (systemd: ``LimitNICE=``).

Left out: real-time scheduling, beside which workers would get nothing while a large configuration is read.

Source: Linux, kernel/sched/fair.c, PREEMPT_SHORT; sched_setattr(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

TURN_S = 0.0001  # the least that Linux grants
NICE = -15  # while both have work, 29 times a worker's share
_CALL = {"x86_64": 314, "aarch64": 274, "riscv64": 274, "loongarch64": 274, "ppc64le": 355, "s390x": 345}  # sched_setattr
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, real-time priority, runtime, deadline, period
_RESET_ON_FORK = 1


def prompt(turn_s: float = TURN_S) -> bool:
    """Ask for short turns, and a larger share, for this process; children get the usual ones.  Returns whether any was granted.

    Older systems grant short turns and do nothing.  An operator's nice value is left alone; with a negative one nothing is asked
    for: children would lose that.
    """
    number = _CALL.get(platform.machine())
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if number is None or nice < 0 or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    try:
        library = ctypes.CDLL(None)
        for wanted in (nice,) if nice else (NICE, 0):
            attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, _RESET_ON_FORK, wanted, 0, round(turn_s * 1e9), 0, 0)
            if library.syscall(number, 0, attributes, 0) == 0:
                return True
    except (OSError, AttributeError):
        pass
    return False
