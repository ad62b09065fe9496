"""A TCP service on the stage of the contract: the same port on every node, and a listening socket before them."""

from __future__ import annotations

import socket
from typing import Any

from fakes import PATIENCE_S, FakeSquid, Peer

from cachelb.wire.proxy_protocol import Ends


def nodes_of_one_port(hosts: list[str], backlog: int, tries: int = 20) -> list[FakeSquid]:
    """One on each host, all on a port that is free on all of them: a connection of another test may have it on one."""
    nodes: list[FakeSquid] = []
    try:
        for host in hosts:
            nodes.append(FakeSquid(host, nodes[0].port if nodes else 0, backlog))
    except OSError:
        for node in nodes:
            node.stop()
        if not tries:
            raise
        return nodes_of_one_port(hosts, backlog, tries - 1)
    return nodes


class TcpStage:
    """One service "svc" of a farm.  nodes: what is behind it; address: where it is called."""

    def __init__(self, make_farm: Any, nodes: int = 3, *, backlog: int = 128, sections: Any = None, **settings: Any) -> None:
        """backlog: of the nodes; 0 for one that is to be ``deaf``."""
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address: tuple[str, int] = self.listener.getsockname()
        self.farm = make_farm(nodes, **(sections or {}))
        self.nodes = nodes_of_one_port([node.host for node in self.farm.nodes], backlog)
        self.settings = {"name": "svc", "listen": ["{}:{}".format(*self.address)], "port": self.nodes[0].port, **settings}
        self.farm.apply(tcp=[self.settings])
        door = self.farm.engine.door
        self.farm.relay.call(lambda: door.open([*door.listeners, self.listener]))

    def change(self, **settings: Any) -> None:
        self.settings |= settings
        self.farm.apply(tcp=[self.settings])

    def call(self, source: str = "") -> Peer:
        """A new client."""
        sock = socket.socket()
        sock.settimeout(PATIENCE_S)
        if source:
            sock.bind((source, 0))
        sock.connect(self.address)
        peer = Peer(sock)
        self.farm.clients.append(peer)
        return peer

    def ends(self, client: Peer) -> Ends:
        """Of a client's connection, as a node has to be told them."""
        return Ends(*client.sock.getsockname(), *self.address)

    def serve(self) -> None:
        """Every node says its number to whoever calls, whatever that says, and nothing more."""
        for number, node in enumerate(self.nodes):
            node.serve_calls(b"%d" % number)

    def who(self, source: str = "") -> int:
        """Which node a new client is connected to."""
        client = self.call(source)
        said = client.read_to_end()
        client.close()
        return int(said)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
