"""The servers that stand for cache nodes: one nginx process on three addresses, with a file for each size of answer."""

from __future__ import annotations

import os
from pathlib import Path

from .load import SCENARIOS

NODES = (("127.0.0.11", 19001), ("127.0.0.12", 19002), ("127.0.0.13", 19003))


def write_files(folder: Path) -> None:
    """Make the answers' bodies.  Large ones are random, so that nothing on the way can compress or merge them."""
    for scenario in SCENARIOS.values():
        kib = scenario.bytes >> 10
        body = os.urandom(1 << 10) * kib if kib else b"x" * scenario.bytes
        (folder / f"{scenario.name}.bin").write_bytes(body)


def nginx_config(folder: Path) -> str:
    """The nodes' nginx.conf; every answer is a cache hit by its own account."""
    listens = " ".join(f"listen {host}:{port};" for host, port in NODES)
    places = "\n".join(f"  location /{name}/ {{ try_files /{name}.bin =404; }}" for name in SCENARIOS)
    return f"""daemon off; worker_processes 1; pid {folder}/nodes.pid; error_log {folder}/nodes.log; {nginx_user()}
events {{ worker_connections 8192; }}
http {{
 access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 600;
 open_file_cache max=100; default_type image/gif; {nginx_temporary(folder)}
 server {{ {listens} root {folder};
  add_header Cache-Control max-age=3600; add_header X-Cache "HIT from node";
{places}
 }}
}}
"""


def nginx_user() -> str:
    """The line without which nginx, started as root, could not read our files; others may not give it."""
    return "user root;" if os.geteuid() == 0 else ""


def nginx_temporary(folder: Path) -> str:
    """Where nginx keeps temporary files if it may not write to its usual place."""
    if os.geteuid() == 0:
        return ""
    return " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
