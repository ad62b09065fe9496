"""The pid file and its lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from live_director import LiveDirector, wait_until

from cachelb.pidfile import PidFile, PidFileError, running

Make = Callable[..., LiveDirector]


def test_it_is_ours_until_it_is_closed(tmp_path: Path):
    path = tmp_path / "pid"
    assert running(path) is None
    subject = PidFile(path)
    assert running(path) is None  # it says nothing yet
    subject.write()
    assert path.read_text() == f"{os.getpid()}\n"
    assert running(path) == os.getpid()
    with pytest.raises(PidFileError, match=f"another director has it, process {os.getpid()}$"):
        PidFile(path)
    subject.close()
    assert not path.exists()


def test_a_full_file_system_ends_no_director(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    path = tmp_path / "pid"
    path.write_text("4242\n")  # of the director before
    subject = PidFile(path)
    monkeypatch.setattr(os, "pwrite", fail)
    subject.write()
    assert running(path) is None
    assert f"[service] pid_file {tmp_path}/pid: No space left on device" in caplog.text
    subject.close()


def test_one_that_was_left_behind_means_nothing(tmp_path: Path):
    path = tmp_path / "pid"
    path.write_text("1\n")
    assert running(path) is None
    subject = PidFile(path)
    subject.write()
    assert running(path) == os.getpid()
    subject.close()


def test_the_next_director_has_the_lock_with_the_descriptor(tmp_path: Path):
    path = tmp_path / "pid"
    first = PidFile(path)
    first.write()
    second = PidFile(path, os.dup(first.fd))
    first.leave()
    assert running(path) == os.getpid()  # still locked
    second.close()
    with pytest.raises(FileNotFoundError):
        path.stat()


def test_a_descriptor_of_another_file_is_of_no_use(tmp_path: Path):
    first = PidFile(tmp_path / "a")
    inherited = os.dup(first.fd)
    second = PidFile(tmp_path / "b", inherited)
    assert second.fd == inherited  # it was closed: the number is free for the next file
    second.write()
    assert running(tmp_path / "b") == os.getpid()
    first.close()
    second.close()


def test_why_it_cannot_be_had_is_a_sentence(tmp_path: Path):
    with pytest.raises(PidFileError, match=r"pid_file .*/none/pid: No such file or directory"):
        PidFile(tmp_path / "none" / "pid")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(PidFileError, match="symbolic links"):
        PidFile(tmp_path / "link")
    assert not (tmp_path / "target").exists()


def test_a_director_has_it_through_upgrades_and_removes_it_at_its_end(director: Make, tmp_path: Path):
    path = tmp_path / "pid"
    subject = director(f'[service]\npid_file = "{path}"\n')
    assert running(path) == subject.pid
    command = [sys.executable, "-m", "cachelb"]
    said = subprocess.run([*command, "upgrade", "-c", subject.config], capture_output=True, text=True)
    new = running(path)
    assert new not in (None, subject.pid)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout == f"process {new} (cachelb 0.1.0) has taken over from process {subject.pid}\n"
    second = subprocess.run([*command, "run", "-c", subject.config], capture_output=True, text=True)
    assert second.returncode == 1
    assert f"another director has it, process {new}" in second.stderr
    subject.follow(new)
    subject.signal(signal.SIGTERM)
    wait_until(lambda: not path.exists())
