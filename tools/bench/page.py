"""The page and the picture of a run in the docs: bench.md, bench.svg, bench.png, bench.json.

What is there already of the same machine and is not measured this time is kept: a table has its own date.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .chart import SCENARIOS, draw, library, lines_of

FRONT = """# Benchmarks

{machine}. Made by `make bench`; do not edit.

CPU time of the front end's core for each relayed request, including softirqs; nodes and load are on the other core. Front
ends take turns; figures are medians of all rounds, ratios are taken within each round. The machine moves the microseconds
more than the ratios: trust the ratios. How each table is made is in the modules of [tools/bench](../tools/bench).
"""
PICTURE = """
![CPU time per request by size of the answer](bench.svg)
"""
PARTS = ("when", "text", "tables")


def check() -> None:
    """See that a picture can be drawn, before half an hour of measuring.

    Raises:
        BenchError: It cannot.
    """
    library()


def write(folder: Path, result: Mapping[str, Any], order: tuple[str, ...]) -> None:
    """Write all of it to ``folder``.  order: of the tables.

    Raises:
        BenchError: There is no matplotlib.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "bench.json"
    with contextlib.suppress(FileNotFoundError):
        result = merged(json.loads(data.read_text()), result, order)
    lines = lines_of(result["tables"])
    if lines:
        day = max(when[:10] for name, when in result["when"].items() if name in SCENARIOS)
        draw(lines, f"{result['machine']}, {day}", [folder / "bench.svg", folder / "bench.png"])
    data.write_text(json.dumps(result, indent=1) + "\n")
    (folder / "bench.md").write_text(page(result, bool(lines)))


def merged(old: Mapping[str, Any], new: Mapping[str, Any], order: tuple[str, ...]) -> Mapping[str, Any]:
    """The new figures, and the old ones of what was not measured anew, if they are of the same machine."""
    if old["machine"] != new["machine"]:
        return new
    both = {part: {**old[part], **new[part]} for part in PARTS}
    return {"machine": new["machine"], **{part: {name: of[name] for name in order if name in of} for part, of in both.items()}}


def page(result: Mapping[str, Any], picture: bool) -> str:
    """The text of the page."""
    blocks = [f"\n```\n{text}\n\n{result['when'][name]}\n```\n" for name, text in result["text"].items()]
    return FRONT.format(machine=result["machine"]) + PICTURE * picture + "".join(blocks)
