"""From a configuration file to a running director: what has to be done once, in the right order, before the event loop.

Open files, addresses of the host, sockets and the pid file come first, while the process is root, if it was started so; then it
becomes the user that ``[service]`` names; all else is done as that user.  What the host was given is taken back at the very end.
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from cachelb import privileges
from cachelb.capabilities import NET_ADMIN, NET_RAW, give_to_children, missing, withhold_from_children
from cachelb.cluster.keeper import state_directory
from cachelb.config import Config, load_with_warnings
from cachelb.eventlog import setup
from cachelb.filelimit import needed, raise_file_limit, shortage
from cachelb.hostnet.steps import HostError
from cachelb.hostnet.wanted import is_asked_for
from cachelb.listen import CannotListenError
from cachelb.pidfile import PidFile, PidFileError
from cachelb.priority import prompt
from cachelb.privileges import PrivilegesError
from cachelb.sockets import Sockets
from cachelb.supervisor import Supervisor
from cachelb.takeover import Predecessor, TakeoverError
from cachelb.workers import worker_count
from icp.service import bind

if TYPE_CHECKING:
    from cachelb.hostnet.host import Host

log = logging.getLogger("cachelb")


def run(path: Path) -> int:
    """``cachelb run``: the exit status.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):  # which end a process that has no handlers yet
        signal.signal(number, signal.SIG_IGN)
    config = _configuration(path)
    files = raise_file_limit(needed(config.limits.connections))
    if text := shortage(files, config.limits.connections):
        log.warning("%s", text)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    prompt()
    try:
        supervisor = _prepare(path, config)
    except CannotListenError as exc:
        log.error("%s", exc.strerror)
        return 1
    except HostError as exc:
        for problem in exc.problems:
            log.error("%s", problem)
        return 1
    except (PidFileError, PrivilegesError, TakeoverError) as exc:
        log.error("%s", exc)
        return 1

    async def main() -> int:
        return await supervisor.run()

    try:
        return uvloop.run(main())
    finally:
        if supervisor.host is not None:
            is_ours = supervisor.before is None and supervisor.upgrades.successor is None
            supervisor.host.end() if is_ours else supervisor.host.leave()
        if supervisor.pid_file is not None:
            supervisor.pid_file.close()


def _configuration(path: Path) -> Config:
    config, warnings = load_with_warnings(path)
    setup(config.log.events, config.log.level)
    for warning in warnings:
        log.warning("%s", warning)
    return config


def _prepare(path: Path, config: Config) -> Supervisor:
    service = config.service
    before = Predecessor.find(os.environ)
    user = privileges.find_user(service.user, service.group)
    pid_file = None
    if service.pid_file:
        pid_file = PidFile(Path(service.pid_file), -1 if before is None else before.offer.pid_file)
    host = None
    try:
        host = _host(config, before)
        sockets = Sockets(bind, () if before is None else before.sockets())
        sockets.bind(config, worker_count(config))
        keep = frozenset((NET_ADMIN, NET_RAW)) if host is not None else frozenset()
        if user is not None:
            _become(user, path, config, keep)
        if config.admin.socket:
            sockets.bind_unix(config.admin.socket, int(config.admin.socket_mode, 8))
        if host is not None:
            _give_to_workers(config)
        supervisor = Supervisor(path, config, sockets, before)
    except BaseException:
        if host is not None:
            host.end() if before is None else host.leave()
        if pid_file is not None:
            pid_file.close()
        raise
    supervisor.pid_file, supervisor.host = pid_file, host
    return supervisor


def _host(config: Config, before: Predecessor | None) -> Host | None:
    """What has to be set on the host, set; None where nothing is asked for.

    Raises:
        HostError: That cannot be.
    """
    claim = -1 if before is None else before.offer.host
    if not is_asked_for(config) and claim < 0:
        return None
    from cachelb.hostnet.host import Host  # not for all: it loads pyroute2, 0.4 s

    host = Host(config, claim)
    host.prepare()
    return host


def _give_to_workers(config: Config) -> None:
    """What workers need, and no more; systemd would give to all children what it gives to this process.

    Raises:
        HostError: This process does not have it.
    """
    if os.geteuid() != 0:
        withhold_from_children(NET_ADMIN, NET_RAW)
        if config.intercept.spoof != "off":
            if lacking := missing(NET_RAW):
                raise HostError(f"{lacking} is missing: workers could not speak from clients' addresses ([intercept] spoof)")
            give_to_children(NET_RAW)


def _become(user: privileges.User, path: Path, config: Config, keep: frozenset[int]) -> None:
    privileges.prepare(user, config.log.access, state_directory(config.index.state, os.environ))
    privileges.become(user, keep)
    log.info("running as %s (%d:%d)", user.name, user.uid, user.gid)
    if problem := privileges.unable_to_start_workers(user):
        raise PrivilegesError(problem)
    for problem in privileges.problems(user, path, config.log.access):
        log.warning("%s", problem)
