"""What does a client that stays with its node cost?  ``python -m cachelb.tools.bench.affinity [THOUSANDS]``, 1,000 by default.

For IPv4 and IPv6 clients, each in a process of its own: resident memory of so many templates when they have been made and when
all of them have been used again (which is when dictionaries are largest), what the supervisor needs for a question of a worker,
what pushing out one of too many costs, and seconds to save and to load.  Then what a worker needs for a request whose client it
knows, and for one that it has to look up by its network.  Times are CPU of this process, except for saving.

1 million (2026-11): see docs/affinity.md.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from cachelb import control
from cachelb.affinity.register import Register
from cachelb.affinity.saved import FILE_NAME, load, save
from cachelb.affinity.templates import Templates
from cachelb.config import Config
from cachelb.control import NO_SLOT, Find, Used
from cachelb.relay.templates import Clients
from cachelb.routing.template import Group
from cachelb.snapshot import NodeView

NODES = 16
BATCH = 100  # questions of one message


class Silent:
    """A worker that hears nothing."""

    def send(self, kind: bytes, payload: bytes) -> None:
        """Nothing."""


def resident_mib() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def address(number: int, family: int) -> bytes:
    """Of a client; as if they came from everywhere."""
    mixed = number * 2654435761 % (1 << 32)
    return mixed.to_bytes(4, "big") if family == 4 else b"\x20\x01\x0d\xb8" + mixed.to_bytes(4, "big") + bytes(7) + b"\1"


def register_of() -> Register:
    """An empty one, with nodes."""
    register = Register(Config.model_validate_json('{"affinity": [{"name": "shop"}]}'))
    register.place([NodeView(f"cache{i}", i, ("10.0.0.1",), 3128, 1.0, "up") for i in range(NODES)])
    return register


def _messages(first: int, end: int, family: int, kind: bytes) -> list[bytes]:
    messages = []
    for at in range(first, end, BATCH):
        addresses = [address(number, family) for number in range(at, min(end, at + BATCH))]
        if kind == control.FIND:
            messages.append(control.pack_finds([Find(i, NO_SLOT, "shop", "", "wlc", a) for i, a in enumerate(addresses)]))
        else:
            messages.append(control.pack_used([Used(0, "shop", a) for a in addresses]))
    return messages


def _told(register: Register, kind: bytes, first: int, count: int, family: int) -> float:
    """Microseconds for each of so many questions or reports."""
    spent, worker = 0.0, Silent()
    for at in range(first, first + count, 100_000):
        size = min(100_000, first + count - at)
        messages = _messages(at, at + size, family, kind)
        begin = time.process_time()
        for message in messages:
            register.heard(worker, kind, message)  # type: ignore[arg-type]
        spent += time.process_time() - begin
    return spent / count * 1e6


def measure(count: int, family: int) -> dict[str, float]:
    """All figures of the supervisor."""
    gc.disable()
    register = register_of()
    templates = register.templates
    templates.limit = count
    start = resident_mib()
    found: dict[str, float] = {"first question, us": _told(register, control.FIND, 0, count, family)}
    found["made, MiB"] = resident_mib() - start
    found["question again, us"] = _told(register, control.FIND, 0, count, family)
    shelf = templates.shelves["shop"]
    begin = time.process_time()
    for number in range(count):
        shelf.use(shelf.group.key(address(number * 7919 % count, family)), register.clock())
    found["use, us"] = (time.process_time() - begin) / count * 1e6
    found["used again, MiB"] = resident_mib() - start
    found["one of too many, us"] = _told(register, control.FIND, count, max(BATCH, count // 10), family)
    found["evicted"] = float(templates.evicted)
    with tempfile.TemporaryDirectory() as directory:
        names = {i: f"cache{i}" for i in range(NODES)}
        now, wall = register.clock(), time.time()
        begin = time.monotonic()
        save(Path(directory), templates, names, now, wall)
        found["save, s"] = time.monotonic() - begin
        found["file, MB"] = (Path(directory) / FILE_NAME).stat().st_size / 1e6
        after = Templates()
        after.configure([Group("shop")])
        begin = time.process_time()
        load(Path(directory), after, {name: slot for slot, name in names.items()}, now, wall)
        found["load, s"] = time.process_time() - begin
    begin = time.process_time()
    for shard in range(61):
        templates.expire(shard, register.clock() + 100_000)
    found["expire all, s"] = time.process_time() - begin
    return found


def measure_worker(count: int = 50_000) -> dict[str, float]:
    """What a worker does for one request, beside relaying it."""
    clients = Clients(Group("shop"))
    ips = [".".join(map(str, address(number, 4))) for number in range(count)]
    begin = time.process_time()
    for ip in ips:
        clients.entry(ip)
    unknown = time.process_time() - begin
    begin = time.process_time()
    for ip in ips:
        clients.by_address.get(ip)
    return {"new address, us": unknown / count * 1e6, "known address, us": (time.process_time() - begin) / count * 1e6}


def _in_process(count: int, family: int, pipe: Any) -> None:
    pipe.send(measure(count, family))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("thousands", nargs="?", type=int, default=1000)
    count = parser.parse_args().thousands * 1000
    columns = {}
    for family in (4, 6):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_in_process, args=(count, family, theirs))
        process.start()
        columns[f"IPv{family}"] = ours.recv()
        process.join()
    print(f"| {count:,} templates | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    for name in columns["IPv4"]:
        print(f"| {name} | " + " | ".join(f"{column[name]:,.3g}" for column in columns.values()) + " |")
    for name, value in measure_worker().items():
        print(f"worker: {name}: {value:.2f}")


if __name__ == "__main__":
    main()
