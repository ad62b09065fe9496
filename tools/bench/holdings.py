"""What does a key cost?  ``python -m cachelb.tools.bench.holdings [MILLIONS]``: the index of what the nodes hold.

Fills the table with random keys of 16 nodes, and reports resident memory per key, adds and look-ups per second, the
time that ``expire`` needs to go round once, that of a round of trials by digests of all nodes, and seconds to save and to
load.  Resident memory is read from /proc, so that the allocator's waste counts.  Seconds are those of this process's CPU,
except for saving, which waits for the disk.

5 million keys (2026-11; other work ran beside it, so perhaps a third too much): 36 bytes a key; an ICP query's look-up takes
2.8 us for what is held and 3.0 for what is not, 2.1 and 2.2 for queries that came together, 11 for URLs in another form; a
sighting 4.2 us; a round of trials 1.0 s with one node's digest, 13 s with those of all, in slices of 1.1 ms at most.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cachelb.cluster.holdings import BUCKETS, KEY_BYTES, Holdings, Source, mask_of
from cachelb.cluster.index import Index
from cachelb.cluster.saved import FILE_NAME, load, save, save_aside
from cachelb.cluster.trial import Terms, Trial
from cachelb.control import Seen
from cachelb.snapshot import NodeView
from digest import Mask

NODES = 16
_BLOCK = 100_000  # keys at a time, so that the keys themselves do not count as memory
_PROBES = 200_000
_BATCH = 32  # queries that came together
_NOW = 1_800_000_000


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _blocks(count: int) -> Iterator[list[bytes]]:
    while count > 0:
        size = min(count, _BLOCK)
        data = os.urandom(size * KEY_BYTES)
        yield [data[at : at + KEY_BYTES] for at in range(0, len(data), KEY_BYTES)]
        count -= size


def _fill(holdings: Holdings, count: int) -> tuple[float, list[bytes]]:
    """Seconds that adding `count` keys takes, and some of the keys."""
    spent = 0.0
    kept: list[bytes] = []
    for keys in _blocks(count):
        start = time.process_time()
        for number, key in enumerate(keys):
            holdings.add(key, number % NODES, _NOW + 3600 + number, Source.STORE_LOG)
        spent += time.process_time() - start
        kept += keys[:: max(1, count // _PROBES)]
    return spent, kept


def _lookups_per_s(holdings: Holdings, keys: list[bytes]) -> float:
    live = mask_of(range(NODES))
    holds = holdings.holds
    start = time.process_time()
    for key in keys:
        holds(key, _NOW, live)
    return len(keys) / (time.process_time() - start)


def _index_figures(holdings: Holdings) -> dict[str, float]:
    """Microseconds of an ICP query's look-up: URLs that are held, that are not, and that are held in another form."""
    index = Index(holdings, lambda: float(_NOW))
    index.place([NodeView(f"cache{node}", node, ("127.0.0.1",), 3128, 1.0, "up") for node in range(NODES)])
    count = min(_PROBES, holdings.keys_limit)
    holdings.keys_limit += count  # so that they do not make room for each other
    held = [b"http://www.example.com/pictures/%d.jpg" % number for number in range(count)]
    figures = {}
    begin = time.process_time()
    index.saw(Seen(number % NODES, _NOW + (1 << 30), url) for number, url in enumerate(held))
    figures["index_saw_us"] = _us_each(begin, count)
    others = [b"http://www.example.com/unknown/%d.jpg" % number for number in range(count)]
    forms = [b"http://www.example.com:80" + url[22:] for url in held]
    for name, urls in (("held", held), ("unknown", others), ("other_form", forms)):
        gc.collect()
        begin = time.process_time()
        found = sum(map(index.holds, urls))
        figures[f"index_holds_us_{name}"] = _us_each(begin, count)
        begin = time.process_time()
        for at in range(0, count, _BATCH):
            index.holds_all(urls[at : at + _BATCH])
        figures[f"index_holds_all_us_{name}"] = _us_each(begin, count)
        if found != (0 if name == "unknown" else count):
            raise RuntimeError(f"{found} of {count} {name} URLs are held")
    return figures


