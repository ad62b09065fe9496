"""Rules about TCP services between values of a configuration: where they listen, what goes together.

As in ``config_rules``, the raw tables are read, and values of a wrong kind are left to the schema.  Left out: whom they name
(config_links.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cachelb.config_links import tables_of
from cachelb.config_text import Found, Path
from cachelb.config_values import Address, BadValue, PortRange, as_list, overlap, parse_listen, shown

Raw = Mapping[str, Any]
Listeners = Sequence[tuple[Path, str, Address]]


def check(raw: Raw, listeners: Listeners) -> Iterator[Found]:
    """Everything that is wrong with TCP services.

    Args:
        raw: As the TOML reader gave it.
        listeners: Path, protocol and address of what else is listened on.
    """
    services = tables_of(raw, "tcp")
    for path, service in services:
        yield from _together(path, service)
    yield from _overlaps(services, listeners)
    yield from _same_nodes(raw, services)


def gives_weight(raw: Raw) -> bool:
    """Whether some pool gives a node a weight of its own."""
    weights = (pool.get("weights") for _, pool in tables_of(raw, "pool"))
    return any(isinstance(of_pool, dict) and any(of_pool.values()) for of_pool in weights)


def _together(path: Path, service: Raw) -> Iterator[Found]:
    """Settings that have no effect, or none that was meant."""
    tls, scheduler = service.get("tls", ""), service.get("scheduler", "wlc")
    if not tls and service.get("pools"):
        yield Found((*path, "pools"), "names that TLS clients ask for are not read", 'add tls = "sni"')
    if not tls and scheduler == "host":
        yield Found((*path, "scheduler"), 'is "host", but names that TLS clients ask for are not read', 'add tls = "sni"')


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
            if wanted.first <= other.last and other.first <= wanted.last and overlap(wanted.host, other.host):
                yield Found(path, f"{wanted} overlaps with {name}: that listens on {other}")
                break
        assert isinstance(path[1], int)
        taken.append((f"tcp[{path[1] + 1}]", wanted))


def _same_nodes(raw: Raw, services: Sequence[tuple[Path, Raw]]) -> Iterator[Found]:
    """Services whose nodes are the director: on an address of its own, at a port where it listens itself."""
    ranges = list(_ranges(services))
    for path, service in services:
        port = service.get("port", 0)
        if not isinstance(port, int):
            continue
        for _, node in tables_of(raw, "node"):
            host = node.get("host")
            for where, wanted in ranges:
                ports = (port, port) if port else (wanted.first, wanted.last)
                if (port or where[:2] == path) and host == wanted.host and wanted.first <= ports[0] <= wanted.last:
                    text = f"the service listens on {wanted}, which is where node {shown(node.get('name', ''))} would be asked"
                    yield Found(where, text, "it would call itself; give one of them another address or port")
