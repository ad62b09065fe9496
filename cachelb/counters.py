"""Every counter of the relay, declared once.

``TABLE`` is what the shared block of integers, the admin API, Prometheus and the stats CLI are derived from: nothing else
knows a counter by its position.  A worker counts in plain lists and copies them into its block a few times a second, so a
worker that is killed loses at most that much of its figures.

The block of one worker is ``FARM`` counters, then for each of ``NODE_SLOTS`` nodes ``NODE`` counters and ``HISTOGRAMS``; a
node keeps its slot for as long as it is configured.  All values are unsigned 64-bit integers in native byte order.

A histogram is ``BUCKETS`` counts and a sum in microseconds.  What took t microseconds is in the bucket t.bit_length(), so bucket
b has what took less than 2**b and not less than half of that, and the last one all that took longer: no table, no search.
An answer that is there as a whole when its head is has one time instead of two: workers count it once, in WHOLE_TIME, and
readers find it in both histograms.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from cachelb.errors import Reason

NODE_SLOTS: Final = 2048  # nodes a director can know at a time: twice the 1,000 that the ring is built for


class Counter(NamedTuple):
    """One counter: its name, whether it only grows, its unit, and one line for people."""

    name: str
    kind: Literal["counter", "gauge"]  # of the workers' gauges in WORST the largest counts, else they are added up
    unit: str
    text: str


_FARM: Final = [
    Counter("clients", "counter", "connections", "client connections accepted"),
    Counter("clients_open", "gauge", "connections", "client connections open now"),
    Counter("requests", "counter", "requests", "requests received"),
    Counter("hashed", "counter", "requests", "requests sent to the owner of their URL"),
    Counter("bypassed", "counter", "requests", "requests sent around the farm"),
    Counter("steered", "counter", "requests", "requests that a rule has sent to a node which their URL does not decide"),
    Counter("affinity_alone", "counter", "decisions", "nodes that a worker has chosen alone: the supervisor was silent"),
    Counter("cookies_followed", "counter", "requests", "requests with a cookie that said which node to ask"),
    Counter("cookies_set", "counter", "answers", "answers that have set a cookie which says which node has given them"),
    *(Counter(f"cookies_{word}", "counter", "cookies", f"cookies ignored: {text}") for word, text in {
        "malformed": "they are none that the director sets",
        "forged": "made without the secret, or with another one",
        "expired": "too old, or not used for too long",
        "unknown": "their node is not in the pool any more",
        "dead": "their node takes no requests",
    }.items()),
    Counter("pinned", "counter", "connections", "connections that belong to one client since its credentials (NTLM, Negotiate)"),
    Counter("pinned_open", "gauge", "connections", "such connections open now"),
    Counter("pinned_requests", "counter", "requests", "requests sent on such connections, wherever they would have gone else"),
    Counter("tunnels", "counter", "tunnels", "CONNECT and Upgrade tunnels opened"),
    Counter("tcp_connections", "counter", "connections", "connections to TCP services"),
    Counter("tcp_open", "gauge", "connections", "connections to TCP services open now, and proxies that tell of a client"),
    Counter("tcp_bytes_in", "counter", "bytes", "bytes that TCP services have relayed from clients"),
    Counter("tcp_bytes_out", "counter", "bytes", "bytes that TCP services have relayed to clients"),
    Counter("tls_resumed", "counter", "connections", "TLS sessions that were sent to the node that they were begun with"),
    Counter("intercepted", "counter", "connections", "client connections that the kernel has brought here"),
    Counter("intercepted_tunnels", "counter", "tunnels", "intercepted connections that do not speak HTTP, tunnelled"),
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
    Counter("loop_lag_us", "gauge", "microseconds", "by how much the last tick came too late, in the worst worker"),
    Counter("loop_lag_total_us", "counter", "microseconds", "by how much ticks, of which there are five a second, came too late"),
    *(Counter(f"bypassed_{word}", "counter", "requests", f"requests sent around the farm: {text}") for word, text in {
        "authorization": "they carry credentials",
        "no_store": "they forbid to store the answer",
        "method": "of a method that is not cached",
        "rule": "by a rule of [bypass]",
        "learned": "answers have taught that they cannot be stored",
        "upgrade": "CONNECT, and requests to upgrade",
        "farm_dead": "no node could serve them",
        "unverified": "intercepted, and their Host does not lead to where they were sent",
    }.items()),
    Counter("log_dropped", "counter", "lines", "access log lines lost because they could not be written"),
]
_ENDS: Final = [Counter(f"ended_{reason.label}", "counter", "exchanges", reason.value.text) for reason in Reason]
_NODE: Final = [
    Counter("requests", "counter", "requests", "requests sent to the node, and connections of TCP services"),
    Counter("responses", "counter", "answers", "answers whose head arrived"),
    Counter("ended", "counter", "exchanges", "exchanges with the node that ended; requests less ended is in flight"),
    Counter("hits", "counter", "answers", "answers marked as a cache hit"),
    Counter("misses", "counter", "answers", "answers marked as a cache miss; X-Cache and Cache-Status are what marks"),
    Counter("bytes", "counter", "bytes", "bytes sent to clients from the node"),
    Counter("connects", "counter", "connections", "connections opened to the node"),
    Counter("connect_failures", "counter", "connections", "connections that could not be opened"),
    Counter("resets", "counter", "connections", "fresh connections closed by the node before an answer"),
    Counter("stale", "counter", "connections", "kept connections that the node had closed meanwhile"),
    Counter("timeouts", "counter", "exchanges", "answers that did not begin in time"),
    Counter("bad_responses", "counter", "exchanges", "answers that were malformed or cut short"),
    Counter("origin_errors", "counter", "answers", "error pages of the node about an origin (X-Squid-Error)"),
    Counter("idle", "gauge", "connections", "idle connections kept to the node"),
    Counter("tcp_connections", "counter", "connections", "connections of TCP services relayed to the node"),
    Counter("tcp_connect_failures", "counter", "connections", "connections of TCP services that the node did not take"),
]

# What is wrong with datagrams, and whose fault it is: icp.errors.Fault
_FAULTS: Final = {
    "short": "shorter than a header",
    "version": "of another version",
    "length": "with a wrong length field",
    "opcode": "with an unknown opcode",
    "unsolicited": "replies that nobody asked for",
    "not_a_reply": "queries where a reply was expected",
    "hit_obj": "that carry an object",
    "echo": "meant for a UDP echo port",
    "reqnum_zero": "with request number 0",
    "no_url": "without a URL",
    "no_nul": "without a NUL behind the URL",
    "stray_nul": "with a NUL inside the URL",
    "long_url": "with a URL of more than 8,191 bytes",
    "section": "with a string that is longer than they are",
    "trailing": "with bytes behind their end",
    "auth": "with authentication, which is not spoken here",
}


def _service(name: str, protocol: str) -> list[Counter]:
    """What a datagram service counts (icp.service)."""
    texts = {
        "received": "datagrams received",
        "sent": "datagrams sent",
        "unsent": "replies that the system did not take",
        "crashed": "datagrams that could not be answered because of an internal error",
        "overloaded": "queries given up because too many answers were being found out",
        "floods": "times that a flood of bad packets was kept away by the kernel",
        "dropped": "datagrams dropped by the kernel, for want of room or in a flood",
    }
    texts |= {f"bad_{word}": f"datagrams {text}" for word, text in _FAULTS.items()}
    return [Counter(f"{name}_{word}", "counter", "datagrams", f"{protocol}: {text}") for word, text in texts.items()]


# What the supervisor counts beside the relay: ICP, HTCP and what they are answered from.
PEERS: tuple[Counter, ...] = (
    Counter("icp_hit", "counter", "replies", "ICP queries answered with HIT"),
    Counter("icp_miss", "counter", "replies", "ICP queries answered with MISS"),
    Counter("icp_miss_nofetch", "counter", "replies", "ICP queries answered with MISS_NOFETCH: the farm could not serve"),
    Counter("icp_err", "counter", "replies", "ICP queries answered with ERR: a bad URL"),
    Counter("icp_denied", "counter", "replies", "ICP queries answered with DENIED"),
    Counter("icp_refused", "counter", "queries", "ICP queries that were not allowed, and not answered"),
    Counter("icp_limited", "counter", "queries", "ICP queries above the rate of one source, not answered"),
    Counter("icp_bad", "counter", "datagrams", "ICP: datagrams that were no sound query, not answered"),
    Counter("icp_failed", "counter", "queries", "ICP queries answered with MISS because of an internal error"),
    *_service("icp", "ICP"),
    Counter("htcp_hit", "counter", "queries", "HTCP TST that were a hit"),
    Counter("htcp_miss", "counter", "queries", "HTCP TST that were a miss"),
    Counter("htcp_cleared", "counter", "queries", "HTCP CLR of what a node had"),
    Counter("htcp_absent", "counter", "queries", "HTCP CLR of what no node had"),
    Counter("htcp_kept", "counter", "queries", "HTCP CLR that some node did not confirm"),
    Counter("htcp_refused", "counter", "queries", "HTCP queries that were not allowed"),
    Counter("htcp_limited", "counter", "queries", "HTCP queries above the rate of one source"),
    Counter("htcp_bad", "counter", "datagrams", "HTCP: datagrams that were no sound query"),
    Counter("htcp_failed", "counter", "queries", "HTCP queries that failed because of an internal error"),
    *_service("htcp", "HTCP"),
    Counter("forward_asked", "counter", "queries", "forward mode: ICP queries sent to owners"),
    Counter("forward_hit", "counter", "replies", "forward mode: owners that said HIT"),
    Counter("forward_miss", "counter", "replies", "forward mode: owners that said MISS"),
    Counter("forward_late", "counter", "queries", "forward mode: owners that did not answer in time"),
    Counter("forward_refused", "counter", "replies", "forward mode: owners that said DENIED or ERR"),
    Counter("forward_skipped", "counter", "queries", "forward mode: queries answered from the index at once"),
    Counter("purge_purges", "counter", "purges", "URLs that were to be purged from the nodes"),
    Counter("purge_refused", "counter", "purges", "purges refused because too many were under way"),
    Counter("purge_found", "counter", "answers", "nodes that had what was purged"),
    Counter("purge_absent", "counter", "answers", "nodes that did not have what was purged"),
    Counter("purge_unconfirmed", "counter", "answers", "nodes that did not confirm a purge"),
    Counter("purge_repeated", "counter", "answers", "purges that a node has confirmed later"),
    Counter("purge_dropped", "counter", "purges", "purges that a node has never confirmed"),
    Counter("purge_waiting", "gauge", "purges", "purges that wait for a node to come back"),
    Counter("store_log_datagrams", "counter", "datagrams", "store-log datagrams received"),
    Counter("store_log_strangers", "counter", "datagrams", "store-log datagrams from an address that is no node's"),
    Counter("store_log_shared", "counter", "datagrams", "store-log datagrams from an address that several nodes have"),
    Counter("store_log_limited", "counter", "datagrams", "store-log datagrams not read because their node sends too many"),
    Counter("store_log_restarts", "counter", "restarts", "restarts of nodes, as their store logs tell"),
    *(
        Counter(f"store_log_line_{word}", "counter", "lines", f"store-log lines: {text}")
        for word, text in {
            "stored": "an object was stored",
            "released": "an object is gone",
            "ended": "an object is gone that was being read",
            "renewed": "an object is fresh again",
            "private": "an answer was not stored",
            "method": "of another method than GET",
            "action": "of no interest",
            "bad_line": "not Squid's",
            "bad_action": "an unknown action",
            "bad_key": "not a store key",
            "bad_number": "a time that cannot be",
            "cut": "without an end",
            "excess": "too many in a datagram",
        }.items()
    ),
    Counter("index_overloads", "counter", "messages", "what workers saw, not taken in because too much of it waited"),
    Counter("misrouted", "counter", "answers", "objects that a node has fetched although another node in service holds them"),
    Counter("index_keys", "gauge", "objects", "objects in the index, counted once for each node that holds them"),
)

# What the supervisor counts of persistent client connections (affinity.register).
AFFINITY: tuple[Counter, ...] = (
    Counter("affinity_templates", "gauge", "templates", "clients that stay with a node"),
    Counter("affinity_created", "counter", "templates", "clients that were given a node"),
    Counter("affinity_moved", "counter", "templates", "clients that were given another node: theirs died, drained or left"),
    Counter("affinity_returned", "counter", "templates", "clients that went back to a node that had died"),
    Counter("affinity_expired", "counter", "templates", "templates that nobody used for the timeout of their group"),
    Counter("affinity_evicted", "counter", "templates", "templates that went, the longest unused first: there were too many"),
    Counter("affinity_flushed", "counter", "templates", "templates that the operator has flushed"),
)

FARM: tuple[Counter, ...] = (*_FARM, *_ENDS)
NODE: tuple[Counter, ...] = tuple(_NODE)
TABLE: Final[dict[str, tuple[Counter, ...]]] = {"farm": FARM, "node": NODE}

FARM_INDEX: Final = {counter.name: i for i, counter in enumerate(FARM)}
NODE_INDEX: Final = {counter.name: i for i, counter in enumerate(NODE)}
_CONNECT_FAILURES: Final = NODE_INDEX["connect_failures"]
_RESETS: Final = NODE_INDEX["resets"]
_RESPONSES: Final = NODE_INDEX["responses"]
END_INDEX: Final = {reason: FARM_INDEX[f"ended_{reason.label}"] for reason in Reason}

# Gauges of which the largest worker's counts.
WORST: Final = frozenset(("loop_lag_us",))

# What is timed for each node, in this order behind its counters.
HISTOGRAMS: Final = {
    "connect": "until a connection to the node was open",
    "first_byte": "from a request's head to the head of the node's answer",
    "total": "from a request's head to the end of the answer",
}
BUCKETS: Final = 28  # the last begins at 67 s: longer than any time limit but those for tunnels and long bodies
HISTOGRAM_WIDTH: Final = BUCKETS + 1  # and the sum
CONNECT_TIME: Final = len(NODE)
FIRST_BYTE_TIME: Final = CONNECT_TIME + HISTOGRAM_WIDTH
TOTAL_TIME: Final = FIRST_BYTE_TIME + HISTOGRAM_WIDTH
NODE_WIDTH: Final = len(NODE) + len(HISTOGRAMS) * HISTOGRAM_WIDTH  # as read, see ``node_values``
WHOLE_TIME: Final = NODE_WIDTH
ROW_WIDTH: Final = NODE_WIDTH + HISTOGRAM_WIDTH  # as workers count

BLOCK_BYTES: Final = 8 * (len(FARM) + NODE_SLOTS * ROW_WIDTH)


def note_time(counts: list[int], histogram: int, seconds: float) -> None:
    """Count what took so long in one of a node's histograms (``TOTAL_TIME`` ...)."""
    note_us(counts, histogram, int(seconds * 1e6))


