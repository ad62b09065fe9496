"""What is done before the event loop, and how it fails: in a sentence, with nothing left behind."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest


def run(tmp_path: Path, text: str, **environment: str) -> tuple[int, str]:
    config = tmp_path / "cachelb.toml"
    with socket.socket() as free, socket.socket() as other:
        for sock in (free, other):
            sock.bind(("127.0.0.1", 0))
        listen = f'[listen]\nhttp = "127.0.0.1:{free.getsockname()[1]}"\nadmin = "127.0.0.1:{other.getsockname()[1]}"\n'
    config.write_text(f'{listen}{text}\n[[node]]\nname = "a"\nhost = "127.0.0.1"\n')
    command = [sys.executable, "-m", "cachelb", "run", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment or None)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[service]\nuser = "no-such-user"', 'ERROR cachelb [service] user = "no-such-user": this system has no such user'),
        ('[service]\npid_file = "{tmp}/none/pid"', "ERROR cachelb [service] pid_file {tmp}/none/pid: No such file or directory"),
        ('[admin]\nsocket = "{tmp}/none/s"', "ERROR cachelb cannot listen on {tmp}/none/s: No such file or directory"),
        ("[service]\nuser = 7", "should be a text in quotes"),
        ('[service]\nuser = "a b"', "is not the name of an account"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_started(tmp_path: Path, text: str, problem: str):
    code, said = run(tmp_path, text.format(tmp=tmp_path))
    assert code == 1
    assert problem.format(tmp=tmp_path) in said
    assert "Traceback" not in said


def test_the_pid_file_goes_when_an_address_is_not_to_be_had(tmp_path: Path):
    code, said = run(tmp_path, f'htcp = "192.0.2.1:9"\n[service]\npid_file = "{tmp_path}/pid"\n')
    assert code == 1
    assert "cannot listen on 192.0.2.1 port 9: this host does not have that address" in said
    assert not (tmp_path / "pid").exists()


def test_a_word_of_a_takeover_without_a_director_behind_it_is_refused(tmp_path: Path):
    code, said = run(tmp_path, "", CACHELB_TAKEOVER="250")
    assert code == 1
    assert "CACHELB_TAKEOVER=250, but there is no director to take over from" in said
