"""The director that runs: found and upgraded."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from live_director import LiveDirector

from cachelb import running
from cachelb.config import Config, load
from cachelb.pidfile import PidFile
from cachelb.running import RunningError, Seen, look, upgrade

Make = Callable[..., LiveDirector]


def config(admin: str = "", **service: object) -> Config:
    sections = {"listen": {"admin": [admin] if admin else []}, "service": service}
    return Config.model_validate_json(json.dumps(sections))


@contextmanager
def admin_of(*answers: dict[str, Any]) -> Iterator[str]:
    """The address of an admin listener that answers with one after the other, then with the last one."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(left.pop(0) if len(left) > 1 else left[0]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def status(pid: int, tries: int = 0, problem: str = "") -> dict[str, Any]:
    return {"pid": pid, "version": "9.9", "upgrade": {"tries": tries, "problem": problem}}


def test_it_is_found_by_either(tmp_path: Path):
    path = tmp_path / "pid"
    subject = PidFile(path)
    subject.write()
    assert look(config(pid_file=str(path))) == Seen(os.getpid())
    with admin_of(status(os.getpid(), 3, "why")) as admin:
        assert look(config(admin)) == look(config(admin, pid_file=str(path))) == Seen(os.getpid(), "9.9", 3, "why")
    with admin_of(status(1)) as admin:  # of another one
        assert look(config(admin, pid_file=str(path))) == Seen(os.getpid())
    with admin_of({"state": "running"}) as admin, pytest.raises(RunningError, match=f"{admin} does not say which process it is"):
        look(config(admin))
    subject.close()


def test_what_was_tried_is_said_when_none_runs(tmp_path: Path):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        admin = "{}:{}".format(*sock.getsockname())
    with pytest.raises(RunningError, match=rf"no director runs .*nobody holds {tmp_path}/pid; {admin} says: .*refused"):
        look(config(admin, pid_file=str(tmp_path / "pid")))
    with pytest.raises(RunningError, match="it has no pid_file and no admin"):
        look(config())


def test_the_outcome_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    with admin_of(status(10), status(10), status(11)) as admin:
        assert upgrade(config(admin), lambda _: None) == "process 11 (cachelb 9.9) has taken over from process 10"
    assert sent == [(10, signal.SIGUSR2)]
    with (
        admin_of(status(10, 1, "old"), status(10, 1, "old"), status(10, 2), status(10, 2, "no such thing")) as admin,
        pytest.raises(RunningError, match="the upgrade failed: no such thing; process 10 goes on"),
    ):
        upgrade(config(admin), lambda _: None)


def test_without_a_word_it_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr(running.time, "monotonic", lambda: next(clock))
    with admin_of(status(10)) as admin, pytest.raises(RunningError, match="no new version has taken over from process 10"):
        upgrade(config(admin), lambda _: None)


def test_who_may_not_signal_it_is_told(monkeypatch: pytest.MonkeyPatch):
    def refuse(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    with admin_of(status(10)) as admin, pytest.raises(RunningError, match="process 10 cannot be told to upgrade: Operation not"):
        upgrade(config(admin))


def test_a_real_director_that_cannot_be_replaced_says_why(director: Make):
    subject = director()
    good = load(subject.config)
    subject.configure("[relay]\nwrokers = 1\n")
    with pytest.raises(RunningError, match=r"the upgrade failed: the new one ended before it was ready \(exit status 1\)"):
        upgrade(good)
