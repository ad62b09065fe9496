"""The operator's rules: which requests go where, the first that matches.

A rule has conditions on what the first line says (host, path, query, method, scheme, port), which are judged once for each
plan of a line, and conditions on the fields and the client, which are judged for each request.  So a line is left with its
*candidates*: the rules that its own conditions allow, up to the first that asks for nothing else.

The key of a URL is that of the first rule which asks for nothing but the URL: peers that ask by ICP, HTCP or the digest know no
more of a request, and must find what the nodes have.

Left out: what rules lead to (``relay.steer``), where they are written (``config_policy``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final, NamedTuple

from cachelb.routing.guard import is_within

if TYPE_CHECKING:
    from cachelb.config_policy import RuleConfig
    from cachelb.http.url import Url

HASHED: Final = frozenset(("", "url", "carp", "host"))  # schedulers that the first line alone decides


class Action(NamedTuple):
    """What a rule leads to.

    pool: "" for the whole farm; scheduler: "" as in [hash]; affinity: a group, or ""; cookies: names of [[cookie]].
    bypass: True around the farm, False never, None as for requests that no rule has; refuse: it ends with 403.
    """

    pool: str = ""
    scheduler: str = ""
    affinity: str = ""
    cookies: tuple[str, ...] = ()
    bypass: bool | None = None
    refuse: bool = False

    @property
    def algorithm(self) -> str:
        """Of the table that a hashing scheduler asks; "": that of [hash]."""
        return {"url": "ring", "host": "ring", "client": "ring", "carp": "carp"}.get(self.scheduler, "")

    @property
    def is_hashed(self) -> bool:
        """Whether the first line alone decides who is asked."""
        return self.scheduler in HASHED and not (self.affinity or self.cookies)

    @property
    def only_hashes(self) -> bool:
        """Whether everything else is as without a rule, too."""
        return self.is_hashed and not self.refuse and self.bypass is None


class Rule:
    """One rule, compiled.

    Attributes:
        name: as the operator calls it; number: its place, from 1; action: what it leads to.
        asks_more: it has conditions on fields or on the client: see ``takes``.
    """

    __slots__ = ("_clients", "action", "asks_more", "name", "number")

    def __init__(self, number: int, name: str, action: Action, clients: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self.number = number
        self.name = name or f"rule {number}"
        self.action = action
        self._clients = tuple(clients)
        self.asks_more = bool(clients)

    def takes(self, block: bytes, client: str) -> bool:
        """Whether a request whose line is a candidate's meets the other conditions, too.

        Args:
            block: All field lines, each with its CRLF.
            client: Its IP address.
        """
        return not self._clients or is_within(client, self._clients)


class RuleSet:
    """All rules, by what the first line says."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)

    def candidates(self, method: bytes, scheme: bytes, host: bytes, port: int, path: bytes) -> tuple[Rule, ...]:
        """The rules that the line's conditions allow, in order, up to the first that asks for nothing else.

        Args:
            scheme: b"https" for CONNECT, whose path is b"".
            host: Lower case, without brackets.
            path: Path and query.
        """
        found: list[Rule] = []
        for rule in self._rules:
            found.append(rule)
            if not rule.asks_more:
                break
        return tuple(found)

    def keyed(self, url: Url) -> tuple[Url, Url]:
        """The URL whose key is that of ``url``, and the one that nodes are sent; without a rule for it both are ``url``."""
        return url, url


NO_RULES: Final = RuleSet(())


def compile_rules(rules: Sequence[RuleConfig]) -> RuleSet:
    """The rules of a configuration, in their order."""
    if not rules:
        return NO_RULES
    return RuleSet(
        Rule(
            number,
            rule.name,
            Action(rule.pool, rule.scheduler, rule.affinity, rule.cookie, rule.bypass, rule.refuse),
            rule.client,
        )
        for number, rule in enumerate(rules, 1)
    )


def first_that_takes(candidates: Sequence[Rule], block: bytes, client: str) -> Rule | None:
    """The rule that a request falls under; None if none."""
    for rule in candidates:
        if not rule.asks_more or rule.takes(block, client):
            return rule
    return None
