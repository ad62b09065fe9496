"""Every counter of the relay, declared once.

``TABLE`` is what the shared block of integers, the admin API, Prometheus and the stats CLI are derived from: nothing else
knows a counter by its position.  A worker counts in plain lists and copies them into its block a few times a second, so a
worker that is killed loses at most that much of its figures.

The block of one worker is ``FARM`` counters, then ``NODE_SLOTS`` times ``NODE`` counters; a node keeps its slot for as long
as it is configured.  All values are unsigned 64-bit integers in native byte order.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from cachelb.errors import Reason

NODE_SLOTS = 2048  # nodes a director can know at a time: twice the 1,000 that the ring is built for


class Counter(NamedTuple):
    """One counter: its name, whether it only grows, its unit, and one line for people."""

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    text: str


_FARM = [
    Counter("clients", "counter", "connections", "client connections accepted"),
    Counter("clients_open", "gauge", "connections", "client connections open now"),
    Counter("requests", "counter", "requests", "requests received"),
    Counter("hashed", "counter", "requests", "requests sent to the owner of their URL"),
    Counter("bypassed", "counter", "requests", "requests sent around the farm"),
    Counter("tunnels", "counter", "tunnels", "CONNECT and Upgrade tunnels opened"),
    Counter("local", "counter", "requests", "requests answered by the director itself"),
    Counter("digests_served", "counter", "answers", "digests of the farm that were sent whole"),
    Counter("purges", "counter", "requests", "PURGE requests that were carried out"),
    Counter("refused", "counter", "requests", "requests refused"),
    Counter("hits", "counter", "answers", "answers that a node marked as a cache hit"),
    Counter("retries", "counter", "attempts", "attempts repeated on a fresh connection or on the next owner"),
    Counter("moved", "counter", "exchanges", "exchanges moved on because their node was declared dead"),
    Counter("failovers", "counter", "requests", "requests sent to another node than the first owner"),
    Counter("second_chances", "counter", "requests", "only-if-cached requests sent on because a node did not have the URL"),
    Counter("sightings_dropped", "counter", "answers", "answers about the nodes' stores that were too many to be told"),
    Counter("bytes_out", "counter", "bytes", "bytes sent to clients, heads included"),
    Counter("bytes_in", "counter", "bytes", "request body bytes received from clients"),
    Counter("bytes_spliced", "counter", "bytes", "body bytes that were moved without being copied"),
    Counter("direct_connects", "counter", "connections", "connections opened to origins"),
    Counter("direct_reuses", "counter", "requests", "requests sent to origins on a kept connection"),
    Counter("learned_urls", "gauge", "urls", "URLs remembered as uncacheable, added over workers that teach each other"),
    Counter("learned_segments", "gauge", "segments", "hosts with first path segment remembered as uncacheable, added likewise"),
    Counter("log_dropped", "counter", "lines", "access log lines lost because they could not be written"),
]
_ENDS = [Counter(f"ended_{reason.label}", "counter", "exchanges", reason.value.text) for reason in Reason]
_NODE = [
    Counter("requests", "counter", "requests", "requests sent to the node"),
    Counter("responses", "counter", "answers", "answers whose head arrived"),
    Counter("ended", "counter", "exchanges", "exchanges with the node that ended; requests less ended is in flight"),
    Counter("hits", "counter", "answers", "answers marked as a cache hit"),
    Counter("bytes", "counter", "bytes", "bytes sent to clients from the node"),
    Counter("connects", "counter", "connections", "connections opened to the node"),
    Counter("connect_failures", "counter", "connections", "connections that could not be opened"),
    Counter("resets", "counter", "connections", "fresh connections closed by the node before an answer"),
    Counter("stale", "counter", "connections", "kept connections that the node had closed meanwhile"),
    Counter("timeouts", "counter", "exchanges", "answers that did not begin in time"),
    Counter("bad_responses", "counter", "exchanges", "answers that were malformed or cut short"),
    Counter("origin_errors", "counter", "answers", "error pages of the node about an origin (X-Squid-Error)"),
    Counter("idle", "gauge", "connections", "idle connections kept to the node"),
]

FARM: tuple[Counter, ...] = (*_FARM, *_ENDS)
NODE: tuple[Counter, ...] = tuple(_NODE)
TABLE: dict[str, tuple[Counter, ...]] = {"farm": FARM, "node": NODE}

FARM_INDEX = {counter.name: i for i, counter in enumerate(FARM)}
NODE_INDEX = {counter.name: i for i, counter in enumerate(NODE)}
END_INDEX = {reason: FARM_INDEX[f"ended_{reason.label}"] for reason in Reason}

BLOCK_BYTES = 8 * (len(FARM) + NODE_SLOTS * len(NODE))


def node_offset(slot: int) -> int:
    """Where in the block (in counters, not bytes) the node in ``slot`` begins."""
    return len(FARM) + slot * len(NODE)


def read_farm(blocks: list[memoryview]) -> dict[str, int]:
    """Sum the farm's counters over the workers' blocks (memoryviews of format ``Q``)."""
    return {counter.name: sum(block[i] for block in blocks) for i, counter in enumerate(FARM)}


def read_node(blocks: list[memoryview], slot: int) -> dict[str, int]:
    """Sum one node's counters over the workers' blocks."""
    start = node_offset(slot)
    return {counter.name: sum(block[start + i] for block in blocks) for i, counter in enumerate(NODE)}


def forget_gauges(block: memoryview) -> None:
    """Correct the block of a process that has died: what it had open or remembered is gone, what it had begun has ended."""
    for i, counter in enumerate(FARM):
        if counter.kind == "gauge":
            block[i] = 0
    requests, ended = NODE_INDEX["requests"], NODE_INDEX["ended"]
    gauges = [i for i, counter in enumerate(NODE) if counter.kind == "gauge"]
    for start in range(len(FARM), len(FARM) + NODE_SLOTS * len(NODE), len(NODE)):
        block[start + ended] = block[start + requests]
        for i in gauges:
            block[start + i] = 0
