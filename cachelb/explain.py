"""What the director would do with one request, and why: the answer to "which node owns this URL?".

It asks the very functions that the relay asks (``relay.plan``), so that what it says is what happens.
Left out: everything that needs a socket.  What answers have taught only a running director knows, and tells (``taught``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from cachelb.errors import BadRequest, Reason
from cachelb.http.framing import request_body
from cachelb.http.head import Limits, scan_request
from cachelb.relay.plan import OWNERS, BlockPlan, LinePlan, Planner, plan_settings
from cachelb.routing.classify import Kind, Verdict
from cachelb.routing.guard import is_within
from cachelb.routing.ring import Member
from cachelb.routing.route import NodeState, admission, pick
from cachelb.routing.table import make_table

if TYPE_CHECKING:
    from cachelb.config import Config

SHOWN_NODES = 16  # in the text; as JSON there are all

_authority = re.compile(r"[^:/?#]+://(?:[^/?#]*@)?([^/?#]*)").match
_control = re.compile(r"[\x00-\x1f\x7f]").search


class BadQuestionError(ValueError):
    """The question cannot be asked; one sentence says why."""


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One node as the key sees it.

    place: in the key's failover order, from 1; 0 for a node without weight, which is never asked.
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
    """What would happen to a request.

    key: the canonical URL, which is hashed; hash: that, in hex; fraction: by which a returning node takes keys back.
    table: the fingerprint of the nodes: equal on directors that agree on every owner.
    kind: hash, bypass, tunnel, local, purge or refuse; why: the rule, or what is wrong; rule: if it was the operator's own.
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


def explain(
    config: Config,
    url: str,
    method: str = "GET",
    headers: Sequence[str] = (),
    client: str = "127.0.0.1",
    states: Mapping[str, tuple[NodeState, float]] | None = None,
    host_names: Iterable[str] = (),
    taught: Callable[[bytes, bytes], str | None] = lambda key, segment: None,
) -> Explanation:
    """Say what would happen to a request.

    Args:
        url: As a client asks for it; a path needs a Host among ``headers``; CONNECT takes host:port.
        headers: Fields as "Name: value".
        client: Its IP address.
        states: Per node, its state and the part of its keys that it takes while it returns; default: as configured.
        host_names: How the director's host is called.
        taught: What answers have taught about a key and its segment, as ``Learned.lookup`` has it.

    Raises:
        BadQuestionError: There is a line break in it, ``client`` is no address, a header is none.
    """
    try:
        ip_address(client)
    except ValueError as exc:
        raise BadQuestionError(f"{client!r} is not the IP address of a client") from exc
    states = states or {}
    asked = {"method": method, "url": url, "client": client}
    question = _Question(config, asked, states, planner_of(config, states, host_names), taught)
    data = _head(method, url, headers)
    limits = config.limits
    try:
        head = scan_request(data, Limits(limits.head_bytes, limits.url_bytes, limits.fields))
        if head is None or head.size != len(data):
            raise BadRequest(Reason.BAD_REQUEST, "this is not one request")
        block = question.planner.plan_block(head.block)
        line = question.planner.plan_line(head, block.fields.host)
        may_purge = method == "PURGE" and is_within(client, config.access.purge)
        if not may_purge and not is_within(client, config.access.allow):
            return question.refused(Reason.ACCESS_DENIED, f"{client} is in no network of [access] allow")
        request_body(head, block.fields)
    except BadRequest as exc:
        return question.refused(exc.reason, exc.detail)
    return question.answer(line, block, may_purge)


def _head(method: str, url: str, headers: Iterable[str]) -> bytes:
    """The request as a client would send it."""
    lines = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name:
            raise BadQuestionError(f'{header!r} is not a header; write it like "Cookie: a=1"')
        lines.append(f"{name}: {value.strip()}")
    if not any(line.lower().startswith("host:") for line in lines):
        match = _authority(url)
        host = url if method == "CONNECT" else match[1] if match else ""
        if host:
            lines.insert(0, f"Host: {host}")
    lines.insert(0, f"{method} {url} HTTP/1.1")
    for line in lines:
        if _control(line.replace("\t", " ")):
            raise BadQuestionError(f"{line!r} has a line break or another control character")
    return "".join(line + "\r\n" for line in [*lines, ""]).encode("utf-8", "surrogateescape")


