"""What the director would do with one request, and why: the answer to "which node owns this URL?".

It asks the very functions that the relay asks (``relay.plan``), so that what it says is what happens.
Left out: everything that needs a socket.  What answers have taught and which clients have a node only a running director knows,
and tells (``taught``, ``followed``).  As text: explain_text.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from cachelb.errors import BadRequest, Reason
from cachelb.explain_tcp import explain_service, is_connection
from cachelb.explained import (
    CHOSEN,
    BadQuestionError,
    Explanation,
    Followed,
    NodeLine,
    States,
    instead,
    node_lines,
    pools_of,
    template_of,
)
from cachelb.http.framing import request_body
from cachelb.http.head import Limits, scan_request
from cachelb.relay.plan import OWNERS, BlockPlan, LinePlan, Planner, plan_settings
from cachelb.routing.classify import Kind, Verdict
from cachelb.routing.guard import is_within
from cachelb.routing.pool import Pool
from cachelb.routing.route import pick
from cachelb.routing.rules import Rule, first_that_takes
from cachelb.routing.template import packed

if TYPE_CHECKING:
    from cachelb.config import Config

_BY_KEY = frozenset(("", "url", "carp", "host", "client"))  # schedulers that hash something
_CHOSEN = CHOSEN | dict.fromkeys(("url", "carp", "host"), "by its key") | {"client": "by the client's address"}

_authority = re.compile(r"[^:/?#]+://(?:[^/?#]*@)?([^/?#]*)").match
_bytes_mark = re.compile(r"\bb(?=['\"])").sub  # of Python, before what was received
_no_scheme = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z][^/?#:@]*)(?::[0-9]{1,5})?(?:/(?!/)|\?|$)").match
_control = re.compile(r"[\x00-\x1f\x7f]").search


def explain(
    config: Config,
    url: str,
    method: str = "GET",
    headers: Sequence[str] = (),
    client: str = "127.0.0.1",
    states: States | None = None,
    host_names: Iterable[str] = (),
    taught: Callable[[bytes, bytes], str | None] = lambda key, segment: None,
    followed: Followed = lambda group, client: "",
) -> Explanation:
    """Say what would happen to a request.

    Args:
        url: As a client asks for it; a path needs a Host among ``headers``; CONNECT takes host:port.  A connection to a TCP
            service is asked about as "tcp://ADDRESS:PORT", where it goes to, or "tls://NAME:PORT".
        headers: Fields as "Name: value".
        client: Its IP address.
        states: Per node, its state and the part of its keys that it takes while it returns; default: as configured.
        host_names: How the director's host is called.
        taught: What answers have taught about a key and its segment, as ``Learned.lookup`` has it.
        followed: The node that a client has in an affinity group; "" if it has none.

    Raises:
        BadQuestionError: There is a line break in it, ``client`` is no address, a header is none.
    """
    client = _plain(client)
    states = states or {}
    if is_connection(url):
        return explain_service(config, url, client, states, followed)
    asked = {"method": method, "url": url, "client": client}
    question = _Question(config, asked, states, planner_of(config, states, host_names), taught, followed)
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
        is_close = exc.reason is Reason.BAD_URL and method != "CONNECT" and _no_scheme(url)
        hint = f"; did you mean http://{url}?" if is_close else ""
        return question.refused(exc.reason, _bytes_mark("", exc.detail, count=1) + hint)
    return question.answer(line, block, may_purge)


def _plain(client: str) -> str:
    """A client's address as the relay knows it."""
    try:
        return str(ip_address(packed(client)))
    except ValueError as exc:
        raise BadQuestionError(f"{client!r} is not the IP address of a client") from exc


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


def planner_of(config: Config, states: States, host_names: Iterable[str] = ()) -> Planner[str]:
    """A planner like the relay's, with the nodes' names for targets."""
    pools = pools_of(config, states)
    farm = pools[""]
    return Planner(plan_settings(config, host_names), farm.table(), farm.targets, farm.admits, pools)


