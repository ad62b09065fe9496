from __future__ import annotations

import ctypes
import os
import platform
import struct
import subprocess
import sys

import pytest

from cachelb import priority

# Its own turn and a child's, in ns, as sched_getattr tells them; and whether it was granted
SCRIPT = """
import ctypes, os, struct, sys
from cachelb.priority import prompt
os.nice(int(sys.argv[1]))
granted = prompt()
def turn():
    room = ctypes.create_string_buffer(48)
    ctypes.CDLL(None).syscall(int(sys.argv[2]), 0, room, 48, 0)
    return struct.unpack("=IIQiIQQQ", room.raw)[3:6:2]
own = turn()
pid = os.fork()
if pid == 0:
    print(granted, *own, *turn(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""


def asked(nice: int) -> list[str]:
    """[granted, own nice, own turn, child's nice, child's turn] of a process with this nice value."""
    number = str(priority._CALL[platform.machine()] + 1)  # sched_getattr
    script = [sys.executable, "-c", SCRIPT, str(nice), number]
    return subprocess.run(script, capture_output=True, text=True, check=True).stdout.split()


pytestmark = pytest.mark.skipif(platform.machine() not in priority._CALL, reason="an architecture that is not known")


def may_be_nicer() -> bool:
    script = f"import os; os.setpriority(os.PRIO_PROCESS, 0, {priority.NICE})"
    return subprocess.run([sys.executable, "-c", script], stderr=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize("nice", [0, 5])
def test_turns_are_short_for_this_process_alone(nice: int):
    granted, own_nice, own_turn, child_nice, child_turn = asked(nice)
    assert granted == "True"
    assert own_nice == str(nice or (priority.NICE if may_be_nicer() else 0))
    assert child_nice == str(nice)
    if int(own_turn):  # Linux 6.12
        assert int(own_turn) == 100_000
        assert int(child_turn) > int(own_turn)


def test_a_negative_nice_value_is_left_to_the_children(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "getpriority", lambda *_: -5)
    assert not priority.prompt()


def test_another_scheduler_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getscheduler", lambda pid: os.SCHED_BATCH)
    assert not priority.prompt()


def test_what_is_not_to_be_had_is_told(monkeypatch: pytest.MonkeyPatch):
    asked_for: list[bytes] = []

    class Library:
        def __init__(self, name: object) -> None:
            pass

        def syscall(self, number: int, pid: int, attributes: bytes, flags: int) -> int:
            asked_for.append(attributes)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", Library)
    assert not priority.prompt(0.0002)
    assert [struct.unpack("=IIQiIQQQ", attributes)[3:6:2] for attributes in asked_for] == [(priority.NICE, 200_000), (0, 200_000)]
    monkeypatch.setattr(platform, "machine", lambda: "abacus")
    assert not priority.prompt()
    assert len(asked_for) == 2
