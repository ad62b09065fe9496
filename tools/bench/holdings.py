"""What does a key cost?  ``python -m cachelb.tools.bench.holdings [MILLIONS]``: the index of what the nodes hold.

Fills the table with random keys of 16 nodes, and reports resident memory per key, adds and look-ups per second, the
time that ``expire`` needs to go round once, and seconds to save and to load.  Resident memory is read from /proc, so
that the allocator's waste counts.  Seconds are those of this process's CPU, except for saving, which waits for the disk.
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

from cachelb.cluster.holdings import KEY_BYTES, Holdings, Source, mask_of
from cachelb.cluster.saved import FILE_NAME, load, save, save_aside

NODES = 16
_BLOCK = 100_000  # keys at a time, so that the keys themselves do not count as memory
_PROBES = 200_000
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
    again = load(directory, {name: node for node, name in _names().items()}, count)
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