def planner_of(config: Config, states: Mapping[str, tuple[NodeState, float]], host_names: Iterable[str] = ()) -> Planner[str]:
    """A planner like the relay's, with the nodes' names for targets."""
    members = [Member(node.name, node.weight) for node in config.node]
    admits = [admission(*states.get(node.name, (node.state, 1.0))) for node in config.node]
    table = make_table(config.hash.algorithm, members)
    return Planner(plan_settings(config, host_names), table, [member.name for member in members], admits)


class _Question:
    """One request being explained."""

    def __init__(
        self,
        config: Config,
        asked: dict[str, Any],
        states: Mapping[str, tuple[NodeState, float]],
        planner: Planner[str],
        taught: Callable[[bytes, bytes], str | None],
    ) -> None:
        self.config = config
        self.taught = taught
        self.asked = asked
        self.client = str(asked["client"]).encode()
        self.states = states
        self.planner = planner

    def refused(self, reason: Reason, why: str, **known: Any) -> Explanation:
        """The request ends with an error page; ``known`` may say what kind it was nevertheless."""
        row = reason.value
        goes = f"nowhere: the client is told {row.status}, {row.text}"
        known = {"kind": Kind.REFUSE.value} | known | {"why": why, "reason": reason.label, "status": row.status}
        return Explanation(**self.asked, **known, goes=goes)

    def answer(self, line: LinePlan[str], block: BlockPlan, may_purge: bool) -> Explanation:
        known = self._of_key(line.key) if line.url is not None else {"key": _text(line.target)}
        if block.loop:
            return self.refused(Reason.LOOP, f"{self.planner.via_name} is in its Via", **known)
        verdict = self.planner.classify(line, block)
        if verdict.kind is Kind.REFUSE:
            return self.refused(verdict.reason or Reason.BAD_REQUEST, verdict.why, **known)
        rule = verdict.why.removeprefix("rule ") if verdict.why.startswith("rule ") else ""
        if verdict.kind is Kind.HASH and line.url is not None and (why := self.taught(line.key, line.segment)):
            verdict = Verdict(Kind.BYPASS, why)
        known |= {"kind": verdict.kind.value, "why": verdict.why, "rule": rule}
        if verdict.kind is Kind.PURGE and not may_purge:
            known["why"] = f"{self.asked['client']} is in no network of [access] purge"
            return self.refused(Reason.PURGE_DENIED, **known)
        return self._destination(verdict.kind, line, block, known)

    def _destination(self, kind: Kind, line: LinePlan[str], block: BlockPlan, known: dict[str, Any]) -> Explanation:
        """Where a request goes that is not refused; the same choices as ``relay.exchange`` makes."""
        if kind is Kind.LOCAL:
            return Explanation(**self.asked, **known, goes="nowhere: the director answers itself")
        if kind is Kind.PURGE:
            goes = "to the URL's owners and to every other cache that may have it; to no origin"
            return Explanation(**self.asked, **known, goes=goes)
        owners = self.planner.owners(line.key)
        mode = self.planner.bypass_mode
        is_connect = line.form == "authority"
        around = kind is not Kind.HASH and (mode != "off" or is_connect)
        if not around and owners:
            goes = f"to {owners[0]}" + self._instead(owners[0], str(known["owner"]))
            return Explanation(**self.asked, **known, goes=goes, to=owners, sent=self._to_node(line, block))
        if mode == "direct" and (line.can_go_direct or is_connect):
            goes = "straight to the origin" + ("" if around else ", because no node is in service")
            sent = "" if is_connect else _text(self.planner.origin_head(line, block, self.client))
            return Explanation(**self.asked, **known, goes=goes, sent=sent)
        alive = self._in_service()
        if around and alive:
            goes = "to any node that is in service, in turn"
            return Explanation(**self.asked, **known, goes=goes, to=alive, sent=self._to_node(line, block))
        return self.refused(Reason.NO_NODE, **known)

    def _to_node(self, line: LinePlan[str], block: BlockPlan) -> str:
        return _text(self.planner.node_head(line, block, self.client))

    def _instead(self, first: str, owner: str) -> str:
        if first == owner:
            return ", its owner"
        state, share = self._state(owner)
        slowly = f"returns slowly (it takes {share:.0%} of its keys)" if state == "up" else f"is {state}"
        return f", because its owner {owner} {slowly}"

    def _state(self, name: str) -> tuple[NodeState, float]:
        if name in self.states:
            return self.states[name]
        return next(node.state for node in self.config.node if node.name == name), 1.0

    def _in_service(self) -> tuple[str, ...]:
        """As the relay has it: those that drain only where there is no other."""
        pairs = list(zip(self.planner.targets, self.planner.admits, strict=True))
        return tuple(name for name, a in pairs if a > 0) or tuple(name for name, a in pairs if a < 0)

    def _of_key(self, key: bytes) -> dict[str, Any]:
        """What there is to know of a key, whatever is done with the request."""
        table, nodes = self.planner.table, self.config.node
        assert table is not None
        order = table.owners(key, len(nodes))
        fraction = table.fraction(key)
        turns = {index: turn for turn, index in enumerate(pick(order, self.planner.admits, fraction)[:OWNERS], 1)}
        places = {index: place for place, index in enumerate(order, 1)}
        total = sum(node.weight for node in nodes)
        lines = []
        for index in [*order, *(i for i in range(len(nodes)) if i not in places)]:
            node = nodes[index]
            place, turn = places.get(index, 0), turns.get(index, 0)
            share = node.weight / total if total else 0.0
            state = self._state(node.name)[0]
            lines.append(NodeLine(place, node.name, node.host, node.http_port, state, node.weight, share, turn))
        return {
            "key": _text(key),
            "algorithm": self.config.hash.algorithm,
            "table": table.digest(),
            "hash": f"{table.place(key):08x}",
            "fraction": fraction,
            "owner": nodes[order[0]].name if order else "",
            "nodes": tuple(lines),
        }


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def render(found: Explanation) -> str:
    """An Explanation for people."""
    rows = [("request", f"{found.method} {found.url}"), ("client", found.client)]
    if found.key:
        rows.append(("key", found.key))
    if found.hash:
        rows.append(("hash", f"{found.hash} ({found.algorithm}, table {found.table})"))
    if found.owner:
        rows.append(("owner", found.owner))
    rows.append(("kind", f"{found.kind}: {found.why}" if found.why else found.kind))
    if found.rule:
        rows.append(("rule", f"{found.rule} of [bypass]"))
    if found.reason:
        rows.append(("reason", f"{found.reason} ({found.status})"))
    rows.append(("goes", found.goes))
    text = "".join(f"{name:<9}{_printable(value)}\n" for name, value in rows)
    if found.nodes:
        text += "\n" + _node_table(found)
    if found.sent:
        lines = found.sent.removesuffix("\r\n\r\n").split("\r\n")
        text += "\nsent:\n" + "".join(f"  {_printable(line)}\n" for line in lines)
    return text


def _node_table(found: Explanation) -> str:
    rows = [("order", "node", "address", "state", "weight", "share", "asked")]
    for node in found.nodes[:SHOWN_NODES]:
        host = f"[{node.host}]" if ":" in node.host else node.host
        asked = str(node.tried) if node.tried and node.name in found.to else "-"
        place = str(node.place) if node.place else "-"
        address = f"{host}:{node.port}"
        rows.append((place, node.name, address, node.state, f"{node.weight:g}", f"{node.share:.1%}", asked))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if len(found.nodes) > SHOWN_NODES:
        lines.append(f"... and {len(found.nodes) - SHOWN_NODES} more")
    return "".join(line + "\n" for line in lines)


def _printable(text: str) -> str:
    """Text that cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