def _us_each(begin: float, count: int) -> float:
    return round((time.process_time() - begin) / count * 1e6, 2)


def _trial_figures(holdings: Holdings) -> dict[str, float]:
    """Seconds of a round with one node's digest and with those of all nodes, and the longest slice in milliseconds."""
    figures = {}
    longest = 0.0
    mask = Mask(max(1, holdings.count() // NODES * 5 // 8))
    mask.add_many(os.urandom(holdings.count() // NODES * KEY_BYTES))
    gc.collect()
    gc.freeze()  # the keys of the measuring are not looked through by collections
    for name, nodes in (("one", [3]), ("all", range(NODES))):
        trials = {node: Trial(mask, 0.0, Terms(_NOW)) for node in nodes}
        begin, at = time.process_time(), 0
        while at < BUCKETS:
            start = time.thread_time()
            at = holdings.visit(at, {node: trial.judge for node, trial in trials.items()})
            longest = max(longest, time.thread_time() - start)
        figures[f"trial_round_{name}_s"] = _timed(begin)
    gc.unfreeze()
    figures["trial_longest_slice_ms"] = round(longest * 1000, 2)
    return figures


async def _longest_pause(directory: Path, holdings: Holdings) -> tuple[float, float]:
    """Seconds of ``save_aside``, and for how long at most it keeps the event loop from its other work."""
    gc.collect()  # of what the measuring left
    task = asyncio.ensure_future(save_aside(directory, holdings, _names(), _NOW))
    longest = 0.0
    start = time.perf_counter()
    last = time.thread_time()
    while not task.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    await task
    return time.perf_counter() - start, longest


def _names() -> dict[int, str]:
    return {node: f"cache{node}" for node in range(NODES)}


def _timed(begin: float) -> float:
    return round(time.process_time() - begin, 2)


def measure(count: int, directory: Path) -> dict[str, float]:
    """All figures for `count` keys; the state file is written to `directory`."""
    before = resident_bytes()
    holdings = Holdings(count)
    spent, kept = _fill(holdings, count)
    figures: dict[str, float] = {"keys": holdings.count()}
    figures["bytes_per_key"] = round((resident_bytes() - before - len(kept) * 57) / count, 1)
    figures["adds_per_s"] = round(count / spent)
    figures["lookups_per_s_held"] = round(_lookups_per_s(holdings, kept))
    figures["lookups_per_s_unknown"] = round(_lookups_per_s(holdings, [key for block in _blocks(_PROBES) for key in block]))
    begin = time.process_time()
    figures["adds_per_s_when_full"] = round(_PROBES / _fill(holdings, _PROBES)[0])
    figures |= _index_figures(holdings)
    figures |= _trial_figures(holdings)
    begin = time.process_time()
    holdings.expire(_NOW, 1 << 40)
    figures["expire_round_s"] = _timed(begin)
    begin = time.process_time()
    holdings.expire(_NOW)
    figures["expire_call_ms"] = round((time.process_time() - begin) * 1000, 2)
    begin = time.process_time()
    pieces = list(map(len, holdings.keys(None, _NOW)))
    figures["keys_s"], figures["keys_mb"] = _timed(begin), sum(pieces) // 1_000_000
    begin = time.perf_counter()
    save(directory, holdings, _names(), _NOW)
    figures["save_s"] = round(time.perf_counter() - begin, 2)
    seconds, longest = asyncio.run(_longest_pause(directory, holdings))
    figures["save_aside_s"], figures["save_aside_longest_pause_ms"] = round(seconds, 2), round(longest * 1000, 2)
    figures["file_mb"] = (directory / FILE_NAME).stat().st_size // 1_000_000
    begin = time.process_time()
    again = load(directory, {name: node for node, name in _names().items()}, holdings.keys_limit)
    figures["load_s"] = _timed(begin)
    if again is None or again.count() != holdings.count():
        raise RuntimeError("what was loaded is not what was saved")
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cachelb.tools.bench.holdings", description=__doc__)
    parser.add_argument("millions", type=float, nargs="?", default=5.0, help="of keys (default 5)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cachelb-bench-") as directory:
        print(json.dumps(measure(int(arguments.millions * 1_000_000), Path(directory)), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
