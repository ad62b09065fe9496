"""One real Squid process with its own directory, for the demo and the tests.

``Squid`` starts ``squid -N`` in the foreground, waits until it answers, pauses, kills and restarts it, reads its
access.log and asks it by ICP whether it holds a URL.

Everything is synchronous and quick, so that plain tests and ``asyncio.to_thread`` can both use it.

Left out: which Squids there are and where (``farm``), and their configuration (``squidconf``).
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .leash import Leash

START_TIMEOUT_S = 20.0  # measured 0.05-0.35 s; the margin is for a busy machine
_ICP_QUERY, _ICP_HIT, _ICP_VERSION = 1, 2, 2
_ICP_HEADER = struct.Struct(">BBHIIII")  # RFC 2186 section 2; the query's payload: 4 bytes of address, URL, NUL
_PORTS = range(10_000, 30_000)  # usually below those that the kernel gives to outgoing connections
_ports = itertools.cycle(_PORTS)
next(itertools.islice(_ports, os.getpid() * 997 % len(_PORTS), None))  # two processes at once start apart

_SHARED_FILES = ("cf__metadata.shm", "cf__queues.shm", "cf__readers.shm")  # what a killed Squid leaves in /dev/shm


class SquidError(RuntimeError):
    """A Squid did not do what it was asked; the text ends with the tail of its cache.log."""


class AccessEntry(NamedTuple):
    """One line of access.log in Squid's native format.  `client` is the X-Forwarded-For client where there is one."""

    time: float
    elapsed_ms: int
    client: str
    result: str  # TCP_MISS, TCP_MEM_HIT, ...
    status: int
    size: int
    method: str
    url: str
    hierarchy: str  # HIER_DIRECT/127.0.0.10, FIRSTUP_PARENT/front, ...
    content_type: str

    @property
    def is_hit(self) -> bool:
        """Answered from this cache (a revalidated object counts: its body did not come from the origin)."""
        return "HIT" in self.result or self.result in ("TCP_REFRESH_UNMODIFIED", "TCP_IMS_HIT")


def parse_access_line(line: str) -> AccessEntry:
    """Read one native-format line.  Raises ValueError when it is not one."""
    stamp, elapsed, client, code, size, method, url, _user, hierarchy, content_type = line.split()
    result, _, status = code.partition("/")
    return AccessEntry(
        float(stamp), int(elapsed), client, result, int(status), int(size), method, url, hierarchy, content_type
    )


