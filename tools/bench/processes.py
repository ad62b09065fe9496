"""Processes of one benchmark: started on a CPU, awaited by their port, stopped whatever happens.

Left out: what they are (``nodes``, ``fronts``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

START_S = 20.0  # Squid takes 3 s on a busy machine
STOP_S = 10.0  # Squid waits for its clients: shutdown_lifetime 1 s and some
POLL_S = 0.05
LOG_LINES = 8  # of a program that failed
SEARCH_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin"


class BenchError(Exception):
    """The benchmark cannot be run; the message is a sentence for the person who started it."""


def missing(programs: Sequence[tuple[str, str]]) -> str:
    """A sentence on which of ``programs`` (program, package) are not installed, and how to get them; or nothing."""
    absent = [(program, package) for program, package in programs if not shutil.which(program, path=SEARCH_PATH)]
    if not absent:
        return ""
    names = [program for program, _ in absent]
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    packages = " ".join(dict.fromkeys(package for _, package in absent))
    verb = "is" if len(names) == 1 else "are"
    install = f"apt-get install --no-install-recommends {packages}"
    return f"{listed} {verb} not installed; on Debian or Ubuntu, as root: {install}"


class Processes:
    """Started processes; leaving the ``with`` block stops them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def start(
        self,
        name: str,
        command: Sequence[str],
        cpu: int | str,
        address: tuple[str, int],
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Run ``command`` on ``cpu``, or on several ("0,1"), and wait until ``address`` accepts connections.

        Args:
            environment: What is set besides our own.

        Returns: Its process id.

        Raises:
            BenchError: The address is taken, or the program did not start to listen.
        """
        if _listens(address):
            raise BenchError(f"{address[0]}:{address[1]} is in use; does another benchmark run?")
        output = self._folder / f"{name}.out"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                ["taskset", "-c", str(cpu), *command],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**os.environ, "PATH": SEARCH_PATH, **(environment or {})},
                start_new_session=True,  # so that its children can be stopped with it
            )
        self._running.append((name, process))
        end = time.monotonic() + START_S
        while not _listens(address):
            if process.poll() is not None:
                raise BenchError(f"{name} ended with status {process.returncode}{_tail(output)}")
            if time.monotonic() > end:
                raise BenchError(f"{name} does not listen on {address[0]}:{address[1]} after {START_S:.0f} s{_tail(output)}")
            time.sleep(POLL_S)
        return process.pid

    def check(self) -> None:
        """See that all still run.

        Raises:
            BenchError: One has ended.
        """
        for name, process in self._running:
            if process.poll() is not None:
                output = self._folder / f"{name}.out"
                raise BenchError(f"{name} ended during the measurement, status {process.returncode}{_tail(output)}")

    def stop(self, pid: int | None = None) -> None:
        """End all of them, or the one with this id, with their children."""
        ending = [item for item in self._running if pid in (None, item[1].pid)]
        for _, process in reversed(ending):
            if process.poll() is None:
                _signal(process, signal.SIGTERM)
        end = time.monotonic() + STOP_S
        for _, process in ending:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
            _signal(process, signal.SIGKILL)
            process.wait()
        self._running = [item for item in self._running if item not in ending]


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _listens(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def _tail(output: Path) -> str:
    lines = output.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
    return ":\n  " + "\n  ".join(lines) if lines else ""