def note_us(counts: list[int], histogram: int, us: int) -> None:
    """As ``note_time``, in whole microseconds."""
    bucket = us.bit_length()
    counts[histogram + (bucket if bucket < BUCKETS else BUCKETS - 1)] += 1
    counts[histogram + BUCKETS] += us


def node_offset(slot: int) -> int:
    """Where in the block (in counters, not bytes) the node in ``slot`` begins."""
    return len(FARM) + slot * ROW_WIDTH


def farm_values(blocks: list[memoryview]) -> list[int]:
    """The farm's counters over the workers' blocks (memoryviews of format ``Q``), in the order of ``FARM``."""
    values = _added([block[: len(FARM)].tolist() for block in blocks], len(FARM))
    for name in WORST:
        at = FARM_INDEX[name]
        values[at] = max((block[at] for block in blocks), default=0)
    return values


def node_values(blocks: list[memoryview], slot: int) -> list[int]:
    """One node's counters and histograms over the workers' blocks, in the order of ``NODE`` and ``HISTOGRAMS``."""
    start = node_offset(slot)
    values = _added([block[start : start + ROW_WIDTH].tolist() for block in blocks], ROW_WIDTH)
    whole = values[WHOLE_TIME:]
    if any(whole):
        for place, count in enumerate(whole):
            values[FIRST_BYTE_TIME + place] += count
            values[TOTAL_TIME + place] += count
    return values[:NODE_WIDTH]


