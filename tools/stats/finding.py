"""One thing to know about the farm, and how many of the same become one.  Which there are: ``verdict``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BAD, WARN, NOTE = "bad", "warn", "note"
LEVELS = (BAD, WARN, NOTE)
FEW = 3  # so many nodes with the same trouble are listed, more are one finding


@dataclass(frozen=True)
class Finding:
    """One thing to know.  level: bad, warn: not well; note: worth knowing.  kind: the rule; node: "" if of the farm."""

    level: str
    kind: str
    text: str
    look: str = ""
    node: str = ""


def grouped_findings(findings: Sequence[Finding]) -> list[Finding]:
    """As they are, but one for all nodes where more than a few have the same trouble."""
    by_kind: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault((finding.level, finding.kind), []).append(finding)
    shown = []
    for (level, kind), same in by_kind.items():
        if len(same) <= FEW or not same[0].node:
            shown += same
            continue
        names = ", ".join(finding.node for finding in same[:FEW])
        text = f"{len(same)} nodes {_PLURAL.get(kind, kind)}: {names} and {len(same) - FEW} more; the first: {same[0].text}"
        shown.append(Finding(level, kind, text, same[0].look))
    return shown


_PLURAL = {
    "dead": "are dead",
    "errors": "fail requests",
    "stuck": "do not answer",
    "unsteady": "come and go",
    "slow": "are slow",
    "cold": "hit less than the others",
    "drain": "are taken out",
    "returning": "are coming back",
    "skew": "get more requests than keys",
}
