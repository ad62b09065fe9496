"""The director as a subprocess, as an operator starts it: ``cachelb run -c FILE``.

Left out: the farm and the origin behind it (``farm``, ``origin``); what the director prints beyond the word "ready".
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from .leash import Leash
from .squid import free_port, wait_until

START_TIMEOUT_S = 20.0  # measured below 1 s; the margin is for a busy machine


class DirectorError(RuntimeError):
    """The director did not start or stop; the text ends with the tail of its log."""


def director_config(tables: str, http: tuple[str, int], admin: tuple[str, int], *, listen: str = "", more: str = "") -> str:
    """A configuration for loopback: listens at `http` and `admin`, `tables` are the ``[[node]]`` tables.

    listen: further lines of [listen].  more: further tables, for instance ``[health]``; not ``[listen]`` or ``[bypass]``.
    The origin of the demo has a loopback address, so going direct must be allowed to reach private ones.
    """
    return (
        f'[listen]\nhttp = "{http[0]}:{http[1]}"\nadmin = "{admin[0]}:{admin[1]}"\n{listen}\n'
        f"[bypass]\nallow_private = true\n\n{more}\n{tables}"
    )


class Director:
    """One ``cachelb run``.  config: the TOML text.  directory: for its configuration and its log."""

    def __init__(self, config: str, directory: Path, leash: Leash, *, http: tuple[str, int], admin: tuple[str, int]):
        self.http = http
        self.admin = admin
        self.config_path = directory / "cachelb.toml"
        self.log_path = directory / "cachelb.log"
        self.command = [sys.executable, "-m", "cachelb"]
        self.environment: dict[str, str] | None = None  # that of this process
        self.write_config(config)
        self._leash = leash
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def proxy(self) -> str:
        """``http://host:port`` for a client's proxy setting."""
        return f"http://{self.http[0]}:{self.http[1]}"

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the supervisor exists."""
        return self._process is not None and self._process.poll() is None

    def write_config(self, config: str) -> None:
        """Replace the configuration file; ``reload`` makes the director read it."""
        self.config_path.write_text(config)

    def start(self) -> None:
        """Start it and return when all its listeners accept.  Raises DirectorError."""
        with self.log_path.open("ab") as log:
            written = log.tell()
            self._process = subprocess.Popen(
                [*self.command, "run", "-c", str(self.config_path)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C belongs to the demo
            )
        self._leash.watch(self._process.pid)

        def is_ready() -> bool:
            return not self.is_running or "ready: " in self.log()[written:]

        if not wait_until(is_ready, START_TIMEOUT_S):
            raise DirectorError(f"the director is not ready after {START_TIMEOUT_S} s\n{self.log_tail()}")
        if not self.is_running:
            raise DirectorError(f"the director ended at its start\n{self.log_tail()}")

    def stop(self, timeout_s: float = 40.0) -> int:
        """SIGTERM and wait.  Returns the exit code.  Raises DirectorError when it does not end in time."""
        if self._process is None:
            return 0
        self._process.terminate()
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 40.0) -> int:
        """Wait for its end, after a ``signal``.  Returns the exit code.  Raises DirectorError as ``stop`` does."""
        assert self._process is not None, "not started"
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise DirectorError(f"the director did not stop within {timeout_s} s\n{self.log_tail()}") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL the supervisor, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._leash.forget(self._process.pid)
            self._process = None

    def reload(self) -> None:
        """SIGHUP."""
        self.signal(signal.SIGHUP)

    def signal(self, number: signal.Signals) -> None:
        """Send any signal to the supervisor."""
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    def status(self) -> Any:
        """``GET /api/v1/status`` of the admin API, decoded."""
        return json.loads(self.admin_get("/api/v1/status"))

    def admin_get(self, path: str) -> str:
        """The body of any GET of the admin API."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://{self.admin[0]}:{self.admin[1]}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def log(self) -> str:
        """All that it has written to stderr."""
        return self.log_path.read_text("utf-8", "replace")

    def log_tail(self, lines: int = 20) -> str:
        """The end of that, for error messages."""
        return "\n".join(self.log().splitlines()[-lines:])


def director_ports(preferred: bool = False) -> tuple[tuple[str, int], tuple[str, int]]:
    """Free (host, port) pairs on 127.0.0.1 for `http` and `admin`; the usual 3128 and 3180 where wanted and free."""
    return (
        ("127.0.0.1", free_port("127.0.0.1", preferred=3128 if preferred else 0)),
        ("127.0.0.1", free_port("127.0.0.1", preferred=3180 if preferred else 0)),
    )
