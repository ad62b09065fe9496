"""The admin listener: HTTP in front of what the director knows and does.

One table of operations (``openapi.OPERATIONS``) makes the routes; ``guard`` says who may; errors are problem documents (RFC
9457).  See docs/api.md.  Left out: what the answers say (``status``, ``desk``), the stream of events (``stream``).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from cachelb.admin import guard, handlers, openapi, problems
from cachelb.listen import BACKLOG, open_listener

if TYPE_CHECKING:
    from cachelb.listen import Address
    from cachelb.supervisor import Supervisor

log = logging.getLogger("cachelb.admin")

BODY_BYTES_MAX = 65536
IDLE_S = 30.0  # a connection without a request; aiohttp would wait for an hour, and each takes a descriptor
PAGE = Path(__file__).parent / "page"

# Nothing from elsewhere, no inline script, in nobody's frame.  data: is for the small pictures that style sheets hold.
PAGE_FIELDS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
ALL_FIELDS = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminServer:
    """Serves the admin addresses of one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.sockets: list[socket.socket] = []
        self.token = ""
        self._token_of = (0.0, "")
        self._socket = "", 0  # path and inode of the Unix socket, as long as it is ours to remove
        self.handlers = handlers.Handlers(supervisor)
        app = web.Application(middlewares=[self._guarded], client_max_size=BODY_BYTES_MAX)
        for operation in openapi.OPERATIONS:
            app.router.add_route(operation.method, operation.path, getattr(self.handlers, operation.name))
            if operation.method == "GET":
                app.router.add_route("HEAD", operation.path, getattr(self.handlers, operation.name))
        app.router.add_get("/", self._page)
        app.router.add_get("/page/{file}", self._page)
        app.on_shutdown.append(self.handlers.shutdown)
        # What still runs is a stream of events, which never ends by itself.
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=IDLE_S)

    async def start(
        self,
        addresses: Sequence[Address],
        *,
        listener: Callable[[Address], socket.socket] = open_listener,
        unix: socket.socket | None = None,
    ) -> None:
        """Begin to listen.

        Args:
            listener: Has or makes the listening socket of an address.
            unix: The listening Unix socket, if there is to be one.

        Raises:
            CannotListenError: An address cannot be listened on.
        """
        self._read_token()
        await self.runner.setup()
        for address in addresses:
            self.sockets.append(listener(address))
            await web.SockSite(self.runner, self.sockets[-1], backlog=BACKLOG).start()
        if unix is not None:
            self.sockets.append(unix)
            path = unix.getsockname()
            with contextlib.suppress(OSError):  # somebody has removed it already
                self._socket = path, os.stat(path).st_ino
            await web.SockSite(self.runner, unix, backlog=BACKLOG).start()

    def leave(self) -> None:
        """The Unix socket is the next director's, who has inherited it."""
        self._socket = "", 0

    async def stop(self) -> None:
        """Close the listeners."""
        await self.runner.cleanup()
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()
        path, inode = self._socket
        with contextlib.suppress(OSError):
            if path and os.stat(path).st_ino == inode:  # else somebody has put another one there
                os.unlink(path)
        self.leave()

    def _read_token(self) -> None:
        """Read the token file, at the start and after each reload."""
        wanted = self.supervisor.loaded_at, self.supervisor.file_config.admin.token_file
        if wanted == self._token_of:
            return
        self._token_of = wanted
        self.token, problem = guard.read_token(wanted[1])
        if problem:
            log.error("%s; until then nothing can be changed over TCP", problem)

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._read_token()
            refusal = guard.judge(self._asked(request), self.token, self.supervisor.file_config.admin.names)
            if refusal is not None:
                raise problems.ProblemError(refusal.status, refusal.detail)
            answer = await handler(request)
        except problems.ProblemError as exc:
            answer = problems.answer(request, exc.status, exc.detail, exc.errors)
        except web.HTTPException as exc:
            answer = problems.of_http(request, exc)
        except (ConnectionError, TimeoutError):
            raise
        except Exception as exc:
            log.critical("internal error: %s %s: %r", request.method, request.path, exc, exc_info=exc)
            answer = problems.answer(request, 500, "an error in the director itself; its log says more")
        if not answer.prepared:
            for name, value in ALL_FIELDS.items():
                answer.headers.setdefault(name, value)
        return answer

    def _asked(self, request: web.Request) -> guard.Asked:
        fields = request.headers
        return guard.Asked(
            peer=_peer(request),
            host=fields.get("Host", ""),
            origin=fields.get("Origin", ""),
            authorization=fields.get("Authorization", ""),
            fetch_site=fields.get("Sec-Fetch-Site", ""),
            changes=request.method not in ("GET", "HEAD", "OPTIONS"),
            page=request.match_info.handler == self._page,
        )

    async def _page(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("file", "index.html")
        path = PAGE / name
        if path.parent != PAGE or name.startswith(".") or not path.is_file():
            raise problems.ProblemError(404, "there is no such file of the page")
        return web.FileResponse(path, headers=PAGE_FIELDS)


def _peer(request: web.Request) -> str:
    """The client's address; "" for the Unix socket."""
    sock = request.transport.get_extra_info("socket") if request.transport is not None else None
    if sock is not None and sock.family == socket.AF_UNIX:
        return ""
    return request.remote or "unknown"
