"""Rules about TCP services between values of a configuration: where they listen, whom they name, what goes together.

As in ``config_rules``, the raw tables are read, and values of a wrong kind are left to the schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from cachelb.config_text import Found, Path
from cachelb.config_values import Address, BadValue, PortRange, as_list, parse_listen, shown

Raw = Mapping[str, Any]
Listeners = Sequence[tuple[Path, str, Address]]


def check(raw: Raw, listeners: Listeners) -> Iterator[Found]:
    """Everything that is wrong with TCP services.

    Args:
        raw: As the TOML reader gave it.
        listeners: Path, protocol and address of what else is listened on.
    """
    services = _tables(raw, "tcp")
    names: dict[str, int] = {}
    for path, service in services:
        name, number = service.get("name"), path[1]
        assert isinstance(number, int)
        if isinstance(name, str) and name.strip():
            first = names.setdefault(name.strip(), number)
            if first != number:
                yield Found((*path, "name"), f"{shown(name)} is the name of tcp[{first + 1}], too", "logs tell them apart by it")
        yield from _references(raw, path, service)
        yield from _together(path, service)
    yield from _overlaps(services, listeners)
    yield from _same_nodes(raw, services)


def gives_weight(raw: Raw) -> bool:
    """Whether some pool gives a node a weight of its own."""
    weights = (pool.get("weights") for _, pool in _tables(raw, "pool"))
    return any(isinstance(of_pool, dict) and any(of_pool.values()) for of_pool in weights)


def _tables(raw: Raw, section: str) -> list[tuple[Path, Raw]]:
    tables = raw.get(section, [])
    if not isinstance(tables, list):
        return []
    return [((section, i), table) for i, table in enumerate(tables) if isinstance(table, dict)]


def _names(raw: Raw, section: str) -> set[str]:
    return {str(table.get("name", "")).strip() for _, table in _tables(raw, section)} - {""}


def _references(raw: Raw, path: Path, service: Raw) -> Iterator[Found]:
    """Pools and groups that there are none of."""
    pools = service.get("pools")
    named: list[tuple[Path, str, object]] = [((*path, key), key, service.get(key, "")) for key in ("pool", "affinity")]
    if isinstance(pools, dict):
        named += [((*path, "pools", name), "pool", pool) for name, pool in pools.items()]
    for where, section, name in named:
        if isinstance(name, str) and name.strip() and name.strip() not in (known := _names(raw, section)):
            hint = f"there are {', '.join(sorted(map(shown, known)))}" if known else f"there is no [[{section}]] at all"
            yield Found(where, f"{shown(name)} is the name of no [[{section}]]", hint)


def _together(path: Path, service: Raw) -> Iterator[Found]:
    """Settings that have no effect, or none that was meant."""
    tls, scheduler = service.get("tls", ""), service.get("scheduler", "wlc")
    if not tls and service.get("pools"):
        yield Found((*path, "pools"), "names that TLS clients ask for are not read", 'add tls = "sni"')
    if not tls and scheduler == "host":
        yield Found((*path, "scheduler"), 'is "host", but names that TLS clients ask for are not read', 'add tls = "sni"')
    if not tls and "hello_s" in service:
        yield Found((*path, "hello_s"), "nothing is waited for that TLS clients say", 'add tls = "sni", or leave it out')


def _ranges(services: Sequence[tuple[Path, Raw]]) -> Iterator[tuple[Path, PortRange]]:
    for path, service in services:
        values = service.get("listen", [])
        for number, value in enumerate(as_list(values)):
            try:
                yield (*path, "listen", number) if isinstance(values, list) else (*path, "listen"), parse_listen(value)
            except BadValue:
                pass


def _overlaps(services: Sequence[tuple[Path, Raw]], listeners: Listeners) -> Iterator[Found]:
    """Places that are listened on twice."""
    taken = [
        (f"{path[0]}.{path[1]}", PortRange(address.host, address.port, address.port))
        for path, protocol, address in listeners
        if protocol == "tcp"
    ]
    for path, wanted in _ranges(services):
        for name, other in taken:
            if wanted.first <= other.last and other.first <= wanted.last and _overlap(wanted.host, other.host):
                yield Found(path, f"{wanted} overlaps with {name}: that listens on {other}")
                break
        assert isinstance(path[1], int)
        taken.append((f"tcp[{path[1] + 1}]", wanted))


def _overlap(one: str, other: str) -> bool:
    if one == other:
        return True
    return (":" in one) == (":" in other) and (ip_address(one).is_unspecified or ip_address(other).is_unspecified)


def _same_nodes(raw: Raw, services: Sequence[tuple[Path, Raw]]) -> Iterator[Found]:
    """Services whose nodes are the director: on an address of its own, at a port where it listens itself."""
    ranges = list(_ranges(services))
    for path, service in services:
        port = service.get("port", 0)
        if not isinstance(port, int):
            continue
        for _, node in _tables(raw, "node"):
            host = node.get("host")
            for where, wanted in ranges:
                ports = (port, port) if port else (wanted.first, wanted.last)
                if (port or where[:2] == path) and host == wanted.host and wanted.first <= ports[0] <= wanted.last:
                    text = f"the service listens on {wanted}, which is where node {shown(node.get('name', ''))} would be asked"
                    yield Found(where, text, "it would call itself; give one of them another address or port")
