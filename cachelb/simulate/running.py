"""Asks a running director for its farm: ``GET /api/v1/status`` of the admin API.

Older directors do not say by which algorithm they hash; then the operator has to.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cachelb.errors import CommandError
from cachelb.routing.route import NodeState
from cachelb.routing.table import ALGORITHMS
from cachelb.simulate.plan import Side
from cachelb.simulate.policies import Node

TIMEOUT_S = 10.0
ANSWER_BYTES = 64 << 20  # 1,000 nodes take 2 MB
PATH = "/api/v1/status"


class RunningError(CommandError):
    """A director does not tell what is needed; one sentence says what."""


def ask(url: str, algorithm: str | None = None, token_file: Path | None = None) -> Side:
    """The farm of the director whose admin API is at `url`, ``http://host:port``.

    Args:
        algorithm: what it hashes by, for directors that do not say so.
        token_file: has the bearer token, where one is needed.

    Raises:
        RunningError: It cannot be reached, or its answer lacks something.
    """
    address = url.rstrip("/").removesuffix(PATH)
    request = urllib.request.Request(address + PATH if "://" in address else f"http://{address}{PATH}")
    if not request.type.startswith("http"):
        raise RunningError(f"{url!r} is not the URL of an admin API; write it like http://127.0.0.1:3180")
    try:
        if token_file is not None:
            request.add_header("Authorization", "Bearer " + token_file.read_text("ascii").strip())
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=TIMEOUT_S) as answer:
            data = answer.read(ANSWER_BYTES + 1)
        status = json.loads(data[:ANSWER_BYTES])
    except urllib.error.HTTPError as exc:
        hint = "; say where its token is with --token-file" if exc.code in (401, 403) else ""
        raise RunningError(f"{address}: {exc.code} {exc.reason}{hint}") from exc
    except (OSError, ValueError, http.client.HTTPException) as exc:
        why = getattr(exc, "reason", exc)  # of what urllib has wrapped
        text = getattr(why, "strerror", None) or why
        raise RunningError(f"{address}: {text}; does the director run, and is this its [listen] admin?") from exc
    return side_of(status, address, algorithm)


def side_of(status: Any, name: str, algorithm: str | None = None) -> Side:
    """The farm that a status tells of.

    Raises:
        RunningError: Something is missing.
    """
    said = _algorithm_in(status)
    if said is not None and algorithm is not None and said != algorithm:
        raise RunningError(f"{name} hashes by {said}, not by {algorithm}")
    if said is None and algorithm is None:
        raise RunningError(
            f"{name} does not say its hash algorithm in {PATH}; say it with --algorithm {'|'.join(ALGORITHMS)}, "
            "or compare with its configuration (--against FILE)"
        )
    nodes = []
    listed = status.get("nodes") if isinstance(status, dict) else None
    for node in listed if isinstance(listed, list) else []:
        missing = [key for key in ("name", "weight", "state") if not isinstance(node, dict) or key not in node]
        if missing:
            raise RunningError(f"{name} does not say {', '.join(missing)} of a node in {PATH}")
        try:
            nodes.append(Node(str(node["name"]), float(node["weight"]), _state(node["state"])))
        except (TypeError, ValueError) as exc:
            raise RunningError(f"{name}: the weight of {node['name']} is {node['weight']!r}") from exc
    if not nodes:
        raise RunningError(f"{name} lists no nodes in {PATH}")
    return Side(name, said or algorithm or "", tuple(nodes))


def _algorithm_in(status: Any) -> str | None:
    """Wherever it stands: ``hash.algorithm`` as in the configuration, or ``algorithm``, at the top or in ``farm``."""
    if not isinstance(status, dict):
        return None
    for table in (status, status.get("farm"), status.get("config")):
        if isinstance(table, dict):
            for value in (table.get("algorithm"), table.get("hash_algorithm"), table.get("hash")):
                found = value.get("algorithm") if isinstance(value, dict) else value
                if found in ALGORITHMS:
                    return str(found)
    return None


def _state(state: Any) -> NodeState:
    """A dead node counts as up: its URLs come back to it."""
    return state if state in ("drain", "down") else "up"
