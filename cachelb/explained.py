"""What can be said of one request or connection, before it is made: the answer of ``explain``, and what it says of the nodes.

Left out: how it is found (explain.py, explain_tcp.py), as text (explain_text.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cachelb.routing.pool import Pool, Tables, make_pools
from cachelb.routing.ring import Member
from cachelb.routing.route import NodeState, admission
from cachelb.routing.template import keepers

if TYPE_CHECKING:
    from cachelb.config import Config

States = Mapping[str, tuple[NodeState, float]]  # of nodes: the state, and the part of its keys that one takes while it returns
Followed = Callable[[str, str], str]  # the node that a client has in an affinity group; "" if it has none
# How schedulers that hash nothing choose, in words.
CHOSEN = {
    "rr": "in turn",
    "wrr": "in turn by its weight",
    "lc": "whoever has the fewest requests under way",
    "wlc": "whoever has the fewest requests under way for its weight",
}


class BadQuestionError(ValueError):
    """The question cannot be asked; one sentence says why."""


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One node as the key sees it.

    place: in the key's failover order, from 1; 0 for a node without weight, which is never asked.
    port: of HTTP, or of the TCP service.
    share: the part of all URLs that is meant to be its own, 0 to 1.
    tried: its turn if the request goes to the key's owners, from 1; 0 if it would not be asked.
    """

    place: int
    name: str
    host: str
    port: int
    state: str
    weight: float
    share: float
    tried: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to a request, or to a connection to a TCP service; then ``method`` is "".

    key: the canonical URL, which is hashed; hash: that, in hex; fraction: by which a returning node takes keys back.
    table: the fingerprint of the nodes: equal on directors that agree on every owner.
    kind: hash, bypass, tunnel, local, purge, refuse or tcp; why: the rule, or what is wrong.
    rule: the operator's own under which it falls, or the service; rule_in: "rule" for [[rule]], "bypass" for [bypass], "tcp" for
        [[tcp]], "" for none.
    pool, scheduler, affinity, cookies: that a [[rule]] or [[tcp]] says, the scheduler in force.
    template: the node that the client has in the affinity group; "" if it has none there, or that is not known.
    reason, status: how it ends if it is refused; reason is "" and status 0 if not.
    owner: the node that has the key when all are up; "" where there is none.
    goes: where the request goes, as a sentence; to: the nodes that are asked, in order.
    sent: the head that they, or the origin, are sent.
    """

    method: str
    url: str
    client: str
    kind: str
    why: str
    goes: str
    reason: str = ""
    status: int = 0
    rule: str = ""
    rule_in: str = ""
    pool: str = ""
    scheduler: str = ""
    affinity: str = ""
    cookies: tuple[str, ...] = ()
    template: str = ""
    key: str = ""
    algorithm: str = ""
    table: str = ""
    hash: str = ""
    fraction: float = 0.0
    owner: str = ""
    to: tuple[str, ...] = ()
    sent: str = ""
    nodes: tuple[NodeLine, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def state_of(config: Config, states: States, name: str) -> tuple[NodeState, float]:
    """A node's state; as configured, where ``states`` does not tell."""
    if name in states:
        return states[name]
    return next(node.state for node in config.node if node.name == name), 1.0


def instead(config: Config, states: States, first: str, owner: str) -> str:
    """Why it is not the owner of a key that is asked first, as the end of a sentence."""
    if first == owner:
        return ", its owner"
    state, share = state_of(config, states, owner)
    slowly = f"returns slowly (it takes {share:.0%} of its keys)" if state == "up" else f"is {state}"
    return f", because its owner {owner} {slowly}"


def template_of(config: Config, group: str, pool: Pool[str], client: str, followed: Followed) -> str:
    """The node that a client of an affinity group goes on to; "" if it has none there, or gets another."""
    template = followed(group, client) if group else ""
    expires_on_drain = any(each.expire_on_drain for each in config.affinity if each.name == group)
    places = {name: place for place, name in enumerate(pool.targets)}
    return template if places.get(template, -1) in keepers(pool, places.__getitem__, expires_on_drain) else ""


def node_lines(
    config: Config, states: States, pool: Pool[str], order: Sequence[int], turns: Mapping[int, int], port: int = 0
) -> tuple[NodeLine, ...]:
    """All nodes of a pool, those in front that a key asks first.

    Args:
        order: Members of the pool in the key's failover order; turns: of those that are asked.
        port: That is asked; 0: each node's HTTP port.
    """
    places = {index: place for place, index in enumerate(order, 1)}
    total = sum(member.weight for member in pool.members)
    nodes = {node.name: node for node in config.node}
    lines = []
    for index in [*order, *(i for i in range(len(pool.members)) if i not in places)]:
        name, weight = pool.members[index]
        node = nodes[name]
        share = weight / total if total else 0.0
        state = state_of(config, states, name)[0]
        place, turn = places.get(index, 0), turns.get(index, 0)
        lines.append(NodeLine(place, name, node.host, port or node.http_port, state, weight, share, turn))
    return tuple(lines)


def pools_of(config: Config, states: States) -> dict[str, Pool[str]]:
    """All pools as a relay has them, with the nodes' names for targets; "" is the whole farm."""
    members = [Member(node.name, node.weight) for node in config.node]
    admits = [admission(*state_of(config, states, member.name)) for member in members]
    names = [member.name for member in members]
    return make_pools(config.pool, config.hash.algorithm, Tables(), members, names, admits)
