"""An admin listener in front of a Supervisor that does not run, for tests of ``cachelb/admin``."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from cachelb.admin.api import AdminServer
from cachelb.config import Config
from cachelb.config_values import Address
from cachelb.listen import open_unix
from cachelb.supervisor import Supervisor
from cachelb.workers import Workers

TOKEN = "a-token-that-nobody-guesses"
NODES = [
    {"name": "a", "host": "127.0.0.1", "weight": 2.5},
    {"name": "b", "host": "127.0.0.2", "state": "drain"},
    {"name": "c", "host": "127.0.0.3", "state": "down"},
]


def config_of(**sections: Any) -> Config:
    """A configuration with three nodes, or other ones."""
    return Config.model_validate_json(json.dumps({"node": NODES} | sections))


def free_address() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return Address("127.0.0.1", sock.getsockname()[1])


def with_supervisor(test: Callable[[Supervisor], Awaitable[None]], path: str = "unused", **sections: Any) -> None:
    """Run ``test(supervisor)``; it has two workers that count but do not run."""

    async def main() -> None:
        supervisor = Supervisor(Path(path), config_of(**sections))
        logger = logging.getLogger("cachelb")
        before = logger.level, logger.handlers[:], logger.propagate
        try:
            async with asyncio.timeout(20):
                await test(supervisor)
        finally:
            await supervisor.names.stop()
            for worker in supervisor.workers.workers if supervisor.workers is not None else []:
                os.close(worker.block_fd)
            # a reload sets logging up
            level, logger.handlers, logger.propagate = before
            logger.setLevel(level)

    asyncio.run(main())


class Asker:
    """Asks the admin listener: ``await ask(path)`` is status, fields and what was answered, read as JSON where it is that."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def __call__(self, path: str, method: str = "GET", json: Any = None, **options: Any) -> tuple[int, Any, Any]:
        fields = options.pop("fields", {})
        async with self.session.request(method, path, json=json, headers=fields, **options) as answer:
            data = await answer.read()
            if "json" in answer.content_type:
                return answer.status, answer.headers, await answer.json(content_type=None)
            return answer.status, answer.headers, data

    async def change(self, path: str, method: str = "PUT", json: Any = None) -> tuple[int, Any, Any]:
        """With the token."""
        return await self(path, method, json, fields={"Authorization": f"Bearer {TOKEN}"})


def with_client(
    test: Callable[[Supervisor, Asker], Awaitable[None]], path: str = "unused", unix: str = "", **sections: Any
) -> None:
    """Run ``test(supervisor, ask)``; unix: by this Unix socket."""

    async def main(supervisor: Supervisor) -> None:
        supervisor.workers = Workers([[], []], b"")
        address = free_address()
        admin = AdminServer(supervisor)
        await admin.start([address], unix=open_unix(unix, 0o660) if unix else None)
        connector = aiohttp.UnixConnector(unix) if unix else aiohttp.TCPConnector()
        try:
            async with aiohttp.ClientSession(f"http://{address.host}:{address.port}", connector=connector) as session:
                await test(supervisor, Asker(session))
        finally:
            await admin.stop()

    with_supervisor(main, path, **sections)


def token_file(directory: Path) -> str:
    """A file with the token."""
    path = directory / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return str(path)
