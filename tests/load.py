"""Clients that keep asking through a proxy while a test breaks something, and that know every right answer.

    with Load(director.http, origin, cycle(paths), clients=8) as load:
        load.wait_for(100)          # so many more requests have ended
        farm.nodes[0].kill()
        load.wait_for(1000)
    assert [o for o in load.outcomes if o.problem] == []

A ``Client`` is one keep-alive connection and never repeats a request: whatever goes wrong is an ``Outcome`` with a
problem.  Its paths are the demo origin's, so each body is compared with what it must be.

Left out: requests other than GET; bodies that do not fit into memory (``tests/squid/test_bodies.py`` reads those).
"""

from __future__ import annotations

import itertools
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from types import TracebackType
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from fakes import Answer, dechunk, parse_answer_head

from cachelb.demo.origin import DEFAULT_BYTES, OriginProcess, body

TIMEOUT_S = 60.0  # of one request: far above what any of them needs on a slow machine
WAIT_S = 60.0  # for a number of requests

_X_CACHE = re.compile(rb"(HIT|MISS) from (\w+)\.test")


class Outcome(NamedTuple):
    """What became of one request.

    path: with its query.  port: the client's own, which tells connections apart.  sent_at, ended_at: monotonic seconds.
    begun: at least one byte of the answer arrived.  problem: empty when the answer was whole and right.
    node: the Squid that answered, by its own word; empty when none did.  hit: it says that it had the object.
    """

    path: str
    port: int
    sent_at: float
    ended_at: float
    status: int
    begun: bool
    problem: str
    node: str
    hit: bool


@lru_cache(maxsize=4096)
def expected_body(path: str) -> bytes:
    """What the demo origin answers to a GET of `path`."""
    parts = urlsplit(path)
    return body(parts.path, int(parse_qs(parts.query).get("size", [str(DEFAULT_BYTES)])[0]))


