"""What to do with a request, decided from values alone.

A request head has two halves that repeat independently: its first line (which URL, so which owner) and its field block
(whose browser).  Each half is judged once into a LinePlan or a BlockPlan, which the relay keeps in bounded memos; a request
whose halves are both *plain* needs nothing but two look-ups.  Everything else takes the same plans through ``classify``.

Left out: sockets, learned verdicts (they change with every answer), retries.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from cachelb.errors import BadRequest, Reason
from cachelb.http.fields import RequestFields, request_fields
from cachelb.http.head import RequestHead
from cachelb.http.rewrite import EditPolicy, is_loop, request_edit
from cachelb.http.url import Url, parse_absolute, parse_authority, parse_origin, usual_line
from cachelb.http.usual_fields import usual_fields
from cachelb.routing.classify import INTERNAL_PREFIX, BypassRules, Here, Kind, Policy, Verdict, classify
from cachelb.routing.pool import Pool
from cachelb.routing.ports import PortSet
from cachelb.routing.ring import Ring
from cachelb.routing.route import ADMIT_ALL, ADMIT_NONE, likely_holders, live_owners
from cachelb.routing.rules import NO_CANDIDATES, NO_RULES, Rule, RuleSet, compile_rules
from cachelb.routing.table import Table

if TYPE_CHECKING:
    from cachelb.config import Config

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))  # RFC 9110, section 9.2.2
OWNERS: Final = 3  # as many as are tried for one request (attempts.TARGETS_MAX)

NO_FIELDS: Final = request_fields(b"")

T = TypeVar("T")


class LinePlan(Generic[T]):
    """What the first line (and for origin-form the Host field) of a request says.

    Attributes:
        method, target, minor: as received; form: absolute, origin, authority or asterisk; url: None for the last two.
        key: the canonical URL, which is hashed; host and port: where direct goes.
        plain: a GET or HEAD over HTTP/1.1 that would be hashed, if its fields do not say otherwise.
        internal: an internal page by its full URL: ours, if that names where the client has connected to.
        idempotent: may be repeated; can_go_direct: the scheme is one that we speak.
        targets: whom to ask, in order; empty where no node is in service, or nothing is hashed.  partial: only the first of
            them; the others are found out when that one fails.
        head: first line and Host as a node is sent them.
        rules: those that may decide, see ``RuleSet.candidates``; rule: the one that does, where the line alone says so and
            ``targets`` are as it says.
        logged: the URL as the access log has it; empty until it is asked for.
        told_until: when a hit is worth telling the supervisor again; vain_until: a miss with nothing fresh (sightings.py).
    """

    __slots__ = (
        "_segment", "_url", "can_go_direct", "form", "head", "host", "idempotent", "internal", "key", "logged", "method", "minor",
        "partial", "plain", "port", "rule", "rules", "target", "targets", "told_until", "vain_until",
    )  # fmt: skip

    def __init__(self, method: bytes, target: bytes, minor: int, form: str = "") -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.form = form
        self._url: Url | None = None
        self.key = target
        self._segment: bytes | None = None
        self.host = b""
        self.port = 0
        self.plain = False
        self.internal = False
        self.idempotent = method == b"GET" or method in IDEMPOTENT  # a set has to be hashed for
        self.can_go_direct = False
        self.targets: tuple[T, ...] = ()
        self.partial = False
        self.head = b""
        self.rule: Rule | None = None
        self.rules: tuple[Rule, ...] = ()
        self.logged = b""
        self.told_until = 0.0
        self.vain_until = 0.0

    @property
    def url(self) -> Url | None:
        """The URL; None for an authority or an asterisk.  That of a usual line is made on demand."""
        if self._url is None and self.partial:
            self._url = parse_absolute(self.key)
        return self._url

    @url.setter
    def url(self, url: Url) -> None:
        self._url = url

    @property
    def asked(self) -> bytes:
        """The canonical URL as the client has asked for it, which a rule may have given another key; or its target."""
        return self.key if self._url is None else self._url.key

    @property
    def segment(self) -> bytes:
        """As ``Url.segment``; empty where there is no URL.  Made on demand: most requests never ask."""
        if self._segment is None:
            url = self.url
            self._segment = b"" if url is None else url.segment
        return self._segment

    def no_lessons(self) -> None:
        """Nothing is to be learned for its URL."""
        self._segment = b""


class BlockPlan:
    """What the field block of a request says.

    Attributes:
        fields: the facts; block: the lines as received; loop: our own Via is among them.
        plain: nothing in it keeps a GET from being hashed and sent on as usual.
        pre, ip, post: the block for a node in two parts; the client's address goes between them if ``ip``.
            ``post`` ends the head.
    """

    __slots__ = ("block", "fields", "ip", "loop", "plain", "post", "pre")

    def __init__(self, block: bytes, fields: RequestFields) -> None:
        self.block = block
        self.fields = fields
        self.loop = False
        self.plain = False
        self.pre = b""
        self.ip = False
        self.post = b""


class PlanSettings(NamedTuple):
    """The configuration, as far as requests depend on it.

    via_name: our received-by token; forwarded_for: append, set, delete or off; bypass_mode: direct, nodes or off.
    """

    policy: Policy
    rules: RuleSet
    via_name: str
    forwarded_for: str
    forwarded_for_hops: int
    bypass_mode: str


def plan_settings(config: Config, host_names: Iterable[str] = ()) -> PlanSettings:
    """The part of a configuration that plans depend on; ``host_names``: how this host is called."""
    bypass, relay = config.bypass, config.relay
    own_hosts = [*host_names, *config.listen.names, *(address.host for address in config.listen.http)]
    policy = Policy(
        PortSet.parse(config.access.connect_ports),
        PortSet.parse(config.access.safe_ports),
        BypassRules(bypass.hosts, bypass.paths, bypass.headers),
        frozenset(name.encode("latin-1", "replace") for name in own_hosts),
        frozenset(address.port for address in config.listen.http),
    )
    return PlanSettings(policy, compile_rules(config.rule), relay.via, relay.forwarded_for, relay.forwarded_for_hops, bypass.mode)


class Planner(Generic[T]):
    """Turns heads into plans, for one Snapshot.

    pools: by name, "" is the whole farm; without rules nobody asks for them.
    targets: one per node in the order of the table; admits: see ``routing.route.admission``.
    """

    def __init__(
        self,
        settings: PlanSettings,
        table: Table | None,
        targets: Sequence[T],
        admits: Sequence[float],
        pools: Mapping[str, Pool[T]] | None = None,
    ) -> None:
        self.settings = settings
        self.rules = settings.rules
        self.pools = pools or {}
        self.table = table
        self.targets = targets
        self.admits = admits
        self.via_name = settings.via_name
        self.bypass_mode = settings.bypass_mode
        self._ring = table if isinstance(table, Ring) else None  # compiled, it can be called without a look-up
        self._alone = [(target,) for target in targets]
        self._has_rules = settings.policy.rules.active
        self._takes_80 = settings.policy.safe_ports.allows(80)
        self._all_take = all(admits in (ADMIT_ALL, ADMIT_NONE) for admits in self.admits)
        self._pseudonym = settings.via_name.encode("latin-1")
        self._edits = {
            (minor, to_origin, upgrade, hops): EditPolicy(
                via=b"1.%d %s (cachelb)" % (minor, self._pseudonym),
                forwarded_for=settings.forwarded_for,
                forwarded_for_hops=settings.forwarded_for_hops,
                to_origin=to_origin,
                upgrade=upgrade,
                minor=minor,
                decrement_max_forwards=hops,
            )
            for minor in (0, 1)
            for to_origin in (False, True)
            for upgrade in (False, True)
            for hops in (False, True)
        }
        self._edit = self._edits[1, False, False, False]

    # -- the two halves

    def plan_block(self, block: bytes) -> BlockPlan:
        """Judge a field block.

        Raises:
            BadRequest: Its framing is ambiguous, or a field that matters is malformed.
        """
        return self._plan_fields(block, request_fields(block))

    def plan_usual_block(self, block: bytes, most: int) -> BlockPlan | None:
        """As ``plan_block``, for a block that is usual, and so well-formed, and has at most so many lines; None for all others.

        It is what a request costs whose fields are not remembered.
        """
        fields = usual_fields(block, most)
        return None if fields is None else self._plan_fields(block, fields)

    def _plan_fields(self, block: bytes, fields: RequestFields) -> BlockPlan:
        plan = BlockPlan(block, fields)
        plan.loop = is_loop(fields, self._pseudonym)
        pre, post = request_edit(fields, self._edit)
        plan.pre, plan.post, plan.ip = pre, post + b"\r\n", bool(post)
        plan.plain = not (
            plan.loop
            or fields.host is None
            or fields.content_length > 0
            or fields.chunked
            or fields.upgrade
            or fields.expect_continue
            or fields.authorization
            or fields.session
            or fields.no_store
            or fields.only_if_cached
            or self._has_rules
        )
        return plan

    def plan_line(self, head: RequestHead, host: bytes | None) -> LinePlan[T]:
        """Judge a first line; ``host`` is the Host field, which an origin-form target needs.

        Raises:
            BadRequest: The target is not one that can be understood.
        """
        method, target = head.method, head.target
        if method == b"CONNECT":
            plan: LinePlan[T] = LinePlan(method, target, head.minor, "authority")
            plan.host, plan.port = parse_authority(target)
            plan.head = b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n" % (target, target)
            plan.rules = self.rules.candidates(method, b"https", plan.host, plan.port, b"")
            return plan
        if target == b"*":
            return LinePlan(method, target, head.minor, "asterisk")
        if target.startswith(b"/"):
            if not host and not target.startswith(INTERNAL_PREFIX):  # internal pages are ours whatever it says
                raise BadRequest(Reason.BAD_REQUEST, "a path without a Host field")
            return self._plan_url(head, "origin", parse_origin(target, host or b"localhost"))
        return self._plan_url(head, "absolute", parse_absolute(target))

    def _plan_url(self, head: RequestHead, form: str, url: Url) -> LinePlan[T]:
        plan: LinePlan[T] = LinePlan(head.method, head.target, head.minor, form)
        plan.url = url
        plan.host = url.host
        plan.port = url.port
        plan.can_go_direct = url.scheme == b"http"
        keyed, sent = self.rules.keyed(url)
        plan.key = keyed.key
        plan.head = b"%s %s HTTP/1.1\r\nHost: %s\r\n" % (head.method, sent.key, sent.authority)
        verdict = classify(head.method, url, NO_FIELDS, form, self.settings.policy)
        plan.internal = form == "absolute" and url.path.startswith(INTERNAL_PREFIX)
        plan.plain = verdict.kind is Kind.HASH and head.minor == 1 and not plan.internal
        if verdict.kind in (Kind.HASH, Kind.BYPASS):
            plan.rules = self.rules.candidates(head.method, url.scheme, url.host, url.port, url.path)
            if plan.rules and plan.rules[0].decides:
                plan.rule = plan.rules[0]
            plan.plain = plan.plain and (plan.rule is not None or not plan.rules)
            plan.targets = self.line_owners(plan)
        return plan

    def plan_usual_line(self, first: bytes) -> LinePlan[T] | None:
        """As ``plan_line`` for a first line that is the usual one, without its CRLF; None for all others.

        It is what a request for a URL that is not remembered costs, so it finds only the owner: 2 us instead of 7 (2026-11).
        """
        method, target, host, path = usual_line(first)
        if not method or self.table is None or self._has_rules or not self._takes_80 or path.startswith(INTERNAL_PREFIX):
            return None
        if method != b"GET" and self.rules.has_keys:
            return None  # the key is a GET's, whose rule may be another
        rules = NO_CANDIDATES if self.rules is NO_RULES else self.rules.candidates(method, b"http", host, 80, path)
        if rules:
            alone = self._ruled_owner(rules[0], target, host, path)
            if alone is None:
                return None
        else:
            ring = self._ring
            index = self.table.owner(target) if ring is None else ring.owner(target)
            if index < 0 or self.admits[index] != ADMIT_ALL:
                return None
            alone = self._alone[index]
        plan: LinePlan[T] = LinePlan(method, target, 1, "absolute")
        plan.host = host
        plan.port = 80
        plan.can_go_direct = plan.plain = plan.partial = True
        plan.head = b"".join((first, b"\r\nHost: ", host, b"\r\n"))
        plan.targets = alone
        if rules:
            plan.rules, plan.rule = rules, rules[0]
        return plan

    def _ruled_owner(self, rule: Rule, key: bytes, host: bytes, path: bytes) -> tuple[T] | None:
        """The owner of a usual line's URL by its first candidate, if that decides and the URL is its own key."""
        if not rule.decides or (rule.keying is not None and not rule.keying.leaves(host, path)):
            return None
        action = rule.action
        pool = self.pools[action.pool]
        index = pool.owner(host if action.scheduler == "host" else key, action.algorithm)
        return None if index < 0 else (pool.targets[index],)

    def owners(self, key: bytes) -> tuple[T, ...]:
        """Whom to ask for ``key``, in order; empty where no node is in service."""
        if self.table is None:
            return ()
        return tuple(self.targets[i] for i in live_owners(self.table, key, self.admits, OWNERS))

    def line_owners(self, line: LinePlan[T]) -> tuple[T, ...]:
        """Whom to ask for a line whose rule, if it has one, only hashes; a reload may have removed the rule's pool."""
        if line.rule is None or line.rule.action.pool not in self.pools:
            return self.owners(line.key)
        action = line.rule.action
        return self.pools[action.pool].owners(self.hashed(line, line.rule), OWNERS, action.algorithm)

    def hashed(self, line: LinePlan[T], rule: Rule) -> bytes:
        """What is hashed of a line for a rule whose scheduler does that: its key, or the host of that."""
        if rule.action.scheduler != "host":
            return line.key
        return line.host if line.url is None else self.rules.keyed(line.url)[0].host

    def holders(self, line: LinePlan[T]) -> tuple[T, ...]:
        """Whom to ask for what only a cache may answer: also nodes that take no requests, but have what they took before."""
        if self.table is None or self._all_take or line.rule is not None:
            return self.line_owners(line) if line.partial else line.targets
        return tuple(self.targets[i] for i in likely_holders(self.table, line.key, self.admits, OWNERS))

    # -- the general case

    def classify(self, line: LinePlan[T], block: BlockPlan, here: Here | None = None) -> Verdict:
        """What kind of request the two halves make together; ``here`` matters only where ``line.internal``."""
        return classify(line.method, line.url, block.fields, line.form, self.settings.policy, block.block, line.port, here)

    def node_head(self, line: LinePlan[T], block: BlockPlan, ip: bytes, *, upgrade: bool = False) -> bytes:
        """The head for a node; ``upgrade`` passes the request's Upgrade on."""
        return line.head + self._block_for(line, block, ip, to_origin=False, upgrade=upgrade)

    def origin_head(self, line: LinePlan[T], block: BlockPlan, ip: bytes, *, upgrade: bool = False) -> bytes:
        """The whole head for an origin, in origin-form; ``upgrade`` passes the request's Upgrade on."""
        assert line.url is not None
        first = b"%s %s HTTP/1.1\r\nHost: %s\r\n" % (line.method, line.url.path, line.url.authority)
        return first + self._block_for(line, block, ip, to_origin=True, upgrade=upgrade)

    def _block_for(self, line: LinePlan[T], block: BlockPlan, ip: bytes, *, to_origin: bool, upgrade: bool) -> bytes:
        hops = line.method in (b"OPTIONS", b"TRACE")
        pre, post = request_edit(block.fields, self._edits[line.minor, to_origin, upgrade, hops])
        end = b"Connection: Upgrade\r\n\r\n" if upgrade else b"\r\n"
        if line.url is not None and line.url.userinfo and not block.fields.authorization:
            # What stands before "@" is not part of the key; it goes on as Squid sends it.
            end = b"Authorization: Basic " + base64.b64encode(_unquoted(line.url.userinfo)) + b"\r\n" + end
        return pre + (ip + post if post else b"") + end


def _unquoted(text: bytes) -> bytes:
    """``text`` with its percent escapes decoded (RFC 3986, section 2.1)."""
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes((int(match[1], 16),)), text)
