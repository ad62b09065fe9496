"""The admin listener: what the director knows, to read.

``GET /api/v1/status`` is one JSON document for people and programs; ``GET /metrics`` is the same counters for
Prometheus. Both are views of ``cachelb.counters.TABLE`` and know no counter by name.
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from cachelb import __version__
from cachelb.admin.metrics import CONTENT_TYPE, render
from cachelb.counters import read_farm, read_node
from cachelb.listen import BACKLOG, open_listener

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachelb.listen import Address
    from cachelb.supervisor import Supervisor


class AdminServer:
    """Serves the admin addresses of one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.sockets: list[socket.socket] = []
        app = web.Application()
        app.router.add_get("/api/v1/status", self._status)
        app.router.add_get("/metrics", self._metrics)
        self.runner = web.AppRunner(app, access_log=None)

    async def start(self, addresses: Sequence[Address], listener: Callable[[Address], socket.socket] = open_listener) -> None:
        """Begin to listen.

        Args:
            listener: Has or makes the listening socket of an address.

        Raises:
            CannotListenError: An address cannot be listened on.
        """
        await self.runner.setup()
        for address in addresses:
            self.sockets.append(listener(address))
            await web.SockSite(self.runner, self.sockets[-1], backlog=BACKLOG).start()

    async def stop(self) -> None:
        """Close the listeners."""
        await self.runner.cleanup()
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(status(self.supervisor), dumps=lambda value: json.dumps(value, indent=1))

    async def _metrics(self, _request: web.Request) -> web.Response:
        text = render(status(self.supervisor))
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})


def status(supervisor: Supervisor) -> dict[str, Any]:
    """All that is known now, as plain values."""
    workers = supervisor.workers.workers if supervisor.workers is not None else []
    blocks = [worker.block for worker in workers]
    health = supervisor.health.states()
    now = time.monotonic()
    stores = supervisor.onecache.nodes(supervisor.farm.slots)
    nodes = []
    for view in supervisor.farm.views(health):
        known = health.get(view.name)
        nodes.append(
            {
                "name": view.name,
                "addresses": list(view.addresses),
                "port": view.port,
                "weight": view.weight,
                "state": view.state,
                "share": view.share,
                "since_s": round(now - known.since, 1) if known else None,
                "cause": known.cause if known else "",
                "store": stores[view.name],
                "counters": read_node(blocks, view.slot),
            }
        )
    return {
        "version": __version__,
        "state": supervisor.state,
        "pid": os.getpid(),
        "upgrade": {"tries": supervisor.upgrades.tries, "problem": supervisor.upgrades.problem},
        "uptime_s": round(time.time() - supervisor.started_at, 1),
        "epoch": supervisor.wanted_epoch(),
        "reloads": supervisor.reloads,
        "workers": [{"number": w.number, "pid": w.pid, "epoch": w.epoch, "restarts": w.restarts} for w in workers],
        "farm": read_farm(blocks),
        "onecache": supervisor.onecache.status(),
        "nodes": nodes,
    }
