"""What is asked for most: a bounded table of heavy hitters, fed with samples from the workers.

A table is Space-Saving (Metwally et al., 2005), pruned in batches instead of evicted one by one, so that a sample costs two
dictionary look-ups and no search for the smallest.  The invariant is the same: whatever is not in the table was counted at most
``floor`` times, and who enters may have been counted so often before; that is its ``error``.

There are three tables, for URLs, for hosts and for what goes around the farm by host and first path segment, for each
``WINDOW_S`` seconds, and as many as ``KEPT`` of them; a question adds up the newest.  What a table keeps is
the best by requests and the best by bytes.

Times are given.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cachelb.control import BYPASSED, HIT, MARKED, NO_SLOT, Sample

WINDOW_S = 30.0
KEPT = 20  # windows: ten minutes
BEST = 256  # by requests, and as many by bytes: twenty windows of the longest URLs allowed are 25 MB
FULL = 4 * BEST  # entries at which a table is pruned
NODES_MAX = 16  # counted by name for one entry: a URL has one owner and its successors, a host all nodes


@dataclass(slots=True)
class Entry:
    """One URL or host in one table, or in the sum of some."""

    requests: int = 0
    bytes: int = 0
    hits: int = 0
    marked: int = 0  # answers that said whether they were hits, of which `hits` were
    bypassed: int = 0
    error: int = 0
    byte_error: int = 0
    slots: dict[int, int] = field(default_factory=dict)


class Table:
    """The heaviest of one window."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.floor = self.byte_floor = 0

    def add(self, name: bytes, sample: Sample) -> None:
        """Count one sample."""
        entry = self.entries.get(name)
        if entry is None:
            if len(self.entries) >= FULL:
                self.prune()
            entry = self.entries[name] = Entry(error=self.floor, byte_error=self.byte_floor)
        weight = sample.weight
        entry.requests += weight
        entry.bytes += weight * sample.size
        if sample.flags & BYPASSED:
            entry.bypassed += weight
        if sample.flags & MARKED:
            entry.marked += weight
            entry.hits += weight if sample.flags & HIT else 0
        if sample.slot != NO_SLOT and (sample.slot in entry.slots or len(entry.slots) < NODES_MAX):
            entry.slots[sample.slot] = entry.slots.get(sample.slot, 0) + weight

    def prune(self) -> None:
        """Keep the best."""
        items = self.entries.items()
        kept = dict(heapq.nlargest(BEST, items, key=lambda item: item[1].requests + item[1].error))
        kept |= dict(heapq.nlargest(BEST, items, key=lambda item: item[1].bytes + item[1].byte_error))
        for name, entry in items:
            if name not in kept:
                self.floor = max(self.floor, entry.requests + entry.error)
                self.byte_floor = max(self.byte_floor, entry.bytes + entry.byte_error)
        self.entries = kept


class Window:
    """What was seen in one window."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.urls, self.hosts, self.around = Table(), Table(), Table()
        self.samples = self.requests = self.bytes = 0

    def add(self, sample: Sample) -> None:
        """Count one sample."""
        self.samples += 1
        self.requests += sample.weight
        self.bytes += sample.weight * sample.size
        self.urls.add(sample.url, sample)
        self.hosts.add(host_of(sample.url), sample)
        if sample.flags & BYPASSED:
            self.around.add(segment_of(sample.url), sample)


class Hot:
    """The last minutes."""

    def __init__(self) -> None:
        self._windows: deque[Window] = deque(maxlen=KEPT)

    def add(self, samples: Iterable[Sample], now: float) -> None:
        """Count what a worker has sampled."""
        if not self._windows or now - self._windows[-1].begun >= WINDOW_S:
            if self._windows:
                self._windows[-1].urls.prune()
                self._windows[-1].hosts.prune()
                self._windows[-1].around.prune()
            self._windows.append(Window(now))
        window = self._windows[-1]
        for sample in samples:
            window.add(sample)

    def as_dict(
        self, minutes: float, limit: int, now: float, names: Mapping[int, str], owner: Callable[[bytes], str]
    ) -> dict[str, Any]:
        """``model.Hot``.

        Args:
            names: of nodes, by slot; owner: of a URL.
        """
        windows = [window for window in self._windows if now - window.begun < 60 * minutes]
        requests, size = (sum(getattr(window, key) for window in windows) for key in ("requests", "bytes"))
        urls, hosts, around = (_sum(getattr(window, key) for window in windows) for key in ("urls", "hosts", "around"))

        def show(item: tuple[bytes, Entry], is_url: bool) -> dict[str, Any]:
            name, entry = item
            return {
                "name": name.decode("utf-8", "backslashreplace"),
                "owner": owner(name) if is_url else "",
                "requests": entry.requests,
                "requests_share": round(entry.requests / requests, 4),
                "bytes": entry.bytes,
                "bytes_share": round(entry.bytes / size, 4) if size else 0.0,
                "hit_ratio": round(entry.hits / entry.marked, 4) if entry.marked else None,
                "bypassed_share": round(entry.bypassed / entry.requests, 4),
                "nodes": {
                    names[slot]: round(count / entry.requests, 4) for slot, count in entry.slots.items() if slot in names
                },
                "error": entry.error,
            }

        def best(table: dict[bytes, Entry], key: str) -> list[dict[str, Any]]:
            found = heapq.nlargest(limit, table.items(), key=lambda item: (getattr(item[1], key), item[0]))
            return [show(item, table is urls) for item in found]

        return {
            "window_s": round(now - windows[0].begun, 1) if windows else 0.0,
            "samples": sum(window.samples for window in windows),
            "requests": requests,
            "bytes": size,
            "urls_by_requests": best(urls, "requests"),
            "urls_by_bytes": best(urls, "bytes"),
            "hosts_by_requests": best(hosts, "requests"),
            "hosts_by_bytes": best(hosts, "bytes"),
            "around_by_requests": best(around, "requests"),
        }


def _sum(tables: Iterable[Table]) -> dict[bytes, Entry]:
    total: dict[bytes, Entry] = {}
    for table in tables:
        for name, entry in table.entries.items():
            known = total.setdefault(name, Entry())
            for key in ("requests", "bytes", "hits", "marked", "bypassed", "error", "byte_error"):
                setattr(known, key, getattr(known, key) + getattr(entry, key))
            for slot, count in entry.slots.items():
                known.slots[slot] = known.slots.get(slot, 0) + count
    return total


def segment_of(url: bytes) -> bytes:
    """Host and first path segment: a flood rarely asks for one URL twice, but for what is alike."""
    host = host_of(url)
    path = url.partition(b"://")[2][len(host) :].partition(b"?")[0]
    return host + path[: path.find(b"/", 1) + 1 or 1]


def host_of(url: bytes) -> bytes:
    """The host and port of a canonical URL, or of what CONNECT asks for."""
    _, has_scheme, rest = url.partition(b"://")
    return (rest if has_scheme else url).partition(b"/")[0].partition(b"?")[0]
