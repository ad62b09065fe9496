"""Squid's cache manager on the HTTP listeners: ``/squid-internal-mgr/PAGE`` and ``cache_object://HOST/PAGE``.

The worker judges who may ask; the supervisor, who sees all workers and nodes, makes the page.  As with Squid's ``manager`` rule
it is the address of the client that counts, and whoever asks by way of another proxy is not the one who connects: a proxy on this
machine must not lend its loopback address to the world.

Left out: what is on the pages (``cachelb/admin/squid.py``).
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from cachelb.control import Ask, Report
from cachelb.errors import Reason
from cachelb.relay import pages
from cachelb.relay.attempts import PURGING
from cachelb.relay.bodies import CLOSE
from cachelb.routing.classify import MANAGER_PREFIX
from cachelb.routing.guard import is_within

if TYPE_CHECKING:
    from cachelb.relay.engine import Engine
    from cachelb.relay.exchange import Exchange

ASKED_MAX = 100  # on their way at the same time
ANSWER_S = 5.0
PAGE_BYTES = 64  # of a name

_forwarded = re.compile(rb"(?im)^(?:via|x-forwarded-for|forwarded)[ \t]*:").search


class ManagerPages:
    """The pages that were asked for, in one relay.

    ask_supervisor: for a page; False: that cannot be done now.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ask_supervisor: Callable[[Ask], bool] | None = None
        self.asked: dict[int, Exchange] = {}
        self._numbers = itertools.count(time.monotonic_ns())  # as for purges: an answer for a worker before this one fits none

    def ask(self, exchange: Exchange) -> None:
        """Serve a request for a page."""
        engine, line, client = self.engine, exchange.line, exchange.client
        if not is_within(client.ip, engine.config.access.manager):
            exchange.fail(Reason.MANAGER_DENIED, f"client {client.ip}")
            return
        if _forwarded(exchange.block.block):
            exchange.fail(Reason.MANAGER_DENIED, f"client {client.ip} asks for somebody else")
            return
        if line.method not in (b"GET", b"HEAD"):
            self._send(exchange, 405, b"A report can be read.\n")
            return
        page = page_of(line.asked)
        number = next(self._numbers)
        if len(self.asked) >= ASKED_MAX or self.ask_supervisor is None or not self.ask_supervisor(Ask(number, page)):
            exchange.fail(Reason.MANAGER_UNAVAILABLE)
            return
        self.asked[number] = exchange
        exchange.undo = partial(self.asked.pop, number, None)
        exchange.phase = PURGING
        client.deadline = engine.now + ANSWER_S

    def told(self, report: Report) -> None:
        """A page has come: send it, if whoever asked is still there."""
        exchange = self.asked.pop(report.number, None)
        if exchange is None:
            return
        exchange.undo = None
        try:
            self._send(exchange, 200 if report.text else 404, report.text or b"There is no such report; see menu.\n")
        except Exception as exc:
            exchange.client.crashed(exc)

    def _send(self, exchange: Exchange, status: int, text: bytes) -> None:
        line = exchange.line
        fields = [("Content-Type", "text/plain;charset=utf-8"), ("Cache-Control", "no-store")]
        if status == 405:
            fields.append(("Allow", "GET, HEAD"))
        head_only, keep = line.method == b"HEAD", exchange.keep != CLOSE
        data = pages.answer(status, fields, text, keep=keep, head_only=head_only, minor=line.minor)
        exchange.answer_whole(data, status, content_type=b"text/plain")


def page_of(url: bytes) -> bytes:
    """The name of the page in a canonical URL; a password behind "@", as squidclient sends it, is nobody's here."""
    path = url.partition(b"://")[2].partition(b"/")[2]
    page = path.removeprefix(MANAGER_PREFIX.lstrip(b"/")).lstrip(b"/")
    return page.partition(b"?")[0].partition(b"@")[0].rstrip(b"/")[:PAGE_BYTES]
