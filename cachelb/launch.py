"""From a configuration file to a running director: what has to be done once, in the right order, before the event loop.

Open files, sockets and the pid file come first, while the process is root, if it was started so; then it becomes the user that
``[service]`` names; all else is done as that user.
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import uvloop

from cachelb import privileges
from cachelb.cluster.keeper import state_directory
from cachelb.config import Config, load_with_warnings
from cachelb.eventlog import setup
from cachelb.filelimit import needed, raise_file_limit, shortage
from cachelb.listen import CannotListenError
from cachelb.pidfile import PidFile, PidFileError
from cachelb.priority import prompt
from cachelb.privileges import PrivilegesError
from cachelb.sockets import Sockets
from cachelb.supervisor import Supervisor
from cachelb.takeover import Predecessor, TakeoverError
from cachelb.workers import worker_count
from icp.service import bind

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
    except (PidFileError, PrivilegesError, TakeoverError) as exc:
        log.error("%s", exc)
        return 1

    async def main() -> int:
        return await supervisor.run()

    try:
        return uvloop.run(main())
    finally:
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
    try:
        sockets = Sockets(bind, () if before is None else before.sockets())
        sockets.bind(config, worker_count(config))
        if user is not None:
            _become(user, path, config)
        supervisor = Supervisor(path, config, sockets, before)
    except BaseException:
        if pid_file is not None:
            pid_file.close()
        raise
    supervisor.pid_file = pid_file
    return supervisor


def _become(user: privileges.User, path: Path, config: Config) -> None:
    privileges.prepare(user, config.log.access, state_directory(config.index.state, os.environ))
    privileges.become(user)
    log.info("running as %s (%d:%d)", user.name, user.uid, user.gid)
    if problem := privileges.unable_to_start_workers(user):
        raise PrivilegesError(problem)
    for problem in privileges.problems(user, path, config.log.access):
        log.warning("%s", problem)
