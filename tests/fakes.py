"""Both ends of a relay, for tests: connections that do exactly what a test says, and nodes made of them.

A test is one script that plays the client and the node in turn::

    client.send(get(url))
    link = node.accept()
    link.read_head()
    link.send(ok(b"hello"))
    assert client.read_answer().body == b"hello"

Everything blocks, for ``PATIENCE_S`` at most: a wait that is longer is a failure.  Where the order does not matter, a
node serves by itself, in threads of its own (``node.serve``).  ``test_fakes.py`` checks these against the standard
library's client and server.

Left out: TLS, IPv6, any opinion of what is right HTTP: reading an answer is as simple as a test can afford.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn

PATIENCE_S = 25.0  # a loaded machine may need a second for what takes a millisecond
STUCK_S = 0.25  # nothing moved for so long: as long as the slowest reaction that a test waits for, ten times over
_RESET = struct.pack("ii", 1, 0)


@dataclass
class Answer:
    """One answer as a client sees it: ``fields`` in lower case, repeated ones joined; chunked bodies as payload."""

    status: int
    head: bytes
    fields: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


class Peer:
    """One TCP connection under a test's control.

    received: every byte that was read.  Reading past what is asked for is kept for the next call.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._rest = b""

    # -- saying

    def send(self, *pieces: bytes | memoryview) -> None:
        """Send all of it; each piece on its own."""
        for piece in pieces:
            self.sock.sendall(piece)

    def send_slowly(self, data: bytes, step: int = 1) -> None:
        """Send in many small segments, each seen by the other side before the next is sent, or nearly so."""
        for start in range(0, len(data), step):
            self.sock.sendall(data[start : start + step])
            time.sleep(0)

    def send_until_stuck(self, data: bytes | memoryview, most: int) -> int:
        """Repeat ``data`` until nobody takes any more of it; return how many bytes were taken, ``most`` at most."""
        taken = 0
        self.sock.settimeout(STUCK_S)
        try:
            while taken < most:
                at = taken % len(data)
                taken += self.sock.send(data[at : at + min(65536, most - taken)])
        except TimeoutError:
            pass
        finally:
            self.sock.settimeout(PATIENCE_S)
        return taken

    def half_close(self) -> None:
        """Say that nothing more will come (FIN), and go on listening."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    # -- hearing

    def read_some(self) -> bytes:
        """What has arrived, or arrives next; empty at the end."""
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        return self.sock.recv(1 << 20)

    def read_exactly(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        pieces = [self._rest[:count]]
        self._rest = self._rest[count:]
        left = count - len(pieces[0])
        while left:
            data = self.sock.recv(min(left, 1 << 20))
            if not data:
                self._ended(b"".join(pieces))
            pieces.append(data)
            left -= len(data)
        return b"".join(pieces)

    def read_until(self, mark: bytes) -> bytes:
        """Everything up to and with ``mark``."""
        data = self._rest
        while mark not in data:
            more = self.sock.recv(65536)
            if not more:
                self._ended(data)
            data += more
        end = data.index(mark) + len(mark)
        self._rest = data[end:]
        return data[:end]

    def read_head(self) -> bytes:
        """A head with its empty line."""
        return self.read_until(b"\r\n\r\n")

    def read_to_end(self) -> bytes:
        """Everything until the other side closes in good order.

        Raises:
            ConnectionResetError: It broke the connection.
        """
        pieces = []
        while data := self.read_some():
            pieces.append(data)
        return b"".join(pieces)

    def read_chunked(self) -> bytes:
        """A whole chunked body as it is on the wire, trailers and last empty line included."""
        wire = b""
        while True:
            line = self.read_until(b"\r\n")
            wire += line
            size = int(line.partition(b";")[0], 16)
            if not size:
                while line != b"\r\n":
                    line = self.read_until(b"\r\n")
                    wire += line
                return wire
            wire += self.read_exactly(size + 2)

    def read_answer(self, method: str = "GET") -> Answer:
        """One whole answer to a request with ``method``."""
        answer = parse_answer_head(self.read_head())
        if method == "HEAD" or answer.status < 200 or answer.status in (204, 304):
            return answer
        if answer.fields.get(b"transfer-encoding") == b"chunked":
            answer.body = dechunk(self.read_chunked())
        elif b"content-length" in answer.fields:
            answer.body = self.read_exactly(int(answer.fields[b"content-length"]))
        else:
            answer.body = self.read_to_end()
        return answer

    def is_closed(self) -> bool:
        """Wait for something: True if it is the connection's end, in whatever way, False if it is a byte."""
        try:
            self._rest = self.read_some()
        except ConnectionResetError:
            return True
        return not self._rest

    def is_cut(self) -> bool:
        """Wait for the end; True if the connection was broken, not closed in good order."""
        try:
            while self.read_some():
                pass
        except ConnectionResetError:
            return True
        return False

    def received_or_reset(self) -> bytes:
        """Everything that arrived before the end, whatever that is."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while more := self.read_some():
                data += more
        return data

    def is_quiet(self) -> bool:
        """Whether nothing arrives, not even an end, for a moment."""
        self.sock.settimeout(0.05)
        try:
            self._rest += self.sock.recv(65536)
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(PATIENCE_S)
        return False

    def _ended(self, data: bytes) -> NoReturn:
        raise EOFError(f"the connection ended after {len(data)} of the wanted bytes: {data[:200]!r}")


def parse_answer_head(head: bytes) -> Answer:
    """A head without its meaning: status and fields."""
    first, *lines = head[:-4].split(b"\r\n")
    answer = Answer(int(first.split(b" ")[1]), head)
    for line in lines:
        name, _, value = line.partition(b":")
        known = answer.fields.get(name.lower())
        answer.fields[name.lower()] = value.strip() if known is None else known + b", " + value.strip()
    return answer


def dechunk(wire: bytes) -> bytes:
    """The payload of a whole, right chunked body."""
    payload = b""
    while True:
        line, _, wire = wire.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if not size:
            return payload
        payload += wire[:size]
        wire = wire[size + 2 :]


def chunk(data: bytes, size: int = 4096, trailers: bytes = b"", extension: bytes = b"") -> bytes:
    """``data`` as a chunked body."""
    wire = b""
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        wire += b"%x%s\r\n%s\r\n" % (len(piece), extension, piece)
    return wire + b"0\r\n" + trailers + b"\r\n"


def get(url: str, *fields: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    """A request as a client sends it to a proxy; Host comes with it unless ``fields`` has one."""
    host = url.partition("://")[2].partition("/")[0] if "://" in url else url
    lines = [f"{method} {url} HTTP/{version}"]
    if not any(line.lower().startswith("host:") for line in fields):
        lines.append(f"Host: {host}")
    return "\r\n".join([*lines, *fields, "", ""]).encode("latin-1") + body


def post(url: str, body: bytes, *fields: str, method: str = "POST") -> bytes:
    """A request with a body of known length."""
    return get(url, f"Content-Length: {len(body)}", *fields, method=method, body=body)


def ok(body: bytes = b"", *fields: str, status: str = "200 OK", version: str = "1.1") -> bytes:
    """An answer with a body of known length."""
    lines = [f"HTTP/{version} {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def answer_head(*fields: str, status: str = "200 OK", version: str = "1.1") -> bytes:
    """An answer's head alone."""
    return "\r\n".join([f"HTTP/{version} {status}", *fields, "", ""]).encode("latin-1")


