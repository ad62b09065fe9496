"""From root to another user.  What needs root is skipped where the tests are run as somebody else."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from live_director import LiveDirector, wait_until
from processes import nobodys_environment, open_to_nobody, python_of_nobody

from cachelb.privileges import PrivilegesError, User, find_user, prepare, problems, unable_to_start_workers

Make = Callable[..., LiveDirector]

NOBODY = pwd.getpwnam("nobody")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def test_nobody_has_to_be_become_where_no_user_is_configured():
    assert find_user("", "") is None


def test_an_account_that_does_not_exist_is_refused():
    with pytest.raises(PrivilegesError, match='user = "no-such-user": this system has no such user'):
        find_user("no-such-user", "")
    with pytest.raises(PrivilegesError, match='group = "no-such-group": this system has no such group'):
        find_user("nobody", "no-such-group")


@as_root
def test_groups_are_the_systems_word_for_the_user():
    found = find_user("nobody", "")
    assert found is not None
    assert found[:3] == ("nobody", NOBODY.pw_uid, NOBODY.pw_gid)
    assert found.gid in found.groups
    daemon = find_user("nobody", "daemon")
    assert daemon is not None
    assert daemon.gid != NOBODY.pw_gid
    assert daemon.gid in daemon.groups


def test_who_is_not_root_can_stay_who_it_is_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    monkeypatch.setattr(os, "getegid", lambda: NOBODY.pw_gid)
    assert find_user("nobody", "") is None
    with pytest.raises(PrivilegesError, match=r'user = "root": only root can change that; this is nobody'):
        find_user("root", "")
    with pytest.raises(PrivilegesError, match=r'group = "root": only root can change that; this is nobody'):
        find_user("nobody", "root")


@as_root
def test_what_the_user_has_to_write_is_made_and_what_exists_is_left(tmp_path: Path):
    user = User("nobody", NOBODY.pw_uid, NOBODY.pw_gid, (NOBODY.pw_gid,))
    prepare(user, str(tmp_path / "access.log"), tmp_path / "state")
    for name, mode in (("access.log", 0o640), ("state", 0o700)):
        found = (tmp_path / name).stat()
        assert (found.st_uid, found.st_mode & 0o777) == (user.uid, mode)
    (tmp_path / "secret").write_text("root's")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    prepare(user, str(tmp_path / "link"), tmp_path / "state")
    assert (tmp_path / "secret").stat().st_uid == 0
    prepare(user, "-", None)
    with pytest.raises(PrivilegesError, match=r"\[log\] access .*: No such file"):
        prepare(user, str(tmp_path / "none" / "a.log"), None)
    with pytest.raises(PrivilegesError, match=r"\[index\] state .*: No such file"):
        prepare(user, "", tmp_path / "none" / "state")


AS_NOBODY = """
import os, sys
from pathlib import Path
from cachelb import privileges
user = privileges.find_user("nobody", "")
privileges.become(user)
print(os.getresuid(), os.getresgid(), sorted(os.getgroups()))
try:
    os.setuid(0)
except PermissionError:
    print("no way back")
for line in privileges.problems(user, Path(sys.argv[1]), sys.argv[2]):
    print(line)
"""


@as_root
def test_who_has_become_the_user_stays_it_and_is_told_what_it_cannot_do(tmp_path: Path):
    config, log = tmp_path / "c.toml", tmp_path / "access.log"
    for path in (config, log):
        path.touch(0o600)
    done = subprocess.run([sys.executable, "-c", AS_NOBODY, config, log], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
    assert lines[:2] == [f"{(uid,) * 3} {(gid,) * 3} [{gid}]", "no way back"], done.stderr
    assert lines[2] == f"nobody may not read {config}: reloads and upgrades will be refused"
    assert lines[3].startswith("nobody may not ")
    assert str(tmp_path) in lines[3]


def test_no_problems_for_who_may_everything(tmp_path: Path):
    user = User("me", os.geteuid(), os.getegid(), ())
    config = tmp_path / "c.toml"
    config.touch()
    assert problems(user, config, str(tmp_path / "access.log")) == []
    assert unable_to_start_workers(user) == ""
    assert "may not read" in unable_to_start_workers(user, [tmp_path / "none"])


@as_root
def test_a_director_binds_a_low_port_as_root_and_serves_and_upgrades_as_nobody(director: Make, tmp_path: Path):
    python = python_of_nobody()
    open_to_nobody(tmp_path)
    (tmp_path / "log").mkdir()
    (tmp_path / "log").chmod(0o755)
    subject = director(until=None)
    subject.http = ("127.0.0.77", 77)
    log, state = tmp_path / "log" / "access.log", tmp_path / "state"
    service = f'[service]\nuser = "nobody"\npid_file = "{tmp_path / "pid"}"\n'
    subject.configure(f'{service}[log]\naccess = "{log}"\n[index]\nstate = "{state}"\n[relay]\nworkers = 2\n')
    subject.command = [*python, "-m", "cachelb"]
    subject.environment = nobodys_environment()
    subject.launch()
    subject.wait_for("ready: ")
    assert f"running as nobody ({NOBODY.pw_uid}:{NOBODY.pw_gid})" in subject.log()
    assert subject.ask() == b"127.0.0.61 http://www.test/page"
    first = subject.pid
    for number in ("first", "second"):
        pids = [subject.pid, *(worker["pid"] for worker in subject.status()["workers"])]
        assert [os.stat(f"/proc/{pid}").st_uid for pid in pids] == [NOBODY.pw_uid] * 3, number
        before = subject.pid
        if number == "first":
            subject.signal(signal.SIGUSR2)
            wait_until(lambda before=before: (tmp_path / "pid").read_text().strip() != str(before), "upgraded", 60.0)
            subject.follow(int((tmp_path / "pid").read_text()))
    assert subject.ask() == b"127.0.0.61 http://www.test/page"
    wait_until(lambda: first not in subject.processes())
    assert log.stat().st_uid == NOBODY.pw_uid
    wait_until(lambda: log.read_text().count("\n") == 2)
    subject.signal(signal.SIGTERM)
    subject.ended()
    assert (state / "holdings").stat().st_uid == NOBODY.pw_uid
    assert "ERROR" not in subject.log()
