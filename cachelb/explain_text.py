"""What ``cachelb explain`` says, as text.

Left out: what it is made of (explain.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachelb.explained import Explanation

SHOWN_NODES = 16  # as JSON there are all
_SECTIONS = {"rule": "[[rule]]", "bypass": "[bypass]", "tcp": "[[tcp]]"}


def render(found: Explanation) -> str:
    """An Explanation for people."""
    asked = ("request", f"{found.method} {found.url}") if found.method else ("connects", found.url)
    rows = [asked, ("client", found.client)]
    if found.key:
        rows.append(("key", found.key))
    if found.hash:
        rows.append(("hash", f"{found.hash} ({found.algorithm}, table {found.table})"))
    if found.owner:
        rows.append(("owner", found.owner))
    rows.append(("kind", f"{found.kind}: {found.why}" if found.why else found.kind))
    if found.rule:
        rows.append(("rule", f"{found.rule} of {_SECTIONS[found.rule_in]}"))
    if found.rule_in in ("rule", "tcp"):
        rows += [("pool", found.pool or "the whole farm"), ("by", found.scheduler)]
    if found.affinity:
        rows.append(("group", f"{found.affinity}: {found.template or 'this client has no template there'}"))
    if found.cookies:
        rows.append(("cookies", ", ".join(found.cookies)))
    if found.reason:
        rows.append(("reason", f"{found.reason} ({found.status})" if found.status else found.reason))
    rows.append(("goes", found.goes))
    text = "".join(f"{name:<9}{_printable(value)}\n" for name, value in rows)
    if found.nodes:
        text += "\n" + _node_table(found)
    if found.sent:
        lines = found.sent.removesuffix("\r\n\r\n").split("\r\n")
        text += "\nsent:\n" + "".join(f"  {_printable(line)}\n" for line in lines)
    return text


def _node_table(found: Explanation) -> str:
    rows = [("order", "node", "address", "state", "weight", "share", "asked")]
    for node in found.nodes[:SHOWN_NODES]:
        host = f"[{node.host}]" if ":" in node.host else node.host
        asked = str(node.tried) if node.tried and node.name in found.to else "-"
        place = str(node.place) if node.place else "-"
        address = f"{host}:{node.port}"
        rows.append((place, node.name, address, node.state, f"{node.weight:g}", f"{node.share:.1%}", asked))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if len(found.nodes) > SHOWN_NODES:
        lines.append(f"... and {len(found.nodes) - SHOWN_NODES} more")
    return "".join(line + "\n" for line in lines)


def _printable(text: str) -> str:
    """Text that cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