def _added(rows: list[list[int]], width: int) -> list[int]:
    """The rows, column by column.  That of one worker is itself: a thousand nodes are looked at each second."""
    if len(rows) == 1:
        return rows[0]
    return [sum(column) for column in zip(*rows, strict=True)] if rows else [0] * width


def under_way(block: memoryview, slot: int) -> int:
    """Requests of one worker that a node has begun and not ended; below 0 where the block is just being written."""
    start = node_offset(slot)
    return int(block[start + NODE_INDEX["requests"]]) - int(block[start + NODE_INDEX["ended"]])


def failures_and_answers(blocks: list[memoryview], slot: int) -> tuple[int, int]:
    """What traffic has said about a node so far: failures that the node caused, and answers that began."""
    start, failures, answers = node_offset(slot), 0, 0
    for block in blocks:
        failures += int(block[start + _CONNECT_FAILURES]) + int(block[start + _RESETS])
        answers += int(block[start + _RESPONSES])
    return failures, answers


def read_farm(blocks: list[memoryview]) -> dict[str, int]:
    """The farm's counters over the workers' blocks, by name."""
    return {counter.name: value for counter, value in zip(FARM, farm_values(blocks), strict=True)}


def read_node(blocks: list[memoryview], slot: int) -> dict[str, int]:
    """One node's counters over the workers' blocks, by name."""
    return {counter.name: value for counter, value in zip(NODE, node_values(blocks, slot), strict=False)}


def forget_gauges(block: memoryview) -> None:
    """Correct the block of a process that has died: what it had open or remembered is gone, what it had begun has ended."""
    for i, counter in enumerate(FARM):
        if counter.kind == "gauge":
            block[i] = 0
    requests, ended = NODE_INDEX["requests"], NODE_INDEX["ended"]
    gauges = [i for i, counter in enumerate(NODE) if counter.kind == "gauge"]
    for start in range(len(FARM), len(FARM) + NODE_SLOTS * ROW_WIDTH, ROW_WIDTH):
        block[start + ended] = block[start + requests]
        for i in gauges:
            block[start + i] = 0