class FakeSquid:
    """A TCP server that does what a test says: by hand (``accept``), or by itself (``serve``).

    heads: the exact request heads that ``serve`` got.  connections: how many were accepted.
    """

    def __init__(self, host: str, port: int = 0, backlog: int = 128) -> None:
        self.host = host
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(backlog)
        self.listener.settimeout(PATIENCE_S)
        self.port: int = self.listener.getsockname()[1]
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self._peers: list[Peer] = []
        self._threads: list[threading.Thread] = []

    @property
    def address(self) -> str:
        """host:port, as URLs have it."""
        return f"{self.host}:{self.port}"

    # -- by hand

    def accept(self) -> Peer:
        """The next connection to this node."""
        sock, _ = self.listener.accept()
        self.connections += 1
        peer = Peer(sock)
        self._peers.append(peer)
        return peer

    def is_left_alone(self) -> bool:
        """Whether nobody has connected.  To be asked after the client has its answer: connecting takes no time here."""
        self.listener.settimeout(0.005)
        try:
            sock, _ = self.listener.accept()
        except TimeoutError:
            return True
        finally:
            self.listener.settimeout(PATIENCE_S)
        self._peers.append(Peer(sock))
        return False

    def refuse(self) -> None:
        """Refuse connections from now on, as a machine without a Squid does."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes a thread that accepts
        self.listener.close()

    def return_to_service(self) -> None:
        """Listen again, on the same port."""
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((self.host, self.port))
        self.listener.listen(128)
        self.listener.settimeout(PATIENCE_S)

    @contextlib.contextmanager
    def deaf(self) -> Iterator[None]:
        """Let connections neither succeed nor fail: the queue of the listener is full.  Needs ``backlog=0``."""
        fillers = [socket.socket() for _ in range(2)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex((self.host, self.port))
        try:
            yield
        finally:
            for filler in fillers:
                filler.close()

    # -- by itself

    def serve(self, answer: bytes | Callable[[bytes], bytes] | None = None) -> None:
        """Answer every request from now on, on as many connections as come.

        Args:
            answer: what to say: bytes, or a function of the request's head; None: "<host> <request target>".  An empty
                answer closes the connection, and so does one that says "Connection: close".
        """
        script = answer if callable(answer) else (lambda head: answer if answer is not None else self.greeting(head))
        self.serve_by(lambda peer: self._serve_one(peer, script))

    def serve_by(self, handler: Callable[[Peer], None]) -> None:
        """Give every connection from now on to ``handler``, in a thread of its own."""
        thread = threading.Thread(target=self._serve, args=(handler,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def serve_calls(self, greeting: bytes) -> None:
        """Say ``greeting`` to everybody who connects, and nothing more."""

        def serve() -> None:
            self.listener.settimeout(None)
            while True:
                try:
                    peer = self.accept()
                except OSError:  # closed
                    return
                with contextlib.suppress(OSError):
                    peer.send(greeting)
                    peer.half_close()

        thread = threading.Thread(target=serve, daemon=True)
        self._threads.append(thread)
        thread.start()

    def echo_calls(self, greeting: bytes) -> None:
        """Say ``greeting`` to everybody who connects, then what they say, until they end."""

        def echo(peer: Peer) -> None:
            peer.sock.settimeout(None)
            with contextlib.suppress(OSError):
                peer.send(greeting)
                while data := peer.sock.recv(65536):
                    peer.send(data)
            peer.close()

        def serve() -> None:
            self.listener.settimeout(None)
            while True:
                try:
                    peer = self.accept()
                except OSError:  # closed
                    return
                thread = threading.Thread(target=echo, args=(peer,), daemon=True)
                self._threads.append(thread)
                thread.start()

        thread = threading.Thread(target=serve, daemon=True)
        self._threads.append(thread)
        thread.start()

    def greeting(self, head: bytes) -> bytes:
        """An answer that says who got which request."""
        return ok(self.host.encode() + b" " + head.split(b" ")[1])

    def _serve(self, handler: Callable[[Peer], None]) -> None:
        self.listener.settimeout(None)
        while True:
            try:
                peer = self.accept()
            except OSError:  # closed
                return
            thread = threading.Thread(target=handler, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve_one(self, peer: Peer, script: Callable[[bytes], bytes]) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                head = peer.read_head()
                self.heads.append(head)
                fields = parse_answer_head(b"x 0\r\n" + head.partition(b"\r\n")[2]).fields
                if fields.get(b"transfer-encoding") == b"chunked":
                    self.bodies.append(dechunk(peer.read_chunked()))
                else:
                    self.bodies.append(peer.read_exactly(int(fields.get(b"content-length", b"0"))))
                answer = script(head)
                if answer:
                    peer.send(answer)
                if not answer or b"\r\nConnection: close\r\n" in answer:
                    break
        peer.close()

    def stop(self) -> None:
        """Close everything."""
        self.refuse()
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for peer in self._peers:
            peer.close()
