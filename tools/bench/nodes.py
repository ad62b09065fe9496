"""The servers that stand for cache nodes: one nginx process, with a file for each size of answer.

It listens on three addresses, and on one port of every loopback address, so that a farm may have a thousand nodes.
"""

from __future__ import annotations

import os
from pathlib import Path

from .load import SCENARIOS, Scenario

NODES = (("127.0.0.11", 19001), ("127.0.0.12", 19002), ("127.0.0.13", 19003))
MANY_PORT = 19100


def addresses(count: int) -> tuple[tuple[str, int], ...]:
    """The nodes of a farm of this size: the usual ones for three."""
    if count == len(NODES):
        return NODES
    return tuple((f"127.1.{number >> 8}.{number & 255}", MANY_PORT) for number in range(1, count + 1))


def write_files(folder: Path) -> None:
    """Make the answers' bodies.  Large ones are random, so that nothing on the way can compress or merge them."""
    for scenario in SCENARIOS.values():
        kib = scenario.bytes >> 10
        body = os.urandom(1 << 10) * kib if kib else b"x" * scenario.bytes
        (folder / f"{scenario.name}.bin").write_bytes(body)


def nginx_config(folder: Path) -> str:
    """The nodes' nginx.conf; every answer is a cache hit by its own account."""
    listens = " ".join(f"listen {host}:{port};" for host, port in NODES)
    places = "\n".join(_place(scenario) for scenario in SCENARIOS.values())
    return f"""daemon off; worker_processes 1; pid {folder}/nodes.pid; error_log {folder}/nodes.log; {nginx_user()}
events {{ worker_connections 8192; }}
http {{
 access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 600;
 open_file_cache max=100; default_type image/gif; {nginx_temporary(folder)}
 server {{ {listens} listen 0.0.0.0:{MANY_PORT}; root {folder};
  add_header Cache-Control max-age=3600; add_header X-Cache "HIT from node";
{places}
 }}
}}
"""


def _place(scenario: Scenario) -> str:
    # without ranges and length there is nothing left but chunks; the filter replaces what is not there
    chunks = " sub_filter_types *; sub_filter no-such-text x;" if scenario.chunked else ""
    return f"  location /{scenario.name}/ {{ try_files /{scenario.name}.bin =404;{chunks} }}"


def nginx_user() -> str:
    """The line without which nginx, started as root, could not read our files; others may not give it."""
    return "user root;" if os.geteuid() == 0 else ""


def nginx_temporary(folder: Path) -> str:
    """Where nginx keeps temporary files if it may not write to its usual place."""
    if os.geteuid() == 0:
        return ""
    return " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
