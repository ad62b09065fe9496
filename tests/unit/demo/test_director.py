"""Starting and stopping the director, with shell scripts in its place; tests/squid has the real one."""

from __future__ import annotations

import signal
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cachelb.demo import director as director_module
from cachelb.demo.director import Director, DirectorError, director_config, director_ports
from cachelb.demo.leash import Leash
from cachelb.demo.squid import wait_until

GOOD = """\
trap 'echo bye >&2; exit 0' TERM
trap 'echo reloaded >&2' HUP
echo ready: listening >&2
while :; do sleep 0.01; done
"""


@pytest.fixture
def director(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Director]]:
    with Leash() as leash:

        def make(script: str) -> Director:
            program = tmp_path / "python"
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
            monkeypatch.setattr(sys, "executable", str(program))
            http, admin = director_ports()
            return Director("# empty\n", tmp_path, leash, http=http, admin=admin)

        yield make


def test_it_is_ready_when_it_says_so_and_stops_with_its_exit_code(director: Callable[[str], Director]):
    subject = director(f'echo "$*" >&2\n{GOOD}')
    subject.start()
    assert subject.is_running
    assert subject.log().startswith(f"-m cachelb run -c {subject.config_path}\n")
    subject.reload()
    assert wait_until(lambda: "reloaded" in subject.log(), 30)
    assert subject.stop() == 0
    assert not subject.is_running
    assert subject.log().endswith("bye\n")


def test_an_earlier_runs_ready_does_not_count(director: Callable[[str], Director], monkeypatch: pytest.MonkeyPatch):
    subject = director("exec sleep 60")
    subject.log_path.write_text("ready: \n")
    monkeypatch.setattr(director_module, "START_TIMEOUT_S", 0.1)
    with pytest.raises(DirectorError, match="not ready after"):
        subject.start()
    subject.kill()


def test_a_director_that_ends_at_once_shows_its_log(director: Callable[[str], Director]):
    with pytest.raises(DirectorError, match=r"(?s)ended at its start.*port in use"):
        director("echo port in use >&2; exit 1").start()


def test_one_that_does_not_stop_is_killed_and_reported(director: Callable[[str], Director]):
    subject = director("trap '' TERM\necho ready: now >&2\nwhile :; do sleep 0.01; done")
    subject.start()
    with pytest.raises(DirectorError, match="did not stop"):
        subject.stop(timeout_s=0.1)
    assert not subject.is_running


def test_a_signal_that_kills_it_is_its_exit_code(director: Callable[[str], Director]):
    subject = director("echo ready: now >&2\nexec sleep 60")
    subject.start()
    subject.signal(signal.SIGKILL)
    assert subject.stop() == -signal.SIGKILL


def test_the_configuration_is_toml_with_everything_in_its_place():
    tables = '[[node]]\nname = "a"\nhost = "127.0.1.1"\n'
    text = director_config(tables, ("127.0.0.1", 1), ("127.0.0.1", 2), more="[health]\ninterval_s = 0.5\n")
    assert tomllib.loads(text) == {
        "listen": {"http": "127.0.0.1:1", "admin": "127.0.0.1:2"},
        "bypass": {"allow_private": True},
        "health": {"interval_s": 0.5},
        "node": [{"name": "a", "host": "127.0.1.1"}],
    }
