"""What ``plan`` found, as text and as plain values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cachelb.simulate.plan import Load, Plan, Side
from cachelb.simulate.report import amount, table

SHOWN_FLOWS = 40  # in the text; as JSON there are all
SHOWN_NODES = 40


def text(plan: Plan, keys: str, notes: Sequence[str] = ()) -> str:
    """For people.

    Args:
        keys: where the URLs come from, as a sentence.
    """
    return "\n".join([_head(plan, keys, notes), _flows(plan), _places(plan)])


def _head(plan: Plan, keys: str, notes: Sequence[str]) -> str:
    lines = [f"before: {_side(plan.before)}", f"after:  {_side(plan.after)}", f"URLs:   {keys}", *notes]
    return "".join(line + "\n" for line in lines)


def _side(side: Side) -> str:
    up = sum(1 for node in side.nodes if node.state == "up")
    return f"{side.name}: {side.algorithm}, {len(side.nodes)} nodes, {up} up"


def _flows(plan: Plan) -> str:
    total, moves = plan.total, plan.moves
    rows = [("from", "to", *_heads(total))]
    rows += [(old, new, *_shares(load, total)) for old, new, load in moves[:SHOWN_FLOWS]]
    if len(moves) > SHOWN_FLOWS:
        rest = Load()
        for _, _, load in moves[SHOWN_FLOWS:]:
            rest = rest.plus(load)
        rows.append((f"{len(moves) - SHOWN_FLOWS} more", "", *_shares(rest, total)))
    rows.append(("all that moves", "", *_shares(plan.moved, total)))
    return table([(f"{old} -> {new}" if new else old, *cells) for old, new, *cells in rows]) + (
        f"  by the weights {plan.least:.1%} of the URLs have to move, whatever the algorithm\n"
    )


def _places(plan: Plan) -> str:
    total, places = plan.total, plan.places
    rows = [("node", "URLs now", "then", *(("requests now", "then", "bytes now", "then") if total.requests else ()))]
    for place in places[:SHOWN_NODES]:
        old, new = (_shares(plan.held(place, after=after), total) for after in (False, True))
        rows.append((place, *(cell for pair in zip(old, new, strict=True) for cell in pair)))
    more = f"... and {len(places) - SHOWN_NODES} more\n" if len(places) > SHOWN_NODES else ""
    return table(rows) + more


def _heads(total: Load) -> tuple[str, ...]:
    return ("URLs", "requests", "bytes") if total.requests else ("URLs",)


def _shares(load: Load, total: Load) -> tuple[str, ...]:
    urls = f"{load.urls / max(1, total.urls):.2%}"
    if not total.requests:
        return (urls,)
    return urls, f"{load.requests / total.requests:.2%}", f"{load.sent / max(1, total.sent):.2%}"


def keys_of_log(names: Sequence[str], total: Load) -> str:
    """Where the URLs come from, if from logs."""
    return f"{total.urls:,} in {', '.join(names)}, {total.requests:,} requests, {amount(total.sent)}"


def keys_made_up(count: int) -> str:
    """Where the URLs come from, if from nowhere."""
    error = 2 * (0.25 / count) ** 0.5
    return (
        f"{count:,} made up, for no log was given (--log): URLs only, all alike, to within {error:.1%}; "
        "your traffic may prefer some nodes"
    )


def as_dict(plan: Plan, keys: str, notes: Sequence[str] = ()) -> dict[str, Any]:
    """For JSON: plain values; shares from 0 to 1."""
    total = plan.total
    return {
        "before": _side_dict(plan.before),
        "after": _side_dict(plan.after),
        "keys": keys,
        "notes": list(notes),
        "total": total._asdict(),
        "moved": _load_dict(plan.moved, total),
        "least": plan.least,
        "moves": [{"from": old, "to": new, **_load_dict(load, total)} for old, new, load in plan.moves],
        "nodes": [
            {
                "name": place,
                "before": _load_dict(plan.held(place, after=False), total),
                "after": _load_dict(plan.held(place, after=True), total),
            }
            for place in plan.places
        ],
    }


def _side_dict(side: Side) -> dict[str, Any]:
    return {"name": side.name, "algorithm": side.algorithm, "nodes": [node._asdict() for node in side.nodes]}


def _load_dict(load: Load, total: Load) -> dict[str, Any]:
    return {
        **load._asdict(),
        "share_of_urls": load.urls / max(1, total.urls),
        "share_of_requests": load.requests / total.requests if total.requests else None,
        "share_of_bytes": load.sent / total.sent if total.sent else None,
    }