def find_squid() -> str | None:
    """The path of the squid program, or None.  Debian keeps it in /usr/sbin, which is not in every user's PATH."""
    return shutil.which("squid", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


class Squid:
    """One Squid process.

    name: also its visible host name, with ``.test`` behind it.  host: a loopback address of its own: Squid drops ICP
    answers that come from the address it is bound to.  icp_port: 0 = it speaks no ICP.  settings: its squid.conf.
    directory: must exist and be reachable for the user ``proxy``.
    """

    def __init__(
        self, name: str, host: str, http_port: int, icp_port: int, directory: Path, settings: str, leash: Leash
    ) -> None:
        self.name = name
        self.host = host
        self.http_port = http_port
        self.icp_port = icp_port
        self.directory = directory
        self._settings = settings
        self._leash = leash
        self._console = directory / "stderr"
        self._service = "".join(filter(str.isalnum, f"{name}{directory.parent.name}"))  # Squid allows nothing else
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "stopped"
        return f"<Squid {self.name} {self.host}:{self.http_port} {state}>"

    @property
    def pid(self) -> int:
        """Of the running process.  Raises SquidError when it was not started."""
        if self._process is None:
            raise SquidError(f"{self.name} is not running")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process exists (a paused one does)."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process and return at once; ``wait_ready`` follows.  Its cache is made on the first start."""
        program = find_squid()
        if program is None:
            raise SquidError("squid is not installed (Debian: apt-get install squid)")
        # a killed Squid leaves its pid file, and the next one refuses to start
        (self.directory / "squid.pid").unlink(missing_ok=True)
        if not (self.directory / "squid.conf").exists():
            self._prepare(program)
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                self._command(program),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=console,
                start_new_session=True,  # Ctrl-C belongs to the demo
            )
        self._leash.watch(self._process.pid)
        for name in _SHARED_FILES:
            self._leash.remove(Path(f"/dev/shm/{self._service}-{name}"))

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when it answers HTTP.  Raises SquidError when it ends or does not answer in time."""

        def answers() -> bool:
            if not self.is_running:
                raise SquidError(f"{self.name} ended at its start\n{self.log_tail()}")
            return self._is_answering()

        if not wait_until(answers, timeout_s):
            raise SquidError(f"{self.name} does not answer after {timeout_s} s\n{self.log_tail()}")

    def start(self) -> None:
        """``launch`` and ``wait_ready``."""
        self.launch()
        self.wait_ready()

    def kill(self) -> None:
        """SIGKILL: connections are reset, the disk cache stays.  Does nothing when it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for name in _SHARED_FILES:
                Path(f"/dev/shm/{self._service}-{name}").unlink(missing_ok=True)
            self._leash.forget(self._process.pid)
            self._process = None

    def terminate(self) -> None:
        """SIGTERM and wait: an orderly stop, which takes a Squid 2.4-3.7 s even without a shutdown_lifetime."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                pass
            self.kill()

    def empty(self) -> None:
        """Remove its cache, while it is stopped: the next start makes a new one."""
        shutil.rmtree(self.directory / "cache")
        (self.directory / "squid.conf").unlink()

    def pause(self) -> None:
        """SIGSTOP: the kernel still accepts connections, nothing answers.  What a hung node looks like."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after ``pause``."""
        os.kill(self.pid, signal.SIGCONT)

    def holds(self, url: str, timeout_s: float = 2.0) -> bool:
        """Whether a GET of `url` would be a hit here, asked by ICP (raw URL bytes: write it as Squid stores it)."""
        return is_icp_hit((self.host, self.icp_port), url, timeout_s)

    def manager(self, report: str) -> str:
        """The body of a cache manager report: ``info``, ``counters``, ``5min``, ``server_list``, ``carp``, ..."""
        answer = self.exchange(f"GET /squid-internal-mgr/{report} HTTP/1.0\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise SquidError(f"{self.name}: no report {report}: {head[:80]!r}")
        return body.decode("latin-1")

    def exchange(self, request: bytes, timeout_s: float = 10.0) -> bytes:
        """Send `request` on a connection of its own and return all that comes until Squid closes it."""
        with socket.create_connection((self.host, self.http_port), timeout_s) as sock:
            sock.sendall(request)
            parts = []
            while data := sock.recv(65536):
                parts.append(data)
        return b"".join(parts)

    def access_log(self) -> list[AccessEntry]:
        """All complete lines so far.  Squid writes a line *after* the answer: poll with ``wait_until``."""
        path = self.directory / "access.log"
        if not path.exists():
            return []
        text = path.read_text("latin-1")
        return [parse_access_line(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def log_tail(self, lines: int = 12) -> str:
        """The end of cache.log and of stderr (where a bad configuration is told), for error messages."""
        logs = (path for path in (self.directory / "cache.log", self._console) if path.exists())
        return "\n".join(line for path in logs for line in path.read_text("latin-1").splitlines()[-lines:])

    def _command(self, program: str, *options: str) -> list[str]:
        # -n gives it its own names in /dev/shm; without, all Squids of the machine share them
        return [program, "-N", "-n", self._service, "-f", str(self.directory / "squid.conf"), *options]

    def _prepare(self, program: str) -> None:
        (self.directory / "cache").mkdir(parents=True, exist_ok=True)
        (self.directory / "squid.conf").write_text(self._settings)
        if os.geteuid() == 0:
            for path in (self.directory, self.directory / "cache"):
                shutil.chown(path, "proxy", "proxy")
        if "\ncache_dir " in self._settings:
            done = subprocess.run(self._command(program, "-z"), capture_output=True, text=True, check=False)
            if done.returncode:
                raise SquidError(f"{self.name}: squid -z failed: {done.stderr.strip()}\n{self.log_tail()}")

    def _is_answering(self) -> bool:
        # answered by Squid itself, whatever its rules and its parents are
        try:
            answer = self.exchange(b"TRACE http://ready.test/ HTTP/1.0\r\nMax-Forwards: 0\r\n\r\n", 2.0)
        except OSError:
            return False
        return answer.startswith(b"HTTP/1.")


def is_icp_hit(address: tuple[str, int], url: str, timeout_s: float = 2.0) -> bool:
    """Whether the cache whose ICP is at `address` answers HIT for `url`.

    Raises:
        TimeoutError: It does not answer.
        SquidError: It answers something else.
    """
    reqnum = secrets.randbelow(1 << 30) + 1
    payload = b"\0\0\0\0" + url.encode() + b"\0"
    size = _ICP_HEADER.size + len(payload)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(address)
        sock.send(_ICP_HEADER.pack(_ICP_QUERY, _ICP_VERSION, size, reqnum, 0, 0, 0) + payload)
        opcode, _, _, answered, *_ = _ICP_HEADER.unpack_from(sock.recv(65536))
    if answered != reqnum:
        raise SquidError(f"{address} answered ICP query {answered} instead of {reqnum}")
    return bool(opcode == _ICP_HIT)


def wait_until(condition: Callable[[], bool], timeout_s: float, step_s: float = 0.02) -> bool:
    """Poll `condition` until it is true; False when `timeout_s` seconds were not enough."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(step_s)
    return True


def free_port(host: str, kind: socket.SocketKind = socket.SOCK_STREAM, preferred: int = 0) -> int:
    """A port nobody listens on at `host`: `preferred` if that is free, else one that no call has named before.

    Not one that the kernel chooses: until it is bound, an outgoing connection, or the next call, might get it, too.
    """
    for port in itertools.chain([preferred] if preferred else [], itertools.islice(_ports, len(_PORTS))):
        with socket.socket(socket.AF_INET, kind) as sock:
            if kind == socket.SOCK_STREAM:  # old connections may linger at a free port; for UDP it would mean sharing
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, port))
            except OSError:
                continue
            return port
    raise SquidError(f"no free port at {host}")

