"""What the system calls of an exchange cost, called from Python as the relay calls them: on TCP over loopback.

Sending on loopback carries the bytes through the whole of TCP and into the receiver's queue: that is most of what a request
costs.  So a send is measured with the receive that empties the queue, and the receive by itself by peeking.
"""

from __future__ import annotations

import functools
import select
import socket
from collections.abc import Callable

BUFFER_BYTES = 65536


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    for sock in (client, server):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


def send_and_receive(data: bytes) -> Callable[[], object]:
    """Send ``data`` and take it at the other end."""
    client, server = pair()
    buffer = bytearray(BUFFER_BYTES)
    send, receive = client.send, server.recv_into

    def step() -> int:
        send(data)
        return receive(buffer)

    return step


def peek(data: bytes) -> Callable[[], object]:
    """Read ``data``, which stays where it is."""
    client, server = pair()
    client.send(data)
    step = functools.partial(server.recv_into, bytearray(BUFFER_BYTES), 0, socket.MSG_PEEK)
    step.ends = client, server  # type: ignore[attr-defined]  # open as long as the step is
    return step


def nothing_there() -> Callable[[], object]:
    """Find out that nothing has come: BlockingIOError."""
    client, server = pair()
    server.setblocking(False)
    buffer = bytearray(BUFFER_BYTES)

    def step() -> bool:
        try:
            server.recv_into(buffer)
        except BlockingIOError:
            return client is not None  # it stays open
        return False

    return step


def poll(ready: int) -> Callable[[], object]:
    """Ask epoll, which has so many sockets that are ready."""
    poller = select.epoll()
    ends = [pair() for _ in range(ready)]
    for client, server in ends:
        client.send(b"x")
        poller.register(server, select.EPOLLIN)

    def step() -> int:
        return len(poller.poll(0)) + len(ends)

    return step
