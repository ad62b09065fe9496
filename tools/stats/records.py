"""For programs: one JSON document, or CSV with a line for the farm and one for each node.

Pure.  Names of columns have their units and stay; new ones come at the end.
"""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

from .farm import Farm, number
from .verdict import Verdict

CSV_COLUMNS = (
    *("time", "name", "state", "well", "requests_per_s", "requests_part", "keys_part", "hit_ratio", "bytes_per_s"),
    *("p50_ms", "p99_ms", "errors_per_s", "in_flight", "weight", "bypassed_per_s", "refused_per_s", "retries_per_s", "icp_per_s"),
)
FARM_NAME = ""  # a node's name is never empty


def as_json(farm: Farm, verdict: Verdict) -> str:
    """What was found, what is said of it, and the API's own documents."""
    answers = farm.answers
    found = {
        "well": verdict.is_well,
        "verdict": verdict.words(),
        "findings": [
            {"level": f.level, "kind": f.kind, "node": f.node, "text": f.text, "look": f.look} for f in verdict.findings
        ],
        "admin": answers.where,
        "status": answers.status,
        "hot": answers.hot,
        "history": answers.history,
        "events": list(answers.events),
    }
    return json.dumps(found, indent=1, ensure_ascii=True)


def as_csv(farm: Farm, verdict: Verdict) -> str:
    """A line of titles, the farm (its name is empty), the nodes as they are configured."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    at = datetime.fromtimestamp(number(farm.status, "now") or 0.0, UTC).isoformat(timespec="milliseconds")
    now = farm.now
    total: dict[str, Any] = {
        "time": at,
        "name": FARM_NAME,
        "state": farm.status.get("state"),
        "well": int(verdict.is_well),
        "requests_per_s": now.requests,
        "hit_ratio": now.hit_ratio,
        "bytes_per_s": now.bytes,
        "p50_ms": now.p50_ms,
        "p99_ms": now.p99_ms,
        "errors_per_s": now.errors,
        "in_flight": farm.in_flight,
    }
    writer.writerow(total | {name: farm.rate(name) for name in CSV_COLUMNS[-4:]})
    for node in farm.nodes:
        writer.writerow(
            {
                "time": at,
                "name": node.name,
                "state": node.state,
                "well": int(verdict.of_node(node.name) not in ("bad", "warn")),
                "requests_per_s": node.now.requests,
                "requests_part": None if node.part is None else round(node.part, 4),
                "keys_part": node.keys,
                "hit_ratio": node.now.hit_ratio,
                "bytes_per_s": node.now.bytes,
                "p50_ms": node.now.p50_ms,
                "p99_ms": node.now.p99_ms,
                "errors_per_s": node.now.errors,
                "in_flight": node.in_flight,
                "weight": node.weight,
            }
        )
    return out.getvalue().rstrip("\n")
