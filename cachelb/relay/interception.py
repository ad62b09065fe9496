"""Where intercepted connections were meant to go, and whether what they claim leads there.

Host verification: a client may send any Host to any server, so what it gets from there must not be taken for what the host
has that it names.  Only a Host that resolves to the address that the client has connected to is believed, and only then the
farm is asked for it.  What was once true is believed for a while longer: names with many addresses are answered with a few of
them at a time, and each of those has been told us by DNS.

Left out: the connections (``intercepted``), how packets come here (``hostnet``).

Source: CVE-2009-0801; Squid's host_verify_strict and client_dst_passthru.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple

from cachelb.http.url import parse_origin
from cachelb.nodes.resolve import ResolveError
from cachelb.relay.origins import KEPT_PER_ORIGIN, is_of_this_host
from cachelb.relay.upstream import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachelb.config import Config
    from cachelb.relay.engine import Engine

BELIEVED_S: Final = 600.0  # how long a name that led to an address is believed to do so
DOUBTED_S: Final = 5.0  # until DNS is asked again about one that did not: a look-up per request would be a flood
KNOWN_MAX: Final = 65536  # hosts with addresses; 200 bytes each
SLACK_S: Final = 5.0  # beyond [resolver] timeout_s, before an answer is not waited for any more


class Place(NamedTuple):
    """Where a client has connected to."""

    host: str
    port: int

    @property
    def authority(self) -> bytes:
        """As it stands in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == 80 else f"{host}:{self.port}").encode("ascii")


class Interception:
    """What the intercepted connections of one relay share.

    tunnels: what is not HTTP is passed on to where it was meant to go.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tunnels = True
        self.wait_s = 10.0
        self.known: dict[tuple[bytes, Place], tuple[bytes, float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def configure(self, config: Config) -> None:
        """Take over new settings."""
        self.tunnels = config.intercept.non_http == "tunnel"
        self.wait_s = config.resolver.timeout_s + SLACK_S
        self.known.clear()

    # -- Host verification

    def authority(self, host: bytes, place: Place) -> bytes | None:
        """What a URL has for this Host field; empty when it does not lead to ``place``, None when that has to be found out.

        Raises:
            BadRequest: It cannot be understood.
        """
        known = self.known.get((host, place))
        if known is not None and known[1] > self.engine.now:
            return known[0]
        url = parse_origin(b"/", host)
        if url.port != place.port:
            return self._note(host, place, b"")
        resolver = self.engine.origins.resolver
        assert resolver is not None
        addresses = resolver.cached(url.host.decode("latin-1"), self.engine.clock())
        if addresses is None:
            return None
        return self._note(host, place, url.authority if place.host in addresses else b"")

    def find_out(self, host: bytes, place: Place, then: Callable[[], None]) -> None:
        """Ask DNS; ``then`` is called when ``authority`` knows."""
        task = self.engine.loop.create_task(self._find_out(host, place, then))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _find_out(self, host: bytes, place: Place, then: Callable[[], None]) -> None:
        resolver = self.engine.origins.resolver
        url = parse_origin(b"/", host)
        try:
            assert resolver is not None
            leads_there = place.host in await resolver.resolve(url.host.decode("latin-1"))
        except ResolveError:
            leads_there = False
        self._note(host, place, url.authority if leads_there else b"")
        then()

    def _note(self, host: bytes, place: Place, authority: bytes) -> bytes:
        if len(self.known) >= KNOWN_MAX:
            self.known.clear()
        self.known[host, place] = authority, self.engine.now + (BELIEVED_S if authority else DOUBTED_S)
        return authority

    # -- the original destination

    def target(self, place: Place) -> Target | str:
        """Where to connect to for ``place``, or why that is not done.

        Private addresses are allowed: this host's routes and rules have let the client's packets come so far.
        """
        origins = self.engine.origins
        key = b"\0" + place.host.encode("ascii"), place.port  # no name: what is kept for others has passed another guard
        target = origins.known.get(key)
        if target is None:
            why = refusal(place)
            if why:
                return why
            target = Target(place.host, (place.host,), place.port, hierarchy="ORIGINAL_DST")
            target.idle_max = KEPT_PER_ORIGIN
            target.keep_s = self.engine.timeouts.node_keep_alive_s
            origins.known[key] = target
        return target


def refusal(place: Place) -> str:
    """Why an original destination must not be connected to; empty when it may be."""
    ip = ipaddress.ip_address(place.host.partition("%")[0])
    for is_so, what in (
        (ip.is_loopback, "a loopback address"),
        (ip.is_unspecified, "the unspecified address"),
        (ip.is_multicast, "a multicast address"),
        (ip.is_link_local, "a link-local address"),
    ):
        if is_so:
            return f"{place.host} is {what}"
    return f"{place.host} is the director itself" if is_of_this_host(place.host) else ""
