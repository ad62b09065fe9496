"""What the farm holds, by URL: the holdings with all that feeds them, and what ICP, HTCP and purges ask.

A node has the number of its slot in the Snapshot.  Who may contradict whom:

- *The store log* (``apply``) is exact for what is on a node's disk, and does not speak of what is in memory alone.  So a
  sighting adds to it, also for a node whose log is live: otherwise a hit in memory, which Squid answers by ICP, would be
  unknown, and so would be what lay on the disk before the log began.  An answer that the node did not store after all
  is found out by its digest.
- *A sighting* (``saw``) that a node does not have a URL removes what was seen or in a digest, at once.  Against the store
  log of a node whose log is live it is only a doubt: it may be a little older than a SWAPOUT that came meanwhile.  The
  second one removes the record, if a RELEASE was lost.
- *A sighting is late*, by the time that a worker gathers.  What was released or purged just now is not put back by one.
- *Times*: the latest word counts, for an object may have been renewed.  Only a SWAPOUT leaves a time that was seen and is
  earlier: both describe one object then (what is replaced is RELEASEd first), and Squid subtracts the Age with which it
  came, which the log does not tell.

Left out: the table (``holdings``), where events come from (``storelogs``, the workers), digests (``nodedigests``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from cachelb.errors import BadRequest
from cachelb.http import url as urls
from cachelb.routing.rules import NO_RULES
from cachelb.snapshot import NodeView
from digest import store_key, store_keys
from icp import BadUrl

from .holdings import Holdings, Source, mask_of
from .storelog import Event, What, apply

if TYPE_CHECKING:
    from cachelb.control import Seen

# A node that is used at all stores something within ten minutes.  A log that is taken for dead though it is only quiet does
# no harm: the node's digest then tests its records like any others.
LOG_LIVE_S: Final = 600.0
# Workers send what they saw five times a second; a busy one is late, but no more than this.
LATE_S: Final = 2.0
# Of releases within that time; a node that evicts 10,000 objects a second is refilling itself.  About 100 bytes each.
_LATE_LIMIT: Final = 20_000


class Index:
    """Who holds what.

    live: the slots of the nodes that can be fetched from (up or drain, with an address), as ``mask_of`` makes it: a node
    that is dead holds nothing until it is back.  names: of all nodes, by slot.  rules: those that give URLs another key.

    Args:
        holdings: the table; nobody else adds to it.
        clock: wall clock, seconds.
    """

    def __init__(self, holdings: Holdings, clock: Callable[[], float]) -> None:
        self.holdings = holdings
        self.live = 0
        self.names: dict[int, str] = {}
        self.clock = clock
        self.misrouted = 0
        self.rules = NO_RULES
        self._has_nodes = False
        self._heard: dict[int, float] = {}
        self._gone = _Gone()

    def holds(self, url: bytes) -> bool:
        """Whether a live node holds `url`, fresh for 30 s more.

        The raw URL is looked for first, as a Squid does; then its canonical form, if it has another.  Where rules make keys,
        only the key is.  2.8 us for what is held, 3.0 us for what is not (2026-11, tools/bench/holdings.py).

        Raises:
            BadUrl: It is not held, and no URL.
        """
        now = self.clock()
        if self.rules.has_keys:
            return self.holdings.holds(store_key(self.canonical(url)), now, self.live)
        if self.holdings.holds(store_key(url), now, self.live):
            return True
        canonical = self.canonical(url)
        return canonical != url and self.holdings.holds(store_key(canonical), now, self.live)

    def holds_all(self, urls: list[bytes]) -> list[bool | None]:
        """What ``holds`` says of each URL, None where it raises BadUrl; 1.3 us each (2026-11)."""
        if self.rules.has_keys:
            return [self._holds_or_none(url) for url in urls]
        now = self.clock()
        found: list[bool | None] = list(self.holdings.holds_all(store_keys(urls), now, self.live))
        for place, url in enumerate(urls):
            if not found[place]:
                try:
                    canonical = self.canonical(url)
                except BadUrl:
                    found[place] = None
                else:
                    if canonical != url:
                        found[place] = self.holdings.holds(store_key(canonical), now, self.live)
        return found

    def _holds_or_none(self, url: bytes) -> bool | None:
        try:
            return self.holds(url)
        except BadUrl:
            return None

    def canonical(self, url: bytes) -> bytes:
        """The form in which nodes store `url`: its key, if a rule gives it another.  Raises BadUrl."""
        try:
            if self.rules.has_keys:
                return self.rules.keyed(urls.parse_absolute(url))[0].key
            return urls.canonical(url)
        except BadRequest as exc:
            raise BadUrl(str(exc)) from exc

    def holders(self, url: bytes) -> list[int]:
        """The slots of all nodes that hold `url`, live or not, fresh or not."""
        return sorted({held.node for key in self._keys(url) for held in self.holdings.holders(key)})

    def forget_url(self, url: bytes) -> int:
        """`url` was purged: nobody holds it.  Returns how many did."""
        now = self.clock()
        count = 0
        for key in self._keys(url):
            self._gone.note(key, now)
            for held in self.holdings.holders(key):
                count += self.holdings.remove(key, held.node)
        return count

    def saw(self, seen: Iterable[Seen]) -> None:
        """Take in what answers told.  expires 0: the node does not have the URL."""
        now = self.clock()
        for slot, expires, url in seen:
            key = store_key(url)
            if expires <= 0:
                if not (self.log_is_live(slot) and self._doubt(key, slot)):
                    self.holdings.remove(key, slot)
            elif not self._gone.has(key, slot, now):
                others = self.live & ~(1 << slot)
                if self.holdings.holds(key, now, others) and all(held.node != slot for held in self.holdings.holders(key)):
                    self.misrouted += 1
                self.holdings.add(key, slot, expires, Source.SEEN)

    def apply(self, slot: int, events: Sequence[Event]) -> None:
        """Take in what the store log of a node told."""
        if not events:
            return
        self._heard[slot] = now = self.clock()
        told = []
        for event in events:
            if event.what is What.STORED:
                self._gone.forget(event.key, slot)
                event = self._aged(slot, event, now)
            elif event.what is What.RELEASED:
                self._gone.note(event.key, now, slot)
            told.append(event)
        apply(told, self.holdings, slot)

    def log_is_live(self, slot: int) -> bool:
        """Whether the store log of the node told something in the last ten minutes."""
        heard = self._heard.get(slot)
        return heard is not None and self.clock() - heard < LOG_LIVE_S

    def place(self, views: Iterable[NodeView]) -> None:
        """Other nodes, or other states of nodes.  Those that left, and whose slot is another's now, are forgotten.

        With the first call, what was loaded stays: its slots were given by name.
        """
        views = tuple(views)
        self.live = mask_of(view.slot for view in views if view.state in ("up", "drain") and view.addresses)
        names = {view.slot: view.name for view in views}
        if names == self.names:
            return
        if self._has_nodes:
            # also a slot that nobody had: a late sighting may have come for whoever had it before
            for slot in names.keys() | self.names.keys():
                if names.get(slot) != self.names.get(slot):
                    self.holdings.forget_node(slot)
                    self._heard.pop(slot, None)
        self.names = names
        self._has_nodes = True

    def _keys(self, url: bytes) -> list[bytes]:
        """The keys under which `url` may be held."""
        try:
            return [store_key(form) for form in dict.fromkeys((url, self.canonical(url)))]
        except BadUrl:
            return [store_key(url)]

    def _doubt(self, key: bytes, slot: int) -> bool:
        """Whether the store log said that the node has the key; from now on it is only a guess."""
        is_told = any(held.node == slot and held.source is Source.STORE_LOG for held in self.holdings.holders(key))
        return is_told and self.holdings.doubt(key, slot)

    def _aged(self, slot: int, event: Event, now: float) -> Event:
        """A SWAPOUT with the time that was seen, where the answer had an Age."""
        for held in self.holdings.holders(event.key):
            if held.node == slot and held.source is Source.SEEN and now < held.expires < event.expires:
                return event._replace(expires=held.expires)
        return event


class _Gone:
    """What was released or purged in the last seconds: between LATE_S and twice that, or less if there is too much of it."""

    def __init__(self) -> None:
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()
        self._until = 0.0

    def note(self, key: bytes, now: float, slot: int | None = None) -> None:
        """slot None: all nodes."""
        self._turn(now)
        self._new.add(key if slot is None else _named(key, slot))

    def forget(self, key: bytes, slot: int) -> None:
        """The node has it again."""
        if self._new or self._old:
            self._new.discard(_named(key, slot))
            self._old.discard(_named(key, slot))

    def has(self, key: bytes, slot: int, now: float) -> bool:
        """Whether `key` went from this node, or from all."""
        if not (self._new or self._old):
            return False
        self._turn(now)
        named = _named(key, slot)
        return key in self._new or key in self._old or named in self._new or named in self._old

    def _turn(self, now: float) -> None:
        if not self._until - LATE_S <= now < self._until or len(self._new) >= _LATE_LIMIT:  # or the clock was put back
            self._old = self._new if now < self._until + LATE_S else set()
            self._new = set()
            self._until = now + LATE_S


def _named(key: bytes, slot: int) -> bytes:
    return key + slot.to_bytes(2, "big")
