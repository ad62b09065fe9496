"""Listening sockets.

Every worker gets its own socket on every address (``SO_REUSEPORT``): the kernel spreads connections over them and workers
share nothing.  The supervisor keeps them open, so a worker that dies loses its connections but not its backlog.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Protocol

HOSTS_PATH, RESOLV_PATH = Path("/etc/hosts"), Path("/etc/resolv.conf")
# IP_TRANSPARENT, IPV6_TRANSPARENT, which Python 3.11 has no names for
_TRANSPARENT = {socket.AF_INET: (socket.IPPROTO_IP, 19), socket.AF_INET6: (socket.IPPROTO_IPV6, 75)}
BACKLOG = 4096  # as net.core.somaxconn of today's kernels; a burst of clients should wait, not be refused


class Address(Protocol):
    """A host (IP literal) and a port."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


class CannotListenError(OSError):
    """An address cannot be listened on; the message is a sentence for the operator."""


def is_transparent(sock: socket.socket) -> bool:
    """Whether a socket may have addresses that are not this host's."""
    level, option = _TRANSPARENT[sock.family]
    return bool(sock.getsockopt(level, option))


def set_transparent(sock: socket.socket) -> None:
    """Let a socket have addresses that are not this host's; before it is bound.

    Raises:
        OSError: That needs CAP_NET_ADMIN or CAP_NET_RAW.
    """
    level, option = _TRANSPARENT[sock.family]
    sock.setsockopt(level, option, 1)


def open_listeners(address: Address, count: int, *, transparent: bool = False) -> list[socket.socket]:
    """``count`` listening TCP sockets on one address; ``transparent``: to which the kernel brings what is meant for others.

    Raises:
        CannotListenError: It is in use, not ours, or not allowed.
    """
    try:
        # Without SO_REUSEPORT first: with it, a second director would quietly share the port with the first.
        _bind(address, share=False).close()
        return open_shared(address, count, transparent=transparent)
    except OSError as exc:
        raise cannot_listen(address, exc) from exc


def open_shared(address: Address, count: int, *, transparent: bool = False) -> list[socket.socket]:
    """``count`` more listening sockets beside those that there may be on the address.

    Raises:
        OSError: They are not to be had; none is held.
    """
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = _bind(address, share=True, transparent=transparent)
            sockets.append(sock)
            sock.listen(BACKLOG)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def open_listener(address: Address) -> socket.socket:
    """One listening TCP socket that shares its address with nobody.

    Raises:
        CannotListenError: It is in use, not ours, or not allowed.
    """
    try:
        sock = _bind(address, share=False)
        sock.listen(BACKLOG)
    except OSError as exc:
        raise cannot_listen(address, exc) from exc
    return sock


def _bind(address: Address, *, share: bool, transparent: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if transparent:
            set_transparent(sock)
        sock.bind((address.host, address.port))
    except OSError:
        sock.close()
        raise
    return sock


def cannot_listen(address: Address, exc: OSError, kind: str = "t") -> CannotListenError:
    """Say in a sentence why ``address`` cannot be listened on.  kind: "t" for TCP, "u" for UDP."""
    if exc.errno == errno.EADDRINUSE:
        why = f"another program uses it (find it with: ss -l{kind}np 'sport = :{address.port}')"
    elif exc.errno == errno.EADDRNOTAVAIL:
        why = "this host does not have that address"
    elif exc.errno == errno.EPERM:
        why = "intercepting needs CAP_NET_ADMIN (start as root, or with systemd's AmbientCapabilities=)"
    elif exc.errno == errno.EACCES:
        why = "ports below 1024 need root or CAP_NET_BIND_SERVICE"
    else:
        why = exc.strerror or str(exc)
    return CannotListenError(exc.errno, f"cannot listen on {address.host} port {address.port}: {why}")


def open_unix(path: str, mode: int) -> socket.socket:
    """A listening Unix socket of this mode; a file of one that nobody listens on any more is replaced.

    Raises:
        CannotListenError: It is in use, another file has the name, or the system does not let us.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _make_room(path)
        before = os.umask(0o777)  # nobody gets in before the mode is right
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        os.chmod(path, mode)
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise CannotListenError(exc.errno, f"cannot listen on {path}: {exc.strerror or exc}") from exc
    return sock


def _make_room(path: str) -> None:
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EEXIST, "a file that is no socket has this name")
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(path) == 0:
            raise OSError(errno.EADDRINUSE, "another program listens there")
    with contextlib.suppress(FileNotFoundError):  # whoever left it was not quite gone
        os.unlink(path)


def host_names(name: str = "", hosts_path: Path = HOSTS_PATH, resolv_path: Path = RESOLV_PATH) -> set[str]:
    """What this host is called, in lower case: its name, what /etc/hosts says beside it, and the name in its domains.

    No name server is asked: that may take long, and nothing that starts or reloads should wait for it.
    """
    name = (name or socket.gethostname()).lower().rstrip(".")
    names = {name}
    for line in _lines(hosts_path):
        _, *beside = line.lower().split() or [""]
        if name in beside:
            names.update(beside)
    if "." not in name:
        for line in _lines(resolv_path):
            word, *domains = line.lower().split() or [""]
            if word in ("domain", "search"):
                names.update(f"{name}.{domain.strip('.')}" for domain in domains)
    return names - {""}


def _lines(path: Path) -> list[str]:
    try:
        return [line.partition("#")[0] for line in path.read_text("utf-8", "replace").splitlines()]
    except OSError:
        return []
