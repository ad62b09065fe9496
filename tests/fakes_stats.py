"""Answers of an admin API, made up: for tests of ``tools/stats``, which knows the director by nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from cachelb.tools.stats.farm import Answers, Farm, read

RATES = {
    "window_s": 1.0,
    "requests_per_s": 100.0,
    "hit_ratio": 0.8,
    "bytes_per_s": 250_000.0,
    "errors_per_s": 0.0,
    "p50_ms": 1.5,
    "p99_ms": 20.0,
}


def node(name: str, *, state: str = "up", rates: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A node that is well, but for what is said."""
    return {
        "name": name,
        "host": "10.0.0.1",
        "port": 3128,
        "weight": 1.0,
        "state": state,
        "share": 1.0,
        "key_share": 0.25,
        "since_s": 12.0,
        "cause": "a cause",
        "in_flight": 1,
        "idle": 2,
        "rates": RATES | (rates or {}),
        "operator": {"state": None, "weight": None},
        "drain": None,
        "counters": {"requests": 1000, "hits": 800, "misses": 200, "bytes": 10_000, "resets": 3},
    } | fields


def status(*nodes: dict[str, Any], rates: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A director that is well, with three nodes if none are given."""
    peers = {"bypassed_per_s": 1.0, "refused_per_s": 0.0, "retries_per_s": 0.0, "icp_per_s": 4.0, "htcp_per_s": 0.0}
    return {
        "version": "0.1.0",
        "state": "running",
        "now": 1_796_000_900.0,
        "uptime_s": 7500.0,
        "epoch": 7,
        "reloads": 1,
        "config": {"path": "/etc/cachelb.toml", "digest": "6f0c2d7e9a1b3c4d", "problems": []},
        "listeners": [{"kind": "http", "address": "0.0.0.0:3128"}, {"kind": "icp", "address": "0.0.0.0:3130"}],
        "workers": [
            {"number": 1, "pid": 4711, "epoch": 7, "restarts": 0, "requests": 1, "clients_open": 3, "loop_lag_ms": 0.3}
        ],
        "farm": {"requests": 3000, "bytes_out": 30_000, "clients_open": 9, "log_dropped": 0, "ended_reset": 2},
        "rates": RATES | {"requests_per_s": 300.0} | peers | (rates or {}),
        "onecache": {
            "icp": {"mode": "index", "serving": True},
            "index": {"keys": 1000, "keys_limit": 5_000_000, "problem": ""},
            "digest": {"built_at": 1_796_000_840, "fill": 0.4, "problem": ""},
        },
        "nodes": list(nodes) or [node("a"), node("b"), node("c")],
    } | fields


def series(**values: list[Any]) -> dict[str, Any]:
    """One node's, or the farm's, history."""
    return {"requests_per_s": [100.0] * 6, "hit_ratio": [0.8] * 6, "errors_per_s": [0.0] * 6} | values


def hot(*names: str, share: float = 0.1, **fields: Any) -> dict[str, Any]:
    """So many hot URLs."""
    entries = [
        {"name": name, "owner": "a", "requests": 600, "requests_share": share, "bytes": 6000, "bytes_share": share,
         "hit_ratio": 1.0, "bypassed_share": 0.0, "nodes": {"a": 1.0}} | fields
        for name in names
    ]  # fmt: skip
    return {"window_s": 60.0, "requests": 6000, "urls_by_requests": entries, "hosts_by_bytes": entries}


def farm(*nodes: dict[str, Any], **answers: Any) -> Farm:
    """What the screen is made of; answers: fields of Answers besides the status, or ``status`` itself."""
    found = answers.pop("status", None) or status(*nodes)
    return read(Answers(found, where="127.0.0.1:3180", **answers))


class FakeAdmin:
    """Answers as the admin API does, with what ``answers`` has by path; a function is called, an int is a status.

    asked: what came, as (method, path, authorization, body).
    """

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, str, bytes]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                path = urlsplit(self.path).path.removeprefix("/api/v1")
                fake.asked.append((self.command, self.path, self.headers.get("Authorization") or "", self.rfile.read(size)))
                found = fake.answers.get(path, 404)
                code, body = 200, found() if isinstance(found, Callable) else found  # type: ignore[arg-type]
                if isinstance(body, int):
                    code, body = body, {"title": "no", "status": body, "detail": "a sentence of the director's"}
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_PUT = do_GET  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.where = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> FakeAdmin:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def well(**answers: Any) -> dict[str, Any]:
    """All that a farm which is well would answer."""
    return {"/status": status(), "/history": {}, "/hot": hot("http://www.test/x"), "/events": {"events": []}} | answers
