"""The front ends that are compared: for each, a configuration that hashes whole URLs onto the nodes, and a command.

All use one core: one worker, one thread.  None caches and none logs requests.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .nodes import NODES, nginx_temporary, nginx_user


class Front(NamedTuple):
    """port: where it listens on 127.0.0.1.  program: what must be installed, and package: what has it."""

    name: str
    port: int
    program: str
    package: str
    config: Callable[[Path], str]
    command: Callable[[Path], list[str]]  # from the path of its configuration


def _haproxy(folder: Path) -> str:
    del folder
    servers = "\n".join(f"  server n{i} {host}:{port}" for i, (host, port) in enumerate(NODES))
    return f"""global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option splice-auto
  http-reuse always
frontend f
  bind 127.0.0.1:{FRONTS["haproxy"].port}
  default_backend b
backend b
  balance uri whole
  hash-type consistent
{servers}
"""


def _nginx(folder: Path) -> str:
    servers = " ".join(f"server {host}:{port};" for host, port in NODES)
    return f"""daemon off; worker_processes 1; pid {folder}/front.pid; error_log {folder}/front.log; {nginx_user()}
events {{ worker_connections 8192; }}
http {{
 access_log off; keepalive_requests 1000000000; keepalive_timeout 600; proxy_buffering on; {nginx_temporary(folder)}
 upstream b {{
  hash $scheme$host$request_uri consistent; {servers}
  keepalive 512; keepalive_requests 1000000000;
 }}
 server {{ listen 127.0.0.1:{FRONTS["nginx"].port};
  location / {{
   proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
  }}
 }}
}}
"""


def _squid(folder: Path) -> str:
    peers = "\n".join(
        f"cache_peer {host} parent {port} 0 carp no-query no-digest name=n{i}" for i, (host, port) in enumerate(NODES)
    )
    return f"""http_port 127.0.0.1:{FRONTS["squid"].port}
icp_port 0
pid_filename {folder}/squid.pid
access_log none
cache_log {folder}/squid.log
coredump_dir {folder}
visible_hostname front
cache_mem 8 MB
cache deny all
http_access allow all
never_direct allow all
nonhierarchical_direct off
max_filedescriptors 8192
pinger_enable off
shutdown_lifetime 1 second
{peers}
"""


def _cachelb(folder: Path) -> str:
    del folder
    nodes = "\n".join(
        f'[[node]]\nname = "n{i}"\nhost = "{host}"\nhttp_port = {port}\nicp_port = 0\n'
        for i, (host, port) in enumerate(NODES)
    )
    return f"""[listen]
http = "127.0.0.1:{FRONTS["cachelb"].port}"
admin = "127.0.0.1:18180"
[relay]
workers = 1
{nodes}"""


FRONTS = {
    front.name: front
    for front in (
        Front("haproxy", 18001, "haproxy", "haproxy", _haproxy, lambda path: ["haproxy", "-db", "-q", "-f", str(path)]),
        Front("nginx", 18002, "nginx", "nginx-light", _nginx, lambda path: ["nginx", "-c", str(path)]),
        Front("squid", 18003, "squid", "squid", _squid, lambda path: ["squid", "-N", "-f", str(path)]),
        Front("cachelb", 18004, "", "", _cachelb, lambda path: ["run", "-c", str(path)]),
    )
}


def command_of(front: Front, config: Path, cachelb: str) -> list[str]:
    """The command line that runs ``front``; ``cachelb`` is how to call ours."""
    command = front.command(config)
    return command if front.program else [*shlex.split(cachelb), *command]
