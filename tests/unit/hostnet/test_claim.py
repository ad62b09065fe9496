from __future__ import annotations

import os
import subprocess
import sys

import pytest
from netbed import Space

from cachelb.hostnet.claim import Claim, holder

TAKE = "import sys; from cachelb.hostnet.claim import Claim; c = Claim(); print(repr(c.take()), flush=True); sys.stdin.read()"


def taker(user: str | None = None) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user=user, start_new_session=True
    )
    return process


def test_one_has_it_until_it_ends(space: Space):
    assert holder() == ""
    process = taker()
    assert process.stdout is not None
    assert process.stdout.readline() == "''\n"
    assert Claim().take() == f"the director with process number {process.pid}"
    process.kill()
    process.communicate()
    mine = Claim()
    assert mine.take() == ""
    assert mine.take() == ""
    assert holder() == f"the director with process number {os.getpid()}"
    mine.release()
    assert holder() == ""


def test_the_next_one_inherits_it(space: Space):
    first = Claim()
    assert first.take() == ""
    second = Claim(os.dup(first.fd))
    first.release()
    assert second.take() == ""
    assert holder() != ""
    second.release()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_who_could_not_change_the_host_cannot_hold_it(space: Space):
    script = r"import socket as m, sys; s = m.socket(1); s.bind('\0cachelb-hostnet'); s.listen(); print(flush=1); input()"
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user="nobody"
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        assert holder() == ""
        assert Claim().take() == ""
    finally:
        process.kill()
        process.communicate()