class Client:
    """One client of `proxy` (host, port), for paths of `origin`.  The next request opens a lost connection anew.

    fields: of the latest answer, names in lower case.
    """

    def __init__(self, proxy: tuple[str, int], origin: OriginProcess) -> None:
        self.proxy = proxy
        self.origin = origin
        self._sock: socket.socket | None = None
        self._data = b""
        self.fields: dict[bytes, bytes] = {}

    @property
    def port(self) -> int:
        """Our end of the present connection; 0 when there is none."""
        return int(self._sock.getsockname()[1]) if self._sock is not None else 0

    def get(self, path: str, *fields: str) -> Outcome:
        """Ask for `path`; `fields`: more lines for the head."""
        sent_at = time.monotonic()
        status, node, hit, problem, port = 0, "", False, "", 0
        self._data = b""
        try:
            if self._sock is None:
                self._sock = socket.create_connection(self.proxy, TIMEOUT_S)
            port = self.port
            lines = [f"GET {self.origin.base}{path} HTTP/1.1", f"Host: {self.origin.host}:{self.origin.port}", *fields]
            self._sock.sendall("\r\n".join([*lines, "", ""]).encode())
            head, content = self._read_answer(self._sock)
            status, self.fields = head.status, head.fields
            if found := _X_CACHE.search(head.fields.get(b"x-cache", b"")):
                node, hit = found[2].decode(), found[1] == b"HIT"
            if status != 200:
                problem = f"status {status}: {content[:200]!r}"
            elif content != expected_body(path):
                problem = f"{len(content)} bytes that are not the {len(expected_body(path))} expected"
            if head.fields.get(b"connection") == b"close":
                self.close()
        except (OSError, EOFError) as error:
            problem = f"{type(error).__name__}: {error}"
            self.close()
        return Outcome(path, port, sent_at, time.monotonic(), status, bool(self._data), problem, node, hit)

    def close(self) -> None:
        """End the connection."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _read_answer(self, sock: socket.socket) -> tuple[Answer, bytes]:
        self._more(sock)
        while (end := self._data.find(b"\r\n\r\n")) < 0:
            self._more(sock)
        answer = parse_answer_head(self._data[: end + 4])
        start = end + 4
        if b"content-length" in answer.fields:
            stop = start + int(answer.fields[b"content-length"])
            while len(self._data) < stop:
                self._more(sock, stop)
            return answer, self._data[start:stop]
        if answer.fields.get(b"transfer-encoding") == b"chunked":
            while not self._data.endswith(b"\r\n\r\n") or b"\r\n0\r\n" not in self._data[-200:]:
                self._more(sock)
            return answer, dechunk(self._data[start:])
        raise EOFError("an answer without a length, which these clients do not ask for")

    def _more(self, sock: socket.socket, stop: int = 0) -> None:
        parts = [self._data]
        size = len(self._data)
        while True:
            data = sock.recv(1 << 18)
            if not data:
                self._data = b"".join(parts)
                raise EOFError(f"the connection ended after {size} bytes of the answer")
            parts.append(data)
            size += len(data)
            if size >= stop:
                break
        self._data = b"".join(parts)


class Load:
    """`clients` threads that ask for one of `paths` after the other, until these end or ``stop`` is called.

    outcomes: of all requests that have ended, in that order.
    """

    def __init__(self, proxy: tuple[str, int], origin: OriginProcess, paths: Iterable[str], clients: int = 8) -> None:
        self.outcomes: list[Outcome] = []
        self.clients = [Client(proxy, origin) for _ in range(clients)]
        self._paths: Iterator[str] = iter(paths)
        self._lock = threading.Lock()
        self._stopped = False
        self._threads = [threading.Thread(target=self._run, args=(client,), daemon=True) for client in self.clients]

    @property
    def problems(self) -> list[str]:
        """All that went wrong so far, in words."""
        return [f"{o.path}: {o.problem}" for o in self.outcomes if o.problem]

    def start(self) -> None:
        """Let them ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each finish the request it is at, then end."""
        self._stopped = True
        self.join()

    def join(self) -> None:
        """Wait until the paths have ended."""
        for thread in self._threads:
            thread.join(TIMEOUT_S + WAIT_S)
            assert not thread.is_alive(), "a client did not end"

    def wait_for(self, count: int) -> None:
        """Return when `count` more requests have ended."""
        wanted = len(self.outcomes) + count
        deadline = time.monotonic() + WAIT_S
        while len(self.outcomes) < wanted:
            assert time.monotonic() < deadline, f"{len(self.outcomes)} of {wanted} requests ended within {WAIT_S:g} s"
            time.sleep(0.01)

    def _run(self, client: Client) -> None:
        while not self._stopped:
            with self._lock:
                path = next(self._paths, None)
            if path is None:
                break
            self.outcomes.append(client.get(path))
        client.close()

    def __enter__(self) -> Load:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def owners(outcomes: Iterable[Outcome]) -> dict[str, set[str]]:
    """Which nodes answered for each path."""
    nodes: dict[str, set[str]] = {}
    for outcome in outcomes:
        if not outcome.problem:
            nodes.setdefault(outcome.path, set()).add(outcome.node)
    return nodes


def static_paths(word: str, count: int) -> list[str]:
    """`count` paths of cacheable objects of all sizes up to 20,000 bytes; `word` makes them a test's own."""
    return [f"/static/{word}-{n}?size={(n * 997) % 20_000}" for n in range(count)]


def mixed_paths(word: str, static: Sequence[str]) -> Iterator[str]:
    """Endless: `static` in turn, with answers that are waited for and answers that last between them, each a new one."""
    for n in itertools.count():
        yield static[n % len(static)]
        if n % 8 == 0:
            yield f"/slow/{word}-{n}?ms=200&size=3000"
        if n % 40 == 0:
            yield f"/large/{word}-{n}?size=5000000"
