"""The pages of Squid's cache manager, for the whole farm as if it were one Squid: what exporters and templates read.

The lines have the shapes of Squid 5.7.  Numbers are the director's: sums over workers and nodes, and one server for each node in
``server_list``.  Left out: who may ask (``relay/manager.py``), pages about the inside of one Squid.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

from cachelb import __version__
from cachelb.admin import ledger
from cachelb.admin.ledger import Ledger, Minute, Usage, median_s
from cachelb.counters import FARM_INDEX, NODE_INDEX, NODE_WIDTH, farm_values, node_values

if TYPE_CHECKING:
    from cachelb.supervisor import Supervisor

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_TIMES = ("HTTP Requests (All)", "Cache Misses", "Cache Hits", "Near Hits", "Not-Modified Replies", "DNS Lookups", "ICP Queries")
_UNITS = {"cpu_time": " seconds", "wall_time": " seconds"}
_SYSCALLS = {
    "disk": ("opens", "closes", "reads", "writes", "seeks", "unlinks"),
    "sock": ("accepts", "sockets", "connects", "binds", "closes", "reads", "writes", "recvfroms", "sendtos"),
}


class Manager:
    """The pages of one director."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.ledger = Ledger()
        self.pages: dict[str, tuple[str, Callable[[], str]]] = {
            "index": ("Cache Manager Interface", self.menu),
            "menu": ("Cache Manager Menu", self.menu),
            "info": ("General Runtime Information", self.info),
            "service_times": ("Service Times (Percentiles)", self.service_times),
            "counters": ("Traffic and Resource Counters", self.counters),
            "5min": ("5 Minute Average of Counters", lambda: self.average(5)),
            "60min": ("60 Minute Average of Counters", lambda: self.average(60)),
            "store_digest": ("Store Digest", self.store_digest),
            "server_list": ("Peer Cache Statistics", self.server_list),
        }

    def page(self, name: str) -> str:
        """The text of a page; "" where there is none of this name."""
        found = self.pages.get(name or "index")
        return found[1]() if found is not None else ""

    def take(self) -> None:
        """Once a second."""
        if self.ledger.is_due(time.time()):
            self.ledger.note(self._now())

    def _blocks(self) -> list[memoryview]:
        return self.supervisor.workers.blocks if self.supervisor.workers is not None else []

    def _now(self) -> Minute:
        supervisor, blocks = self.supervisor, self._blocks()
        nodes = {name: node_values(blocks, slot) for name, slot in supervisor.farm.slots.items()}
        total = ledger.added(nodes, NODE_WIDTH)
        workers = supervisor.workers.workers if supervisor.workers is not None else []
        usage = used([worker.pid for worker in workers if worker.pid])
        now = time.time()
        uptime = now - supervisor.started_at
        counts = ledger.squid_counts(farm_values(blocks), total, supervisor.onecache.counters(), usage, uptime)
        return Minute(now, counts, total)

    # -- the pages

    def menu(self) -> str:
        """What pages there are."""
        return "".join(f" {name:<22}\t{title:<32}\tpublic\n" for name, (title, _) in self.pages.items())

    def counters(self) -> str:
        """All counters since the start."""
        now = self._now()
        lines = [f"sample_time = {_moment(now.at)}"]
        return "\n".join([*lines, *(f"{name} = {_plain(name, value)}" for name, value in now.counts.items())]) + "\n"

    def average(self, minutes: int) -> str:
        """Counters per second over the last minutes."""
        now = self._now()
        old = self.ledger.before(now, minutes)
        took = now.at - old.at
        rates = {name: (value - old.counts[name]) / took if took > 0 else 0.0 for name, value in now.counts.items()}
        names = list(rates)
        queued, late = names.index("icp.replies_queued"), names.index("icp.query_timeouts")
        names[queued], names[late] = names[late], names[queued]  # in another order than on the page of counters
        lines = [f"sample_start_time = {_moment(old.at)}", f"sample_end_time = {_moment(now.at)}"]
        for name in names:
            rate = rates[name]
            if name.startswith(("cd.", "client_http.hit_k")) or name == "icp.times_used" or name in _UNITS:
                continue
            lines.append(f"{name} = {rate:f}/sec")
            if name == "client_http.kbytes_out":
                lines.append(f"client_http.all_median_svc_time = {median_s(old, now):f} seconds")
                lines += [f"client_http.{kind}_median_svc_time = 0.000000 seconds" for kind in ("miss", "nm", "nh", "hit")]
            elif name == "icp.r_kbytes_recv":
                lines += [f"icp.{kind}_median_svc_time = 0.000000 seconds" for kind in ("query", "reply")]
                lines.append("dns.median_svc_time = 0.000000 seconds")
            elif name == "select_loops":
                lines += ["select_fds = 0.000000/sec", "average_select_fd_period = 0.000000/fd", "median_select_fds = 0.000000"]
        lines += [f"syscalls.{kind}.{name} = 0.000000/sec" for kind, names in _SYSCALLS.items() for name in names]
        cpu = now.counts["cpu_time"] - old.counts["cpu_time"]
        lines.append(f"cpu_time = {cpu:f} seconds")
        lines.append(f"wall_time = {took:f} seconds")
        lines.append(f"cpu_usage = {100 * cpu / took if took > 0 else 0.0:f}%")
        return "\n".join(lines) + "\n"

    def service_times(self) -> str:
        """Percentiles of the times that requests took."""
        now = self._now()
        old, older = self.ledger.before(now, 5), self.ledger.before(now, 60)
        lines = ["Service Time Percentiles            5 min    60 min:"]
        for number, what in enumerate(_TIMES):
            for percent in range(5, 100, 5):
                times = [0.0 if number else median_s(since, now, percent / 100) for since in (old, older)]
                lines.append(f"\t{what + ':':<21} {percent:3d}%  {times[0]:8.5f} {times[1]:8.5f}")
        return "\n".join(lines) + "\n"

    def info(self) -> str:
        """What the director is and how it does."""
        now = self._now()
        old, older = self.ledger.before(now, 5), self.ledger.before(now, 60)
        return self._connections(now) + self._caches(now, old, older) + self._resources(now, old, older)

    def _connections(self, now: Minute) -> str:
        supervisor, counts = self.supervisor, now.counts
        peers = supervisor.onecache.counters()
        uptime = max(now.at - supervisor.started_at, 1e-3)
        clients = farm_values(self._blocks())[FARM_INDEX["clients_open"]]
        failed = counts["client_http.errors"] / max(1.0, counts["client_http.requests"])
        icp = counts["icp.pkts_recv"] + counts["icp.pkts_sent"]
        return f"""Squid Object Cache: Version 5.7-cachelb-{__version__}
Build Info: cachelb {__version__}, {len(supervisor.farm.nodes)} nodes as one cache
Service Name: squid
Start Time:\t{_date(supervisor.started_at)}
Current Time:\t{_date(now.at)}
Connection information for squid:
\tNumber of clients accessing cache:\t{clients}
\tNumber of HTTP requests received:\t{counts["client_http.requests"]:.0f}
\tNumber of ICP messages received:\t{counts["icp.pkts_recv"]:.0f}
\tNumber of ICP messages sent:\t{counts["icp.pkts_sent"]:.0f}
\tNumber of queued ICP replies:\t0
\tNumber of HTCP messages received:\t{peers["htcp_received"]}
\tNumber of HTCP messages sent:\t{peers["htcp_sent"]}
\tRequest failure ratio:\t{failed:5.2f}
\tAverage HTTP requests per minute since start:\t{60 * counts["client_http.requests"] / uptime:.1f}
\tAverage ICP messages per minute since start:\t{60 * icp / uptime:.1f}
\tSelect loop called: 0 times, 0.000 ms avg
"""

    def _caches(self, now: Minute, old: Minute, older: Minute) -> str:
        times = [median_s(since, now) for since in (old, older)]
        hits = [_percent(since, now) for since in (old, older)]
        zeros = "5min: 0.0%, 60min: 0.0%"
        rest = "".join(f"\t{what + ':':<21}  0.00000  0.00000\n" for what in _TIMES[1:])
        return f"""Cache information for squid:
\tHits as % of all requests:\t5min: {hits[0]:.1f}%, 60min: {hits[1]:.1f}%
\tHits as % of bytes sent:\t{zeros}
\tMemory hits as % of hit requests:\t{zeros}
\tDisk hits as % of hit requests:\t{zeros}
\tStorage Swap size:\t0 KB
\tStorage Swap capacity:\t 0.0% used,  0.0% free
\tStorage Mem size:\t0 KB
\tStorage Mem capacity:\t 0.0% used,  0.0% free
\tMean Object Size:\t0.00 KB
\tRequests given to unlinkd:\t0
Median Service Times (seconds)  5 min    60 min:
\tHTTP Requests (All):  {times[0]:8.5f} {times[1]:8.5f}
{rest}"""

    def _resources(self, now: Minute, old: Minute, older: Minute) -> str:
        counts, keys = now.counts, self.supervisor.onecache.index.holdings.count()
        uptime, cpu = max(now.at - self.supervisor.started_at, 1e-3), counts["cpu_time"]
        usage = [100 * (cpu - since.counts["cpu_time"]) / max(now.at - since.at, 1e-3) for since in (old, older)]
        files, most = _descriptors()
        return f"""Resource usage for squid:
\tUP Time:\t{uptime:.3f} seconds
\tCPU Time:\t{cpu:.3f} seconds
\tCPU Usage:\t{100 * cpu / uptime:.2f}%
\tCPU Usage, 5 minute avg:\t{usage[0]:.2f}%
\tCPU Usage, 60 minute avg:\t{usage[1]:.2f}%
\tMaximum Resident Size: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} KB
\tPage faults with physical i/o: {counts["page_faults"]:.0f}
Memory accounted for:
\tTotal accounted:       {0:6d} KB
\tmemPoolAlloc calls: {0:9d}
\tmemPoolFree calls:  {0:9d}
File descriptor usage for squid:
\tMaximum number of file descriptors:   {most:5d}
\tLargest file desc currently in use:   {files:5d}
\tNumber of file desc currently in use: {files:5d}
\tFiles queued for open:                {0:5d}
\tAvailable number of file descriptors: {max(0, most - files):5d}
\tReserved number of file descriptors:  {100:5d}
\tStore Disk files open:                {0:5d}
Internal Data Structures:
\t{keys:6d} StoreEntries
\t{0:6d} StoreEntries with MemObjects
\t{0:6d} Hot Object Cache Items
\t{keys:6d} on-disk objects
"""

    def server_list(self) -> str:
        """The nodes, as a Squid lists its parents."""
        supervisor, blocks = self.supervisor, self._blocks()
        text = []
        for view in supervisor.farm.views(supervisor.health.states()):
            values = node_values(blocks, view.slot)
            requests, opened = values[NODE_INDEX["requests"]], values[NODE_INDEX["connects"]]
            rtt = supervisor.desk.history.rates(view.name)["first_byte_p50_ms"] or 0.0
            status = {"up": "Up", "drain": "Up"}.get(view.state, "Down")
            addresses = "".join(f"Address[{at}] : {address}\n" for at, address in enumerate(view.addresses))
            text.append(f"""
Parent     : {view.name}
Host       : {supervisor.farm.nodes[view.name].host}/{view.port}/{view.icp_port}
Flags      : {"no-query " * (not view.icp_port)}carp weight={view.weight:g}
{addresses}Status     : {status}
FETCHES    : {requests}
OPEN CONNS : {values[NODE_INDEX["idle"]] + max(0, requests - values[NODE_INDEX["ended"]])}
AVG RTT    : {rtt:.0f} msec
IGNORED    : {0:8d} {0:3d}%
keep-alive ratio: {100 * max(0, requests - opened) // requests if requests else 0}%
""")
        return "".join(text) or "There are no neighbors installed.\n"

    def store_digest(self) -> str:
        """The farm's digest."""
        known = self.supervisor.onecache.merged.status()
        count, capacity = (int(known.get(name) or 0) for name in ("keys", "capacity"))
        size, per_entry = int(known.get("size_bytes") or 0), int(known.get("bits_per_entry") or 0)
        bits_on = round(8 * size * float(known.get("fill") or 0.0))
        return f"""store digest: size: {size} bytes
\t entries: count: {count} capacity: {capacity} util: {_part(count, capacity)}%
\t deletion attempts: 0
\t bits: per entry: {per_entry} on: {bits_on} capacity: {8 * size} util: {_part(bits_on, 8 * size)}%
\t bit-seq: count: 0 avg.len: 0.00
\t added: {count} rejected: 0 ( 0.00 %) del-ed: 0
\t collisions: on add: -1.00 % on rej: -1.00 %
"""


def used(pids: list[int]) -> Usage:
    """What this process and these have used."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    cpu, faults = own.ru_utime + own.ru_stime, own.ru_majflt
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        faults += int(fields[9])
        cpu += (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return Usage(cpu, faults)


def _descriptors() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _plain(name: str, value: float) -> str:
    return f"{value:f}" if name in _UNITS else f"{value:.0f}"


def _percent(old: Minute, now: Minute) -> float:
    requests, hits = (now.counts[name] - old.counts[name] for name in ("client_http.requests", "client_http.hits"))
    return 100 * hits / requests if requests else 0.0


def _part(some: int, whole: int) -> int:
    return round(100 * some / whole) if whole else 0


def _moment(at: float) -> str:
    return f"{at:.6f} ({_date(at)})"


def _date(at: float) -> str:
    return formatdate(at, usegmt=True)
