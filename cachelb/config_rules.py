"""Rules between values of a configuration, and the schema's complaints in words.

The rules read the raw tables, not the checked ones, so that two nodes of one name are found even when a third thing is
wrong: the operator sees everything at once.  Values of a wrong kind are left to the schema.

Left out: the schema (config.py), single values (config_values.py), lines (config_text.py).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from cachelb import config_tcp
from cachelb.config_text import Found, Path
from cachelb.config_values import Address, BadValue, as_list, check_host, overlap, parse_address, shown
from cachelb.counters import NODE_SLOTS

Raw = Mapping[str, Any]

HTTP_PORT = 3128
LISTS = ("node", "pool", "affinity", "cookie", "rule", "tcp")  # sections that are written as [[name]]

# (smaller, larger, whether they may be equal)
_ORDERED = (
    (("health", "timeout_s"), ("health", "interval_s"), False),  # else a second probe begins before the first has ended
    (("resolver", "ttl_min_s"), ("resolver", "ttl_max_s"), True),
    (("timeouts", "tunnel_idle_s"), ("timeouts", "tunnel_total_s"), True),
)


def check(raw: Raw, defaults: Raw) -> list[Found]:
    """Everything that is wrong between values.

    Args:
        raw: As the TOML reader gave it.
        defaults: The same with all defaults.
    """
    listeners = _listeners(raw, defaults)
    found = [*_in_order(raw, defaults), *_overlaps(listeners)]
    if _section(raw, "listen").get("http", "-") in ("", []):
        found.append(Found(("listen", "http"), "is empty: the director must listen somewhere", 'as "0.0.0.0:3128"'))
    nodes = raw.get("node", [])
    if not isinstance(nodes, list):
        return found
    if not nodes:
        found.append(Found((), "there is no [[node]]: the farm has no cache", "add one with name and host"))
    if len(nodes) > NODE_SLOTS:
        found.append(Found(("node",), f"{len(nodes)} nodes are more than the {NODE_SLOTS} that a director serves"))
    tables: list[tuple[Path, Raw]] = [(("node", i), node) for i, node in enumerate(nodes) if isinstance(node, dict)]
    if tables and all(node.get("weight", 1) == 0 for _, node in tables) and not config_tcp.gives_weight(raw):
        found.append(Found(("node",), "every node has weight 0: no URL has an owner", "give at least one a weight"))
    more = _intercepts_itself(raw, listeners, defaults)
    found += [*_same(tables), *_loops(tables, listeners), *_intercepted_twice(listeners), *more]
    return [*found, *config_tcp.check(raw, listeners)]


def _section(raw: Raw, name: str) -> Raw:
    section = raw.get(name)
    return section if isinstance(section, dict) else {}


def _in_order(raw: Raw, defaults: Raw) -> Iterator[Found]:
    for small, large, may_be_equal in _ORDERED:
        given = [path for path in (small, large) if path[1] in _section(raw, path[0])]
        low, high = (_section(raw, path[0]).get(path[1], defaults[path[0]][path[1]]) for path in (small, large))
        if not given or not _is_number(low) or not _is_number(high) or low <= 0 or high <= 0:
            continue
        if low > high or (low == high and not may_be_equal):
            relation = "at most" if may_be_equal else "below"
            path, other = (small, large) if small in given else (large, small)
            own, its = (low, high) if path is small else (high, low)
            default = "" if other in given else ", its default"
            text = f"is {own:g}, and {other[1]} is {its:g}{default}; {small[1]} must be {relation} {large[1]}"
            yield Found(path, text, f"write both: {small[1]} and {large[1]}" if default else "")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18


def _listeners(raw: Raw, defaults: Raw) -> list[tuple[Path, str, Address]]:
    """(path, protocol, address) of all that is listened on and can be read."""
    listeners = []
    given = _section(raw, "listen")
    places: list[tuple[Path, object]] = [
        (("listen", key), given.get(key, default))
        for key, default in defaults["listen"].items()
        if key not in ("names", "proxy_protocol")
    ]
    places.append((("intercept", "listen"), _section(raw, "intercept").get("listen", [])))
    nodes = raw.get("node", [])
    if isinstance(nodes, list):
        places += [
            (("node", i, "store_log"), node["store_log"])
            for i, node in enumerate(nodes)
            if isinstance(node, dict) and "store_log" in node
        ]
    for place, values in places:
        for number, value in enumerate(as_list(values)):
            path: Path = (*place, number) if isinstance(values, list) else place
            protocol = "tcp" if place[1] in ("http", "admin") or place[0] == "intercept" else "udp"
            try:
                listeners.append((path, protocol, parse_address(value)))
            except BadValue:
                pass
    return listeners


def _overlaps(listeners: Sequence[tuple[Path, str, Address]]) -> Iterator[Found]:
    for number, (path, protocol, address) in enumerate(listeners):
        for other, other_protocol, taken in listeners[:number]:
            if protocol == other_protocol and address.port == taken.port and overlap(address.host, taken.host):
                what = f"{address}, too" if address == taken else f"{taken}, which includes {address}"
                if _is_wildcard(address.host) and address != taken:
                    what = f"{taken}, which {address} includes"
                yield Found(path, f"overlaps with {_named(other)}: that listens on {what}")
                break


def _named(path: Path) -> str:
    if path[0] == "node":
        assert isinstance(path[1], int)
        return f"node[{path[1] + 1}].store_log"
    return f"{path[0]}.{path[1]}"


def _is_wildcard(host: str) -> bool:
    return ip_address(host).is_unspecified


def _same(tables: Sequence[tuple[Path, Raw]]) -> Iterator[Found]:
    """Nodes that have their name or their place from another."""
    names: dict[str, int] = {}
    places: dict[tuple[str, object], int] = {}
    for number, (path, node) in enumerate(tables):
        name = node.get("name")
        if isinstance(name, str) and name.strip():
            first = names.setdefault(name.strip(), number)
            if first != number:
                text = f"{shown(name)} is the name of node[{first + 1}], too"
                yield Found((*path, "name"), text, "the name says which URLs are a node's; every node needs its own")
        place = _place(node)
        if place is not None:
            first = places.setdefault(place, number)
            if first != number:
                text = f"{place[0]} port {place[1]} is where node[{first + 1}] is, too"
                yield Found((*path, "host"), text, "one Squid is one node; for more of the URLs, raise its weight")


def _place(node: Raw) -> tuple[str, int] | None:
    port = node.get("http_port", HTTP_PORT)
    if not isinstance(port, int):
        return None
    try:
        return check_host(node.get("host")), port
    except BadValue:
        return None


def _loops(tables: Sequence[tuple[Path, Raw]], listeners: Sequence[tuple[Path, str, Address]]) -> Iterator[Found]:
    """Nodes that are the director itself."""
    own = [address for path, _, address in listeners if path[1] in ("http", "admin")]
    for path, node in tables:
        place = _place(node)
        if place is None:
            continue
        host, port = ("127.0.0.1" if place[0] == "localhost" else place[0]), place[1]
        for address in own:
            if port == address.port and (host == address.host or (_is_loopback(host) and overlap(host, address.host))):
                yield Found((*path, "host"), f"{host} port {port} is the director itself, which listens on {address}")
                break


def _intercepts_itself(raw: Raw, listeners: Sequence[tuple[Path, str, Address]], defaults: Raw) -> Iterator[Found]:
    ports = _section(raw, "intercept").get("ports", defaults["intercept"]["ports"])
    for path, _, address in listeners:
        if path[0] == "intercept" and address.port in as_list(ports):
            yield Found(path, f"has port {address.port}, which is intercepted itself", "choose another port: 3129")


def _intercepted_twice(listeners: Sequence[tuple[Path, str, Address]]) -> Iterator[Found]:
    """The kernel takes all packets of an IP version to one place."""
    versions: dict[int, Address] = {}
    for path, _, address in listeners:
        if path[0] == "intercept":
            first = versions.setdefault(ip_address(address.host).version, address)
            if first != address:
                yield Found(path, f"is a second place beside {first}", "one for IPv4, one for IPv6: all workers listen there")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


# -- the schema's complaints


_KINDS = {
    "bool_type": "should be true or false",
    "float_type": "should be a number",
    "finite_number": "should be a number",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "string_type": "should be a text in quotes",
    "tuple_type": "should be a list",
}
_BOUNDS = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
_WORDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def explain(error: Mapping[str, Any], raw: Raw, fields: Mapping[str, Sequence[str]]) -> Found:
    """One complaint of the schema in words.

    Args:
        error: Of ``ValidationError.errors()``.
        fields: The keys of each section; "" has the sections.
    """
    path, kind, value, context = _written(error["loc"], raw), error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return Found(path, "unknown key", _meant(path, fields))
    if kind == "missing":
        example = {"name": 'name = "cache1"', "host": 'host = "10.0.0.11"'}.get(str(path[-1]), f"{path[-1]} = ...")
        return Found(path, "is missing", f"add {example}")
    if kind == "value_error":
        cause = context["error"]
        return Found(path, str(cause), getattr(cause, "hint", ""))
    if kind in _BOUNDS:
        limit = context[_BOUNDS[kind]]
        return Found(path, f"is {shown(value)}; it must be {_WORDS[_BOUNDS[kind]]} {limit:g}")
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", context["expected"])
        return Found(path, f"{shown(value)} is not one of {', '.join(map(shown, options))}", _closest(value, options))
    if len(path) == 1 and path[0] in LISTS:
        return Found(path, "should be a list of tables", f"write [[{path[0]}]], with two brackets")
    if kind == "model_type":
        header = _header(str(path[0]))
        return Found(path, f"should be a table, not {shown(value)}", f"write {header} on a line of its own")
    if kind == "tuple_type":
        return Found(path, f"should be a list, not {shown(value)}", f"write [{shown(value)}]")
    if kind in _KINDS:
        return Found(path, f"{_KINDS[kind]}, not {shown(value)}")
    return Found(path, str(error["msg"]))


def _written(path: Path, raw: Raw) -> Path:
    """``path`` without the index that a single value has only for the schema."""
    value: Any = raw
    for part in path[:-1]:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return path
    return path[:-1] if isinstance(path[-1], int) and not isinstance(value, list) else path


def _meant(path: Path, fields: Mapping[str, Sequence[str]]) -> str:
    """What an unknown key was probably meant to be."""
    key = str(path[-1])
    section = str(path[0]) if len(path) > 1 else ""
    hint = _closest(key, fields[section])
    homes = [name for name, keys in fields.items() if name and key in keys]
    if section == "" and key.removesuffix("s") in LISTS:
        return f"did you mean [[{key.removesuffix('s')}]]?"
    if homes and (not hint or section == ""):
        headers = list(map(_header, homes))
        return f"{key} belongs into {' or '.join(headers)}"
    if section == "":
        return hint or "the sections are " + ", ".join(fields[""])
    return hint or f"{_header(section)} has {', '.join(fields[section])}"


def _header(section: str) -> str:
    return f"[[{section}]]" if section in LISTS else f"[{section}]"


def _closest(value: object, options: Iterable[str]) -> str:
    if not isinstance(value, str):
        return ""
    options, word = list(options), value.lower()[:100].replace("-", "_")
    # "interval" for "interval_s", "port" for "http_port" or "icp_port"
    close = [option for option in options if word and f"_{word}_" in f"_{option}_"]
    close = close or difflib.get_close_matches(word, options, 1, 0.6)
    return f"did you mean {' or '.join(close[:3])}?" if close else ""


def freeze(value: Any) -> Any:
    """``value`` with tuples for lists, which is what frozen models hold."""
    if isinstance(value, list):
        return tuple(map(freeze, value))
    return {key: freeze(item) for key, item in value.items()} if isinstance(value, dict) else value
