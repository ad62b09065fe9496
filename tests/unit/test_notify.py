"""systemd's words, over a real datagram socket."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from live_director import LiveDirector, wait_until

from cachelb.notify import Notifier, watchdog_s

Make = Callable[..., LiveDirector]


@contextmanager
def listening(name: str) -> Iterator[Callable[[], list[str]]]:
    """Gives what has been said since the last call, one text a datagram."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name[1:] if name.startswith("@") else name)
        sock.setblocking(False)

        def said() -> list[str]:
            found = []
            while True:
                try:
                    found.append(sock.recv(4096).decode())
                except BlockingIOError:
                    return found

        yield said


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_words_are_datagrams(tmp_path: Path, kind: str):
    name = str(tmp_path / "notify") if kind == "path" else f"@cachelb-test-{os.getpid()}"
    with listening(name) as said:
        notifier = Notifier({"NOTIFY_SOCKET": name}, 7)
        notifier.say("READY=1", "STATUS=well")
        notifier.ready()
        notifier.main_pid(12)
        notifier.ping()
        assert said() == ["READY=1\nSTATUS=well", "READY=1", "MAINPID=12", "WATCHDOG=1"]
        notifier.reloading()
        (text,) = said()
        assert text.startswith("RELOADING=1\nMONOTONIC_USEC=")


def test_the_status_is_said_only_when_it_is_another_one(tmp_path: Path):
    with listening(str(tmp_path / "n")) as said:
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "n")}, 7)
        for text in ("a", "a", "b"):
            notifier.status(text)
        assert said() == ["STATUS=a", "STATUS=b"]


def test_without_anybody_to_tell_nothing_happens(tmp_path: Path):
    Notifier({}, 1).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}, 1).ready()
    assert Notifier({"WATCHDOG_USEC": "1000000"}, 1).ping_s == 0


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"WATCHDOG_USEC": "-1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_the_watchdogs_time_is_for_the_process_that_it_names(environment: dict[str, str], seconds: float):
    assert watchdog_s(environment, 7) == seconds


# -- a whole director


class Heard:
    """All that was said so far."""

    def __init__(self, said: Callable[[], list[str]]) -> None:
        self._said = said
        self.all: list[str] = []

    def __contains__(self, text: str) -> bool:
        self.all += self._said()
        return any(text in one.split("\n") for one in self.all)

    def place(self, text: str) -> int:
        return next(n for n, one in enumerate(self.all) if text in one.split("\n"))


def test_systemd_is_told_of_a_life_with_an_upgrade(director: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with listening(str(tmp_path / "notify")) as said:
        heard = Heard(said)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        subject = director()
        wait_until(lambda: "READY=1" in heard)
        assert heard.all[-1] == "READY=1\nSTATUS=1 of 1 nodes up"
        subject.signal(signal.SIGHUP)
        wait_until(lambda: any(one.startswith("RELOADING=1\n") for one in heard.all) or "x" in heard)
        heard.all.clear()
        old = subject.pid
        subject.signal(signal.SIGUSR2)
        wait_until(lambda: "READY=1\nSTATUS=1 of 1 nodes up" in heard.all or "x" in heard, "the new one is ready", 60.0)
        new = subject.status()["pid"]
        subject.follow(new)
        assert new != old
        assert heard.place(f"MAINPID={new}") < heard.all.index("READY=1\nSTATUS=1 of 1 nodes up")
        assert "STOPPING=1" not in heard  # the service does not stop
        subject.signal(signal.SIGTERM)
        wait_until(lambda: "STOPPING=1" in heard)


def test_the_watchdog_is_fed_as_long_as_a_worker_lives(director: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with listening(str(tmp_path / "notify")) as said:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1500000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        subject = director("[relay]\nworkers = 2\n")
        heard = Heard(said)
        wait_until(lambda: "WATCHDOG=1" in heard)
        first, second = (worker["pid"] for worker in subject.status()["workers"])
        os.kill(first, signal.SIGSTOP)

        def pings(count: int) -> bool:
            assert "nothing" not in heard
            return sum("WATCHDOG=1" in one for one in heard.all) >= count

        heard.all.clear()
        wait_until(lambda: pings(4), "the other worker is enough")
        os.kill(second, signal.SIGSTOP)
        silences = 0
        while silences < 2:  # 0.5 s between pings: two looks in a row at the loop's own clock without one
            heard.all.clear()
            before = subject.status()["uptime_s"]
            wait_until(lambda before=before: subject.status()["uptime_s"] > before + 0.9)
            silences = 0 if pings(1) else silences + 1
        for worker in (first, second):
            os.kill(worker, signal.SIGCONT)
        wait_until(lambda: pings(1), "they are back")
