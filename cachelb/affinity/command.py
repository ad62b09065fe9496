"""``cachelb affinity list | count | flush``: what the director that runs with a configuration knows of its clients' nodes.

It asks the admin API as the configuration says: by the Unix socket, which needs no token, else the first admin listener, with the
token of ``[admin] token_file``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cachelb.affinity.options import PAGE
from cachelb.config import load
from cachelb.errors import CommandError
from cachelb.tools.stats.client import Admin, Bad, Down, Refused, read_token

if TYPE_CHECKING:
    from cachelb.config import Config

TIMEOUT_S = 10.0  # flushing a million takes less than one

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def run(options: argparse.Namespace) -> int:
    """Do it; 0.

    Raises:
        ConfigError: The configuration cannot be used.
        CommandError: The director does not answer, or refuses.
    """
    filters = {name: value for name in ("group", "node", "client") if (value := getattr(options, name))}
    if options.what == "flush" and not filters:
        raise CommandError("flush what? give --client, --node or --group")
    try:
        admin = _admin(load(options.config), with_token=options.what == "flush")
        if options.what == "flush":
            found = admin.delete("/affinity", **filters)
            text = f"{found['flushed']} templates flushed"
        elif options.what == "count":
            found = admin.get("/affinity", limit=0, **filters)
            text = _counts(found, options.group, options.node)
        else:
            found = _pages(admin, options.limit, filters)
            text = _table(found)
    except (Down, Bad) as exc:
        raise CommandError(str(exc)) from exc
    except Refused as exc:
        hint = " ([admin] token_file has none)" if exc.status in (401, 403) else ""
        raise CommandError(f"the director refuses: {exc}{hint}") from exc
    print(json.dumps(found, indent=1) if options.json else text)
    return 0


def _admin(config: Config, *, with_token: bool) -> Admin:
    if config.admin.socket:
        return Admin(config.admin.socket, timeout_s=TIMEOUT_S)
    if not config.listen.admin:
        raise CommandError("the director cannot be asked: it has neither [admin] socket nor [listen] admin")
    address = config.listen.admin[0]
    host = _ANY.get(address.host, address.host)
    token = read_token(config.admin.token_file) if with_token and config.admin.token_file else ""
    return Admin(f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}", token, TIMEOUT_S)


def _pages(admin: Admin, limit: int, filters: dict[str, str]) -> dict[str, Any]:
    """As many templates as wanted, which may take several answers."""
    after: dict[str, str] = {}
    clients: list[dict[str, Any]] = []
    while True:
        found = admin.get("/affinity", limit=min(PAGE, limit - len(clients)), **filters, **after)
        clients += found["clients"]
        if not found["next"] or len(clients) >= limit:
            return dict(found) | {"clients": clients}
        after = {"after": found["next"]}


def _table(found: dict[str, Any]) -> str:
    rows = [("group", "client", "node", "returns to", "idle", "expires in")]
    for client in found["clients"]:
        times = f"{client['idle_s']:.0f} s", f"{client['expires_in_s']:.0f} s"
        rows.append((client["group"], client["client"], client["node"], client["home"] or "-", *times))
    text = _aligned(rows)
    return text + (f"\n... there are more: --limit (there are {found['templates']} in all)" if found["next"] else "")


def _counts(found: dict[str, Any], group: str, node: str) -> str:
    rows = [("group", "node", "templates")]
    for known in found["groups"]:
        if group in ("", known["name"]):
            rows += [(known["name"], name, str(count)) for name, count in known["nodes"].items() if node in ("", name)]
    return _aligned(rows) + f"\n{found['templates']} of at most {found['limit']}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
