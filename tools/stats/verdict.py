"""Is it well?  If not: what is wrong, how bad, and where to look.  The rules, each with its limits, not how it is shown.

Pure.  Nodes are compared with one another, for they share one load: what is the same on all of them is the traffic's or the
origins' doing, and is said of the farm.  Rates are those of the last ten seconds where the history has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median

from .farm import BYPASSED, Farm, Node, failed, known, listed, mean, newest, number, of
from .finding import BAD, LEVELS, NOTE, WARN, Finding, grouped_findings
from .units import age, grouped, millis, percent

SLOW_P50_MS, SLOW_P50_TIMES = 50.0, 4.0  # at least, and so many times the others' median
SLOW_P99_MS, SLOW_P99_TIMES = 250.0, 8.0  # one slow origin makes a tail, too, but on all nodes
SLOW_PER_S = 1.0  # a median of fewer is one answer
SLOW_ALONE_MS = 2000.0  # the median, where there is nobody to compare with
ERRORS_PART = 0.01  # of requests
ERRORS_BAD_PART = 0.1
ERRORS_PER_S = 0.2  # fewer are chance
STUCK_IN_FLIGHT, STUCK_TIMES = 20, 5.0
HUNG_IN_FLIGHT = 3
HIT_POINTS = 0.25  # below the others
WARM_S, WARM_PER_S = 120.0, 10.0  # all begin cold; and a ratio of fewer requests means little
BUSY_PER_S = 5.0  # a ratio of fewer requests says little
BYPASS_PART, REFUSED_PART, RETRIES_PART = 0.5, 0.1, 0.05
HOT_PART = 0.2
SKEW_PART, SKEW_TIMES, SKEW_PER_S = 0.5, 1.8, 20.0
SKEW_NAMED = 0.1  # of what is too much: a URL with less in the hot list's minutes is only the node's usual first
LAG_MS = 100.0
SEEN_S = 5.0
FLAP_S = 300.0


@dataclass(frozen=True)
class Verdict:
    """All findings, the worst first.  is_seen: there were requests, or time for some."""

    findings: tuple[Finding, ...]
    is_seen: bool = True

    @property
    def troubles(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level != NOTE)

    @property
    def notes(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == NOTE)

    @property
    def is_well(self) -> bool:
        return not self.troubles

    @cached_property
    def _levels(self) -> dict[str, str]:
        return {finding.node: finding.level for finding in reversed(self.findings)}  # the worst comes last

    def of_node(self, name: str) -> str:
        """The worst level of what is said of a node; "" if nothing is."""
        return self._levels.get(name, "")

    def words(self) -> str:
        """The first line."""
        if self.is_well:
            return "all well" if self.is_seen else "nothing wrong yet: nothing was measured so far"
        count = len(grouped_findings(self.troubles))
        return f"NOT WELL: {count} problem{'s' if count > 1 else ''}"


def judge(farm: Farm) -> Verdict:
    """Everything that can be said."""
    found = [finding for rule in _FARM_RULES for finding in rule(farm)]
    busy = [node for node in farm.nodes if node.is_in_service]
    for node in farm.nodes:
        others = [other for other in busy if other is not node]
        found += [finding for rule in _NODE_RULES for finding in rule(node, others)]
    if any(finding.kind == "errors" and finding.node for finding in found):
        found = [finding for finding in found if finding.kind != "retries"]  # they follow from it
        if not any(finding.kind == "errors" and not finding.node for finding in found):
            found = [_spared(farm, finding) if finding.kind == "errors" else finding for finding in found]
    if any(finding.level != NOTE for finding in found):  # what is usual does not stand beside what is wrong
        found = [finding for finding in found if finding.kind not in ("hot", "skew")]
    has_time = (number(farm.status, "uptime_s") or SEEN_S) >= SEEN_S
    asked = farm.now.requests or number(of(farm.status, "farm"), "requests")
    is_seen = farm.now.requests is not None and (has_time or bool(asked))
    return Verdict(tuple(sorted(found, key=lambda finding: LEVELS.index(finding.level))), is_seen)


# -- of the farm


def _director(farm: Farm) -> Iterator[Finding]:
    status, age_s = farm.status, farm.answers.age_s
    if problem := farm.answers.problem:
        yield Finding(BAD, "stale", f"no answer; what is shown is {age(age_s)} old. {problem}")
    state = status.get("state")
    if state == "draining":
        yield Finding(WARN, "director", "the director is stopping: it takes no new clients and finishes what runs")
    elif state == "starting":
        yield Finding(WARN, "director", "the director is starting", "its log, if that lasts")
    for why in listed(of(status, "config"), "problems")[:1]:
        where = of(status, "config").get("path", "the configuration file")
        text = f"the last reload was refused, the configuration before it is in force: {why}"
        yield Finding(WARN, "reload", text, f"cachelb check -c {where}")
    for question, why in farm.answers.missing.items():
        yield Finding(WARN, "answer", f"no answer to /api/v1/{question}: {why}")


def _workers(farm: Farm) -> Iterator[Finding]:
    wanted = number(farm.status, "epoch")
    for worker in listed(farm.status, "workers"):
        name, epoch = f"worker {worker.get('number', '?')}", number(worker, "epoch")
        if number(worker, "pid") == 0:
            yield Finding(BAD, "worker", f"{name} is not running", "the director's log: why it died")
            continue
        if wanted is not None and epoch is not None and epoch < wanted - 1:
            text = f"{name} (pid {worker.get('pid')}) is behind: it runs on state {epoch:.0f} of {wanted:.0f}"
            yield Finding(BAD, "worker", text, "is it stopped, or out of CPU? top, kill -CONT")
        lag = number(worker, "loop_lag_ms")
        if lag is not None and lag > LAG_MS:
            text = f"{name} is late by {millis(lag)}: more work than one CPU does"
            yield Finding(WARN, "worker", text, "top; [relay] workers, or another director")
        restarts = number(worker, "restarts")
        if restarts:
            text = f"{name} was restarted {restarts:.0f} time{'s' if restarts > 1 else ''} since the director began"
            yield Finding(NOTE, "worker", text, "the director's log")


def _serving(farm: Farm) -> Iterator[Finding]:
    taking = [node for node in farm.nodes if node.state == "up" and node.weight > 0]
    if farm.nodes and not taking:
        last = [node for node in farm.nodes if node.state == "drain"]
        if last:
            yield Finding(WARN, "farm", "no node is up: those that drain still serve, as the last resort")
        else:
            yield Finding(BAD, "farm", "no node can serve: what may, goes around the farm", "the nodes' Squids")
        return
    icp = of(of(farm.status, "onecache"), "icp")
    speaks = any(listener.get("kind") in ("icp", "htcp") for listener in listed(farm.status, "listeners"))
    if icp.get("mode") == "forward":
        for node in listed(farm.status, "nodes"):
            if str(node.get("icp", "")).startswith(("no answer", "DENIED")):
                text = f"{node.get('name')} gives no answers by ICP, which [icp] mode forward asks for: {node['icp']}"
                yield Finding(WARN, "peers", text, "icp_port and icp_access in its squid.conf; docs/peers.md")
    if speaks and icp.get("mode") != "off" and icp.get("serving") is False and farm.status.get("state") == "running":
        yield Finding(WARN, "peers", "peers are told not to fetch from here (ICP MISS_NOFETCH)", "docs/peers.md")


def _traffic(farm: Farm) -> Iterator[Finding]:
    requests = _recent(farm, "requests_per_s", farm.now.requests)
    errors, of_all = failed(farm.trend, farm.now)
    if errors >= ERRORS_PER_S and errors >= ERRORS_PART * of_all:
        level = BAD if errors >= ERRORS_BAD_PART * of_all else WARN
        text = f"{_part(errors, of_all)} of all requests fail ({errors:.1f}/s)"
        yield Finding(level, "errors", text, f"{_reasons(farm)}; /api/v1/events, the access log")
    if requests < BUSY_PER_S:
        return
    bypassed = _recent(farm, "bypassed_per_s", farm.rate("bypassed_per_s"))
    if bypassed >= BYPASS_PART * requests:
        text = f"{_part(bypassed, requests)} of all requests go around the farm{_why_bypassed(farm)}{_where_bypassed(farm)}"
        yield Finding(WARN, "bypass", text, "who asks: the access log ([log] access); why: cachelb-stats --watch, e, URL")
    refused = _recent(farm, "refused_per_s", farm.rate("refused_per_s"))
    if refused >= REFUSED_PART * requests:
        text = f"{_part(refused, requests)} of all requests are refused ({refused:.1f}/s)"
        yield Finding(WARN, "refused", text, f"{_reasons(farm)}; /api/v1/events, the access log")
    retries = farm.rate("retries_per_s") or 0.0
    if retries >= RETRIES_PART * requests:
        by_errors = {node.name: node.now.errors for node in farm.nodes if node.now.errors}
        worst = max(by_errors, key=lambda name: by_errors[name], default="")
        whose = f", the most for {worst} ({by_errors[worst]:.1f} err/s)" if worst else ""
        text = f"{_part(retries, requests)} of requests are tried again on another connection or node{whose}"
        yield Finding(WARN, "retries", text, "err/s of the nodes")


def _hot(farm: Farm) -> Iterator[Finding]:
    hot = farm.answers.hot
    window = number(hot or {}, "window_s") or 1.0
    total = (number(hot or {}, "requests") or 0.0) / max(1.0, window)
    for entry in listed(hot, "urls_by_requests")[:3]:
        part = number(entry, "requests_share")
        if part is None or part < HOT_PART or total < BUSY_PER_S:
            continue
        owner, around = str(entry.get("owner") or ""), number(entry, "bypassed_share") or 0.0
        how = "it goes around the farm" if around > 0.5 else f"its owner is {owner}" if owner else "it has no owner"
        hits = number(entry, "hit_ratio")
        how += f", hits {percent(hits)} %" if hits is not None else ""
        text = f"one URL is {percent(part)} % of the requests of the last {age(window)}, {how}: {entry.get('name', '?')}"
        yield Finding(NOTE, "hot", text, "cachelb-stats --watch, h")


def _stores(farm: Farm) -> Iterator[Finding]:
    one = of(farm.status, "onecache")
    for what, words in (("digest", "the farm's digest"), ("index", "the saved index")):
        if problem := of(one, what).get("problem"):
            yield Finding(WARN, what, f"{words}: {problem}", "the director's log")
    index = of(one, "index")
    keys, limit = number(index, "keys"), number(index, "keys_limit")
    if keys and limit and keys >= 0.98 * limit:
        yield Finding(WARN, "index", f"the index is full ({grouped(keys)} keys): peers are not told of all", "docs/peers.md")
    dropped = number(of(farm.status, "farm"), "log_dropped")
    if dropped:
        text = f"{grouped(dropped)} lines of the access log were lost since the director began"
        yield Finding(NOTE, "log", text, "is the disk full or slow? [log] access")


# -- of a node


def _dead(node: Node, others: Sequence[Node]) -> Iterator[Finding]:
    if node.state == "dead":
        text = f"{node.name} is dead for {age(node.since_s)}: {node.cause or 'no cause is known'}"
        look = f"the Squid at {node.place}: cache.log; does it run, is its disk full, is something in between?"
        yield Finding(BAD, "dead", text, look, node.name)
    elif node.state not in ("up", "drain", "down"):
        yield Finding(WARN, "dead", f"{node.name}: state {node.state!r} is not known here", "a newer director?", node.name)


def _unsteady(farm: Farm) -> Iterator[Finding]:
    """Nodes that come and go: between two deaths all may look well."""
    now = number(farm.status, "now") or 0.0
    changes = [event for event in farm.answers.events if event.get("kind") == "node"]
    lately = [event for event in changes if now - (number(event, "at") or 0.0) <= FLAP_S]
    deaths = Counter(str(event.get("node")) for event in lately if of(event, "data").get("state") == "dead")
    for node in farm.nodes:
        if node.is_in_service and (times := deaths[node.name]) > 1:
            text = f"{node.name} comes and goes: it died {times} times in the last {age(FLAP_S)}"
            look = f"the Squid at {node.place}: its cache.log, its network; drain it meanwhile"
            yield Finding(WARN, "unsteady", text, look, node.name)


def _failing(node: Node, others: Sequence[Node]) -> Iterator[Finding]:
    errors, requests = node.failed
    if node.state not in ("up", "drain") or errors < ERRORS_PER_S or errors < ERRORS_PART * requests:
        return
    mostly = f"; since the start mostly {node.failing}" if node.failing else ""
    text = f"{node.name} fails {_part(errors, max(errors, requests))} of its requests ({errors:.1f}/s{mostly})"
    level = BAD if errors >= ERRORS_BAD_PART * requests else WARN
    yield Finding(level, "errors", text, f"the Squid at {node.place}: its cache.log; drain it meanwhile", node.name)


def _stuck(node: Node, others: Sequence[Node]) -> Iterator[Finding]:
    usual = median([other.in_flight for other in others]) if others else 0.0
    done = known(node.lately.requests, 0.0)
    if node.is_in_service and node.in_flight >= HUNG_IN_FLIGHT and done >= BUSY_PER_S and node.now.p50_ms is None:
        text = f"{node.name} has {node.in_flight} requests in flight and has ended none in the last second: does it hang?"
        yield Finding(WARN, "stuck", text, f"the Squid at {node.place}: top, iostat; health will tell in seconds", node.name)
        return
    if not node.is_in_service or node.in_flight < max(STUCK_IN_FLIGHT, STUCK_TIMES * usual):
        return
    if node.in_flight < known(node.now.requests, done):
        return  # by Little's law, each takes less than a second: it is asked for much, as for a hot URL
    if any(_slow(node, others)):
        return  # which says the same with a figure
    text = f"{node.name} has {node.in_flight} requests in flight, the others {usual:.0f}: it hardly answers"
    yield Finding(WARN, "stuck", text, f"the Squid at {node.place}: top, iostat; drain it meanwhile", node.name)


def _slow(node: Node, others: Sequence[Node]) -> Iterator[Finding]:
    if not node.is_in_service or known(node.lately.requests, 0.0) < SLOW_PER_S:
        return
    for name, floor, times, mine, theirs in (
        ("p50", SLOW_P50_MS, SLOW_P50_TIMES, node.lately.p50_ms, [other.lately.p50_ms for other in others]),
        ("p99", SLOW_P99_MS, SLOW_P99_TIMES, node.lately.p99_ms, [other.lately.p99_ms for other in others]),
    ):
        usual = [value for value in theirs if value is not None]
        if mine is None or (not usual and (name != "p50" or mine < SLOW_ALONE_MS)):
            continue
        if not usual:
            text = f"{node.name} is slow: half its answers take more than {millis(mine)}"
        elif mine >= floor and mine >= times * median(usual):
            text = f"{node.name} is slow: {name} {millis(mine)}, the others {millis(median(usual))}"
        else:
            continue
        yield Finding(WARN, "slow", text, f"the machine of {node.place}: top, iostat, its network; drain it meanwhile", node.name)
        return


def _cold(node: Node, others: Sequence[Node]) -> Iterator[Finding]:
    usual = [other.lately.hit_ratio for other in others if other.lately.hit_ratio is not None]
    mine = node.lately.hit_ratio
    if not node.is_in_service or mine is None or not usual or known(node.lately.requests, 0.0) < WARM_PER_S:
        return
    if node.since_s is not None and node.since_s < WARM_S:
        return
    if mine <= median(usual) - HIT_POINTS:
        text = f"{node.name} hits {percent(mine)} %, the others {percent(median(usual))} %: is its store new, empty or too small?"
        yield Finding(WARN, "cold", text, f"the Squid at {node.place}: squidclient mgr:storedir", node.name)


def _skewed(farm: Farm) -> Iterator[Finding]:
    for node in farm.nodes if len(farm.nodes) > 2 else ():
        part, keys = known(node.part, 0.0), known(node.keys, 0.0)
        if known(node.now.requests, 0.0) < SKEW_PER_S or part < SKEW_PART or part < SKEW_TIMES * keys:
            continue
        entries = [entry for entry in listed(farm.answers.hot, "urls_by_requests") if entry.get("owner") == node.name]
        explains = [entry for entry in entries[:1] if (number(entry, "requests_share") or 0.0) >= SKEW_NAMED * (part - keys)]
        url = f", the most for {explains[0].get('name')}" if explains else ""
        text = f"{node.name} gets {percent(part)} % of requests with {percent(keys)} % of the keys{url}"
        yield Finding(NOTE, "skew", text, node=node.name)


def _steered(node: Node, others: Sequence[Node]) -> Iterator[Finding]:
    by = "by an operator" if node.operator == node.state else "by the file"
    if node.state == "drain":
        drain = node.drain or {}
        eta = number(drain, "eta_s")
        how = (
            "done, it can be stopped"
            if drain.get("done") is True
            else f"{node.in_flight} in flight" + (f", done in {age(eta)}" if eta else "")
        )
        yield Finding(NOTE, "drain", f"{node.name} is drained {by}: {how}", node=node.name)
    elif node.state == "down":
        yield Finding(NOTE, "drain", f"{node.name} is taken down {by}", node=node.name)
    elif node.state == "up" and node.returning < 1:
        text = f"{node.name} is coming back: it takes {percent(node.returning)} % of its keys"
        yield Finding(NOTE, "returning", text, node=node.name)
    elif node.state == "up" and not node.weight:
        yield Finding(NOTE, "drain", f"{node.name} has weight 0: no key is its own", node=node.name)


# -- words


def _recent(farm: Farm, name: str, present: float | None) -> float:
    """The mean of the last ten seconds, or as it is now."""
    values = newest(farm.trend.get(name, ()))
    return mean(values) if values else known(present, 0.0)


def _part(some: float, all_of_them: float) -> str:
    return f"{percent(min(1.0, some / all_of_them) if all_of_them else 1.0)} %"


def _most(farm: Farm, prefix: str, without: Sequence[str] = ()) -> str:
    """The counter with this prefix that has grown most, since the sample before or since the start."""
    now, before = of(farm.status, "farm"), of(farm.answers.before, "farm")
    grown = {
        name.removeprefix(prefix): (number(now, name) or 0) - (number(before, name) or 0)
        for name in now
        if name.startswith(prefix) and name.removeprefix(prefix) not in without
    }
    best = max(grown, key=lambda name: grown[name], default="")
    return best.replace("_", " ") if best and grown[best] > 0 else ""


def _why_bypassed(farm: Farm) -> str:
    word = _most(farm, "bypassed_")
    return f", mostly because {BYPASSED.get(word.replace(' ', '_'), word)}" if word else ""


def _where_bypassed(farm: Farm) -> str:
    """The host and first path segment that most of what goes around the farm is for; without a share: that is of minutes."""
    entries = listed(farm.answers.hot, "around_by_requests")
    return f"; the most for {entries[0].get('name', '?')}" if entries else ""


def _spared(farm: Farm, finding: Finding) -> Finding:
    """Clients do not see that a node fails: others answered, or the same one on another connection."""
    retries = farm.rate("retries_per_s") or 0.0
    tried = f", {retries:.0f}/s were tried again" if retries >= 1 else ""
    return replace(finding, text=f"{finding.text}{tried}; clients got no errors")


def _reasons(farm: Farm) -> str:
    word = _most(farm, "ended_", ("done", "client_gone"))
    return f"most often: {word}" if word else "reasons: ended_* in /api/v1/status"


_FARM_RULES: tuple[Callable[[Farm], Iterator[Finding]], ...] = (
    *(_director, _serving, _workers, _unsteady, _traffic, _hot, _skewed, _stores),
)
_NODE_RULES: tuple[Callable[[Node, Sequence[Node]], Iterator[Finding]], ...] = (
    *(_dead, _failing, _stuck, _slow, _cold, _steered),
)
