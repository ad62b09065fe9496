"""The squid.conf of a node of the farm, and of a downstream cache that has the director as its parent.

Written for Squid 5.7 on loopback; the comments in the texts say what each unusual line avoids.

Left out: everything that a production Squid wants beyond this (README.md has a snippet).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def _common_settings(name: str, host: str, http_port: int, directory: Path) -> str:
    # cache_effective_user does nothing unless Squid starts as root; then it must not stay root.
    return f"""\
http_port {host}:{http_port}
visible_hostname {name}.test
pid_filename {directory}/squid.pid
coredump_dir {directory}
cache_log {directory}/cache.log
access_log stdio:{directory}/access.log
strip_query_terms off
cache_store_log none
netdb_filename none
logfile_rotate 0
cache_effective_user proxy
memory_cache_shared off
# no traffic but what the tests send: no pinger, no DNS
pinger_enable off
dns_nameservers 127.0.0.1
hosts_file none
shutdown_lifetime 0 seconds
acl lo src 127.0.0.0/8
cachemgr_passwd none all
"""


def node_settings(
    name: str,
    host: str,
    http_port: int,
    icp_port: int,
    directory: Path,
    *,
    cache_mb: int = 64,
    extra: Sequence[str] = (),
) -> str:
    """squid.conf of a node.  extra: further lines, before the access rules so that they may come first."""
    lines = "".join(line + "\n" for line in extra)
    return f"""\
{_common_settings(name, host, http_port, directory)}
icp_port {icp_port}
udp_incoming_address {host}
cache_mem 16 MB
# must stand before cache_dir, which takes the value in force at that line
maximum_object_size {max(4, cache_mb // 4)} MB
cache_dir ufs {directory}/cache {cache_mb} 4 4
# who the client is comes from the director; who may connect is decided by the address of the connection
follow_x_forwarded_for allow lo
acl_uses_indirect_client off
{lines}acl purge method PURGE
http_access allow purge lo
http_access allow manager lo
http_access allow lo
http_access deny all
icp_access allow lo
digest_generation on
digest_rebuild_period 10 seconds
digest_rewrite_period 10 seconds
"""


def parent_lines(parent: tuple[str, int]) -> list[str]:
    """The squid.conf lines that make `parent` (host, HTTP port) the way to everything, without ICP and digest."""
    return [
        f"cache_peer {parent[0]} parent {parent[1]} 0 name=front no-query no-digest no-netdb-exchange",
        # builds with ICMP believe that everything is 1 ms away and go direct from the second request on
        "minimum_direct_rtt 0",
        "minimum_direct_hops 0",
        "never_direct allow all",
    ]


def child_settings(
    name: str, host: str, http_port: int, directory: Path, lines: Sequence[str], *, stores: bool = False
) -> str:
    """squid.conf of a downstream cache; `lines` say where it sends its requests (``parent_lines``).

    stores: else every request reaches the parent; but a Squid asks no sibling for what it may not store itself.
    """
    text = "".join(line + "\n" for line in lines)
    return f"""\
{_common_settings(name, host, http_port, directory)}
cache_mem 8 MB
{"" if stores else "cache deny all"}
# a reused connection would log the hierarchy code of the request that opened it
server_persistent_connections off
{text}http_access allow lo
http_access deny all
"""
