"""Keeps the addresses of nodes that are given by name, by the TTL of their names.

A node's identity is its name in the ring, so that new addresses move no key.  Answers in another order are no change:
DNS servers rotate them, and following that would scatter the connections that are kept.  When DNS fails, the last good
addresses stay.

Left out: the lookups and their cache (``resolve``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from cachelb.nodes.names import literal
from cachelb.nodes.resolve import ResolveError, Resolver

RETRY_S = 5.0  # after a failure: soon enough for a node whose name is just being made
LOCAL_S = 5.0  # for names from /etc/hosts, which have no TTL
IDLE_S = 3600.0

OnChange = Callable[[str, tuple[str, ...]], None]
OnProblem = Callable[[str, str], None]


class NodeAddresses:
    """The addresses of all nodes.

    on_change: called with a node's name and its new addresses, also for the first ones of a name.
    on_problem: called with a node's name and a sentence when its name stops resolving, once until it does again.
    """

    def __init__(
        self,
        resolver: Resolver,
        on_change: OnChange = lambda name, addresses: None,
        on_problem: OnProblem = lambda name, text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolver = resolver
        self._on_change = on_change
        self._on_problem = on_problem
        self._clock = clock
        self._hosts: dict[str, str] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._due: dict[str, float] = {}  # of the nodes given by name only
        self._troubled: set[str] = set()
        self._woken = asyncio.Event()

    def reload(self, hosts: Mapping[str, str]) -> None:
        """Take over the nodes (name to host).  A node whose host is the same keeps its addresses."""
        now = self._clock()
        kept = {name for name, host in hosts.items() if self._hosts.get(name) == host}
        self._hosts = dict(hosts)
        self._addresses = {name: self._addresses.get(name, ()) if name in kept else () for name in hosts}
        due = {name: self._due.get(name, now) if name in kept else now for name in hosts}
        for name, host in hosts.items():
            if found := literal(host):
                self._addresses[name] = tuple(found)
                del due[name]
        self._due = due
        self._troubled &= kept
        self._woken.set()

    def addresses(self, name: str) -> tuple[str, ...]:
        """In the order to try; empty while the name has never been resolved.  Raises KeyError for unknown nodes."""
        return self._addresses[name]

    async def refresh(self) -> None:
        """Look up, at the same time, every name that is due.  The first call at the start makes all known."""
        now = self._clock()
        names = [name for name, at in self._due.items() if at <= now]
        await asyncio.gather(*(self._refresh(name, self._hosts[name]) for name in names))

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            self._woken.clear()
            await self.refresh()
            wait_s = min(self._due.values(), default=float("inf")) - self._clock()
            try:
                async with asyncio.timeout(min(max(wait_s, 0.01), IDLE_S)):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def _refresh(self, name: str, host: str) -> None:
        try:
            found = tuple(await self._resolver.resolve(host))
        except ResolveError as exc:
            if self._hosts.get(name) == host:
                self._failed(name, exc)
            return
        if self._hosts.get(name) != host:  # a reload came between
            return
        expires = self._resolver.expires(host)
        now = self._clock()
        self._due[name] = expires if expires is not None and expires > now else now + LOCAL_S
        self._troubled.discard(name)
        if set(found) != set(self._addresses[name]):
            self._addresses[name] = found
            self._on_change(name, found)

    def _failed(self, name: str, exc: ResolveError) -> None:
        self._due[name] = self._clock() + RETRY_S
        if name not in self._troubled:
            self._troubled.add(name)
            kept = ", ".join(self._addresses[name])
            self._on_problem(name, f"{exc}; " + (f"still using {kept}" if kept else "it has no address until then"))
