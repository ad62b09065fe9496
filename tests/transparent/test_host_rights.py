"""Who is not root can take back what it has set, and its workers cannot do more than they need."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from live_director import wait_until
from netbed import Bed
from processes import nobodys_environment, open_to_nobody, python_of_nobody

from cachelb.capabilities import NET_ADMIN, NET_RAW
from cachelb.demo.director import Director, DirectorError
from cachelb.demo.leash import Leash

Start = Callable[..., Director]

SECTIONS = """
[hostnet]
addresses = ["10.77.1.100 dev client", "fd00:77:0:1::100 dev client"]
[intercept]
listen = ["127.0.0.1:3129", "[::1]:3129"]
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def rights(pid: int) -> set[int]:
    """The capabilities that count for a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return {number for number in range(64) if mask >> number & 1}


def workers(director: Director, bed: Bed) -> list[int]:
    with bed.router:
        return [worker["pid"] for worker in director.status()["workers"]]


@as_root
def test_a_director_that_becomes_nobody_keeps_what_it_needs_and_upgrades_with_it(
    bed: Bed, start: Start, tmp_path: Path, leash: Leash
):
    python = python_of_nobody()
    before = bed.router.snapshot()
    director = start('[service]\nuser = "nobody"\n' + SECTIONS, ready=False)
    open_to_nobody(director.config_path.parent)
    director.command, director.environment = [*python, "-m", "cachelb"], nobodys_environment()
    with bed.router:
        director.start()
    running = bed.router.snapshot()
    assert "10.77.1.100" in running
    assert os.stat(f"/proc/{director.pid}").st_uid == pwd.getpwnam("nobody").pw_uid
    assert rights(director.pid) == {NET_ADMIN, NET_RAW}
    assert [rights(pid) for pid in workers(director, bed)] == [set()]

    bed.router.run("nft", "flush", "ruleset")
    wait_until(lambda: "it is as it should be again" in director.log())

    director.signal(signal.SIGUSR2)
    wait_until(lambda: "this one finishes what it has begun" in director.log())
    assert director.wait() == 0
    assert bed.router.snapshot() == running
    new = int(director.log().partition("upgrade: process ")[2].split()[0])
    leash.watch(new)
    assert rights(new) == {NET_ADMIN, NET_RAW}
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: bed.router.snapshot() == before)
    assert "could be taken back" not in director.log()


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_capabilities_of_an_init_system_are_enough_and_go_no_further(bed: Bed, start: Start):
    python = python_of_nobody()
    before = bed.router.snapshot()
    director = start(SECTIONS, ready=False)
    open_to_nobody(director.config_path.parent)
    given = "+net_admin,+net_raw,+net_bind_service"
    as_nobody = ["setpriv", "--reuid=nobody", "--clear-groups", f"--inh-caps={given}", f"--ambient-caps={given}"]
    director.command, director.environment = [*as_nobody, *python, "-m", "cachelb"], nobodys_environment()
    with bed.router:
        director.start()
    assert {NET_ADMIN, NET_RAW} <= rights(director.pid)
    assert [rights(pid) & {NET_ADMIN, NET_RAW} for pid in workers(director, bed)] == [set()]
    assert director.stop() == 0
    assert bed.router.snapshot() == before


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_without_the_capability_a_sentence_says_which_is_missing(bed: Bed, start: Start):
    python = python_of_nobody()
    before = bed.router.snapshot()
    director = start(SECTIONS, ready=False)
    open_to_nobody(director.config_path.parent)
    as_nobody = ["setpriv", "--reuid=nobody", "--clear-groups"]
    director.command, director.environment = [*as_nobody, *python, "-m", "cachelb"], nobodys_environment()
    with bed.router, pytest.raises(DirectorError):
        director.start()
    assert "CAP_NET_ADMIN is missing" in director.log()
    assert "Traceback" not in director.log()
    assert bed.router.snapshot() == before


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_workers_that_could_not_spoof_are_not_started(bed: Bed, start: Start):
    python = python_of_nobody()
    before = bed.router.snapshot()
    director = start('[intercept]\nlisten = "127.0.0.1:3129"\nspoof = "both"\n', ready=False)
    open_to_nobody(director.config_path.parent)
    given = "+net_admin"
    as_nobody = ["setpriv", "--reuid=nobody", "--clear-groups", f"--inh-caps={given}", f"--ambient-caps={given}"]
    director.command, director.environment = [*as_nobody, *python, "-m", "cachelb"], nobodys_environment()
    with bed.router, pytest.raises(DirectorError):
        director.start()
    assert "CAP_NET_RAW is missing: workers could not speak from clients' addresses" in director.log()
    assert bed.router.snapshot() == before
