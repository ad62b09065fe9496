"""One director for a host: who holds the claim is the one that sets and removes what is ours there.

It is a listening socket with an abstract name, which the kernel keeps for each network namespace, and which goes with its
holder, however that ends; the next director of an upgrade inherits it.  Any user may take the name: so one that is held by a user
who could not change the host does not count.

Source: unix(7), abstract sockets, SO_PEERCRED.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from cachelb.capabilities import NET_ADMIN

NAME: Final = "\0cachelb-hostnet"
_credentials = struct.Struct("3i")  # pid, uid, gid


class Claim:
    """The claim on the host that this process is in."""

    def __init__(self, fd: int = -1) -> None:
        """fd: of the socket of the director before, or -1."""
        self._sock = socket.socket(fileno=fd) if fd >= 0 else None

    @property
    def fd(self) -> int:
        """For the next director; -1: there is none."""
        return -1 if self._sock is None else self._sock.fileno()

    def take(self) -> str:
        """Take it, if it is free.  Returns who has it, as words for the operator, "" when it is ours."""
        if self._sock is not None:
            return ""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.bind(NAME)
            sock.listen(1)
        except OSError:
            sock.close()
            return holder()
        self._sock = sock
        return ""

    def release(self) -> None:
        """Give it back."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def holder() -> str:
    """Who holds the claim, as words for the operator; "" when nobody does who could change the host."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(1.0)
        try:
            sock.connect(NAME)
        except BlockingIOError:
            return "another director"  # its queue is full: nobody ever accepts
        except OSError:
            return ""
        pid, uid, _ = _credentials.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _credentials.size))
    if uid not in (0, os.geteuid()) and not _may_change_hosts(pid):
        return ""
    return f"the director with process number {pid}"


def _may_change_hosts(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            permitted = next((int(line.split()[1], 16) for line in file if line.startswith(b"CapPrm:")), 0)
    except OSError:
        return False
    return bool(permitted >> NET_ADMIN & 1)
