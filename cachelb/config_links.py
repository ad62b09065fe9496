"""What sections say of each other: pools and rules name nodes, rules and TCP services name pools, groups and cookies.

``check`` reads the raw tables, as ``config_rules`` does, so that the operator sees every mistake at once; values of a wrong kind
are left to the schema.  ``doubts`` is what can be used and is probably not meant.

Left out: rules that never decide (config_cover.py), single values (config_values.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cachelb.config_cover import covers_host, hosts_of, useless
from cachelb.config_text import Found, Path
from cachelb.config_values import as_list, shown

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.config_policy import RuleConfig, TcpConfig

Raw = Mapping[str, Any]
Table = tuple[Path, Raw]

_NAMED = ("pool", "affinity", "cookie", "rule", "tcp")  # node has its own check (config_rules)
_WORDS = {"affinity": "group"}  # what a section's tables are called
_TARGETS = ("pool", "scheduler", "affinity", "cookie")
_KEYS = ("key_host", "key_sort_query", "key_strip_query")
_NAMES_SHOWN = 10


def check(raw: Raw) -> list[Found]:
    """Everything that is wrong between these sections.

    Args:
        raw: As the TOML reader gave it.
    """
    tables = {section: tables_of(raw, section) for section in ("node", *_NAMED)}
    names = {section: list(_names(tables[section])) for section in tables}
    found: list[Found] = []
    for section in _NAMED:
        found += _same_names(section, tables[section])
    for table in tables["pool"]:
        found += _pool(table, tables["node"], names["node"])
    for table in tables["rule"]:
        found += [*_links(table, names), *_actions(table), *_prefixes(table)]
    for table in tables["tcp"]:
        found += _links(table, names)
    found += _told_twice(raw, tables["node"])
    return [*found, *_groups([*tables["rule"], *tables["tcp"]])]


def _told_twice(raw: Raw, nodes: Iterable[Table]) -> Iterator[Found]:
    """Nodes that are told of the client by a header and see it as well."""
    intercept = raw.get("intercept")
    if isinstance(intercept, dict) and intercept.get("spoof") in ("nodes", "both"):
        for path, node in nodes:
            if node.get("send_proxy"):
                text = "cannot be with [intercept] spoof, by which nodes see the client already"
                yield Found((*path, "send_proxy"), text, 'leave one of them out; spoof = "origin" is about origins only')


def tables_of(raw: Raw, section: str) -> list[Table]:
    """Path and values of each table of a section that may be written several times."""
    items = raw.get(section, [])
    return [((section, i), item) for i, item in enumerate(items) if isinstance(item, dict)] if isinstance(items, list) else []


def _names(tables: Iterable[Table]) -> Iterator[str]:
    for _, table in tables:
        if name := _text(table.get("name")):
            yield name


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _texts(value: object) -> list[tuple[int, str]]:
    """The texts of a list, with their places; one value stands for a list of one."""
    return [(i, text) for i, item in enumerate(as_list(value)) if (text := _text(item))]


def _same_names(section: str, tables: Sequence[Table]) -> Iterator[Found]:
    first: dict[str, Path] = {}
    for path, table in tables:
        name = _text(table.get("name"))
        if name and first.setdefault(name, path) != path:
            place = first[name][1]
            assert isinstance(place, int)
            yield Found((*path, "name"), f"{shown(name)} is the name of {section}[{place + 1}], too", "each needs its own")


def _unknown(path: Path, what: str, name: str, known: Sequence[str]) -> Found:
    close = difflib.get_close_matches(name[:100], known, 1, 0.6)
    if close:
        hint = f"did you mean {close[0]}?"
    elif not known:
        hint = f"there is no [[{what}]] at all"
    else:
        more = ", ..." if len(known) > _NAMES_SHOWN else ""
        hint = "there are " + ", ".join(known[:_NAMES_SHOWN]) + more
    return Found(path, f"there is no {_WORDS.get(what, what)} {shown(name)}", hint)


def _pool(table: Table, nodes: Sequence[Table], known: Sequence[str]) -> Iterator[Found]:
    path, pool = table
    given = pool.get("nodes")
    if given is None:
        return  # the schema says so
    members = _texts(given)
    if given in ("", []):
        yield Found((*path, "nodes"), "is empty: the pool has no nodes", "name some of [[node]]")
    seen: set[str] = set()
    for place, name in members:
        where: Path = (*path, "nodes", place) if isinstance(given, list) else (*path, "nodes")
        if name not in known:
            yield _unknown(where, "node", name, known)
        elif name in seen:
            yield Found(where, f"{shown(name)} is in this pool twice", "for more of its requests, raise its weight")
        seen.add(name)
    weights = pool.get("weights", {})
    if not isinstance(weights, dict):
        return
    for name in weights:
        if name not in seen:
            yield Found((*path, "weights", name), f"{shown(name)} is not in the pool", "only its own nodes have weights in it")
    own = {_text(node.get("name")): node.get("weight", 1) for _, node in nodes}
    if seen and seen <= own.keys() and all(weights.get(name, own[name]) == 0 for name in seen):
        yield Found((*path, "nodes"), "every node of the pool has weight 0: nobody serves it", "give at least one a weight")


def _links(table: Table, names: Mapping[str, Sequence[str]]) -> Iterator[Found]:
    path, given = table
    for key in ("pool", "affinity", "cookie"):
        value = given.get(key)
        for place, name in _texts(value):
            if name not in names[key]:
                yield _unknown((*path, key, place) if isinstance(value, list) else (*path, key), key, name, names[key])
    pools = given.get("pools")
    for host, value in pools.items() if isinstance(pools, dict) else ():
        if (name := _text(value)) and name not in names["pool"]:
            yield _unknown((*path, "pools", host), "pool", name, names["pool"])


def _actions(table: Table) -> Iterator[Found]:
    """What a rule leads to must be one thing."""
    path, rule = table
    targets = [key for key in _TARGETS if rule.get(key)]
    keys = [key for key in _KEYS if rule.get(key)]
    if rule.get("refuse") is True:
        for key in [*targets, *keys, *(["bypass"] if "bypass" in rule else [])]:
            yield Found((*path, key), "contradicts refuse: a request that is refused goes nowhere", "write two rules")
    elif rule.get("bypass") is True:
        for key in targets:
            yield Found((*path, key), "contradicts bypass: what goes around the farm goes to no node", "write two rules")
        for key in keys:
            yield Found((*path, key), "has no use with bypass: origins are asked for the URL as it is")
    if keys:
        for key in ("method", "header", "client"):
            if rule.get(key):
                text = f"cannot be a condition of a rule with {keys[0]}: peers that ask for the key know the URL alone"
                yield Found((*path, key), text, "write one rule for the key, by host, path, query, scheme or port")
    elif rule.get("key_send") == "url":
        yield Found((*path, "key_send"), "has no use without " + " or ".join(_KEYS))


def _prefixes(table: Table) -> Iterator[Found]:
    path, rule = table
    given = rule.get("path_prefix")
    for place, prefix in _texts(given):
        where: Path = (*path, "path_prefix", place) if isinstance(given, list) else (*path, "path_prefix")
        if not prefix.startswith("/"):
            yield Found(where, f"{shown(prefix)} begins no path", "paths begin with /")
        elif "*" in prefix or "?" in prefix or "#" in prefix:
            yield Found(where, f"{shown(prefix)} is a pattern; here is only how paths begin", "write it as path")


def _groups(tables: Sequence[Table]) -> Iterator[Found]:
    """A client of a group has one node: it must be in the pool of all that name the group."""
    first: dict[str, tuple[Path, str]] = {}
    for path, given in tables:
        group = _text(given.get("affinity"))
        if not group:
            continue
        pools = given.get("pools")
        places: list[tuple[Path, object]] = [((*path, "pool"), given.get("pool", ""))]
        places += [((*path, "pools", host), pool) for host, pool in pools.items()] if isinstance(pools, dict) else []
        for where, value in places:
            if not isinstance(value, str):
                continue
            pool = value.strip()
            begun, its = first.setdefault(group, (path, pool))
            if pool != its:
                place = begun[1]
                assert isinstance(place, int)
                text = f"{_pool_name(pool)} is not where {begun[0]}[{place + 1}] sends the group {group}: {_pool_name(its)}"
                yield Found(where, text, "one group, one pool: a client has one node in it")


def _pool_name(name: str) -> str:
    return f"pool {name}" if name else "the whole farm"


# -- what can be used, but is probably not meant


def doubts(config: Config) -> list[Found]:
    """What is worth a warning between these sections."""
    return [*useless(config), *_unused(config), *_idle_pools(config), *_cookies(config), *_keys(config)]


def _unused(config: Config) -> Iterator[Found]:
    users: tuple[RuleConfig | TcpConfig, ...] = (*config.rule, *config.tcp)
    used = {
        "pool": {user.pool for user in users} | {pool for service in config.tcp for pool in service.pools.values()},
        "affinity": {user.affinity for user in users},
        "cookie": {name for rule in config.rule for name in rule.cookie},
    }
    for section in used:
        for place, item in enumerate(getattr(config, section)):
            if item.name not in used[section]:
                text = f"{_WORDS.get(section, section)} {item.name} is used by no [[rule]]"
                yield Found((section, place), text + ("" if section == "cookie" else " and no [[tcp]]"))
    if config.bypass.mode == "off":
        for place, rule in enumerate(config.rule):
            if rule.bypass:
                yield Found(("rule", place, "bypass"), "has no effect: [bypass] mode is off, so all goes to the farm")


def _idle_pools(config: Config) -> Iterator[Found]:
    states = {node.name: node.state for node in config.node}
    for place, pool in enumerate(config.pool):
        if all(states.get(name) == "down" for name in pool.nodes):
            yield Found(("pool", place), f"every node of pool {pool.name} has the state down: nobody serves it")


def _cookies(config: Config) -> Iterator[Found]:
    for place, cookie in enumerate(config.cookie):
        if cookie.same_site == "None" and not cookie.secure:
            text = "is None, which browsers take only of cookies that are secure: they throw this one away"
            yield Found(("cookie", place, "same_site"), text, "add secure = true, and end TLS before the director")


def _keys(config: Config) -> Iterator[Found]:
    """Whether the key of a URL is the one under which nodes have it, and one that has one owner."""
    for place, rule in enumerate(config.rule):
        keys = [key for key in _KEYS if getattr(rule, key)]
        if not keys:
            continue
        path: Path = ("rule", place)
        if rule.key_send == "url":
            text = "nodes are sent the URL as asked, and store it under that: each needs a StoreID helper that maps it likewise"
            yield Found((*path, "key_send"), text, "store_id_program in squid.conf; or leave key_send away")
        where = "query" if rule.query else "path" if any("?" in each or each[-1] != "*" for each in rule.path) else ""
        if where and (rule.pool or rule.scheduler) and (rule.key_strip_query or rule.key_sort_query):
            text = "the key of a URL may not meet this condition, and so have another owner than the URL"
            yield Found((*path, where), text, "where a rule has keys and a pool, use host, path_prefix or path_regex")
        if rule.key_host:
            yield from _shared_host(config.rule, place)


def _shared_host(rules: Sequence[RuleConfig], place: int) -> Iterator[Found]:
    """One key, one owner: an earlier rule that takes the name of the key must send it to the same place."""
    rule = rules[place]
    for number, other in enumerate(rules[:place]):
        hosts = hosts_of(other)
        if other.method or other.header or other.client or (hosts and not any(covers_host(h, rule.key_host) for h in hosts)):
            continue
        if other.path or other.path_prefix or other.path_regex or other.query:
            continue  # it takes some of them, perhaps
        if _destination(other) != _destination(rule):
            text = f"{rule.key_host} falls under rule[{number + 1}], which sends it elsewhere: one key would have two owners"
            yield Found(("rule", place, "key_host"), text, "give both the same pool, scheduler and keys")
        return


def _destination(rule: RuleConfig) -> tuple[object, ...]:
    host = rule.key_host  # of another name the key has another key
    return rule.pool, rule.scheduler, rule.key_sort_query, rule.key_strip_query, host, rule.bypass, rule.refuse
