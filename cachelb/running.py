"""The director that runs with a configuration on this host: which process it is, and how it is replaced by a new version.

It is found by its pid file, else by its admin listener.

Left out: what the director itself does then (``upgrades``).
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cachelb import pidfile
from cachelb.errors import CachelbError

if TYPE_CHECKING:
    from cachelb.config import Config

ASK_S = 5.0  # for an answer of the admin listener
LOOK_S = 0.1  # between looks whether the new version has taken over
BEYOND_S = 10.0  # longer than the old version waits for the new one


class RunningError(CachelbError):
    """No director runs, or it could not be upgraded; the message is a sentence for the operator."""


class Seen(NamedTuple):
    """What can be seen of a director.  tries, problem: of its upgrades; -1 and "": it has no admin listener."""

    pid: int
    version: str = ""
    tries: int = -1
    problem: str = ""


def look(config: Config) -> Seen:
    """The director that runs now.

    Raises:
        RunningError: None does.
    """
    pid, why = None, []
    path = config.service.pid_file
    if path:
        try:
            pid = pidfile.running(Path(path))
            why.append(f"nobody holds {path}")
        except pidfile.PidFileError as exc:
            why.append(str(exc))
    for address in config.listen.admin:
        try:
            status = _ask(address.host, address.port)
            said = int(status["pid"])
            if pid in (None, said):
                return Seen(said, str(status["version"]), int(status["upgrade"]["tries"]), str(status["upgrade"]["problem"]))
        except (KeyError, TypeError):
            why.append(f"{address} does not say which process it is: an older version, or no director")
        except (OSError, http.client.HTTPException, ValueError) as exc:
            why.append(f"{address} says: {exc}")
    if pid is None:
        raise RunningError(f"no director runs with this configuration ({'; '.join(why) or 'it has no pid_file and no admin'})")
    return Seen(pid)


def _ask(host: str, port: int) -> Any:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = http.client.HTTPConnection(host, port, timeout=ASK_S)
    try:
        connection.request("GET", "/api/v1/status")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def upgrade(config: Config, sleep: Callable[[float], None] = time.sleep) -> str:
    """Have the installed version take over from the one that runs; a sentence about it.

    Raises:
        RunningError: That was not to be; the old one goes on, if there is one.
    """
    before = look(config)
    try:
        os.kill(before.pid, signal.SIGUSR2)
    except OSError as exc:
        raise RunningError(f"process {before.pid} cannot be told to upgrade: {exc.strerror}") from exc
    end = time.monotonic() + config.service.upgrade_s + BEYOND_S
    while time.monotonic() < end:
        sleep(LOOK_S)
        try:
            now = look(config)
        except RunningError:
            continue  # between the two, or it has ended
        if now.pid != before.pid:
            version = f" (cachelb {now.version})" if now.version else ""
            return f"process {now.pid}{version} has taken over from process {before.pid}"
        if now.tries > before.tries and now.problem:
            raise RunningError(f"the upgrade failed: {now.problem}; process {now.pid} goes on")
    raise RunningError(f"no new version has taken over from process {before.pid}: see its log")
