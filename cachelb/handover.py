"""The farm's digest on its way from the supervisor to the workers: a file in memory, and what to say about it.

Each worker has a socket of its own for this (SOCK_SEQPACKET), for a descriptor cannot travel in the stream of ``control``.
Neither side ever waits for the other.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from typing import NamedTuple

_SAID = struct.Struct("!QQQ")
_FD_BYTES = array.array("i").itemsize
# The kernel makes 4,608 of it, room for six messages: as many old digests a worker that does not read can keep alive.
# With the usual size they would be some 280.
_UNREAD_BYTES = 1


class Published(NamedTuple):
    """One digest, whole: control block and mask.

    fd: a memfd that nobody writes to any more; whoever receives it owns a descriptor of their own.
    size_bytes: of the body.  modified_at, expires_at: wall clock, whole seconds; the next one is due then.
    """

    fd: int
    size_bytes: int
    modified_at: int
    expires_at: int


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a way for digests: to send, and to receive.  Both are non-blocking."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD_BYTES)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def send(sock: socket.socket, published: Published) -> bool:
    """Hand over a digest; the descriptor stays the sender's.

    Returns:
        False when those before it have not been taken yet: try again when ``sock`` is writable.

    Raises:
        OSError: The other side has gone, or this host has no descriptors left.
    """
    descriptors = array.array("i", [published.fd])
    try:  # socket.send_fds() and recv_fds() of Python 3.11 drop their flags
        sock.sendmsg([_SAID.pack(*published[1:])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)], socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return False
    return True


def receive(sock: socket.socket) -> Published | None:
    """The next digest that was handed over; None while there is none.

    Raises:
        EOFError: The other side has gone.
        OSError: A digest has come, but no descriptor was left for it.
    """
    try:
        said, parts, _, _ = sock.recvmsg(_SAID.size, socket.CMSG_LEN(_FD_BYTES), socket.MSG_CMSG_CLOEXEC)
    except BlockingIOError:
        return None
    if not said:
        raise EOFError("the other side has gone")
    if not parts:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    (descriptor,) = array.array("i", parts[0][2][:_FD_BYTES])
    return Published(descriptor, *_SAID.unpack(said))