class _Question:
    """One request being explained."""

    def __init__(
        self,
        config: Config,
        asked: dict[str, Any],
        states: States,
        planner: Planner[str],
        taught: Callable[[bytes, bytes], str | None],
        followed: Followed,
    ) -> None:
        self.config = config
        self.taught = taught
        self.followed = followed
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
        known = self._of_key(line, None) if line.url is not None else {"key": _text(line.target)}
        if block.loop:
            return self.refused(Reason.LOOP, f"{self.planner.via_name} is in its Via", **known)
        verdict = self.planner.classify(line, block)
        if verdict.kind is Kind.REFUSE:
            return self.refused(verdict.reason or Reason.BAD_REQUEST, verdict.why, **known)
        known |= {"kind": verdict.kind.value, "why": verdict.why}
        if verdict.why.startswith("rule "):
            known |= {"rule": verdict.why.removeprefix("rule "), "rule_in": "bypass"}
        if verdict.kind in (Kind.HASH, Kind.BYPASS, Kind.TUNNEL):
            rule = first_that_takes(line.rules, block.block, str(self.asked["client"]))
            if rule is not None and (found := self._ruled(rule, verdict.kind, line, block, known)) is not None:
                return found
        if verdict.kind is Kind.HASH and line.url is not None and (why := self.taught(line.key, line.segment)):
            verdict = Verdict(Kind.BYPASS, why)
            known |= {"kind": verdict.kind.value, "why": why}
        if verdict.kind is Kind.PURGE and not may_purge:
            known["why"] = f"{self.asked['client']} is in no network of [access] purge"
            return self.refused(Reason.PURGE_DENIED, **known)
        return self._destination(verdict.kind, line, block, known, self.planner.owners(line.key))

    def _ruled(
        self, rule: Rule, kind: Kind, line: LinePlan[str], block: BlockPlan, known: dict[str, Any]
    ) -> Explanation | None:
        """Where a rule sends a request; None if that is as without it.  The same choices as ``relay.steer`` makes."""
        action = rule.action
        scheduler = action.scheduler or ("wlc" if action.affinity else "url")
        known |= {"rule": rule.name, "rule_in": "rule", "pool": action.pool, "scheduler": scheduler}
        known |= {"affinity": action.affinity, "cookies": action.cookies}
        if action.refuse:
            return self.refused(Reason.RULE_DENIED, **known | {"kind": Kind.REFUSE.value, "why": f"rule {rule.name}"})
        if action.bypass:
            way = Kind.TUNNEL if line.form == "authority" else Kind.BYPASS
            known |= {"kind": way.value, "why": f"rule {rule.name}"}
            return self._destination(way, line, block, known, self.planner.owners(line.key))
        if action.bypass is None and action.is_hashed:
            if kind is not Kind.HASH or (line.url is not None and self.taught(line.key, line.segment)):
                return None
        else:
            known["why"] = f"rule {rule.name}"
        known["kind"] = Kind.TUNNEL.value if kind is Kind.TUNNEL else Kind.HASH.value
        known |= self._of_key(line, rule)
        pool = self.planner.pools[action.pool]
        if not (action.affinity or action.cookies) and scheduler in _BY_KEY:
            owners = pool.owners(self._hashed(line, rule), OWNERS, action.algorithm)
            return self._destination(Kind.HASH, line, block, known, owners, can_do_without=action.only_hashes)
        template = template_of(self.config, action.affinity, pool, str(self.asked["client"]), self.followed)
        known["template"] = template
        serving = tuple(pool.targets[i] for i in pool.serving)
        if not serving and not template:
            return self.refused(Reason.NO_NODE, **known)
        if template:
            goes = f"to {template}, where the client's template in the group {action.affinity} sends it"
            to = (template, *(name for name in serving if name != template))
        else:
            goes, to = f"to a node of {f'pool {action.pool}' if action.pool else 'the farm'}, {_CHOSEN[scheduler]}", serving
        return Explanation(**self.asked, **known, goes=goes, to=to, sent=self._to_node(line, block))

    def _hashed(self, line: LinePlan[str], rule: Rule) -> bytes:
        return self.client if rule.action.scheduler == "client" else self.planner.hashed(line, rule)

    def _destination(
        self,
        kind: Kind,
        line: LinePlan[str],
        block: BlockPlan,
        known: dict[str, Any],
        owners: tuple[str, ...],
        can_do_without: bool = True,
    ) -> Explanation:
        """Where a request goes that is not refused; the same choices as ``relay.exchange`` makes.

        can_do_without: it may go to its origin where no node is in service.
        """
        if kind is Kind.LOCAL:
            return Explanation(**self.asked, **known, goes="nowhere: the director answers itself")
        if kind is Kind.PURGE:
            goes = "to the URL's owners and to every other cache that may have it; to no origin"
            return Explanation(**self.asked, **known, goes=goes)
        mode = self.planner.bypass_mode
        is_connect = line.form == "authority"
        around = kind is not Kind.HASH and (mode != "off" or is_connect)
        if not around and owners:
            owner = str(known.get("owner", ""))
            goes = f"to {owners[0]}" + (instead(self.config, self.states, owners[0], owner) if owner else "")
            return Explanation(**self.asked, **known, goes=goes, to=owners, sent=self._to_node(line, block))
        if mode == "direct" and (line.can_go_direct or is_connect) and can_do_without:
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

    def _lines(self, pool: Pool[str], order: Sequence[int], turns: Mapping[int, int]) -> tuple[NodeLine, ...]:
        return node_lines(self.config, self.states, pool, order, turns)

    def _in_service(self) -> tuple[str, ...]:
        """As the relay has it: those that drain only where there is no other."""
        pairs = list(zip(self.planner.targets, self.planner.admits, strict=True))
        return tuple(name for name, a in pairs if a > 0) or tuple(name for name, a in pairs if a < 0)

    def _of_key(self, line: LinePlan[str], rule: Rule | None) -> dict[str, Any]:
        """What there is to know of a key, whatever is done with the request; in the pool of the rule that decides."""
        action = rule.action if rule is not None else None
        pool: Pool[str] = self.planner.pools[action.pool if action is not None else ""]
        algorithm = (action.algorithm if action is not None else "") or pool.algorithm
        table = pool.table(algorithm)
        key = line.key if rule is None else self._hashed(line, rule)
        is_keyed = action is None or (action.scheduler in _BY_KEY and not (action.affinity or action.cookies))
        if table is None or not is_keyed:
            nothing = dict.fromkeys(("hash", "table", "algorithm", "owner"), "")
            return {"key": _text(line.key), "fraction": 0.0, "nodes": self._lines(pool, [], {}), **nothing}
        order = table.owners(key, len(pool.members))
        fraction = table.fraction(key)
        turns = {index: turn for turn, index in enumerate(pick(order, pool.admits, fraction)[:OWNERS], 1)}
        return {
            "key": _text(line.key),
            "algorithm": algorithm,
            "table": table.digest(),
            "hash": f"{table.place(key):08x}",
            "fraction": fraction,
            "owner": pool.targets[order[0]] if order else "",
            "nodes": self._lines(pool, order, turns),
        }


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
