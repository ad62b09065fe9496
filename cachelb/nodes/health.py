"""Which nodes are alive: probes and traffic in, changes of state out.

Nothing here probes or reads a clock: ``due`` says which probes to send now, ``observe_probe`` takes their results,
``observe_passive`` what the relays saw, ``tick`` what time alone changes.  The states of one node::

    up (unproven) --1 probe fails-----------------------------> dead
    up --fall probes in a row fail----------------------------> dead
    up --passive_failures in a row--> suspect: probed at once
         suspect --that probe fails---------------------------> dead
         suspect --it passes, the failures go on--------------> dead (ejected: an outlier, for a while)
    dead --rise probes in a row pass--> up, with a growing share of its keys
    dead (ejected) --its time is over and probes pass--> up, likewise

Death by probe is a fact and has no limit; ejection is a judgement, and never takes more than a configured share of the
farm or its last node.

Left out: what the operator wants (drain, down): pass only the nodes that may be used.  How a slowly returning node gets
its keys is in ``routing.route``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

State = Literal["up", "dead"]

QUICK_FLOOR_S = 0.1  # the shortest pause between two probes of one node, however short the interval is
RETURN_S = 5.0  # a node that is back is in use after this long (or two intervals), however long it was away
EJECTION_S = 30.0  # the first ejection; the n-th lasts n times as long.  Envoy's base_ejection_time
FORGIVEN_S = 300.0  # after this long without an ejection the next one is a first one again
RAMP_STEPS = 10  # each step is one new snapshot for every worker


class HealthPolicy(NamedTuple):
    """The ``[health]`` section; what each value means is said there.  A hung node is found in
    ``interval_s * (1 + jitter) + fall * timeout_s`` at most: 4.2 s as it stands, three intervals are 6."""

    interval_s: float = 2.0
    timeout_s: float = 1.0
    jitter: float = 0.1
    rise: int = 2
    fall: int = 2
    backoff_max_s: float = 60.0
    slow_start_s: float = 10.0
    passive_failures: int = 5
    max_ejected_share: float = 0.5

    @property
    def quick_s(self) -> float:
        """The pause before a probe is repeated while its node is in doubt."""
        return max(self.interval_s / 4, QUICK_FLOOR_S)

    @property
    def dead_gap_s(self) -> float:
        """The longest pause between two probes of a dead node: with the further probes that `rise` asks for, and
        jitter, its return is seen within ``RETURN_S``."""
        rest = max(2 * self.interval_s, RETURN_S) - (self.rise - 1) * self.quick_s
        return min(max(rest / (1 + self.jitter), self.quick_s), self.backoff_max_s)


class NodeHealth(NamedTuple):
    """One node now.

    share: the part of its own keys that it takes: 0 when dead, below 1 while it returns.
    since: when the state began, monotonic seconds; cause: why, as half a sentence.
    """

    state: State
    share: float
    since: float
    cause: str


class Change(NamedTuple):
    """A node went from one state to the other, at `at` monotonic seconds.  As text: one sentence for the log."""

    name: str
    old: State
    new: State
    cause: str
    at: float

    def __str__(self) -> str:
        return f"node {self.name} is {self.new}: {self.cause}"


class _Node:
    __slots__ = (
        "acquitted", "cause", "ejected_until", "ejections", "failed", "flying", "gap_s", "name", "next_at", "passed",
        "passive", "proven", "ramp_from", "returned_at", "share", "since", "started_at", "state", "suspect_at",
    )  # fmt: skip

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.state: State = "up"
        self.share = 1.0
        self.since = now
        self.cause = "not probed yet"
        self.proven = False  # has answered a probe, ever
        self.passed = self.failed = 0  # probes in a row
        self.next_at = self.started_at = now
        self.flying = False  # a probe was sent and its result is not here
        self.gap_s = 0.0  # the present pause between probes while dead
        self.passive = 0  # failures of traffic in a row
        self.suspect_at = math.nan  # nan: not suspect
        self.acquitted = False  # was suspect and passed its probe; no success of traffic since
        self.ejections = 0
        self.ejected_until = math.nan  # nan: not ejected
        self.returned_at = now
        self.ramp_from = math.nan  # nan: not returning

    @property
    def is_ejected(self) -> bool:
        return not math.isnan(self.ejected_until)

    @property
    def is_suspect(self) -> bool:
        return not math.isnan(self.suspect_at)


class Health:
    """The health of all nodes.  `version` grows whenever ``states`` would answer something else."""

    def __init__(self, policy: HealthPolicy, names: Sequence[str], now: float, seed: int = 1) -> None:
        self.version = 0
        self._policy = policy
        self._seed = seed
        self._nodes: dict[str, _Node] = {}
        self.reload(policy, names, now)

    def reload(self, policy: HealthPolicy, names: Sequence[str], now: float) -> None:
        """Take over a new policy and new nodes.  Nodes that stay keep their state; new ones are probed at once."""
        self._policy = policy
        self._nodes = {name: self._nodes.get(name) or _Node(name, now) for name in names}
        self.version += 1
        self._set_shares(now)

    def adopt(self, dead: Mapping[str, str], now: float) -> None:
        """Take over from another director which nodes are dead, and why; they are probed at once."""
        for name, cause in dead.items():
            if (node := self._nodes.get(name)) is not None:
                self._die(node, cause, now)
                node.next_at = now
        self._set_shares(now)

    def states(self) -> dict[str, NodeHealth]:
        """Every node as it was at the last verb that took a `now`, in the order in which the nodes were given."""
        return {n.name: NodeHealth(n.state, n.share, n.since, n.cause) for n in self._nodes.values()}

    def due(self, now: float) -> list[str]:
        """The nodes to probe now.  Each is out until its ``observe_probe`` or ``skip_probe``."""
        nodes = [node for node in self._nodes.values() if node.next_at <= now and not node.flying]
        for node in nodes:
            node.started_at = now
            node.flying = True
        return [node.name for node in nodes]

    def next_due(self, now: float) -> float:
        """When ``tick`` and ``due`` have something to do, monotonic seconds; ``inf`` when only a result can tell."""
        times = [node.next_at for node in self._nodes.values() if not node.flying]
        times += [node.ejected_until for node in self._nodes.values() if node.is_ejected]
        times += [self._next_step(node, now) for node in self._nodes.values() if not math.isnan(node.ramp_from)]
        return max(min(times, default=math.inf), now)

    def tick(self, now: float) -> list[Change]:
        """What time alone changes: ejections that end, shares that grow."""
        changes = []
        for node in self._nodes.values():
            if node.is_ejected and now >= node.ejected_until:
                node.ejected_until = math.nan
                if node.failed:
                    node.cause = "probes fail since it was ejected"
                else:
                    changes.append(self._revive(node, "its ejection is over and probes are answered", now))
        self._set_shares(now)
        return changes

    def observe_probe(self, name: str, ok: bool, detail: str, now: float) -> list[Change]:
        """The result of a probe from ``due``; `detail` says in a few words what was answered or went wrong."""
        node = self._nodes.get(name)
        if node is None:  # removed while the probe was under way
            return []
        node.flying = False
        changes = self._probe_passed(node, detail, now) if ok else self._probe_failed(node, detail, now)
        if changes:
            self._set_shares(now)
        return changes

    def skip_probe(self, name: str, now: float) -> None:
        """The probe told nothing about the node, because we ourselves were in trouble; it is sent again soon."""
        if (node := self._nodes.get(name)) is not None:
            node.flying = False
            node.next_at = max(now, node.started_at + self._policy.quick_s)

    def observe_passive(self, name: str, failures: int, successes: int, now: float) -> list[Change]:
        """What traffic saw since the last report: connections that failed or were reset before an answer began, and
        answers that began.  One success clears what came before it, whatever their order."""
        node = self._nodes.get(name)
        if node is None or node.state == "dead":  # answers to what was sent before its death prove nothing
            return []
        if successes:
            node.passive = 0
            node.acquitted = False
            node.suspect_at = math.nan
            return []
        node.passive += failures
        if node.passive < self._policy.passive_failures or node.is_suspect:
            return []
        if node.acquitted:
            return self._eject(node, now)
        node.suspect_at = now
        node.next_at = now
        return []

    def _probe_passed(self, node: _Node, detail: str, now: float) -> list[Change]:
        node.proven = True
        node.failed = 0
        node.passed += 1
        node.next_at = max(now, node.started_at + self._jittered(self._policy.interval_s))
        if node.state == "dead":
            if node.is_ejected:
                return []
            if node.passed >= self._policy.rise:
                return [self._revive(node, f"{node.passed} probes in a row were answered, last: {detail}", now)]
            node.next_at = max(now, node.started_at + self._policy.quick_s)
        elif node.started_at < node.suspect_at:  # sent before the trouble, so it acquits nobody
            node.next_at = now
        elif node.is_suspect:
            node.suspect_at = math.nan
            node.acquitted = True
            node.passive = 0
        elif node.passed == 1 and node.cause == "not probed yet":
            node.cause = f"probes are answered: {detail}"
            self.version += 1
        return []

    def _probe_failed(self, node: _Node, detail: str, now: float) -> list[Change]:
        policy = self._policy
        node.passed = 0
        node.failed += 1
        node.next_at = max(now, node.started_at + policy.quick_s)
        if node.state == "dead" and not node.is_ejected:
            node.gap_s = min(2 * node.gap_s, policy.dead_gap_s)
            node.next_at = max(now, node.started_at + self._jittered(node.gap_s))
            return []
        if node.is_suspect:
            return self._die(node, f"{node.passive} failures in a row, then a probe: {detail}", now)
        if not node.proven:
            return self._die(node, f"the first probe failed: {detail}", now)
        if node.failed < policy.fall:
            return []
        return self._die(node, f"{node.failed} probes in a row failed, last: {detail}", now)

    def _die(self, node: _Node, cause: str, now: float) -> list[Change]:
        change = Change(node.name, node.state, "dead", cause, now)
        node.gap_s = self._policy.quick_s
        node.ejected_until = math.nan
        self._enter(node, "dead", cause, now)
        return [change] if change.old == "up" else []  # an ejected node that dies was dead to the relay already

    def _revive(self, node: _Node, cause: str, now: float) -> Change:
        node.ramp_from = now
        node.returned_at = now
        self._enter(node, "up", cause, now)
        return Change(node.name, "dead", "up", cause, now)

    def _eject(self, node: _Node, now: float) -> list[Change]:
        failures = node.passive
        node.passive = 0
        node.acquitted = False
        ejected = sum(other.is_ejected for other in self._nodes.values())
        live = sum(other.state == "up" for other in self._nodes.values())
        if live <= 1 or ejected + 1 > self._policy.max_ejected_share * len(self._nodes):
            return []
        if now - node.returned_at > FORGIVEN_S:
            node.ejections = 0
        node.ejections += 1
        time_s = min(EJECTION_S * node.ejections, self._policy.backoff_max_s)
        cause = f"{failures} failures in a row although probes are answered; ejected for {time_s:g} s"
        self._enter(node, "dead", cause, now)
        node.ejected_until = now + time_s
        self._set_shares(now)
        return [Change(node.name, "up", "dead", cause, now)]

    def _enter(self, node: _Node, state: State, cause: str, now: float) -> None:
        if node.state != state:
            node.since = now
        node.state = state
        node.cause = cause
        node.passive = 0
        node.suspect_at = math.nan
        node.acquitted = False
        if state == "dead":
            node.ramp_from = math.nan
        self.version += 1

    def _set_shares(self, now: float) -> None:
        """Sparing a returning node is for farms that can: while less than half of the nodes carry all of their keys,
        as after a start before the Squids or a power cut, the rest would be buried, and shares are full at once."""
        nodes = self._nodes.values()
        full = sum(node.state == "up" and math.isnan(node.ramp_from) for node in nodes)
        for node in nodes:
            share = 0.0 if node.state == "dead" else 1.0
            if not math.isnan(node.ramp_from):
                share = self._ramp(node, now) if 2 * full >= len(nodes) else 1.0
                if share >= 1.0:
                    node.ramp_from = math.nan
            if share != node.share:
                node.share = share
                self.version += 1

    def _ramp(self, node: _Node, now: float) -> float:
        if self._policy.slow_start_s <= 0:
            return 1.0
        # the small term: a step that is due now must not be missed by a rounding error
        steps = math.floor(RAMP_STEPS * (now - node.ramp_from) / self._policy.slow_start_s + 1e-6)
        return min((steps + 1) / RAMP_STEPS, 1.0)

    def _next_step(self, node: _Node, now: float) -> float:
        steps = round(self._ramp(node, now) * RAMP_STEPS)
        return node.ramp_from + steps * self._policy.slow_start_s / RAMP_STEPS

    def _jittered(self, seconds: float) -> float:
        """`seconds` plus or minus up to the configured part, so that nodes and directors do not probe in step."""
        self._seed = (self._seed * 6364136223846793005 + 1442695040888963407) % (1 << 64)  # Knuth's MMIX generator
        return seconds * (1 + self._policy.jitter * ((self._seed >> 32) / (1 << 31) - 1))
