"""Which rules never decide anything: their conditions exclude each other, or an earlier rule takes all that they would.

What is said here is so; not all that is so is said.  Two conditions are compared one by one, as they are written: that two
earlier rules take a later one's requests between them is not seen.

Left out: what else is wrong with rules (config_links.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, TypeVar

from cachelb.config_text import Found
from cachelb.routing.globs import checked_host, compile_globs, is_pattern
from cachelb.routing.ports import PortSet

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.config_policy import RuleConfig

T = TypeVar("T")

COMPARED_MAX = 200_000  # pairs of rules: a second.  More there are only where hundreds of rules name no host


def useless(config: Config) -> Iterator[Found]:
    """A complaint about each rule that never decides."""
    index = _Index()
    compared = 0
    for place, rule in enumerate(config.rule):
        why = never(rule, config)
        if why:
            yield Found(("rule", place), f"can never match: {why}")
            continue
        wider = index.wider(rule) if compared < COMPARED_MAX else ()
        compared += len(wider)
        earlier = next((other for other in wider if covers(config.rule[other], rule)), None)
        if earlier is None:
            index.add(place, rule)
        else:
            name = config.rule[earlier].name
            which = f"rule[{earlier + 1}]" + (f", {name}," if name else "")
            yield Found(("rule", place), f"never decides: {which} takes all that it would", "put the narrower rule first")


def hosts_of(rule: RuleConfig) -> list[str]:
    """The hosts that a rule takes, as ``routing.rules`` has them; empty for all."""
    hosts = [checked_host(host) for host in rule.host]
    return [*hosts, rule.key_host] if hosts and rule.key_host else hosts


# -- conditions that exclude each other


def never(rule: RuleConfig, config: Config) -> str:
    """Why no request meets all of a rule's conditions, in a few words; "" if one may."""
    only_connect = bool(rule.method) and set(rule.method) == {"CONNECT"}
    if set(rule.method) == {"PURGE"}:
        return "a PURGE goes to all that may have the URL, whatever rules say"
    if only_connect:
        if rule.scheme and "https" not in rule.scheme:
            return "CONNECT is https"
        has_path = rule.path and compile_globs(rule.path).fullmatch(b"") is None
        if has_path or rule.path_prefix or rule.query:
            return "CONNECT has no path and no query"
    if rule.port and not _may_ask(rule, config, only_connect):
        return f"no request for {PortSet.parse(rule.port)} is allowed by [access] safe_ports or connect_ports"
    if rule.path and rule.query and not any(map(is_pattern, rule.path)):
        return "path is of path and query, and none of its patterns leaves room for a query"
    if rule.path and rule.path_prefix and not any(_may_begin(path, p) for path in rule.path for p in rule.path_prefix):
        return "no path begins with path_prefix and is like path"
    allowed = config.access.allow
    if rule.client and not any(net.overlaps(other) for net in rule.client for other in allowed if net.version == other.version):
        return "none of its clients is in [access] allow"
    return ""


def _may_ask(rule: RuleConfig, config: Config, only_connect: bool) -> bool:
    wanted = PortSet.parse(rule.port)
    sets = [] if only_connect else [PortSet.parse(config.access.safe_ports)]
    if not rule.method or "CONNECT" in rule.method:
        sets.append(PortSet.parse(config.access.connect_ports))
    return any(_overlap(wanted, allowed) for allowed in sets)


def _overlap(one: PortSet, other: PortSet) -> bool:
    return any(first <= until and start <= last for first, last in one.ranges for start, until in other.ranges)


def _may_begin(pattern: str, prefix: str) -> bool:
    head = _head(pattern)
    return head.startswith(prefix) or (is_pattern(pattern) and prefix.startswith(head))


# -- conditions that are wider than others


