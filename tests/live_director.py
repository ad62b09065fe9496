"""A whole director in processes of its own, for tests of the control plane, and a node that can keep it waiting.

It differs from ``cachelb.demo.director`` in what it lets a test do at the wrong moment: signals before it is ready,
workers that crash or hang at their start.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes import PATIENCE_S, FakeSquid, Peer, get, ok
from processes import users_environment

from cachelb.demo.leash import Leash
from cachelb.demo.squid import free_port

# What each Python of a test's director does before anything else: a worker ends or hangs where the test says so.
SITE = """
import os, sys, time
if "cachelb.worker" in sys.orig_argv:
    if os.path.exists({crash!r}):
        os._exit(3)
    while os.path.exists({hang!r}):
        time.sleep(0.01)
"""


def wait_until(is_true: Callable[[], object], what: str = "", patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition."""
    end = time.monotonic() + patience_s
    while not is_true():
        assert time.monotonic() < end, f"in vain: {what or is_true}"
        time.sleep(0.005)


class SlowNode(FakeSquid):
    """Answers at once, but what has "slow" in its URL only when ``gate`` is opened; "private" may not be cached."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.gate = threading.Event()
        self.waiting = threading.Semaphore(0)
        self.serve(self._answer)

    def _answer(self, head: bytes) -> bytes:
        first = head.partition(b"\r\n")[0]
        if b"private" in first:
            return ok(b"", "Cache-Control: private")
        if b"slow" in first:
            self.waiting.release()
            self.gate.wait(PATIENCE_S)
        return self.greeting(head)

    def stop(self) -> None:
        self.gate.set()
        super().stop()


class LiveDirector:
    """``cachelb run`` and its workers, in a session of their own.  Admin and log are read, signals are sent."""

    def __init__(self, directory: Path, leash: Leash, nodes: dict[str, FakeSquid], sections: str) -> None:
        self.directory = directory
        self.nodes = nodes
        self.http, self.admin = (("127.0.0.1", free_port("127.0.0.1")) for _ in range(2))
        self.config = directory / "cachelb.toml"
        self.more_listen = ""
        self.command = [sys.executable, "-m", "cachelb"]
        self.environment: dict[str, str] = {}  # empty: that of the test
        self.log_path = directory / "events.log"
        self.crash, self.hang = directory / "crash", directory / "hang"
        self.configure(sections)
        site = directory / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(SITE.format(crash=str(self.crash), hang=str(self.hang)))
        self._leash = leash
        self.process: subprocess.Popen[bytes] | None = None
        self._followed = 0

    def configure(self, sections: str, more_nodes: str = "") -> None:
        """Write the configuration; ``sections``: all but [listen] and the nodes, with one worker unless they say."""
        if "[relay]" not in sections:
            sections += "\n[relay]\nworkers = 1\n"
        nodes = "".join(
            f'[[node]]\nname = "{name}"\nhost = "{node.host}"\nhttp_port = {node.port}\n' for name, node in self.nodes.items()
        )
        listen = '[listen]\nhttp = "{}:{}"\nadmin = "{}:{}"\n'.format(*self.http, *self.admin) + self.more_listen
        self.config.write_text(f"{listen}{sections}\n{nodes}{more_nodes}")

    def launch(self) -> None:
        """Start, and wait for nothing."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "run", "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                env=self.environment or {**users_environment(), "PYTHONPATH": str(self.directory / "site")},
            )
        self._leash.watch(self.process.pid)

    @property
    def pid(self) -> int:
        """Of the director: of the process that was launched, or of the one that was followed."""
        assert self.process is not None
        return self._followed or self.process.pid

    def follow(self, pid: int) -> None:
        """Another process is the director now."""
        self._leash.watch(pid)
        self._followed = pid

    # -- looking

    @property
    def is_running(self) -> bool:
        if self._followed:
            return self._followed in self.processes()
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        return self.log_path.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until the log has ``text``."""
        wait_until(lambda: text in self.log() or not self.is_running, text)
        assert text in self.log(), self.log()

    def read(self, path: str) -> str:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://{self.admin[0]}:{self.admin[1]}{path}", timeout=PATIENCE_S) as answer:
            return str(answer.read().decode())

    def status(self) -> Any:
        return json.loads(self.read("/api/v1/status"))

    def answers(self) -> bool:
        """Whether the admin listener accepts."""
        with socket.socket() as sock:
            return sock.connect_ex(self.admin) == 0

    def processes(self) -> list[int]:
        """All processes of its session that have not ended."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if self.process is not None and int(fields[3]) == self.process.pid and fields[0] != "Z":
                    found.append(int(path.parent.name))
        return found

    def crew(self) -> list[int]:
        """Those of them that are directors or workers, which are as many as was asked for; not what builds digests."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if b"cachelb.cluster.build" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    # -- doing

    def connect(self) -> Peer:
        return Peer(socket.create_connection(self.http, PATIENCE_S))

    def ask(self, path: str = "page") -> bytes:
        """The body of one request on a connection of its own."""
        client = self.connect()
        client.send(get(f"http://www.test/{path}", "Connection: close"))
        body = client.read_answer().body
        client.close()
        return body

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def ended(self) -> int:
        """Wait until the supervisor has ended and no process is left; its exit status."""
        assert self.process is not None
        code = self.process.wait(PATIENCE_S)
        wait_until(lambda: not self.processes(), "processes are left")
        return code

    def close(self) -> None:
        for path in (self.crash, self.hang):
            path.unlink(missing_ok=True)
        if self.process is None:
            return
        if self.is_running:
            self.signal(signal.SIGINT)
        self.ended()
        for pid in {self.process.pid, self.pid}:
            self._leash.forget(pid)
