"""What the counters say about now and about the last minutes: rates, and series for charts.

Pure: ``History.take`` is given the counters once a second.  It keeps the last two samples, for the present rates, and one point
for every ``STEP_S`` seconds of the last ``KEPT_S``; that is 180 points of 8 numbers for each node.

Quantiles come from histograms whose buckets double: within a bucket they are interpolated, so they are off by a factor of 1.4 at
worst, and usually by little.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cachelb.counters import BUCKETS, FARM_INDEX, FIRST_BYTE_TIME, NODE_INDEX, NODE_WIDTH, TOTAL_TIME, node_offset, node_values
from cachelb.errors import Reason

STEP_S = 5.0
KEPT_S = 900.0
NODES_SHOWN = 64  # without being asked for by name

_ERRORS = [FARM_INDEX[f"ended_{reason.label}"] for reason in Reason if reason.value.is_error]
_NODE_ERRORS = [NODE_INDEX[name] for name in ("connect_failures", "resets", "timeouts", "bad_responses")]

Values = Sequence[int]


class NodeRows(Mapping[str, Values]):
    """``node_values`` of every node at one moment, worked out when asked for: there may be a thousand, each second.

    Args:
        blocks: The workers' counters, which go on counting.
        slots: Of the nodes, by name.
    """

    def __init__(self, blocks: Iterable[memoryview], slots: Mapping[str, int]) -> None:
        self._slots = dict(slots)
        end = node_offset(max(slots.values(), default=-1) + 1)
        self._blocks = [memoryview(block[:end].tobytes()).cast("Q") for block in blocks]
        self._known: dict[str, Values] = {}

    def __getitem__(self, name: str) -> Values:
        if name not in self._known:
            self._known[name] = node_values(self._blocks, self._slots[name])
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)


@dataclass(frozen=True)
class Sample:
    """All counters at one moment: as ``counters.farm_values`` and ``node_values`` give them."""

    at: float  # monotonic
    wall: float
    farm: Values
    nodes: Mapping[str, Values]
    peers: Mapping[str, int] = field(default_factory=dict)


class Point(NamedTuple):
    """One node, or the farm, in one step."""

    requests_per_s: float
    hit_ratio: float | None
    bytes_per_s: float
    errors_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    in_flight: int
    bypassed_per_s: float = 0.0
    refused_per_s: float = 0.0
    icp_per_s: float = 0.0


SERIES = Point._fields[:7]
FARM_SERIES = Point._fields


class History:
    """The last minutes of one director."""

    def __init__(self) -> None:
        self._now: Sample | None = None
        self._before: Sample | None = None
        self._step: Sample | None = None  # where the present step began
        self._grown: dict[str, list[int]] | None = None  # from before to now, once somebody has asked
        most = int(KEPT_S / STEP_S)
        self.at: deque[float] = deque(maxlen=most)
        self._farm: deque[Point] = deque(maxlen=most)
        self._nodes: deque[dict[str, Point]] = deque(maxlen=most)

    def take(self, sample: Sample) -> None:
        """Once a second."""
        self._before, self._now, self._grown = self._now, sample, None
        if self._step is None:
            self._step = sample
        elif sample.at - self._step.at >= STEP_S - 0.5:
            old, self._step = self._step, sample
            took, grown = sample.at - old.at, nodes_grown(old, sample)
            self.at.append(round(sample.wall, 1))
            self._farm.append(_farm_point(old, sample, grown, took))
            self._nodes.append({name: _node_point(row, sample.nodes[name], took) for name, row in grown.items()})

    def rates(self, name: str | None = None) -> dict[str, Any]:
        """The present rates of a node, or of the farm: the fields of ``model.Rates`` or ``model.FarmRates``."""
        old, new = self._before, self._now
        if old is None or new is None:
            old = new = Sample(0, 0, [0] * len(FARM_INDEX), {})
        if self._grown is None:
            self._grown = nodes_grown(old, new)
        took = new.at - old.at
        if name is None:
            return _farm_rates(old, new, self._grown, took)
        return _rates(self._grown[name], took) if name in self._grown else _rates([0] * NODE_WIDTH, 0.0)

    def as_dict(self, seconds: float, names: Sequence[str]) -> dict[str, Any]:
        """``model.History``: the farm and these nodes over the last ``seconds``."""
        first = max(0, len(self.at) - max(1, int(seconds / STEP_S)))
        at, farm, nodes = list(self.at)[first:], list(self._farm)[first:], list(self._nodes)[first:]
        return {
            "step_s": STEP_S,
            "at": at,
            "farm": {key: [getattr(point, key) for point in farm] for key in FARM_SERIES},
            "nodes": {
                name: {key: [getattr(row[name], key) if name in row else None for row in nodes] for key in SERIES}
                for name in names
            },
        }


def quantile_ms(values: Values, histogram: int, part: float) -> float | None:
    """The time below which this part of what a histogram counted stayed, in ms; None where it counted nothing.

    Args:
        values: A node's, of an interval.
        histogram: Where it begins, as ``TOTAL_TIME``.
    """
    counts = values[histogram : histogram + BUCKETS]
    total = sum(counts)
    if not total:
        return None
    rank = part * total
    for bucket, count in enumerate(counts):
        if count and rank <= count:
            low, high = (1 << bucket) >> 1, 1 << bucket
            return round((low + (high - low) * rank / count) / 1000, 3)
        rank -= count
    return round((1 << BUCKETS) / 1000, 3)  # rounding only: the ranks add up to total


def in_flight(values: Values) -> int:
    """Requests that a node has begun and not ended."""
    return max(0, values[NODE_INDEX["requests"]] - values[NODE_INDEX["ended"]])


def _less(new: Values, old: Values) -> list[int]:
    return [a - b if a > b else 0 for a, b in zip(new, old, strict=True)]


def _ratio(hits: int, misses: int) -> float | None:
    return round(hits / (hits + misses), 4) if hits + misses else None


def _rates(grown: Values, took: float) -> dict[str, Any]:
    per = 1 / took if took else 0.0

    def rate(name: str) -> float:
        return round(grown[NODE_INDEX[name]] * per, 2)

    return {
        "window_s": round(took, 2),
        "requests_per_s": rate("requests"),
        "hits_per_s": rate("hits"),
        "hit_ratio": _ratio(grown[NODE_INDEX["hits"]], grown[NODE_INDEX["misses"]]),
        "bytes_per_s": rate("bytes"),
        "errors_per_s": round(sum(grown[at] for at in _NODE_ERRORS) * per, 2),
        "p50_ms": quantile_ms(grown, TOTAL_TIME, 0.5),
        "p99_ms": quantile_ms(grown, TOTAL_TIME, 0.99),
        "first_byte_p50_ms": quantile_ms(grown, FIRST_BYTE_TIME, 0.5),
        "first_byte_p99_ms": quantile_ms(grown, FIRST_BYTE_TIME, 0.99),
    }


def nodes_grown(old: Sample, new: Sample) -> dict[str, list[int]]:
    """What each node that was there all the time has counted between two samples."""
    return {name: _less(values, old.nodes[name]) for name, values in new.nodes.items() if name in old.nodes}


def _sum(rows: Iterable[Values]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)] or [0] * NODE_WIDTH


def _farm_rates(old: Sample, new: Sample, grown: Mapping[str, Values], took: float) -> dict[str, Any]:
    nodes, farm = _sum(grown.values()), _less(new.farm, old.farm)
    per = 1 / took if took else 0.0

    def rate(*names: str) -> float:
        return round(sum(farm[FARM_INDEX[name]] for name in names) * per, 2)

    def peers(*names: str) -> float:
        return round(sum(max(0, new.peers.get(name, 0) - old.peers.get(name, 0)) for name in names) * per, 2)

    return _rates(nodes, took) | {
        "requests_per_s": rate("requests"),
        "bytes_per_s": rate("bytes_out"),
        "errors_per_s": round(sum(farm[at] for at in _ERRORS) * per, 2),
        "bypassed_per_s": rate("bypassed"),
        "refused_per_s": rate("refused"),
        "retries_per_s": rate("retries"),
        "clients_per_s": rate("clients"),
        "icp_per_s": peers("icp_hit", "icp_miss", "icp_miss_nofetch", "icp_err", "icp_denied"),
        "htcp_per_s": peers("htcp_hit", "htcp_miss"),
    }


def _node_point(grown: Values, now: Values, took: float) -> Point:
    rates = _rates(grown, took)
    return Point(**{key: rates[key] for key in SERIES if key != "in_flight"}, in_flight=in_flight(now))


def _farm_point(old: Sample, new: Sample, grown: Mapping[str, Values], took: float) -> Point:
    rates = _farm_rates(old, new, grown, took)
    flying = sum(map(in_flight, new.nodes.values()))
    return Point(**{key: rates[key] for key in FARM_SERIES if key != "in_flight"}, in_flight=flying)
