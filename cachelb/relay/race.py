"""Connecting to a target that has several addresses: the first that answers wins (RFC 8305, section 5)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from cachelb.relay.ends import Loop
from cachelb.relay.upstream import Link, Target, open_link

if TYPE_CHECKING:
    from cachelb.relay.upstream import Waiter

STAGGER_S = 0.25  # the Connection Attempt Delay that RFC 8305 recommends
ADDRESSES_MAX = 6  # enough for both families of any sane name


class Starter(Protocol):
    """Who wants the connection: an exchange."""

    def link_ready(self, link: Link) -> None: ...

    def link_failed(self, error: OSError) -> None: ...

    def crashed(self, exc: Exception) -> None: ...


class Race:
    """Opens Links to the addresses of ``target`` in turn, a quarter of a second apart, until one is ready.

    The addresses come with their families interleaved, so a dead IPv6 path costs a quarter of a second, not a timeout.
    """

    def __init__(self, starter: Starter, target: Target, loop: Loop, port: int = 0) -> None:
        """port: where to connect; 0: the target's own."""
        self.starter = starter
        self.target = target
        self.loop = loop
        self.port = port
        self.waiting = list(target.addresses[:ADDRESSES_MAX])
        self.running: list[Link] = []
        self.timer: asyncio.TimerHandle | None = None
        self.error = OSError("no address could be connected to")

    def start(self) -> None:
        """Begin with the first address.

        Raises:
            OSError: None of the addresses can be connected to at all.
        """
        if not self._next():
            raise self.error

    def _next(self) -> bool:
        self._cancel_timer()
        while self.waiting:
            try:
                link = open_link(self.loop, self.target, self.waiting.pop(0), self.port)
            except OSError as exc:
                self.error = exc
                continue
            link.exchange = self
            self.running.append(link)
            if self.waiting:
                self.timer = self.loop.call_later(STAGGER_S, self._next)
            return True
        return bool(self.running)

    def link_ready(self, link: Link) -> None:
        """One is open: close the others and hand it over."""
        self.running.remove(link)
        self.stop()
        winner: Waiter = self.starter  # type: ignore[assignment]  # an exchange is both
        link.exchange = winner
        self.starter.link_ready(link)

    def link_failed(self, error: OSError) -> None:
        """One has failed: the next at once; the exchange hears of it when none is left."""
        self.error = error
        self.running = [link for link in self.running if not link.closed]
        if not self._next():
            self.stop()
            self.starter.link_failed(self.error)

    def link_data(self, link: Link, data: bytes) -> None:  # an open Link belongs to the exchange by then
        raise AssertionError("data on a connection that is being opened")

    def link_readable(self, link: Link) -> None:
        raise AssertionError("data on a connection that is being opened")

    def link_lost(self, link: Link) -> None:
        raise AssertionError("loss of a connection that is being opened")

    def crashed(self, exc: Exception) -> None:
        self.starter.crashed(exc)

    def stop(self) -> None:
        """Close what is still being opened."""
        self._cancel_timer()
        for link in self.running:
            link.exchange = None
            link.shut()
        self.running.clear()
        self.waiting.clear()

    def _cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
