"""A small origin server whose answers are known in advance, for the demo and the tests.

Paths (N is any word; ``?size=`` bytes, default 1000; every body is ``body(path, size)``):

    /static/N    Cache-Control: public, max-age=3600        /private/N   Cache-Control: private
    /nostore/N   Cache-Control: no-store                    /vary/N      Vary: *
    /slow/N      static, after ?ms= milliseconds            /any/N       ?status= ?cc= ?vary= as asked
    /large       static, streamed                           /chunked     static, chunked, with a trailer
    /close       static, ended by closing the connection    /echo        the request head as it arrived
    /peer        the address of who asks
    /upload      POST or PUT: {"length", "sha256"}          /upgrade     101, then echoes until the client's end of file
    /counts      {"GET /static/1?size=9": requests, ...}    anything else: 404

It speaks HTTP/1.0 and 1.1, keep-alive, HEAD, chunked uploads and ``Expect: 100-continue``, and writes head and small
body in one send (two sends cost 40 ms with delayed acknowledgements).

Left out: conditional requests, ranges, TLS, and any strictness: the director is tested with it, not it with the
director.
``python -m cachelb.demo.origin HOST PORT`` runs it alone; ``OriginProcess`` does that for tests.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from email.utils import formatdate
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

BLOCK_BYTES = 65536
DEFAULT_BYTES = 1000
_HEAD_LIMIT_BYTES = 1 << 20  # larger than anything the director lets through


def body_blocks(name: str, size: int) -> Iterator[bytes]:
    """The `size` bytes that belong to the path `name`, in blocks.

    Every block begins with its own number, so that a lost or doubled block is seen even if the length is right.
    """
    base = hashlib.shake_128(name.encode()).digest(BLOCK_BYTES)
    for number in range(-(-size // BLOCK_BYTES)):
        block = number.to_bytes(8, "big") + base[8:]
        yield block[: size - number * BLOCK_BYTES]


def body(name: str, size: int) -> bytes:
    """``body_blocks`` in one piece."""
    return b"".join(body_blocks(name, size))


class _Request(NamedTuple):
    method: str
    target: str
    minor: int
    head: bytes
    fields: dict[str, str]

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def size(self) -> int:
        return int(self.query.get("size", DEFAULT_BYTES))

    @property
    def keeps_alive(self) -> bool:
        wish = self.fields.get("connection", "").lower()
        return "close" not in wish and (self.minor == 1 or "keep-alive" in wish)


def _parse(head: bytes) -> _Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    fields = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            fields[name.lower()] = value.strip()
    return _Request(method, target, int(version[-1]), head, fields)


_CACHE_CONTROL = {
    "static": "public, max-age=3600",
    "slow": "public, max-age=3600",
    "large": "public, max-age=3600",
    "chunked": "public, max-age=3600",
    "close": "public, max-age=3600",
    "vary": "public, max-age=3600",
    "private": "private",
    "nostore": "no-store",
}


class Origin:
    """The server.  `counts`: requests per "METHOD target"."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.10", port: int = 0) -> None:
        """Listen; `self.port` is then the real port."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_HEAD_LIMIT_BYTES, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening.  Connections end with their clients or with the loop."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass  # the client went away or talks nonsense; either way this connection is over
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request.  Returns whether the connection can be used for another one."""
        request = _parse((await reader.readuntil(b"\r\n\r\n"))[:-4])
        if request.path == "/counts":
            await self._send(writer, request, json.dumps(self.counts).encode(), "no-store", "application/json")
            return request.keeps_alive
        self.counts[f"{request.method} {request.target}"] += 1
        kind = request.path.removeprefix("/").split("/")[0]
        if kind == "upgrade":
            return await self._upgrade(reader, writer)
        upload = await self._upload(reader, writer, request)
        if kind == "upload":
            await self._send(writer, request, upload, "no-store", "application/json")
        elif kind == "peer":
            peer = writer.get_extra_info("peername")[0]
            await self._send(writer, request, peer.encode(), "no-store", "text/plain")
        elif kind == "echo":
            await self._send(writer, request, request.head + b"\r\n\r\n", "no-store", "text/plain")
        elif kind in ("large", "chunked", "close"):
            return await self._stream(writer, request, kind)
        else:
            await self._plain(writer, request, kind)
        return request.keeps_alive

    async def _plain(self, writer: asyncio.StreamWriter, request: _Request, kind: str) -> None:
        query = request.query
        status = int(query.get("status", 200)) if kind == "any" or kind in _CACHE_CONTROL else 404
        await asyncio.sleep(int(query.get("ms", 0)) / 1000)
        content = b"" if status in (204, 304) else body(request.path, request.size)
        cache_control = query.get("cc", "") if kind == "any" else _CACHE_CONTROL.get(kind, "")
        vary = "*" if kind == "vary" else query.get("vary", "")
        await self._send(writer, request, content, cache_control, "application/octet-stream", status, vary)

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        request: _Request,
        content: bytes,
        cache_control: str,
        content_type: str,
        status: int = 200,
        vary: str = "",
    ) -> None:
        length = "" if status in (204, 304) else f"Content-Length: {len(content)}\r\n"
        head = _head(request, status, cache_control, content_type, length + (f"Vary: {vary}\r\n" if vary else ""))
        writer.write(head if request.method == "HEAD" else head + content)
        await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter, request: _Request, kind: str) -> bool:
        chunked = kind == "chunked" and request.minor == 1
        alive = request.keeps_alive and (kind == "large" or chunked)
        framing = f"Content-Length: {request.size}\r\n" if kind == "large" else ""
        if chunked:
            framing = "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n"
        writer.write(_head(request, 200, _CACHE_CONTROL[kind], "application/octet-stream", framing, alive))
        if request.method != "HEAD":
            digest = hashlib.sha256()
            for block in body_blocks(request.path, request.size):
                digest.update(block)
                writer.write(b"%x;n=1\r\n%b\r\n" % (len(block), block) if chunked else block)
                await writer.drain()
            if chunked:
                writer.write(f"0\r\nX-Sum: {digest.hexdigest()}\r\n\r\n".encode())
        await writer.drain()
        return alive

    async def _upload(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: _Request) -> bytes:
        """Read the request's body, if it has one; return what was read as JSON."""
        if request.fields.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        digest = hashlib.sha256()
        length = 0
        async for block in _request_body(reader, request):
            digest.update(block)
            length += len(block)
        return json.dumps({"length": length, "sha256": digest.hexdigest()}).encode()

    async def _upgrade(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        while data := await reader.read(BLOCK_BYTES):
            writer.write(data)
            await writer.drain()
        return False


def _head(
    request: _Request, status: int, cache_control: str, content_type: str, more: str, alive: bool | None = None
) -> bytes:
    alive = request.keeps_alive if alive is None else alive
    cached = f"Cache-Control: {cache_control}\r\n" if cache_control else ""
    connection = ("keep-alive" if request.minor == 0 else "") if alive else "close"
    # without a Date, Squid 5.7 takes even max-age=3600 for stale
    return (
        f"HTTP/1.1 {status} Fine\r\nDate: {formatdate(usegmt=True)}\r\nContent-Type: {content_type}\r\n{cached}{more}"
        + (f"Connection: {connection}\r\n" if connection else "")
        + "\r\n"
    ).encode("latin-1")


async def _request_body(reader: asyncio.StreamReader, request: _Request) -> AsyncIterator[bytes]:
    if "chunked" not in request.fields.get("transfer-encoding", "").lower():
        async for block in _exactly(reader, int(request.fields.get("content-length", 0))):
            yield block
        return
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        async for block in _exactly(reader, size):
            yield block
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size:
        block = await reader.read(min(size, BLOCK_BYTES))
        if not block:
            raise EOFError("the request body ended early")
        size -= len(block)
        yield block


class OriginProcess:
    """The origin in a process of its own, so that it does not share the tests' interpreter.  A context manager."""

    def __init__(self, host: str = "127.0.0.10", port: int = 0) -> None:
        self.host = host
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cachelb.demo.origin", host, str(port)],
            stdin=subprocess.PIPE,  # it ends when this pipe does: with us, however we end
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the origin could not listen on {host}:{port}")
        self.port = int(line)

    @property
    def base(self) -> str:
        """``http://host:port``, to which paths are appended."""
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self._process.pid

    def counts(self) -> Counter[str]:
        """Requests so far per "METHOD target", asked from the origin itself."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{self.base}/counts", timeout=10) as answer:
            return Counter(json.load(answer))

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> OriginProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


async def _main(host: str, port: int) -> None:
    origin = Origin()
    await origin.start(host, port)
    print(origin.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    try:
        asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
    except OSError as error:
        sys.exit(f"origin: {error}")
