"""What the admin API answers, as rows and figures that can be shown: nothing is assumed to be there.

Pure.  An older or a newer director may leave fields out or add some: what is missing is unknown (None), not an error.  Rates are
the API's own; where it has none yet they are made from two of its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

LATELY = 2  # steps of the history, 5 s each, that "lately" means: one second alone says little, half a minute says it late
QUIET = 6  # steps for errors, where fewer than ENOUGH_PER_S have come lately: two in ten seconds may be chance
ENOUGH_PER_S = 0.5
NODE_ERRORS = ("connect_failures", "resets", "timeouts", "bad_responses")


# Why requests go around the farm, by the counter bypassed_*.
BYPASSED = {
    "learned": "earlier answers to them, or to what is alike, could not be cached",
    "authorization": "they have an Authorization",
    "no_store": "their Cache-Control says no-store",
    "method": "they are neither GET nor HEAD",
    "rule": "a rule of [bypass] says so",
    "farm_dead": "no node was up",
    "unverified": "they were intercepted, and their Host leads elsewhere",
    "upgrade": "they are tunnels or upgrades",
}


@dataclass(frozen=True)
class Answers:
    """What was asked for; None: no answer.

    missing: why, by name of the question.  age_s: since the status was read;
    problem: why it was not read since, "" if it was.
    """

    status: Mapping[str, Any]
    history: Mapping[str, Any] | None = None
    hot: Mapping[str, Any] | None = None
    events: Sequence[Mapping[str, Any]] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, Any] | None = None  # an earlier status
    age_s: float = 0.0
    where: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Rates:
    """As in the API; None: not known."""

    requests: float | None = None
    hit_ratio: float | None = None
    bytes: float | None = None
    errors: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True)
class Node:
    """One node.  now: its rates; lately: of the last ten seconds; trend: requests per second, oldest first.

    part: of all requests to nodes, now, 0 to 1; keys: of all keys.  returning: part of its own keys that it takes, 1 but while it
    comes back slowly.  operator: the state that was set by the API, "" if none.  drain: how far that has come.
    failing: the counter of errors that is highest, in words.  failed: errors and requests per second, see ``failed``.
    """

    name: str
    state: str
    place: str
    cause: str
    since_s: float | None
    keys: float | None
    part: float | None
    returning: float
    weight: float
    in_flight: int
    idle: int
    operator: str
    drain: Mapping[str, Any] | None
    failing: str
    now: Rates
    lately: Rates
    trend: Sequence[float | None] = ()
    failed: tuple[float, float] = (0.0, 0.0)

    @property
    def is_in_service(self) -> bool:
        return self.state == "up"


@dataclass(frozen=True)
class Farm:
    """Everything that the screen says."""

    answers: Answers
    nodes: tuple[Node, ...]
    now: Rates
    trend: Mapping[str, Sequence[float | None]]  # of the farm: the history's names

    @property
    def status(self) -> Mapping[str, Any]:
        return self.answers.status

    def rate(self, name: str) -> float | None:
        """One of the farm's further rates: ``bypassed_per_s`` ..."""
        found = number(of(self.status, "rates"), name)
        if _are_known(self.status) or self.answers.before is None:
            return found
        counter = name.removesuffix("_per_s")
        return _grown(of(self.answers.before, "farm"), of(self.status, "farm"), counter, _between(self.answers))

    @property
    def in_flight(self) -> int:
        return sum(node.in_flight for node in self.nodes)


def read(answers: Answers) -> Farm:
    """Make sense of what came."""
    status, series = answers.status, of(answers.history, "nodes")
    documents = [node for node in listed(status, "nodes") if isinstance(node, Mapping)]
    earlier = {str(node.get("name")): node for node in listed(answers.before, "nodes") if isinstance(node, Mapping)}
    rates = [_rates(node, earlier.get(str(node.get("name"))), answers) for node in documents]
    total = sum(rate.requests or 0.0 for rate in rates)
    nodes = tuple(
        _node(document, now, total, of(series, str(document.get("name")))) for document, now in zip(documents, rates, strict=True)
    )
    farm = {"rates": of(status, "rates"), "counters": _farm_counters(status)}
    before = None if answers.before is None else {"counters": _farm_counters(answers.before)}
    trend = {name: numbers(values) for name, values in of(answers.history, "farm").items()}
    return Farm(answers, nodes, _rates(farm, before, answers), trend)


