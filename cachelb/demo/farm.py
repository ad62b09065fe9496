"""A farm of real Squids on loopback: what the demo shows and what the tests test against.

    with SquidFarm(3) as farm:
        farm.nodes[0].host, farm.nodes[0].http_port     # 127.0.1.1 and a free port
        farm.holders("http://127.0.0.10:8000/static/1")  # names of the nodes that have it, asked by ICP
        farm.nodes[1].kill(); farm.nodes[1].start()      # SIGKILL; it comes back with its disk cache
        farm.add_child(("127.0.0.1", 3128))              # a downstream Squid with the director as its parent

Works as root (Squid then changes to the user ``proxy``) and as a normal user.  Node N listens on 127.0.1.N, a child on
127.0.2.N, each with free ports, so that several farms can run at the same time.

Left out: one Squid's life (``squid``) and its squid.conf (``squidconf``).
"""

from __future__ import annotations

import secrets
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from .leash import Leash
from .squid import AccessEntry, Squid, SquidError, find_squid, free_port, wait_until
from .squidconf import child_settings, node_settings, parent_lines

__all__ = ["AccessEntry", "Squid", "SquidError", "SquidFarm", "find_squid", "free_port", "wait_until"]


class SquidFarm:
    """`count` nodes named ``cache1``, ``cache2``, ... in a temporary directory, gone when the farm is stopped.

    usual_ports: take 3128 and 3130 where they are free; tests leave it off, so that they never meet.
    store_logs: each node sends its store log to a port of 127.0.0.1 of its own: on one machine all of them have the same
    source address.
    extra: further squid.conf lines for every node.
    """

    def __init__(
        self,
        count: int = 3,
        *,
        cache_mb: int = 64,
        extra: Sequence[str] = (),
        usual_ports: bool = False,
        store_logs: bool = False,
    ) -> None:
        self._leash = Leash()
        # /tmp itself: pytest's directories are closed to the user proxy
        self.directory = Path(tempfile.gettempdir()) / f"cachelbfarm{secrets.token_hex(4)}"
        self.directory.mkdir()
        self.directory.chmod(0o755)
        self._leash.remove(self.directory)
        self._cache_mb = cache_mb
        self._extra = tuple(extra)
        self._usual_ports = usual_ports
        self._wants_store_logs = store_logs
        self._store_logs: dict[str, int] = {}  # by node, the port of 127.0.0.1 that its store log is sent to
        self.children: list[Squid] = []
        self.nodes = [self._node(number) for number in range(1, count + 1)]

    def start(self) -> None:
        """Start all nodes at the same time and return when every one answers (about half a second for three)."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_ready()

    def stop(self) -> None:
        """Kill every Squid of this farm and remove its directory."""
        for squid in (*self.children, *self.nodes):
            squid.kill()
        self._leash.close()

    def add_node(self) -> Squid:
        """One more node, started and ready."""
        node = self._node(len(self.nodes) + 1)
        self.nodes.append(node)
        node.start()
        return node

    def add_child(self, parent: tuple[str, int], *, lines: Sequence[str] = (), stores: bool = False) -> Squid:
        """A downstream Squid that sends everything to `parent` (host, HTTP port), started and ready.

        lines: squid.conf lines to use instead of ``parent_lines(parent)``.  stores: see ``child_settings``.
        """
        number = len(self.children) + 1
        name, host = f"child{number}", f"127.0.2.{number}"
        directory = self._directory(name)
        port = free_port(host)
        settings = child_settings(name, host, port, directory, lines or parent_lines(parent), stores=stores)
        child = Squid(name, host, port, 0, directory, settings, self._leash)
        self.children.append(child)
        child.start()
        return child

    def node(self, name: str) -> Squid:
        """The node of that name.  Raises KeyError."""
        return {node.name: node for node in self.nodes}[name]

    def holders(self, url: str) -> list[str]:
        """Names of the running nodes for which `url` is a hit, asked by ICP."""
        return [node.name for node in self.nodes if node.is_running and node.holds(url)]

    def node_tables(self) -> str:
        """The nodes as the ``[[node]]`` tables of a director's configuration."""
        return "".join(
            f'[[node]]\nname = "{node.name}"\nhost = "{node.host}"\n'
            f"http_port = {node.http_port}\nicp_port = {node.icp_port}\n"
            + (f'store_log = "127.0.0.1:{self._store_logs[node.name]}"\n\n' if self._wants_store_logs else "\n")
            for node in self.nodes
        )

    def _node(self, number: int) -> Squid:
        name, host = f"cache{number}", f"127.0.1.{number}"
        directory = self._directory(name)
        http_port = free_port(host, socket.SOCK_STREAM, 3128 if self._usual_ports else 0)
        icp_port = free_port(host, socket.SOCK_DGRAM, 3130 if self._usual_ports else 0)
        extra = list(self._extra)
        if self._wants_store_logs:
            self._store_logs[name] = free_port("127.0.0.1", socket.SOCK_DGRAM)
            extra.append(f"cache_store_log udp://127.0.0.1:{self._store_logs[name]}")
        settings = node_settings(name, host, http_port, icp_port, directory, cache_mb=self._cache_mb, extra=extra)
        return Squid(name, host, http_port, icp_port, directory, settings, self._leash)

    def _directory(self, name: str) -> Path:
        directory = self.directory / name
        directory.mkdir()
        return directory

    def __enter__(self) -> SquidFarm:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
