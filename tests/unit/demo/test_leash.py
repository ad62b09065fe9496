"""What is on the leash ends with its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cachelb.demo.leash import Leash
from cachelb.demo.squid import wait_until


def sleeper() -> subprocess.Popen[bytes]:
    """A process that is waited for as soon as it ends: while nobody has, the leash takes it for alive."""
    process = subprocess.Popen(["sleep", "60"])
    threading.Thread(target=process.wait).start()
    return process


def test_close_ends_what_is_watched_and_removes_the_paths(tmp_path: Path):
    directory = tmp_path / "a directory"
    directory.mkdir()
    (directory / "file").write_text("x")
    with Leash() as leash:
        process = sleeper()
        leash.watch(process.pid)
        leash.remove(directory)
        leash.remove(tmp_path / "never there")
        assert process.poll() is None
    assert process.wait(5) == -signal.SIGTERM
    assert not directory.exists()


def test_a_stopped_process_is_ended_too():
    process = sleeper()
    with Leash() as leash:
        leash.watch(process.pid)
        process.send_signal(signal.SIGSTOP)
    assert process.wait(5) == -signal.SIGTERM


def test_what_is_forgotten_is_left_alone():
    watched, forgotten = sleeper(), sleeper()
    with Leash() as leash:
        for process in (watched, forgotten):
            leash.watch(process.pid)
        leash.forget(forgotten.pid)
        leash.forget(999_999_999)
    assert watched.wait(5) == -signal.SIGTERM
    assert forgotten.poll() is None
    forgotten.kill()
    forgotten.wait()


@pytest.mark.slow
def test_everything_ends_when_the_owner_is_killed(tmp_path: Path):
    script = (
        "import os, signal, subprocess, sys; from pathlib import Path; from cachelb.demo.leash import Leash\n"
        "leash = Leash(); child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL)\n"
        "leash.watch(child.pid); leash.remove(Path(sys.argv[1]))\n"
        "print(child.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    directory = tmp_path / "gone"
    directory.mkdir()
    owner = subprocess.run([sys.executable, "-c", script, str(directory)], stdout=subprocess.PIPE, check=False)
    assert owner.returncode == -signal.SIGKILL
    child = int(owner.stdout)
    assert wait_until(lambda: not directory.exists(), 10)
    assert wait_until(lambda: not is_alive(child), 10)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # an orphan that nobody has waited for yet still answers to signal 0
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
