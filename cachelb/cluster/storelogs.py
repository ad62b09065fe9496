"""Receives the store logs of all nodes, ``cache_store_log udp://DIRECTOR:PORT``, and tells the index what they say.

Whose datagram it is, its sender's address says and nothing else: a Squid sends its log from any port, and from whichever
address of its host is nearest to us.  So nodes that share an address cannot be told apart and are not listened to, which
is said once, unless they have places of their own (``[[node]] store_log``): there the destination says whose it is, and any
node's address or a loopback one may send.  What comes from elsewhere is counted, and told once a minute.

What a Squid sends while nobody listens is lost, and the first line after that too (ECONNREFUSED, Squid 5.7); the node's
digest makes up for it.

The log shares the event loop with ICP, and anybody can forge a node's address.  What keeps a flood from hurting: uvloop takes
no more than 32 datagrams from a socket before it looks at the others, we read few lines of each, and of one node no more than
LINES_PER_S.  Time of an ICP answer while somebody sends all that one core can, in ms (2026-11, two cores for all; 7 to 13 us
for a line that is read, 0.4 for a datagram that is not)::

                                                p50    p99
    quiet                                      0.18    0.3
    210,000/s, an address that is no node's    0.18    2.3
    210,000/s, a node's; without bounds        0.32    1.5;   0.94   2.0
    of 350 lines each; without bounds          1.8     5.5;    270   470

Left out: what a line means (``storelog``), what becomes of it (``index``), what follows when a node was restarted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from icp.service import Bind, Service, bind

from .storelog import StoreLog

if TYPE_CHECKING:
    from cachelb.snapshot import NodeView

    from .index import Index

# Lines of one node that are read in the long run, and at once.  A Squid writes one or two per request that is no hit: a few
# thousand a second when it is busy.  The socket's queue holds 5,000.
LINES_PER_S = 20_000
BURST = 5_000
# Squid sends one line a datagram.
LINES_A_DATAGRAM = 16
COMPLAIN_EVERY_S = 60.0
RESTART_S = 2.0  # about as long as a Squid needs to start

_COST_S = 1 / LINES_PER_S
_DEPTH_S = (BURST - 0.5) * _COST_S  # half a line for what sums of floats lose

Place = tuple[str, int]  # IP address, UDP port

log = logging.getLogger("cachelb.cluster")


class Feed:
    """One node's store log, as far as it came.

    slot: the node's now.  log: its counts say what the lines were, its restarts how often the node was.
    datagrams: received.  last_at: when the last one was, monotonic; 0.0: never.  limited: datagrams not read, for there were
    too many of them or of lines in them.
    """

    __slots__ = (
        "_believes_at", "_full_at", "_is_another", "_quiet_until", "datagrams", "last_at", "limited", "log", "name", "slot",
    )  # fmt: skip

    def __init__(self, name: str, slot: int) -> None:
        self.name = name
        self.slot = slot
        self.log = StoreLog()
        self.datagrams = 0
        self.last_at = 0.0
        self.limited = 0
        self._full_at = 0.0  # when its bucket will be full again, as in icp.guard.Sources
        self._quiet_until = 0.0
        self._believes_at = 0.0
        self._is_another = False

    def has_restarted(self, is_another: bool, now: float) -> bool:
        """Whether to act on a restart: on many at once only as on one, for two processes that take turns would never end."""
        self._is_another = self._is_another or is_another
        if not self._is_another or now < self._believes_at:
            return False
        self._is_another, self._believes_at = False, now + RESTART_S
        return True

    def admits(self, lines: int, now: float) -> bool:
        """Whether a datagram of so many lines may be read now; if so, they count as read."""
        full_at = self._full_at if self._full_at > now else now
        if full_at - now >= _DEPTH_S or lines > LINES_A_DATAGRAM:
            self.limited += 1
            if now >= self._quiet_until:
                self._quiet_until = now + COMPLAIN_EVERY_S
                text = "node %s sends more store-log lines than %d a second or %d a datagram: some are not read"
                log.warning(text, self.name, LINES_PER_S, LINES_A_DATAGRAM)
            return False
        self._full_at = full_at + lines * _COST_S
        return True


class StoreLogs:
    """Listens until it is closed.

    feeds: by the node's name, of all nodes that are listened to.

    Args:
        restarted: Called with a node's slot when its process is another one than before, before what that one says is
            applied: its store may be empty.
        bind: Makes the UDP socket of an IP address and port.
    """

    def __init__(self, index: Index, restarted: Callable[[int], None], bind: Bind = bind) -> None:
        self._bind = bind
        self.feeds: dict[str, Feed] = {}
        self._index = index
        self._restarted = restarted
        self._common: list[Service] = []
        self._own: dict[Place, Service] = {}
        self._changing = asyncio.Lock()
        self._owner: dict[Place, str] = {}  # whose it is
        self._views: tuple[NodeView, ...] = ()
        self._arranged: object = None
        self._by_address: dict[str, Feed | None] = {}  # of the common places; None: the address of several nodes
        self._senders: set[str] = set()  # every address of every node
        self._told: dict[str, list[str]] = {}  # addresses of several nodes that were told, and the nodes
        self._past: Counter[str] = Counter()  # what the feeds of nodes that have left had counted
        self._strangers = 0
        self._shared = 0
        self._quiet_until = 0.0

    async def start(self, addresses: Sequence[Place]) -> None:
        """Listen on all `addresses`, too, for every node that has no place of its own.

        Raises:
            OSError: One of them cannot be had; then none is held.
        """
        self._common.append(await Service.start(addresses, self._take, bind=self._bind))

    async def listen(self, own: Mapping[str, Sequence[Place]]) -> None:
        """Listen for each of these nodes on places of its own as well, and on those of no other node any more.

        Raises:
            OSError: One of them cannot be had, the first that failed (``filename`` says which); the others are in force.
        """
        problem: OSError | None = None
        async with self._changing:  # a second change must not look for what the first one is about to have
            self._owner = {place: name for name, places in own.items() for place in places}
            given_up = self._own.keys() - self._owner.keys()
            for place in given_up:
                self._own.pop(place).close()
            if given_up:  # the event loop frees a port at its next turn; the new place may be the same at another address
                await asyncio.sleep(0)
            for place in self._owner.keys() - self._own.keys():
                try:
                    self._own[place] = await Service.start([place], partial(self._take_own, place), bind=self._bind)
                except OSError as exc:
                    problem = problem or OSError(exc.errno, exc.strerror, "{} port {}".format(*place))
            self._arrange()
        if problem is not None:
            raise problem

    @property
    def addresses(self) -> list[Place]:
        """The places that all nodes may send to."""
        return [address for service in self._common for address in service.addresses]

    def place(self, views: Sequence[NodeView]) -> None:
        """These nodes from now on; what is known of a node that stays is kept."""
        self._views = tuple(views)
        self._arrange()

    def _arrange(self) -> None:
        """Say of each address whose it is."""
        own = set(self._owner.values())
        arranged = own, [(view.name, view.slot, view.addresses) for view in self._views]
        if arranged == self._arranged:
            return
        self._arranged = arranged
        names: dict[str, list[str]] = {}
        for view in self._views:
            for address in view.addresses:
                names.setdefault(address, [])
                if view.name not in own:
                    names[address].append(view.name)
        before, self.feeds = self.feeds, {}
        self._senders = set(names)
        self._by_address = {address: None for address, who in names.items() if len(who) > 1}
        for view in self._views:
            single = [address for address in view.addresses if names[address] == [view.name]]
            if single or view.name in own:
                feed = self.feeds[view.name] = before.pop(view.name, Feed(view.name, view.slot))
                feed.slot = view.slot
                self._by_address.update(dict.fromkeys(single, feed))
        for feed in before.values():
            _add(self._past, feed)
        self._tell({address: who for address, who in names.items() if len(who) > 1})

    def counters(self) -> dict[str, int]:
        """Datagrams by whose they were, "restarts", and under "line_" the lines of all nodes by what was made of them.

        datagrams: all; strangers: of no node; shared: of several; limited: not read, for their node sends too many.
        """
        total = self._past.copy()
        heard = self._strangers + self._shared
        total.update(datagrams=heard, strangers=self._strangers, shared=self._shared, limited=0, restarts=0)
        for feed in self.feeds.values():
            _add(total, feed)
        return total

    @property
    def services(self) -> list[Service]:
        """All that listen."""
        return [*self._own.values(), *self._common]

    def close(self) -> None:
        """Stop at once."""
        for service in self.services:
            service.close()

    def _take(self, datagram: bytes, source: str, now: float) -> None:
        """One datagram at a common place, whatever it is."""
        try:
            feed = self._by_address[source]
        except KeyError:
            self._strange(source, now)
            return
        if feed is None:
            self._shared += 1
            return
        self._read(feed, datagram, now)

    def _take_own(self, place: Place, datagram: bytes, source: str, now: float) -> None:
        """One datagram at a node's own place."""
        feed = self.feeds.get(self._owner.get(place, ""))
        if feed is None or not (source in self._senders or source == "::1" or source.startswith("127.")):
            self._strange(source, now)
            return
        self._read(feed, datagram, now)

    def _read(self, feed: Feed, datagram: bytes, now: float) -> None:
        feed.datagrams += 1
        feed.last_at = now
        if not feed.admits(datagram.count(b"\n") or 1, now):
            return
        restarts = feed.log.restarts
        events = feed.log.read(datagram)
        if feed.has_restarted(feed.log.restarts != restarts, now):
            log.info("node %s was restarted, says its store log", feed.name)
            self._restarted(feed.slot)
        if events:
            self._index.apply(feed.slot, events)

    def _strange(self, source: str, now: float) -> None:
        self._strangers += 1
        if now >= self._quiet_until:
            self._quiet_until = now + COMPLAIN_EVERY_S
            log.warning("store-log datagrams from %s, which is no node's address", source)

    def _tell(self, shared: dict[str, list[str]]) -> None:
        for address, who in shared.items():
            if self._told.get(address) != who:
                text = "nodes %s share the address %s: their store logs cannot be told apart; give them their own store_log"
                log.warning(text, ", ".join(who), address)
        self._told = shared


def _add(total: Counter[str], feed: Feed) -> None:
    total["datagrams"] += feed.datagrams
    total["limited"] += feed.limited
    total["restarts"] += feed.log.restarts
    for word, count in feed.log.counts.items():
        total[f"line_{word}"] += count
