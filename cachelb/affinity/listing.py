"""What an operator is shown of templates: groups with their counts, and templates page by page.

A page begins behind the last key of the one before, in the order of groups, shards and keys, so that it does not matter what is
used, made or forgotten between two pages.  At most LOOKED_AT templates are looked at for one page: there may be a million, and
none that is asked for.

Pure: time is a parameter.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

from cachelb.affinity.templates import SHARDS, Shelf, Template, Templates

LOOKED_AT = 50_000  # for one page: 10 ms


class BadPageError(ValueError):
    """What was given as the end of the page before is none."""


def groups(templates: Templates, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """``model.AffinityGroup`` of each; names: of the nodes, by slot."""
    return [
        {
            "name": name,
            "netmask_v4": shelf.group.netmask_v4,
            "netmask_v6": shelf.group.netmask_v6,
            "timeout_s": shelf.group.timeout_s,
            "expire_on_drain": shelf.group.expires_on_drain,
            "after_death": "return" if shelf.group.returns else "stay",
            "templates": shelf.size,
            "nodes": {names[slot]: count for slot, count in sorted(shelf.counts.items()) if slot in names},
        }
        for name, shelf in templates.shelves.items()
    ]


def template(shelf: Shelf, key: int, found: Template, names: Mapping[int, str], now: float) -> dict[str, Any]:
    """``model.AffinityTemplate``."""
    idle_s = max(0.0, now - found.used)
    return {
        "group": shelf.group.name,
        "client": shelf.group.network(key),
        "node": names.get(found.slot, ""),
        "home": names.get(found.home, ""),
        "idle_s": round(idle_s, 1),
        "expires_in_s": round(max(0.0, shelf.group.timeout_s - idle_s), 1),
    }


def of_client(
    templates: Templates, wanted: Sequence[str], address: bytes, names: Mapping[int, str], now: float
) -> list[dict[str, Any]]:
    """The templates of one client (4 or 16 bytes) in these groups."""
    found = []
    for name in wanted:
        shelf = templates.shelves[name]
        key = shelf.group.key(address)
        known = shelf.get(key)
        if known is not None:
            found.append(template(shelf, key, known, names, now))
    return found


def page(
    templates: Templates,
    wanted: Sequence[str],
    slot: int | None,
    limit: int,
    after: str,
    names: Mapping[int, str],
    now: float,
) -> tuple[list[dict[str, Any]], str]:
    """Up to ``limit`` templates of these groups, those of a node if ``slot`` is given, and where the next page begins.

    Raises:
        BadPageError: ``after`` is not where a page ends.
    """
    group_at, shard_at, key_at = _place(after)
    if not limit:
        return [], ""
    found: list[dict[str, Any]] = []
    looked_at = 0
    for number, name in list(enumerate(wanted))[group_at:]:
        shelf = templates.shelves[name]
        for shard in range(shard_at, SHARDS):
            keys = shelf.of_node(shard, slot) if slot is not None else list(shelf.shards[shard])
            keys = heapq.nsmallest(limit - len(found) + 1, [key for key in keys if key > key_at])
            for key in keys[: limit - len(found)]:
                known = shelf.get(key)
                assert known is not None
                found.append(template(shelf, key, known, names, now))
                key_at = key
            looked_at += len(shelf.shards[shard])
            if len(found) == limit:
                return found, f"{number}-{shard}-{key_at}"
            key_at = -1
            if looked_at >= LOOKED_AT:
                return found, f"{number}-{shard + 1}--1"
        shard_at = 0
    return found, ""


def _place(after: str) -> tuple[int, int, int]:
    if not after:
        return 0, 0, -1
    number, _, rest = after.partition("-")
    shard, _, key = rest.partition("-")
    texts = number, shard, key.removeprefix("-")
    if len(after) > 80 or not all(text.isascii() and text.isdigit() for text in texts):
        raise BadPageError(f"{after[:40]!r} is not what an answer says under next")
    return int(number), int(shard), int(key)
