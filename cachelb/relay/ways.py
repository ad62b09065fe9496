"""Where a request goes: to the owners of its URL, around the farm, through a tunnel, or where a rule sends it.

What kind of request it is has been decided before; here that meets what is in service.  ``Exchange`` adds the endings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachelb.errors import Reason
from cachelb.relay.answer import Answer
from cachelb.relay.attempts import RESOLVING, SCHEDULING
from cachelb.relay.reports import bypass_counter
from cachelb.relay.sightings import ONLY_IF_CACHED
from cachelb.relay.upstream import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachelb.relay.client import Client
    from cachelb.relay.cookies import Jar
    from cachelb.relay.engine import Engine
    from cachelb.routing.rules import Rule

_UNREACHABLE: Final = frozenset((Reason.CONNECT_REFUSED, Reason.CONNECT_TIMEOUT, Reason.NODE_DEAD))
FARM_DEAD: Final = "farm dead"
TEMPLATE_S: Final = 10.0  # until a template is known: the relay gives up waiting for the supervisor long before (templates.py)
LEARNED: Final = "learned "  # so begins every reason that routing/learned.py gives


class Ways(Answer):
    """The part of an exchange that chooses a way.

    rule: the operator's that has sent it where it goes; None where that is as without rules.
    why: for what reason, in a few words; serial: of the question that it waits for.
    """

    __slots__ = ("jar", "rule", "serial", "why")

    def __init__(self, client: Client, engine: Engine) -> None:
        super().__init__(client, engine)
        self.rule: Rule | None = None
        self.jar: Jar | None = None
        self.serial = 0
        self.why = ""

    def taught(self) -> str | None:
        """What answers have taught about the URL: why it goes around the farm, or None."""
        engine, line = self.engine, self.line
        if not engine.learned.size or self.block.fields.only_if_cached:
            return None
        return engine.learned.lookup(line.key, line.segment, engine.now)

    def hash(self) -> None:
        """To the owners of the URL."""
        targets = self.line.targets
        if self.why == ONLY_IF_CACHED:
            targets = self.engine.planner.holders(self.line)
        if not targets:
            self.farm_dead()
            return
        self.engine.count("hashed")
        self.send_to(targets, self.node_head(), self.line.partial and targets is self.line.targets)

    def farm_dead(self) -> None:
        """There is nobody to ask: around the farm, if it may."""
        if self._may_go_around():
            self.bypass(FARM_DEAD)
        else:
            self.fail(Reason.NO_NODE, "no cache of the farm is in service")

    def _may_go_around(self) -> bool:
        """Whether a request for the farm may do without it; who wants only what is cached does not want the origin's."""
        if self.rule is not None and not self.rule.action.only_hashes:
            return False  # a node was wanted, not an answer from anywhere
        return self.engine.planner.bypass_mode == "direct" and self.line.can_go_direct and not self.block.fields.only_if_cached

    def targets_failed(self) -> None:
        """No node could be asked, though they are not known to be dead yet: that must not cost the request."""
        if self.why == ONLY_IF_CACHED and self.refusal is not None:
            self.pass_on(*self.refusal)
            return
        is_node = self.target is not None and self.target.is_node
        if is_node and self.last_reason in _UNREACHABLE and self._may_go_around():
            self.attempt = self.tried = 0
            self.bypass(FARM_DEAD)
        else:
            super().targets_failed()

    def bypass(self, why: str) -> None:
        """Around the farm, as ``[bypass]`` says."""
        engine, line = self.engine, self.line
        self.why = why
        mode = engine.planner.bypass_mode
        if mode == "off":
            self.hash()
            return
        engine.count("bypassed")
        engine.count(bypass_counter(why))
        if mode == "direct" and line.can_go_direct:
            self.go_direct()
            return
        targets = engine.spread()
        if targets:
            self.send_to(targets, self.node_head())
        else:
            self.fail(Reason.NO_NODE, "no cache of the farm is in service")

    def tunnel(self) -> None:
        """CONNECT: to the origin, or through a node where bypassing is not direct."""
        if self.engine.planner.bypass_mode == "direct":
            self.engine.count("bypassed")
            self.engine.count("bypassed_upgrade")
            self.go_direct()
        else:
            targets = self.engine.spread()
            if not targets:
                self.fail(Reason.NO_NODE, "no cache of the farm is in service")
                return
            self.send_to(targets, self.node_head())

    def node_head(self) -> bytes:
        """The request's head as a node is sent it."""
        return self.engine.planner.node_head(self.line, self.block, self.client.ip_bytes, upgrade=self.upgrading)

    def send_to(self, targets: tuple[Target, ...], head: bytes, partial: bool = False) -> None:
        """To one of ``targets``, in their order; partial: there are more, see ``Planner.owners``."""
        self.targets = targets
        self.partial = partial
        self.head = head
        self.try_targets()

    def go_direct(self) -> None:
        """To the origin, when it is known where that is."""
        self.phase = RESOLVING
        self.client.deadline = self.engine.now + self.engine.timeouts.connect_s + 5.0
        self.serial += 1
        self.engine.find_origin(self, self.line.host, self.line.port)

    def is_resolving(self, serial: int) -> bool:
        """Whether this is still the request that asked for a name."""
        return self.phase == RESOLVING and self.serial == serial and not self.client.closed

    def wait_for_template(self) -> Callable[[tuple[Target, ...]], None]:
        """It is asked which node the client goes to: what is to be told that."""
        self.phase = SCHEDULING
        self.client.deadline = self.engine.now + TEMPLATE_S
        self.serial += 1
        serial = self.serial

        def found(targets: tuple[Target, ...]) -> None:
            if self.phase == SCHEDULING and self.serial == serial and not self.client.closed:
                try:
                    self.engine.steering.found(self, targets)
                except Exception as exc:
                    self.client.crashed(exc)

        return found

    def reschedule(self) -> None:
        """The node of its client's template has died: to the one that the client gets instead."""
        engine, rule = self.engine, self.rule
        assert rule is not None
        if rule.action.pool in engine.fleet.pools and rule.action.affinity in engine.steering.templates.groups:
            engine.steering.send(self, rule)
        else:  # it is of a configuration that is no longer in force
            self.fail(self.last_reason, self.detail)

    def origin_found(self, target: Target) -> None:
        """The origin's addresses are known and allowed: connect, or use a kept connection."""
        if self.line.method == b"CONNECT":
            self.head = b""
            self.targets = (target,)
            self.partial = False
            self.tried = 1
            if not self.connect(target):
                self.fail(self.last_reason, self.detail)
        else:
            ip = self.client.ip_bytes
            head = self.engine.planner.origin_head(self.line, self.block, ip, upgrade=self.upgrading)
            self.send_to((target,), head)

    def origin_denied(self, detail: str) -> None:
        """The origin is where this process must not go.  What the farm would be asked for otherwise is the farm's matter."""
        if self.why == FARM_DEAD:
            self.fail(Reason.NO_NODE, f"no cache of the farm is in service, and around it: {detail}")
        elif self.why.startswith(LEARNED):
            self.why = "get"
            self.hash()
        else:
            self.fail(Reason.DESTINATION_DENIED, detail)