def _node(document: Mapping[str, Any], now: Rates, total: float, series: Mapping[str, Any]) -> Node:
    counters, operator = of(document, "counters"), of(document, "operator")
    worst = max(NODE_ERRORS, key=lambda name: number(counters, name) or 0)
    return Node(
        name=str(document.get("name", "?")),
        state=str(document.get("state", "?")),
        place=f"{document.get('host', '?')}:{document.get('port', '?')}",
        cause=str(document.get("cause", "")),
        since_s=number(document, "since_s"),
        keys=number(document, "key_share"),
        part=None if now.requests is None else (now.requests / total if total else 0.0),
        returning=known(number(document, "share"), 1.0),
        weight=known(number(document, "weight"), 1.0),
        in_flight=int(number(document, "in_flight") or 0),
        idle=int(number(document, "idle") or 0),
        operator=str(operator.get("state") or ""),
        drain=document.get("drain") if isinstance(document.get("drain"), Mapping) else None,
        failing=worst.replace("_", " ") if number(counters, worst) else "",
        now=now,
        lately=_lately(series, now),
        trend=numbers(series.get("requests_per_s")),
        failed=failed(series, now),
    )


def failed(series: Mapping[str, Any], now: Rates) -> tuple[float, float]:
    """Errors and requests per second lately; as they are now where the history has none.  No error lately: no errors at all."""
    errors, requests = numbers(series.get("errors_per_s")), numbers(series.get("requests_per_s"))
    lately = newest(errors)
    if not lately:
        return known(now.errors, 0.0), known(now.requests, 0.0)
    steps = LATELY if not any(lately) or mean(lately) >= ENOUGH_PER_S else QUIET
    asked = newest(requests, steps)
    return mean(newest(errors, steps)), mean(asked) if asked else 0.0


def newest(values: Sequence[float | None], steps: int = LATELY) -> list[float]:
    """What is known of the last steps of a series."""
    return [value for value in values[-steps:] if value is not None]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _lately(series: Mapping[str, Any], now: Rates) -> Rates:
    """Means of the last ten seconds; of quantiles the lower one, for one slow step is chance; else what is now."""

    def of_them(name: str, how: Callable[[list[float]], float], present: float | None) -> float | None:
        values = newest(numbers(series.get(name)))
        return how(values) if values else present

    return Rates(
        requests=of_them("requests_per_s", mean, now.requests),
        hit_ratio=of_them("hit_ratio", median, now.hit_ratio),
        bytes=of_them("bytes_per_s", mean, now.bytes),
        errors=of_them("errors_per_s", mean, now.errors),
        p50_ms=of_them("p50_ms", min, now.p50_ms),
        p99_ms=of_them("p99_ms", min, now.p99_ms),
    )


def _rates(document: Mapping[str, Any], before: Mapping[str, Any] | None, answers: Answers) -> Rates:
    rates = of(document, "rates")
    if number(rates, "window_s"):
        names = ("requests_per_s", "hit_ratio", "bytes_per_s", "errors_per_s", "p50_ms", "p99_ms")
        return Rates(*(number(rates, name) for name in names))
    if before is None or answers.before is None:
        return Rates()
    took, old, new = _between(answers), of(before, "counters"), of(document, "counters")

    def grown(name: str) -> float:
        return _grown(old, new, name, took) or 0.0

    answered = grown("hits") + grown("misses")
    errors = sum(grown(name) for name in NODE_ERRORS)
    return Rates(grown("requests"), grown("hits") / answered if answered else None, grown("bytes"), errors)


def _farm_counters(status: Mapping[str, Any]) -> dict[str, float]:
    """The farm's, with the names that the nodes' have; what nodes mark as misses is added up from them."""
    farm = of(status, "farm")
    documents = [of(node, "counters") for node in listed(status, "nodes") if isinstance(node, Mapping)]
    found = {name: sum(number(counters, name) or 0 for counters in documents) for name in ("hits", "misses", *NODE_ERRORS)}
    return found | {"requests": number(farm, "requests") or 0, "bytes": number(farm, "bytes_out") or 0}


def _are_known(status: Mapping[str, Any]) -> bool:
    return bool(number(of(status, "rates"), "window_s"))


def _between(answers: Answers) -> float:
    now, before = number(answers.status, "now"), number(answers.before or {}, "now")
    return 0.0 if now is None or before is None else now - before


def _grown(old: Mapping[str, Any], new: Mapping[str, Any], name: str, took: float) -> float | None:
    a, b = number(old, name), number(new, name)
    return None if a is None or b is None or took <= 0 else max(0.0, b - a) / took


# -- documents that may be anything


def of(document: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    """A part of it; empty if it is not there."""
    found = document.get(name) if document is not None else None
    return found if isinstance(found, Mapping) else {}


def listed(document: Mapping[str, Any] | None, name: str) -> Sequence[Any]:
    """A list in it; empty if it is not there."""
    found = document.get(name) if document is not None else None
    return found if isinstance(found, list) else ()


def number(document: Mapping[str, Any], name: str) -> float | None:
    """A number in it; None if it is none."""
    found = document.get(name)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def known(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def numbers(values: Any) -> list[float | None]:
    """A list of numbers; None for each that is none."""
    if not isinstance(values, list):
        return []
    return [value if isinstance(value, int | float) and not isinstance(value, bool) else None for value in values]
