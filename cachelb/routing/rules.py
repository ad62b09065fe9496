"""The operator's rules: which requests go where, the first that matches.

A rule has conditions on what the first line says (host, path, query, method, scheme, port), which are judged once for each
plan of a line, and conditions on the fields and the client, which are judged for each request.  So a line is left with its
*candidates*: the rules that its own conditions allow, up to the first that asks for nothing else.

Rules are found by host: names and domains in dictionaries, patterns under the domain that they end with.  Which rules a host
leaves is remembered; where it leaves none, that is all.  1,000 rules cost 0.3 us for a host that is remembered and 1.5 us for one
that is not (2026-11, tools/bench/steps.py).  Rules without a host, and patterns that end with no domain, are tried one by one.

The key of a URL is that of the first rule which asks for nothing but the URL of a GET: peers that ask by ICP, HTCP or the digest
know no more of a request, and must find what the nodes have.

Left out: what rules lead to (``relay.steer``), where they are written (``config_policy``), how a key is made (keys.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachelb.routing.globs import checked_host, compile_globs, compile_header, is_pattern
from cachelb.routing.guard import is_within
from cachelb.routing.keys import Keying
from cachelb.routing.patterns import compile_expression
from cachelb.routing.ports import PortSet

if TYPE_CHECKING:
    from cachelb.config_policy import RuleConfig
    from cachelb.http.url import Url

HASHED: Final = frozenset(("", "url", "carp", "host"))  # schedulers that the first line alone decides
HOSTS_MAX: Final = 8192  # whose rules are remembered, 4 MB at most: as many as a forward proxy's clients ask for in an hour
CLIENTS_MAX: Final = 4096  # of each rule with networks, remembered: 0.5 MB


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
        hosts: as ``checked_host`` has them; empty for any.  keying: how it makes keys; None: it does not.
        asks_more: it has conditions on fields or on the client: see ``takes``.
        decides: it asks for nothing but the line, and only hashes.
    """

    __slots__ = (
        "_clients", "_globs", "_headers", "_known", "_methods", "_ports", "_prefixes", "_query", "_regexes", "_schemes",
        "action", "asks_line", "asks_more", "decides", "hosts", "keying", "name", "number",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        name: str,
        action: Action,
        clients: Sequence[IPv4Network | IPv6Network] = (),
        *,
        hosts: Sequence[str] = (),
        paths: Sequence[str] = (),
        prefixes: Sequence[str] = (),
        expressions: Sequence[str] = (),
        queries: Sequence[str] = (),
        methods: Sequence[str] = (),
        schemes: Sequence[str] = (),
        ports: Sequence[int | str] = (),
        headers: Sequence[str] = (),
        keying: Keying | None = None,
    ) -> None:
        """Compile the conditions; an empty one is met by everything.

        Raises:
            ValueError: One cannot be used; the message is one sentence that quotes it.
        """
        self.number = number
        self.name = name or f"rule {number}"
        self.action = action
        self.keying = keying
        self.hosts = tuple(checked_host(host) for host in hosts)
        if self.hosts and keying is not None and keying.host:
            self.hosts += (keying.host.decode(),)  # the key of a key must be the key
        self._globs: re.Pattern[bytes] | None = compile_globs(paths) if paths else None
        self._prefixes: tuple[bytes, ...] = tuple(prefix.encode("latin-1") for prefix in prefixes)
        self._regexes: tuple[Any, ...] = tuple(compile_expression(expression) for expression in expressions)
        self._query: re.Pattern[bytes] | None = compile_globs(queries) if queries else None
        self._methods = frozenset(method.encode("latin-1") for method in methods)
        self._schemes = frozenset(scheme.encode("latin-1") for scheme in schemes)
        self._ports: PortSet | None = PortSet.parse(ports) if ports else None
        self._headers: tuple[re.Pattern[bytes], ...] = tuple(compile_header(header) for header in headers)
        self._clients: tuple[IPv4Network | IPv6Network, ...] = tuple(clients)
        self._known: dict[str, bool] = {}
        self.asks_line = bool(paths or prefixes or expressions or queries or methods or schemes or ports)
        self.asks_more = bool(clients or headers)
        self.decides = not self.asks_more and action.only_hashes

    def allows(self, method: bytes, scheme: bytes, port: int, path: bytes) -> bool:
        """Whether a line whose host it takes meets its other conditions; see ``RuleSet.candidates``."""
        if self._methods and method not in self._methods:
            return False
        if self._schemes and scheme not in self._schemes:
            return False
        if self._ports is not None and not self._ports.allows(port):
            return False
        if self._prefixes and not path.startswith(self._prefixes):
            return False
        if self._globs is not None and self._globs.fullmatch(path) is None:
            return False
        if self._query is None and not self._regexes:
            return True
        whole = path.partition(b"#")[0]
        start, mark, query = whole.partition(b"?")
        if self._query is not None and (not mark or self._query.fullmatch(query) is None):
            return False
        return not self._regexes or _finds(self._regexes, start)

    def takes(self, block: bytes, client: str) -> bool:
        """Whether a request whose line is a candidate's meets the other conditions, too.

        Args:
            block: All field lines, each with its CRLF.
            client: Its IP address.
        """
        if self._clients and not self._is_client(client):
            return False
        return not self._headers or _finds(self._headers, block)

    def _is_client(self, client: str) -> bool:
        known = self._known.get(client)
        if known is None:
            known = is_within(client, self._clients)
            if len(self._known) >= CLIENTS_MAX:
                self._known.clear()
            self._known[client] = known
        return known


