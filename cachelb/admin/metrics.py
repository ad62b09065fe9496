"""The status for Prometheus: a collector over ``counters.TABLE``, in names that follow its conventions.

``cachelb_`` or ``cachelb_node_``, then the counter's name, ``_total`` for what only grows; base units (seconds, bytes).  What
ends exchanges and what sends them around the farm are labels, so that they can be added up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from cachelb.counters import AFFINITY, BUCKETS, FARM, HISTOGRAM_WIDTH, HISTOGRAMS, NODE, PEERS, Counter
from cachelb.errors import Reason

if TYPE_CHECKING:
    from cachelb.admin.status import Reader

CONTENT_TYPE = CONTENT_TYPE_LATEST
FIRST_BUCKET = 6  # below 64 us nothing happens over a network

STATES = ("up", "drain", "down", "dead")
# Shown otherwise: with a label, or in seconds.
_LABELLED = ("ended_", "bypassed_", "loop_lag_")


class _Collector:
    """Metrics of one moment.

    Args:
        status: as ``Reader.status``; timed: for each node its values as ``counters.node_values``; lag: seconds for each worker,
            how late its ticks came in sum.
    """

    def __init__(self, status: Mapping[str, Any], timed: Mapping[str, Sequence[int]], lag: Mapping[int, float]) -> None:
        self.status = status
        self.timed = timed
        self.lag = lag

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield from self._about()
        yield from self._farm()
        yield from self._workers()
        yield from self._nodes()
        yield from self._times()

    def _about(self) -> Iterator[Metric]:
        status = self.status
        config = status["config"]
        build = {"version": status["version"], **status["versions"]}
        yield _gauge("build_info", "versions of the director and of what it is made of", [({**build}, 1)])
        yield _gauge("config_info", "the configuration in force", [({"digest": config["digest"]}, 1)])
        yield _gauge("config_loaded_timestamp_seconds", "when it was loaded", [({}, config["loaded_at"])])
        yield _gauge("config_refused", "whether the last reload was refused", [({}, int(bool(config["problems"])))])
        yield _gauge("start_time_seconds", "when the director was started", [({}, status["started_at"])])
        yield _gauge("snapshot_epoch", "number of the Snapshot in force", [({}, status["epoch"])])
        yield _count("reloads", "configurations taken over while running", [({}, status["reloads"])])
        serving = int(bool(status["onecache"]["icp"]["serving"]))
        peers = [({"peer": peer["url"]}, peer["agrees"]) for peer in status["peers"]]
        up, agree = ([(at, int(is_so is not None)) for at, is_so in peers], [(at, int(is_so is True)) for at, is_so in peers])
        yield _gauge("peer_up", "whether another director says how it routes", up)
        yield _gauge("peer_agrees", "whether another director routes as this one does", agree)
        yield _gauge("icp_serving", "whether peers are told that they may fetch what is no hit", [({}, serving)])

    def _farm(self) -> Iterator[Metric]:
        farm, peers = self.status["farm"], self.status["onecache"]["counters"]
        for counter in FARM:
            if not counter.name.startswith(_LABELLED):
                yield _table("", counter, [({}, farm[counter.name])])
        for counter in PEERS:
            yield _table("", counter, [({}, peers[counter.name])])
        for counter in AFFINITY:
            yield _table("", counter, [({}, self.status["affinity"][counter.name])])
        ends = [
            ({"reason": reason.label, "error": str(reason.value.is_error).lower()}, farm[f"ended_{reason.label}"])
            for reason in Reason
        ]
        yield _count("exchanges_ended", "exchanges by how they ended; error: because of a node, an origin or the director", ends)
        whys = [
            ({"why": counter.name.removeprefix("bypassed_")}, farm[counter.name])
            for counter in FARM
            if counter.name.startswith("bypassed_")
        ]
        yield _count("bypassed_requests", "requests sent around the farm, by reason", whys)

    def _workers(self) -> Iterator[Metric]:
        workers = [({"worker": str(worker["number"])}, worker) for worker in self.status["workers"]]

        def of(key: str, scale: float = 1.0) -> list[tuple[dict[str, str], float]]:
            return [(labels, worker[key] * scale) for labels, worker in workers]

        yield _gauge("worker_up", "whether the process runs", [(labels, int(worker["pid"] > 0)) for labels, worker in workers])
        yield _gauge("worker_epoch", "number of the Snapshot that it runs on", of("epoch"))
        yield _gauge("worker_clients_open", "client connections open", of("clients_open"))
        yield _count("worker_requests", "requests received", of("requests"))
        yield _count("worker_restarts", "processes that ended and were replaced", of("restarts"))
        yield _gauge("worker_loop_lag_seconds", "by how much the last tick came too late", of("loop_lag_ms", 1e-3))
        late = [(labels, self.lag.get(worker["number"], 0.0)) for labels, worker in workers]
        yield _count("worker_loop_late_seconds", "by how much ticks, of which there are five a second, came too late", late)

    def _nodes(self) -> Iterator[Metric]:
        nodes = [({"node": node["name"]}, node) for node in self.status["nodes"]]

        def of(key: str) -> list[tuple[dict[str, str], float]]:
            return [(labels, node[key]) for labels, node in nodes]

        yield _gauge("node_up", "whether the node serves its keys", [(at, int(node["state"] == "up")) for at, node in nodes])
        states = [({**at, "state": state}, int(node["state"] == state)) for at, node in nodes for state in STATES]
        yield _gauge("node_state", "1 for the state of the node, 0 for the others", states)
        yield _gauge("node_weight", "its weight in force", of("weight"))
        yield _gauge("node_key_share_ratio", "part of all keys that it owns now", of("key_share"))
        yield _gauge("node_in_flight", "requests that it has not answered yet", of("in_flight"))
        yield _gauge("node_objects", "objects of the node in the index", [(at, node["store"]["keys"]) for at, node in nodes])
        for counter in NODE:
            yield _table("node_", counter, [(labels, node["counters"][counter.name]) for labels, node in nodes])

    def _times(self) -> Iterator[Metric]:
        for number, (name, text) in enumerate(HISTOGRAMS.items()):
            start = len(NODE) + number * HISTOGRAM_WIDTH
            word = "duration" if name == "total" else name
            family = HistogramMetricFamily(f"cachelb_node_{word}_seconds", text, labels=["node"])
            for node, values in self.timed.items():
                counts = list(accumulate(values[start : start + BUCKETS]))
                bounds = [f"{(1 << at) / 1e6:.9g}" for at in range(FIRST_BUCKET, BUCKETS - 1)] + ["+Inf"]
                buckets = list(zip(bounds, [float(count) for count in counts[FIRST_BUCKET:]], strict=True))
                family.add_metric([node], buckets=buckets, sum_value=values[start + BUCKETS] / 1e6)
            yield family


async def render(reader: Reader) -> bytes:
    """The metrics of now, as text.  Writing that takes 0.1 s for 100 nodes (2026-11): a thread does it, ICP goes on meanwhile."""
    supervisor = reader.supervisor
    workers = supervisor.workers.workers if supervisor.workers is not None else []
    lag = {worker.number: worker.block[LAG_AT] / 1e6 for worker in workers}
    return await asyncio.to_thread(text_of, reader.status(), reader.node_values(), lag)


def text_of(status: Mapping[str, Any], timed: Mapping[str, Sequence[int]], lag: Mapping[int, float]) -> bytes:
    """The metrics of these values; see ``_Collector``."""
    registry = CollectorRegistry()
    registry.register(_Collector(status, timed, lag))
    return bytes(generate_latest(registry))


Samples = Iterable[tuple[dict[str, str], float]]
LAG_AT = next(at for at, counter in enumerate(FARM) if counter.name == "loop_lag_total_us")


def _table(prefix: str, counter: Counter, samples: Samples) -> Metric:
    make = _count if counter.kind == "counter" else _gauge
    return make(prefix + counter.name, counter.text, samples)


def _count(name: str, text: str, samples: Samples) -> Metric:
    return _filled(CounterMetricFamily(f"cachelb_{name}", text), samples, "_total")


def _gauge(name: str, text: str, samples: Samples) -> Metric:
    return _filled(GaugeMetricFamily(f"cachelb_{name}", text), samples, "")


def _filled(family: Metric, samples: Samples, suffix: str) -> Metric:
    for labels, value in samples:
        family.add_sample(family.name + suffix, labels, value)
    return family
