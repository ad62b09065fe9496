"""Asks a director's admin API, by TCP or by its Unix socket; short of time, and clear about what went wrong.

Left out: what the answers mean (``farm``).
"""

from __future__ import annotations

import http.client
import json
import socket
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

DEFAULT = "127.0.0.1:3180"
PREFIX = "/api/v1"
ANSWER_BYTES = 64 << 20  # of 2,000 nodes with their counters: a few MB


class Down(Exception):
    """Nobody answered as a director should; a sentence says what happened and where to look."""


class Refused(Exception):
    """The director refused; the sentence is its own.  status: of HTTP."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Bad(ValueError):
    """What the user gave cannot be used: an address, a token file."""


class Admin:
    """One director.

    Args:
        where: ``host:port``, ``http://host:port``, or the path of a Unix socket (also with ``unix:`` in front).
        token: of the file that ``[admin] token_file`` names; "" for none.
        timeout_s: for connecting, and for each wait after that.

    Raises:
        Bad: ``where`` is none of those.
    """

    def __init__(self, where: str = DEFAULT, token: str = "", timeout_s: float = 2.0) -> None:
        self.token, self.timeout_s = token, timeout_s
        self.path, self.host, self.port = _place(where)
        self.where = self.path or f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def may_change(self) -> bool:
        """Whether it has what the director asks of whoever wants to change something: a token, or its Unix socket."""
        return bool(self.token or self.path)

    def get(self, path: str, **query: Any) -> Any:
        """``GET /api/v1`` + path.  Raises Down, Refused."""
        return self._ask("GET", path + (f"?{urlencode(query)}" if query else ""))

    def set_state(self, node: str, state: str) -> Any:
        """Drain a node, or bring it back; the answer is the node.  Raises Down, Refused."""
        return self._ask("PUT", f"/nodes/{quote(node, safe='')}", json.dumps({"state": state}).encode())

    def delete(self, path: str, **query: Any) -> Any:
        """``DELETE /api/v1`` + path.  Raises Down, Refused."""
        return self._ask("DELETE", path + (f"?{urlencode(query)}" if query else ""))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        fields = {"Accept": "application/json", "Connection": "close"}
        if self.token:
            fields["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            fields["Content-Type"] = "application/json"
        connection = _Connection(self)
        try:
            connection.request(method, PREFIX + path, body, fields)
            answer = connection.getresponse()
            data = answer.read(ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as problem:
            raise Down(self._why(problem, connection.is_connected)) from None
        finally:
            connection.close()
        return self._read(answer.status, data)

    def _read(self, status: int, data: bytes) -> Any:
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if isinstance(found, dict) and status == 200:
            return found
        if isinstance(found, dict) and isinstance(found.get("detail"), str) and status >= 400:
            raise Refused(found["detail"], status)
        raise Down(f"{self.where} answers, but not as cachelb's admin API does (HTTP {status}): is it another port of it?")

    def _why(self, problem: Exception, is_connected: bool) -> str:
        if isinstance(problem, TimeoutError):
            if is_connected:
                return (
                    f"{self.where} accepts connections, but has not answered for {self.timeout_s:g} s: the supervisor hangs or "
                    "is overloaded. The workers are processes of their own and may still serve. See the director's log, and ps"
                )
            return f"{self.where} cannot be reached within {self.timeout_s:g} s: is the machine up, does a firewall drop this?"
        if isinstance(problem, FileNotFoundError):
            return f"{self.path} is not there: the director is down, or [admin] socket is another path"
        if isinstance(problem, ConnectionRefusedError):
            setting = "[admin] socket" if self.path else "[listen] admin"
            return f"nothing listens at {self.where}: the director is down, or {setting} is another one (then --admin)"
        if isinstance(problem, PermissionError):
            return f"{self.where} may not be opened by this user: the mode of [admin] socket says who may"
        if isinstance(problem, socket.gaierror):
            return f"{self.host} has no address: {problem.strerror}"
        if isinstance(problem, ConnectionError | http.client.RemoteDisconnected) and is_connected:
            return f"{self.where} closed the connection without an answer: the director is stopping or has crashed; see its log"
        if isinstance(problem, http.client.HTTPException):
            return f"{self.where} does not answer with HTTP: it is no admin API of cachelb"
        return f"{self.where}: {getattr(problem, 'strerror', None) or problem}"


class _Connection(http.client.HTTPConnection):
    """Over TCP or the Unix socket; it knows how far it came, and no proxy of the environment matters."""

    def __init__(self, admin: Admin) -> None:
        super().__init__(admin.host or "localhost", admin.port, timeout=admin.timeout_s)
        self._path = admin.path
        self.is_connected = False

    def connect(self) -> None:
        if self._path:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        else:
            super().connect()
        self.is_connected = True


def _place(where: str) -> tuple[str, str, int]:
    """Path, host and port; the path is "" for TCP."""
    if where.startswith("https:"):
        raise Bad(f"--admin {where}: the admin API speaks http, not https (a proxy before it may)")
    if where.startswith("unix:") or "/" in where.removeprefix("http://").rstrip("/"):
        path = where.removeprefix("unix:").removeprefix("//")
        if path.startswith("http://"):
            raise Bad(f"--admin {where}: host:port, http://host:port or the path of a Unix socket; nothing behind the port")
        if len(path.encode()) > 107:
            raise Bad(f"--admin {where}: longer than the path of a Unix socket can be")
        return path, "", 0
    if where.isdecimal():
        raise Bad(f"--admin {where}: a port without a host; 127.0.0.1:{where}?")
    try:
        parts = urlsplit(where if where.startswith("http://") else f"http://{where}")
        host, port = parts.hostname, parts.port
    except ValueError as problem:
        raise Bad(f"--admin {where}: {problem}") from None
    is_whole = bool(host) and not where.rstrip("/").endswith(":") and not any(char <= " " for char in host or "")
    if not is_whole or parts.query or parts.fragment or parts.username is not None:
        raise Bad(f"--admin {where}: host:port, http://host:port or the path of a Unix socket")
    return "", str(host), 3180 if port is None else port


def read_token(path: str) -> str:
    """The token in a file.  Raises Bad."""
    try:
        found = Path(path).stat()
        if found.st_mode & stat.S_IRWXO:
            raise Bad(f"{path} is open to others: chmod 600 {path}")
        token = Path(path).read_bytes()[:4096].decode("ascii").strip()
    except (OSError, ValueError) as problem:
        if isinstance(problem, Bad):
            raise
        raise Bad(f"{path}: {getattr(problem, 'strerror', None) or 'not a token'}") from None
    if not token or not token.isprintable() or " " in token:
        raise Bad(f"{path} holds no token")
    return token
