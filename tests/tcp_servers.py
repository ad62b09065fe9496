"""What tests with real servers behind a TCP service need: programs, nodes, whether somebody listens, counters."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import threading
from pathlib import Path

import pytest
from fakes_tls import client_context

from cachelb.demo.director import Director


def program(name: str) -> str:
    """Where a program is; without it the test is skipped, where CI is set it fails."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed, but CI must run these tests (.ci/packages {name})")
        pytest.skip(f"{name} is not installed")
    return path


def node(name: str, host: str, port: int, more: str = "") -> str:
    return f'[[node]]\nname = "{name}"\nhost = "{host}"\nprobe = "connect"\nprobe_port = {port}\n{more}\n'


def farm_counters(director: Director) -> dict[str, int]:
    """The farm's counters."""
    counters: dict[str, int] = director.status()["farm"]
    return counters


def are_up(director: Director) -> bool:
    """Whether every node is."""
    return all(found["state"] == "up" for found in json.loads(director.admin_get("/api/v1/nodes"))["nodes"])


def is_open(host: str, port: int) -> bool:
    """Whether somebody accepts there."""
    with socket.socket() as sock:
        return sock.connect_ex((host, port)) == 0


class TlsServer:
    """A TLS server of OpenSSL's that says its name to everybody and closes; each has ticket keys of its own."""

    def __init__(self, name: str, host: str, port: int, files: tuple[Path, Path], tickets: bool = True) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*files)
        if not tickets:
            self.context.options |= ssl.OP_NO_TICKET
        self.name = name
        self.listener = socket.create_server((host, port))
        self.port: int = self.listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:  # closed
                return
            sock.settimeout(10)
            with contextlib.suppress(OSError), self.context.wrap_socket(sock, server_side=True) as tls:
                tls.sendall(self.name.encode())
                tls.recv(100)
                tls.unwrap()  # a session whose connection was not ended in order is no longer good

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(20)


class TlsClient:
    """Visits over and over, with the session of the visit before if there was one.  reused: of each visit."""

    def __init__(self, address: tuple[str, int], newest: ssl.TLSVersion, name: str = "shop.example") -> None:
        self.context = client_context(newest)
        self.address, self.server_name = address, name
        self.session: ssl.SSLSession | None = None
        self.reused: list[bool] = []

    def visit(self, source: str = "127.0.0.1") -> str:
        """Who answers."""
        with socket.create_connection(self.address, 10, (source, 0)) as sock:
            tls = self.context.wrap_socket(sock, server_hostname=self.server_name, session=self.session)
            said = tls.recv(100)
            self.reused.append(bool(tls.session_reused))
            self.session = tls.session
            tls.unwrap()
        return said.decode()

