"""The front ends that are compared: for each, a configuration that hashes whole URLs onto the nodes, and a command.

Unless a setting says more, all use one core (one worker, one thread), and none logs requests.  None caches.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .nodes import addresses, nginx_temporary, nginx_user

LOCAL = "127.0.0.1"
CLIENTS = 4000
# One node's health is asked as often whatever their number, so that a request's cost holds no more probes with a
# thousand nodes than with three: seconds for each node.
PROBE_S = 2.0 / 3


class Setting(NamedTuple):
    """How a front end is run.

    nodes: how many.  workers: processes or threads that relay.  log: requests are logged to a file, and metrics served.
    clients: connections at a time.
    """

    nodes: int = 3
    workers: int = 1
    log: bool = False
    clients: int = CLIENTS


class Place(NamedTuple):
    """folder: for files.  port, admin: where it listens on 127.0.0.1, and where it shows its metrics."""

    folder: Path
    port: int
    admin: int


USUAL = Setting()


class Front(NamedTuple):
    """program: what must be installed, and package: what has it; nothing if it is ours."""

    name: str
    program: str
    package: str
    config: Callable[[Place, Setting], str]
    command: Callable[[Path], list[str]]  # from the path of its configuration
    environment: Mapping[str, str] = {}

    @property
    def ours(self) -> bool:
        """Whether it is cachelb."""
        return not self.program


def _haproxy(place: Place, setting: Setting) -> str:
    servers = "\n".join(f"  server n{i} {host}:{port}" for i, (host, port) in enumerate(addresses(setting.nodes)))
    # its log goes to a descriptor; the logger of a system is another process, and none may run here
    log = "  log stdout format raw daemon\n  option httplog\n" if setting.log else ""
    metrics = (
        f"frontend m\n  bind {LOCAL}:{place.admin}\n  no log\n  http-request use-service prometheus-exporter\n"
        if setting.log
        else ""
    )
    return f"""global
  nbthread {setting.workers}
  maxconn {setting.clients}
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option splice-auto
  http-reuse always
{log}frontend f
  bind {LOCAL}:{place.port}
  default_backend b
{metrics}backend b
  balance uri whole
  hash-type consistent
{servers}
"""


def _nginx(place: Place, setting: Setting) -> str:
    folder, servers = place.folder, " ".join(f"server {host}:{port};" for host, port in addresses(setting.nodes))
    log = f"{folder}/front-{place.port}.access.log combined buffer=64k" if setting.log else "off"
    metrics = f"server {{ listen {LOCAL}:{place.admin}; location / {{ stub_status; }} }}" if setting.log else ""
    return f"""daemon off; worker_processes {setting.workers}; pid {folder}/front-{place.port}.pid;
error_log {folder}/front-{place.port}.log; {nginx_user()} worker_rlimit_nofile 65536;
events {{ worker_connections {max(8192, 3 * setting.clients)}; }}
http {{
 access_log {log}; keepalive_requests 1000000000; keepalive_timeout 600; proxy_buffering on; {nginx_temporary(folder)}
 upstream b {{
  hash $scheme$host$request_uri consistent; {servers}
  keepalive {max(512, 4 * setting.nodes)}; keepalive_requests 1000000000;
 }}
 {metrics}
 server {{ listen {LOCAL}:{place.port}{" reuseport" * (setting.workers > 1)};
  location / {{
   proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
  }}
 }}
}}
"""


def _squid(place: Place, setting: Setting) -> str:
    folder = place.folder
    peers = "\n".join(
        f"cache_peer {host} parent {port} 0 carp no-query no-digest name=n{i}"
        for i, (host, port) in enumerate(addresses(setting.nodes))
    )
    return f"""http_port {LOCAL}:{place.port}
icp_port 0
pid_filename {folder}/squid-{place.port}.pid
access_log {f"stdio:{folder}/squid-{place.port}.access.log" if setting.log else "none"}
cache_log {folder}/squid-{place.port}.log
coredump_dir {folder}
visible_hostname front
cache_mem 8 MB
cache deny all
http_access allow all
never_direct allow all
nonhierarchical_direct off
max_filedescriptors {max(8192, 3 * setting.clients)}
pinger_enable off
shutdown_lifetime 1 second
{peers}
"""


def _cachelb(place: Place, setting: Setting) -> str:
    nodes = "\n".join(
        f'[[node]]\nname = "n{i}"\nhost = "{host}"\nhttp_port = {port}\nicp_port = 0\n'
        for i, (host, port) in enumerate(addresses(setting.nodes))
    )
    log = f'[log]\naccess = "{place.folder}/cachelb-{place.port}.access.log"\n' if setting.log else ""
    limits = f"[limits]\nconnections_per_client = {setting.clients}\n" if setting.clients > CLIENTS else ""
    health = f"[health]\ninterval_s = {PROBE_S * setting.nodes:.1f}\n" if setting.nodes > 3 else ""
    return f"""[listen]
http = "{LOCAL}:{place.port}"
admin = "{LOCAL}:{place.admin}"
[relay]
workers = {setting.workers}
{limits}{log}{health}{nodes}"""


def _run(path: Path) -> list[str]:
    return ["run", "-c", str(path)]


FRONTS = {
    front.name: front
    for front in (
        Front("haproxy", "haproxy", "haproxy", _haproxy, lambda path: ["haproxy", "-db", "-f", str(path)]),
        Front("nginx", "nginx", "nginx-light", _nginx, lambda path: ["nginx", "-c", str(path)]),
        Front("squid", "squid", "squid", _squid, lambda path: ["squid", "-N", "-f", str(path)]),
        Front("cachelb", "", "", _cachelb, _run),
        # the same sources, not compiled ahead of time; the same as the one above where nothing has been compiled
        Front("cachelb-pure", "", "", _cachelb, _run, {"CACHELB_COMPILED": "0"}),
    )
}
USUAL_FRONTS = ("haproxy", "nginx", "squid", "cachelb")


def command_of(front: Front, config: Path, commands: Mapping[str, str]) -> list[str]:
    """The command line that runs ``front``; ``commands``: how to call ours, by the name of the front end."""
    command = front.command(config)
    if not front.ours:
        return command
    return [*shlex.split(commands.get(front.name, commands["cachelb"])), *command]


def with_others(commands: Sequence[str], usual: str) -> tuple[dict[str, Front], dict[str, str]]:
    """All front ends, with other versions of ours: ``commands`` are "NAME=COMMAND", or "COMMAND" for cachelb itself."""
    fronts, known = dict(FRONTS), {"cachelb": usual}
    for text in commands:
        name, equals, command = text.partition("=")
        if not equals or "/" in name or " " in name:
            name, command = "cachelb", text
        known[name] = command
        fronts.setdefault(name, FRONTS["cachelb"]._replace(name=name))
    return fronts, known
