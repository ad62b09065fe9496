"""The demo's clients: what they ask for, and whether they got exactly that.

An ``Errand`` knows the answer it must get, because the origin's bodies are known in advance.  ``run_errands`` sends a
list of them through a proxy from several keep-alive connections, each in a thread.

Left out: where the requests went; only the Squids and the origin can tell (``checks``).
"""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from .origin import body

TIMEOUT_S = 30.0
CLIENTS = 8
STATIC_URLS = 120
PRIVATE_URLS = 12  # more than the 8 after which a whole first segment is taken for uncacheable


class Errand(NamedTuple):
    """One request and its right answer.

    kind: what it shows.  path: of the origin, with the query.  expected: the body; None = only the status counts.
    """

    kind: str
    path: str
    expected: bytes | None
    method: str = "GET"
    fields: tuple[tuple[str, str], ...] = ()
    upload: bytes | None = None
    tunnel: bool = False


class Result(NamedTuple):
    """What became of an errand.  problem: empty when the answer was right."""

    errand: Errand
    size: int
    problem: str


def _get(kind: str, path: str, size: int, *fields: tuple[str, str]) -> Errand:
    return Errand(kind, f"{path}?size={size}", body(path, size), fields=fields)


def cacheable() -> list[Errand]:
    """Objects of many sizes, streamed and chunked ones among them.  Every one belongs on one node."""
    small = [_get("static", f"/static/{n}", (n * 997) % 20_000) for n in range(STATIC_URLS)]
    large = [_get("large", f"/large/{n}", 3_000_000 + n) for n in range(4)]
    chunked = [_get("chunked", f"/chunked/{n}", 100_000 + n) for n in range(4)]
    slow = [Errand("slow", f"/slow/{n}?ms=150&size=2000", body(f"/slow/{n}", 2000)) for n in range(CLIENTS)]
    return small + large + chunked + slow


def uncacheable() -> list[Errand]:
    """What no cache may store, as the request alone tells: none of it may reach a Squid."""
    upload = b"the same bytes again and again " * 200
    receipt = json.dumps({"length": len(upload), "sha256": hashlib.sha256(upload).hexdigest()}).encode()
    posts = [Errand("post", f"/upload/{n}", receipt, "POST", upload=upload) for n in range(10)]
    logins = [_get("login", f"/any/login{n}", 700, ("Authorization", "Basic ZGVtbzpkZW1v")) for n in range(10)]
    no_store = [_get("no-store", f"/any/nostore{n}", 700, ("Cache-Control", "no-store")) for n in range(10)]
    tunnels = [
        Errand("connect", f"/static/tunnel{n}?size=5000", body(f"/static/tunnel{n}", 5000), tunnel=True)
        for n in range(4)
    ]
    return posts + logins + no_store + tunnels


def private() -> list[Errand]:
    """What only the answer tells to be uncacheable: a Squid may see each once, until the director has learned it."""
    return [_get("private", f"/private/{n}", 900) for n in range(PRIVATE_URLS)]


def run_errands(proxy: tuple[str, int], origin: tuple[str, int], errands: Sequence[Errand]) -> list[Result]:
    """Send all `errands` through `proxy` to `origin` (host, port) from CLIENTS connections; return when done."""
    shares = [errands[number::CLIENTS] for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        results = pool.map(lambda share: _one_client(proxy, origin, share), shares)
        return [result for share in results for result in share]


def _one_client(proxy: tuple[str, int], origin: tuple[str, int], errands: Sequence[Errand]) -> list[Result]:
    connection = http.client.HTTPConnection(*proxy, timeout=TIMEOUT_S)
    try:
        return [_send(connection, proxy, origin, errand) for errand in errands]
    finally:
        connection.close()


def _send(
    connection: http.client.HTTPConnection, proxy: tuple[str, int], origin: tuple[str, int], errand: Errand
) -> Result:
    target = errand.path if errand.tunnel else f"http://{origin[0]}:{origin[1]}{errand.path}"
    if errand.tunnel:
        connection = http.client.HTTPConnection(*proxy, timeout=TIMEOUT_S)
        connection.set_tunnel(*origin)
    try:
        connection.request(errand.method, target, errand.upload, dict(errand.fields))
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()  # the next request opens it again
        return Result(errand, 0, f"{type(error).__name__}: {error}")
    finally:
        if errand.tunnel:
            connection.close()
    if answer.status != 200:
        return Result(errand, len(content), f"status {answer.status}")
    if errand.expected is not None and content != errand.expected:
        return Result(errand, len(content), f"{len(content)} bytes that are not the {len(errand.expected)} expected")
    return Result(errand, len(content), "")
