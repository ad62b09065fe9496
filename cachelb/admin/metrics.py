"""The status as Prometheus text.  Names come from ``counters.TABLE``: ``cachelb_`` or ``cachelb_node_``, then the counter's."""

from __future__ import annotations

from typing import Any

from cachelb.counters import FARM, NODE, PEERS, Counter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus 3 reads the format from it


def render(status: dict[str, Any]) -> str:
    """Text exposition format, version 0.0.4.

    Names of nodes are tokens (``config_values``), so none has a character that would have to be escaped.
    """
    lines: list[str] = []
    for counter in FARM:
        name = _begin(lines, "cachelb", counter)
        lines.append(f"{name} {status['farm'][counter.name]}")
    for counter in PEERS:
        name = _begin(lines, "cachelb", counter)
        lines.append(f"{name} {status['onecache']['counters'][counter.name]}")
    for counter in NODE:
        name = _begin(lines, "cachelb_node", counter)
        lines += [f'{name}{{node="{node["name"]}"}} {node["counters"][counter.name]}' for node in status["nodes"]]
    lines += ["# HELP cachelb_node_up whether the node serves its keys", "# TYPE cachelb_node_up gauge"]
    lines += [f'cachelb_node_up{{node="{node["name"]}"}} {int(node["state"] == "up")}' for node in status["nodes"]]
    lines += ["# HELP cachelb_node_keys objects of the node in the index", "# TYPE cachelb_node_keys gauge"]
    lines += [f'cachelb_node_keys{{node="{node["name"]}"}} {node["store"]["keys"]}' for node in status["nodes"]]
    return "\n".join(lines) + "\n"


def _begin(lines: list[str], prefix: str, counter: Counter) -> str:
    name = f"{prefix}_{counter.name}" + ("_total" if counter.kind == "counter" else "")
    lines.append(f"# HELP {name} {counter.text}")
    lines.append(f"# TYPE {name} {counter.kind}")
    return name
