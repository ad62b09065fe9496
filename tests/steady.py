"""A steady load for tests of what must not cost a request: thousands of answers a second, each of them looked at.

``SteadyNode`` is a fast node in a process of its own; it answers every URL with that URL.  ``SteadyLoad`` asks a director, half
of the clients on kept connections, half on a new connection for each request.

A request has failed when it was sent, or tried to be, and no whole right answer came.  One exception, which is RFC 9112's
(section 9.3.1): a *kept* connection that ends before the first byte of an answer says that the server closed it while the request
was on its way; a client sends that again, on a new connection.  Those are counted, too.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from email.utils import formatdate
from typing import Any, NamedTuple

import uvloop

ANSWER_S = 20.0  # without an answer for so long, a request has failed
CLIENTS = 40  # of each kind


_HEAD = b"HTTP/1.1 200 OK\r\nDate: %s\r\nCache-Control: max-age=3600\r\nX-Cache: HIT from n\r\nContent-Length: %d\r\n\r\n"


class _NodeConnection(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            url = self.data.split(b" ", 2)[1]
            self.data = self.data[end + 4 :]
            self.transport.write(_HEAD % (formatdate(usegmt=True).encode(), len(url)) + url)


async def _serve(sock: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(_NodeConnection, sock=sock)
    await server.serve_forever()


class SteadyNode:
    """Of ``host``, on a free port, until ``stop``."""

    def __init__(self, host: str) -> None:
        self.host = host
        with socket.create_server((host, 0), backlog=1024) as sock:
            self.port = int(sock.getsockname()[1])
            self._process = subprocess.Popen([sys.executable, __file__, str(sock.fileno())], pass_fds=[sock.fileno()])

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class Result(NamedTuple):
    """answered: whole and right.  failed: what went wrong, in words.  repeated: on kept connections that were closed.
    last: answers that said ``Connection: close`` although they were not asked to.  asked_s: how long."""

    answered: int
    failed: list[str]
    repeated: int
    last: int
    asked_s: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.asked_s


class _Closed(Exception):
    """The connection ended; has_begun: after a part of the answer."""

    def __init__(self, text: str, has_begun: bool) -> None:
        super().__init__(text)
        self.has_begun = has_begun


class _Connection(asyncio.Protocol):
    """One answer at a time."""

    def __init__(self) -> None:
        self.data = b""
        self.answer: asyncio.Future[tuple[bytes, bytes]] | None = None
        self.is_over = False
        self.transport: Any

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        if end < 0 or self.answer is None:
            return
        head = self.data[:end].lower()
        at = head.find(b"content-length: ")
        size = int(head[at + 16 :].split(b"\r", 1)[0]) if at >= 0 else 0
        if len(self.data) >= end + 4 + size and not self.answer.done():
            body, self.data = self.data[end + 4 : end + 4 + size], self.data[end + 4 + size :]
            self.answer.set_result((head, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(_Closed(repr(exc) if exc else "closed", bool(self.data)))

    async def ask(self, url: bytes, close: bool) -> tuple[bytes, bytes]:
        self.answer = asyncio.get_running_loop().create_future()
        if self.is_over:
            raise _Closed("closed before", False)
        end = b"Connection: close\r\n\r\n" if close else b"\r\n"
        self.transport.write(b"GET %s HTTP/1.1\r\nHost: steady.test\r\n%s" % (url, end))
        async with asyncio.timeout(ANSWER_S):
            return await self.answer


class SteadyLoad:
    """Asks the director at ``proxy`` about ``rate`` times a second, from ``with`` to its end; then ``result`` is there."""

    def __init__(self, proxy: tuple[str, int], rate: float) -> None:
        self._proxy = proxy
        self._pause_s = 2 * CLIENTS / rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), daemon=True)
        self._answered = self._repeated = self._last = 0
        self._failed: list[str] = []
        self.result: Result

    @property
    def answered(self) -> int:
        """So far."""
        return self._answered

    def __enter__(self) -> SteadyLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2 * ANSWER_S)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(self._client(number, number % 2 == 0) for number in range(2 * CLIENTS)))
        self.result = Result(self._answered, self._failed, self._repeated, self._last, loop.time() - began)

    async def _client(self, number: int, keep: bool) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._pause_s * number / (2 * CLIENTS)
        connection: _Connection | None = None
        count = 0
        while not self._stop.is_set():
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due + self._pause_s, loop.time() - 1.0)
            count += 1
            connection = await self._one(b"http://steady.test/%d/%d" % (number, count % 500), connection, keep)
        if connection is not None:
            connection.transport.close()

    async def _one(self, url: bytes, connection: _Connection | None, keep: bool) -> _Connection | None:
        """Send one request, on ``connection`` if there is one; the connection for the next, if there is one."""
        is_kept = connection is not None
        if connection is not None and connection.is_over:  # it was closed, and we knew
            return await self._one(url, None, keep)
        try:
            if connection is None:
                _, connection = await asyncio.get_running_loop().create_connection(_Connection, *self._proxy)
            head, body = await connection.ask(url, not keep)
        except _Closed as exc:
            if is_kept and not exc.has_begun:
                self._repeated += 1
                return await self._one(url, None, keep)
            self._failed.append(f"{url.decode()}: {exc}")
            return None
        except (OSError, TimeoutError) as exc:
            self._failed.append(f"{url.decode()}: {exc!r}")
            return None
        is_last = b"\r\nconnection: close" in head
        if not head.startswith(b"http/1.1 200 ") or body != url:
            self._failed.append(f"{url.decode()}: {head!r} {body[:100]!r}")
        else:
            self._answered += 1
            self._last += is_last and keep
        if is_last or not keep:
            connection.transport.close()
            return None
        return connection


if __name__ == "__main__":
    uvloop.run(_serve(socket.socket(fileno=int(sys.argv[1]))))
