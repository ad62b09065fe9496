"""From root to the user that the director runs as (``[service] user``), once everything that needs root is had.

Before that, what the user has to write is made and given to it, where it does not exist yet: the access log and the state
directory.  What exists keeps its owner, and its links are not followed: a user who may write there must not be given other
people's files.

A director that has changed its host (``hostnet``) keeps the capabilities to take that back.

Left out: the capabilities that systemd can leave to a user (``AmbientCapabilities=``); with them root is not needed at all.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cachelb import capabilities
from cachelb.errors import CachelbError

LOG_MODE, DIRECTORY_MODE = 0o640, 0o700


class PrivilegesError(CachelbError):
    """The director cannot become the user; the message is a sentence for the operator."""


class User(NamedTuple):
    """Whom to become.  groups: supplementary ones, of the system's word for the user, and gid."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def find_user(user: str, group: str) -> User | None:
    """Whom the configuration means; None when nobody has to be become: no user is given, or this process is that one.

    Raises:
        PrivilegesError: There is no such user or group, or this process may not become it.
    """
    if not user and not group:
        return None
    try:
        entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
    except KeyError:
        raise PrivilegesError(f'[service] user = "{user}": this system has no such user') from None
    try:
        gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
    except KeyError:
        raise PrivilegesError(f'[service] group = "{group}": this system has no such group') from None
    if (os.geteuid(), os.getegid()) == (entry.pw_uid, gid):
        return None
    if os.geteuid() != 0:
        what = f'user = "{user}"' if os.geteuid() != entry.pw_uid else f'group = "{group}"'
        raise PrivilegesError(f"[service] {what}: only root can change that; this is {_own_name()}")
    return User(entry.pw_name, entry.pw_uid, gid, tuple(sorted({*os.getgrouplist(entry.pw_name, gid), gid})))


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"


def prepare(user: User, access_log: str, state: Path | None) -> None:
    """Make what the user has to write and what is not there.

    Raises:
        PrivilegesError: It cannot be made.
    """
    if access_log and access_log != "-":
        path = Path(access_log)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, LOG_MODE)
        except FileExistsError:
            pass
        except OSError as exc:
            raise PrivilegesError(f"[log] access {path} cannot be made: {exc.strerror}") from exc
        else:
            os.fchown(fd, user.uid, user.gid)
            os.close(fd)
    if state is not None:
        try:
            os.mkdir(state, DIRECTORY_MODE)
            os.chown(state, user.uid, user.gid, follow_symlinks=False)
        except FileExistsError:
            pass
        except OSError as exc:
            raise PrivilegesError(f"[index] state {state} cannot be made: {exc.strerror}") from exc


def become(user: User, keep: frozenset[int] = frozenset()) -> None:
    """Be the user from now on, for good.

    keep: The capabilities of root that stay.

    Raises:
        PrivilegesError: The system does not let us.
    """
    try:
        if keep:
            capabilities.keep_over_change_of_user()
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        if keep:
            capabilities.limit(keep)
    except OSError as exc:
        raise PrivilegesError(f"cannot become {user.name}: {exc.strerror}") from exc
    if user.uid != 0:
        with contextlib.suppress(PermissionError):
            os.setuid(0)
            raise PrivilegesError(f"{user.name} can become root again: the system is set up in a way that makes this useless")


def problems(user: User, config: Path, access_log: str) -> list[str]:
    """What the user, whom this process is by now, cannot do and will have to: a sentence each."""
    found = []
    if not os.access(config, os.R_OK):
        found.append(f"{user.name} may not read {config}: reloads and upgrades will be refused")
    if access_log and access_log != "-":
        path = Path(access_log)
        if os.path.exists(path) and not os.access(path, os.W_OK):
            found.append(f"{user.name} may not write {path}: chown it, or remove it and it is made anew")
        elif not os.access(path.parent, os.W_OK):
            found.append(f"{user.name} may not make files in {path.parent}: after a rotation, logrotate has to (create)")
    return found


def unable_to_start_workers(user: User, needed: Sequence[Path] = (Path(sys.executable), Path(__file__))) -> str:
    """Why the user cannot start workers, as a sentence; "" when it can.  A virtual environment below /root is the usual case."""
    for path in needed:
        if not os.access(path, os.R_OK):
            return f"{user.name} may not read {path}: workers cannot be started; install cachelb where {user.name} may read"
    return ""