def covers(wide: RuleConfig, narrow: RuleConfig) -> bool:
    """Whether it is plain that ``wide`` takes every request that ``narrow`` takes."""
    paths = [narrow.path, [prefix + "*" for prefix in narrow.path_prefix]]
    return (
        any(_all(wide.path, each, covers_glob) for each in paths)
        and any(_all([prefix + "*" for prefix in wide.path_prefix], each, covers_glob) for each in paths)
        and _all(wide.path_regex, narrow.path_regex, _is_same)
        and _all(wide.query, narrow.query, covers_glob)
        and _all(wide.method, narrow.method, _is_same)
        and _all(wide.scheme, narrow.scheme, _is_same)
        and (not wide.port or (bool(narrow.port) and _has_ports(PortSet.parse(wide.port), PortSet.parse(narrow.port))))
        and _all(wide.header, narrow.header, _covers_header)
        and _all(wide.client, narrow.client, _has_network)
        and _all(hosts_of(wide), hosts_of(narrow), covers_host)
    )


def _all(wide: Sequence[T], narrow: Sequence[T], covers_one: Callable[[T, T], bool]) -> bool:
    """Whether each alternative of ``narrow`` is one of ``wide``'s; none: everything."""
    return not wide or (bool(narrow) and all(any(covers_one(w, n) for w in wide) for n in narrow))


def covers_host(wide: str, narrow: str) -> bool:
    """Whether one host rule takes all that another takes."""
    if wide in (narrow, "*"):
        return True
    if is_pattern(wide):
        return not is_pattern(narrow) and narrow[0] != "." and compile_globs([wide]).fullmatch(narrow.encode()) is not None
    if wide[0] != ".":
        return False
    return _tail(narrow).endswith(wide) or (narrow == wide[1:])


def covers_glob(wide: str, narrow: str) -> bool:
    """Whether one pattern takes all that another takes."""
    if wide in (narrow, "*"):
        return True
    if not is_pattern(narrow):
        return compile_globs([wide]).fullmatch(narrow.encode()) is not None
    if wide.count("*") != 1 or "?" in wide:
        return False
    head, _, tail = wide.partition("*")
    # What is like `narrow` begins with its head and ends with its tail, and these do not overlap.
    return _head(narrow).startswith(head) and _tail(narrow).endswith(tail)


def _head(pattern: str) -> str:
    """What every text that is like ``pattern`` begins with."""
    ends = [at for at in (pattern.find("*"), pattern.find("?")) if at >= 0]
    return pattern[: min(ends)] if ends else pattern


def _tail(pattern: str) -> str:
    return pattern[max(pattern.rfind("*"), pattern.rfind("?")) + 1 :]


def _is_same(wide: str, narrow: str) -> bool:
    return wide == narrow


def _covers_header(wide: str, narrow: str) -> bool:
    name, colon, value = (part.strip() for part in wide.partition(":"))
    other, _, its = (part.strip() for part in narrow.partition(":"))
    return name.lower() == other.lower() and (not colon or value == its)


def _has_network(wide: IPv4Network | IPv6Network, narrow: IPv4Network | IPv6Network) -> bool:
    return wide.version == narrow.version and narrow.subnet_of(wide)  # type: ignore[arg-type]  # they are of one kind


def _has_ports(wide: PortSet, narrow: PortSet) -> bool:
    return all(wide.allows(port) for first, last in narrow.ranges for port in range(first, last + 1))


class _Index:
    """Rules by host, so that 1,000 rules are not compared with each other."""

    def __init__(self) -> None:
        self._any: list[int] = []
        self._patterns: list[int] = []
        self._names: dict[str, list[int]] = {}

    def add(self, place: int, rule: RuleConfig) -> None:
        hosts = hosts_of(rule)
        if not hosts:
            self._any.append(place)
        elif any(map(is_pattern, hosts)):
            self._patterns.append(place)
        else:
            for host in hosts:
                self._names.setdefault(host, []).append(place)

    def wider(self, rule: RuleConfig) -> Sequence[int]:
        """Places of rules that may take all that ``rule`` takes."""
        hosts = hosts_of(rule)
        if not hosts:
            return sorted({*self._any, *self._patterns})
        # Whoever takes all of them takes the first of them.
        name = _tail(hosts[0])
        found = [*self._any, *self._patterns, *self._names.get(hosts[0], ())]
        while name:
            found += self._names.get("." + name.removeprefix("."), ())
            name = name.partition(".")[2]
        return sorted(set(found))