class _Patterns:
    """Hosts of rules, as patterns.  All together are tried first: most hosts are like none, and that takes a tenth."""

    __slots__ = ("_all", "_each")

    def __init__(self, patterns: Sequence[tuple[Rule, str]]) -> None:
        self._all: re.Pattern[bytes] = compile_globs([host for _, host in patterns])
        self._each: list[tuple[Rule, re.Pattern[bytes]]] = [(rule, compile_globs([host])) for rule, host in patterns]

    def of(self, host: bytes) -> list[Rule]:
        """The rules that have a pattern like ``host``."""
        if self._all.fullmatch(host) is None:
            return []
        return [rule for rule, pattern in self._each if pattern.fullmatch(host) is not None]


class RuleSet:
    """All rules, by what the first line says.

    has_keys: whether one of them makes keys.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self.has_keys = any(rule.keying is not None for rule in self.rules)
        self._exact: dict[bytes, list[Rule]] = {}
        self._domains: dict[bytes, list[Rule]] = {}  # "a.com" of ".a.com"
        self._endings: dict[bytes, _Patterns] = {}  # "a.com" of "img*.a.com"; b"" of "img*"
        self._any: list[Rule] = []
        self._by_host: dict[bytes, tuple[Rule, ...]] = {}
        self._once: dict[tuple[Rule, ...], tuple[Rule, ...]] = {}  # hosts with the same rules share one tuple
        endings: dict[bytes, list[tuple[Rule, str]]] = {}
        for rule in self.rules:
            if not rule.hosts:
                self._any.append(rule)
            for host in rule.hosts:
                if is_pattern(host):
                    tail = host[max(host.rfind("*"), host.rfind("?")) + 1 :]
                    endings.setdefault(tail.partition(".")[2].encode("latin-1"), []).append((rule, host))
                else:
                    self._place(rule, host)
        for ending, patterns in endings.items():
            self._endings[ending] = _Patterns(patterns)

    def _place(self, rule: Rule, host: str) -> None:
        name = host.encode("latin-1")
        if host.startswith("."):
            self._domains.setdefault(name[1:], []).append(rule)
        else:
            self._exact.setdefault(name, []).append(rule)

    def candidates(self, method: bytes, scheme: bytes, host: bytes, port: int, path: bytes) -> tuple[Rule, ...]:
        """The rules that the line's conditions allow, in order, up to the first that asks for nothing else.

        Args:
            scheme: b"https" for CONNECT, whose path is b"".
            host: Lower case, without brackets.
            path: Path and query.
        """
        rules = self._by_host.get(host)
        if rules is None:
            rules = self._of_host(host)
        if not rules:
            return rules
        found: list[Rule] = []
        for rule in rules:
            if not rule.asks_line or rule.allows(method, scheme, port, path):
                found.append(rule)
                if not rule.asks_more:
                    break
        return tuple(found)

    def _of_host(self, host: bytes) -> tuple[Rule, ...]:
        """The rules whose hosts include ``host``, in order."""
        found = [*self._any, *self._exact.get(host, ())]
        domains, endings = self._domains, self._endings
        rest = host
        while True:
            if rest in domains:
                found += domains[rest]
            if rest in endings:
                found += endings[rest].of(host)
            if not rest:
                break
            rest = rest.partition(b".")[2]
        if len(self._by_host) >= HOSTS_MAX:
            self._by_host.clear()
            self._once.clear()
        rules = _in_order(found) if found else ()
        rules = self._by_host[host] = self._once.setdefault(rules, rules)
        return rules

    def of_url(self, url: Url) -> Rule | None:
        """The rule under which a GET falls of which only the URL is known: what peers and the index go by."""
        found = self.candidates(b"GET", url.scheme, url.host, url.port, url.path)
        return found[-1] if found and not found[-1].asks_more else None

    def keyed(self, url: Url) -> tuple[Url, Url]:
        """The URL whose key is that of ``url``, and the one that nodes are sent; without a rule for it both are ``url``."""
        if not self.has_keys:
            return url, url
        rule = self.of_url(url)
        if rule is None or rule.keying is None:
            return url, url
        key = rule.keying.key_of(url)
        return key, key if rule.keying.sends_key else url


def _in_order(found: list[Rule]) -> tuple[Rule, ...]:
    """Each rule once, up to the first that takes all that the host has."""
    by_number = {rule.number: rule for rule in found}
    rules: list[Rule] = []
    for number in sorted(by_number):
        rule = by_number[number]
        rules.append(rule)
        if not rule.asks_line and not rule.asks_more:
            break
    return tuple(rules)


def _finds(patterns: tuple[Any, ...], data: bytes) -> bool:
    return any(pattern.search(data) is not None for pattern in patterns)


NO_RULES: Final = RuleSet(())
NO_CANDIDATES: Final[tuple[Rule, ...]] = ()


def compile_rules(rules: Sequence[RuleConfig]) -> RuleSet:
    """The rules of a configuration, in their order."""
    return RuleSet([_compiled(number, rule) for number, rule in enumerate(rules, 1)]) if rules else NO_RULES


def _compiled(number: int, rule: RuleConfig) -> Rule:
    keying = None
    if rule.key_host or rule.key_sort_query or rule.key_strip_query:
        keying = Keying(rule.key_host, rule.key_sort_query, rule.key_strip_query, rule.key_send == "key")
    return Rule(
        number,
        rule.name,
        Action(rule.pool, rule.scheduler, rule.affinity, rule.cookie, rule.bypass, rule.refuse),
        rule.client,
        hosts=rule.host,
        paths=rule.path,
        prefixes=rule.path_prefix,
        expressions=rule.path_regex,
        queries=rule.query,
        methods=rule.method,
        schemes=rule.scheme,
        ports=rule.port,
        headers=rule.header,
        keying=keying,
    )


def first_that_takes(candidates: Sequence[Rule], block: bytes, client: str) -> Rule | None:
    """The rule that a request falls under; None if none."""
    for rule in candidates:
        if not rule.asks_more or rule.takes(block, client):
            return rule
    return None
