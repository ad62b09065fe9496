"""Where requests go that a rule has taken: which pool, and who of it.

A rule may say who by the key (hashing), by the client, in turn, by how busy the nodes are, or by whom the client's requests
went to before: its cookie first, then its template.  A node that is chosen so is asked first; others of the pool come after it
if it cannot be reached.

Left out: which rule takes a request (``routing.rules``), templates (templates.py), how a connection is found (attempts.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachelb.errors import Reason
from cachelb.relay.attempts import TARGETS_MAX
from cachelb.relay.cookies import Cookies
from cachelb.relay.pinning import Pins
from cachelb.relay.templates import Templates
from cachelb.routing.classify import Kind
from cachelb.routing.rules import first_that_takes
from cachelb.routing.schedule import Turns, least_busy

if TYPE_CHECKING:
    from cachelb.http.response import ResponseHead
    from cachelb.relay.engine import Engine
    from cachelb.relay.exchange import Exchange
    from cachelb.relay.upstream import Link, Target
    from cachelb.relay.ways import Ways
    from cachelb.routing.pool import Pool
    from cachelb.routing.rules import Rule


class Steering:
    """The choices of one relay that go beyond a hash table."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.templates = Templates(self)
        self.pins = Pins(engine)
        self.cookies = Cookies(engine)
        self._turns: dict[tuple[str, str], Turns] = {}
        self._turn = 0

    def takes(self, exchange: Exchange, kind: Kind) -> bool:
        """Send a request where its client's pin is, or the rule says that it falls under; False: as it would go without.

        Args:
            kind: HASH, BYPASS or TUNNEL: what it would be without rules.
        """
        line, client = exchange.line, exchange.client
        if (exchange.block.fields.session or client.pin is not None) and self.pins.takes(exchange, kind):
            return True
        rule = first_that_takes(line.rules, exchange.block.block, client.ip)
        if rule is None:
            return False
        exchange.rule = rule
        action = rule.action
        if action.refuse:
            exchange.fail(Reason.RULE_DENIED, rule.name)
            return True
        if action.bypass:
            self._around(exchange, rule)
            return True
        if action.bypass is None and action.is_hashed:
            if kind is not Kind.HASH or exchange.taught() is not None:
                return False
            if rule is line.rule:
                return False  # its targets are the line's
        exchange.why = f"rule {rule.name}"
        exchange.upgrading = kind is Kind.TUNNEL and line.method != b"CONNECT" and line.minor == 1
        self.read_cookies(exchange, rule)
        self.send(exchange, rule)
        return True

    def _around(self, exchange: Exchange, rule: Rule) -> None:
        exchange.upgrading = bool(exchange.block.fields.upgrade) and exchange.line.minor == 1
        if exchange.line.method == b"CONNECT":
            exchange.tunnel()
        else:
            exchange.bypass(f"rule {rule.name}")

    def send(self, exchange: Ways, rule: Rule) -> None:
        """To a node of the rule's pool: at once, or when it is known whose client this is."""
        targets: tuple[Target, ...] | None
        if exchange.jar is not None and exchange.jar.target is not None:
            targets = self._after(exchange.jar.target, exchange, rule)
        else:
            targets = self.follow(exchange, rule) if rule.action.affinity else self.targets(exchange, rule)
        if targets is not None:
            self.found(exchange, targets)

    def found(self, exchange: Ways, targets: tuple[Target, ...]) -> None:
        """It is known whom to ask."""
        if targets:
            self.engine.count("steered")
            exchange.send_to(targets, self.node_head(exchange))
        else:
            exchange.farm_dead()

    def read_cookies(self, exchange: Exchange, rule: Rule) -> None:
        """Take a request's cookies to heart, where its rule has some."""
        exchange.rule = rule
        exchange.jar = None
        names = rule.action.cookies
        if names:
            exchange.client.unusual = True  # so that its answers are looked at
            exchange.jar = self.cookies.read(names, exchange.block.block, self.engine.fleet.pools[rule.action.pool])

    def node_head(self, exchange: Ways) -> bytes:
        """The request's head as a node is sent it: it sees nothing of our cookies."""
        head, rule = exchange.node_head(), exchange.rule
        return self.cookies.taken_out(rule.action.cookies, head) if rule is not None and rule.action.cookies else head

    def answered(self, exchange: Exchange, link: Link, head: ResponseHead) -> None:
        """Edit an answer's head where more than its request decides about the next one."""
        self.pins.answered(exchange, link, head)
        rule = exchange.rule
        if rule is not None and rule.action.cookies and exchange.jar is not None and link.target.is_node:
            self.cookies.put_in(rule.action.cookies, exchange.jar, link.target, head)

    def _after(self, first: Target, exchange: Ways, rule: Rule) -> tuple[Target, ...]:
        """``first``, then others of the pool, by the URL: the client goes there only if it cannot be reached."""
        others = self.engine.fleet.pools[rule.action.pool].owners(exchange.line.key, TARGETS_MAX, rule.action.algorithm)
        return (first, *(target for target in others if target is not first))[:TARGETS_MAX]

    def follow(self, exchange: Ways, rule: Rule) -> tuple[Target, ...] | None:
        """Whom the client's template says; None: the exchange waits, for that is not known here."""
        action, client, templates = rule.action, exchange.client, self.templates
        group, pool = action.affinity, self.engine.fleet.pools[action.pool]
        held = client.held.get(group) if client.held is not None else None
        if held is None or held.group is not templates.groups[group]:  # or other clients are one since a reload
            if held is not None:
                templates.release(held)
            client.held = {**(client.held or {}), group: templates.hold(group, client.ip)}
        targets = templates.known(group, client.ip, pool)
        if targets is None:
            done, key = exchange.wait_for_template(), self._key(exchange, rule)
            targets = templates.find(group, client.ip, pool, action.scheduler or "wlc", done, action.algorithm, key)
        return targets

    def targets(self, exchange: Ways, rule: Rule) -> tuple[Target, ...]:
        """Whom to ask, in order; empty where no node of the pool is in service, or a reload has removed the pool."""
        action = rule.action
        pool = self.engine.fleet.pools.get(action.pool)
        if pool is None:
            return ()
        return self.choose(pool, action.scheduler, action.algorithm, self._key(exchange, rule))

    def _key(self, exchange: Ways, rule: Rule) -> bytes:
        """What a rule's scheduler hashes, if it does."""
        if rule.action.scheduler == "client":
            return exchange.client.ip_bytes
        return self.engine.planner.hashed(exchange.line, rule)

    def choose(self, pool: Pool[Target], scheduler: str, algorithm: str, key: bytes) -> tuple[Target, ...]:
        """Up to TARGETS_MAX nodes of a pool by a scheduler, in the order to try; empty where none is in service.

        Args:
            algorithm: Of the table, for schedulers that hash; key: what they hash.
        """
        if scheduler in ("rr", "wrr"):
            return self._in_turn(pool, scheduler)
        if scheduler in ("lc", "wlc"):
            return self._least_busy(pool, scheduler)
        return pool.owners(key, TARGETS_MAX, algorithm)

    def _in_turn(self, pool: Pool[Target], scheduler: str) -> tuple[Target, ...]:
        serving = pool.serving
        if not serving:
            return ()
        turns = self._turns.setdefault((pool.name, scheduler), Turns())
        first = turns.next(serving, pool.weights if scheduler == "wrr" else [1.0] * len(serving))
        others = [node for node in serving if node != first]
        return tuple(pool.targets[node] for node in (first, *others[: TARGETS_MAX - 1]))

    def _least_busy(self, pool: Pool[Target], scheduler: str) -> tuple[Target, ...]:
        """Slow start: a node that has just come back counts as lighter than it is."""
        serving, targets = pool.serving, pool.targets
        loads = [targets[node].load() for node in serving]
        weights = pool.slow_weights if scheduler == "wlc" else pool.slow_shares
        self._turn += 1
        return tuple(targets[node] for node in least_busy(serving, loads, weights, TARGETS_MAX, self._turn))
