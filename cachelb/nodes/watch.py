"""Keeps the addresses of nodes that are given by a DNS name up to date, by the TTL of the names.

A node's identity is its name in the ring, so that new addresses move no key.  Answers in another order are no change:
DNS servers rotate them, and following that would scatter the connections that are kept.  When DNS fails, the last good
addresses stay.

Left out: the lookups and their cache (``resolve``); nodes given by address, which need none of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cachelb.nodes.resolve import ResolveError, Resolver

log = logging.getLogger("cachelb.nodes")

RETRY_S = 5.0  # after a failure: soon enough for a node whose name is just being made
LOCAL_S = 5.0  # names from the hosts file have no TTL
IDLE_S = 3600.0  # nothing is due; `reload` wakes us

OnChange = Callable[[str, list[str]], None]
OnProblem = Callable[[str, str], None]


class ResolverSettings(Protocol):
    """The ``[resolver]`` section of the configuration."""

    @property
    def nameservers(self) -> Sequence[str]: ...
    @property
    def ttl_min_s(self) -> float: ...
    @property
    def ttl_max_s(self) -> float: ...
    @property
    def negative_ttl_s(self) -> float: ...
    @property
    def timeout_s(self) -> float: ...


def make_resolver(settings: ResolverSettings) -> Resolver:
    """A Resolver as the configuration wants it."""
    return Resolver(
        settings.nameservers, settings.ttl_min_s, settings.ttl_max_s, settings.negative_ttl_s, settings.timeout_s
    )


class NodeNames:
    """Follows the names of nodes.

    on_change: called with a node's name and its addresses, in the order to try: when they are first known, and when
    they have changed.
    on_problem: called with a node's name and a sentence when its name stops resolving, once until it does again.
    make: how a Resolver is made from its settings.
    """

    def __init__(
        self,
        settings: ResolverSettings,
        on_change: OnChange,
        on_problem: OnProblem = lambda name, text: None,
        *,
        make: Callable[[ResolverSettings], Resolver] = make_resolver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._resolver = make(settings)
        self._on_change = on_change
        self._on_problem = on_problem
        self._make = make
        self._clock = clock
        self._hosts: dict[str, str] = {}
        self._addresses: dict[str, list[str]] = {}
        self._due: dict[str, float] = {}
        self._troubled: set[str] = set()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, hosts: Mapping[str, str]) -> None:
        """Look up all names (node name to host) once, then go on in the background.

        Returns when every name has its addresses or has failed: within the resolver's ``timeout_s``.
        """
        self._take(hosts)
        await self._refresh_due()
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """End the background work and free the resolver."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._resolver.close()

    def reload(self, settings: ResolverSettings, hosts: Mapping[str, str]) -> None:
        """Take over new names.  A node whose host is the same keeps its addresses and its time."""
        if settings != self._settings:
            self._settings = settings
            self._resolver.close()
            self._resolver = self._make(settings)
        self._take(hosts)
        self._woken.set()

    def _take(self, hosts: Mapping[str, str]) -> None:
        now = self._clock()
        kept = {name for name, host in hosts.items() if self._hosts.get(name) == host}
        self._hosts = dict(hosts)
        self._addresses = {name: found for name, found in self._addresses.items() if name in kept}
        self._due = {name: self._due[name] if name in kept else now for name in hosts}
        self._troubled &= kept

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            wait_s = min(self._due.values(), default=float("inf")) - self._clock()
            try:
                async with asyncio.timeout(min(max(wait_s, 0), IDLE_S)):
                    await self._woken.wait()
            except TimeoutError:
                pass
            try:
                await self._refresh_due()
            except Exception as exc:  # ours: names must not be forgotten for that
                log.critical("internal error: %r", exc, exc_info=exc)
                await asyncio.sleep(RETRY_S)

    async def _refresh_due(self) -> None:
        now = self._clock()
        names = [name for name, at in self._due.items() if at <= now]
        await asyncio.gather(*(self._refresh(name, self._hosts[name]) for name in names))

    async def _refresh(self, name: str, host: str) -> None:
        try:
            found = await self._resolver.resolve(host)
        except ResolveError as exc:
            if self._hosts.get(name) == host:  # else a reload came between
                self._failed(name, exc)
            return
        if self._hosts.get(name) != host:
            return
        now = self._clock()
        expires = self._resolver.expires(host)
        self._due[name] = expires if expires is not None and expires > now else now + LOCAL_S
        self._troubled.discard(name)
        if set(found) != set(self._addresses.get(name, ())):
            self._addresses[name] = found
            self._on_change(name, found)

    def _failed(self, name: str, exc: ResolveError) -> None:
        self._due[name] = self._clock() + RETRY_S
        if name not in self._troubled:
            self._troubled.add(name)
            kept = ", ".join(self._addresses.get(name, ()))
            self._on_problem(name, f"{exc}; " + (f"{kept} stays in use" if kept else "the node has no address"))
