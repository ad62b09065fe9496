"""Squid's counters for the whole farm, and what they were in each minute of the last hour: the data of the manager's pages.

Pure.  What the director does not count is 0, as in a Squid without that feature: memory hits, hit bytes, disk and FTP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cachelb.admin.history import quantile_ms
from cachelb.counters import FARM_INDEX, NODE_INDEX, TOTAL_TIME
from cachelb.errors import Reason

MINUTE_S = 60.0
HOUR_MINUTES = 60

_ERRORS = [FARM_INDEX[f"ended_{reason.label}"] for reason in Reason if reason.value.is_error]
_NODE_ERRORS = ("connect_failures", "resets", "timeouts", "bad_responses")
_ICP_ANSWERS = ("icp_hit", "icp_miss", "icp_miss_nofetch", "icp_err", "icp_denied")


class Usage(NamedTuple):
    """What the director's processes have used: seconds of CPU, major page faults."""

    cpu_s: float = 0.0
    page_faults: int = 0


class Minute(NamedTuple):
    """at: wall clock; counts: Squid's counters by their names there; nodes: counters and histograms of all nodes, added up."""

    at: float
    counts: dict[str, float]
    nodes: Sequence[int]


class Ledger:
    """One Minute for each of the last sixty, and for when it began."""

    def __init__(self) -> None:
        self._minutes: deque[Minute] = deque(maxlen=HOUR_MINUTES + 1)

    def is_due(self, at: float) -> bool:
        """Whether ``note`` wants the Minute of this moment: the last is so old, or is of a clock that was put back."""
        return not self._minutes or not 0.0 <= at - self._minutes[-1].at < MINUTE_S

    def note(self, minute: Minute) -> None:
        """At least once a minute; what comes sooner is passed over."""
        if self.is_due(minute.at):
            if self._minutes and minute.at < self._minutes[-1].at:
                self._minutes.clear()
            self._minutes.append(minute)

    def before(self, now: Minute, minutes: int) -> Minute:
        """The oldest that is not older than so many minutes; ``now`` if there is none."""
        oldest = now.at - minutes * MINUTE_S - 1.0
        return next((minute for minute in self._minutes if minute.at >= oldest), now)


def added(nodes: Mapping[str, Sequence[int]], width: int) -> list[int]:
    """The nodes' values, added up."""
    return [sum(column) for column in zip(*nodes.values(), strict=True)] if nodes else [0] * width


def grown(old: Minute, new: Minute) -> list[int]:
    """What the nodes have counted between."""
    return [max(0, a - b) for a, b in zip(new.nodes, old.nodes, strict=True)]


def median_s(old: Minute, new: Minute, part: float = 0.5) -> float:
    """The service time of requests to nodes between; 0 without any, as Squid has it."""
    return (quantile_ms(grown(old, new), TOTAL_TIME, part) or 0.0) / 1000


def squid_counts(
    farm: Sequence[int], nodes: Sequence[int], peers: Mapping[str, int], usage: Usage, uptime_s: float
) -> dict[str, float]:
    """Squid's counters, in Squid's order, except for sample_time.

    Args:
        farm: as ``counters.farm_values``; nodes: as ``added``; peers: ``counters.PEERS`` by name.
    """

    def of(name: str) -> int:
        return farm[FARM_INDEX[name]]

    def node(name: str) -> int:
        return nodes[NODE_INDEX[name]]

    errors = sum(node(name) for name in _NODE_ERRORS)
    requests = node("requests") + of("direct_connects") + of("direct_reuses")
    server = {"requests": requests, "errors": errors, "kbytes_in": of("bytes_out") >> 10, "kbytes_out": of("bytes_in") >> 10}
    answers = sum(peers.get(name, 0) for name in _ICP_ANSWERS)
    found: dict[str, float] = {
        "client_http.requests": of("requests"),
        "client_http.hits": of("hits"),
        "client_http.errors": sum(farm[at] for at in _ERRORS),
        "client_http.kbytes_in": of("bytes_in") >> 10,
        "client_http.kbytes_out": of("bytes_out") >> 10,
        "client_http.hit_kbytes_out": 0,
    }
    for kind in ("all", "http"):
        found |= {f"server.{kind}.{name}": value for name, value in server.items()}
    for kind in ("ftp", "other"):
        found |= {f"server.{kind}.{name}": 0 for name in server}
    found |= {
        "icp.pkts_sent": peers.get("icp_sent", 0) + peers.get("forward_asked", 0),
        "icp.pkts_recv": peers.get("icp_received", 0),
        "icp.queries_sent": peers.get("forward_asked", 0),
        "icp.replies_sent": answers,
        "icp.queries_recv": answers + peers.get("icp_refused", 0) + peers.get("icp_limited", 0),
        "icp.replies_recv": sum(peers.get(f"forward_{word}", 0) for word in ("hit", "miss", "refused")),
        "icp.query_timeouts": peers.get("forward_late", 0),
        "icp.replies_queued": 0,
    }
    kilobytes = ("kbytes_sent", "kbytes_recv", "q_kbytes_sent", "r_kbytes_sent", "q_kbytes_recv", "r_kbytes_recv", "times_used")
    found |= {f"icp.{name}": 0 for name in kilobytes}
    found |= {"cd.times_used": 0, "cd.msgs_sent": of("digests_served")}
    found |= {f"cd.{name}": 0 for name in ("msgs_recv", "memory", "local_memory", "kbytes_sent", "kbytes_recv")}
    found |= {"unlink.requests": 0, "page_faults": usage.page_faults, "select_loops": 0}
    found |= {"cpu_time": usage.cpu_s, "wall_time": uptime_s}
    found |= {"swap.outs": 0, "swap.ins": 0, "swap.files_cleaned": 0, "aborted_requests": of("ended_client_gone")}
    return found
