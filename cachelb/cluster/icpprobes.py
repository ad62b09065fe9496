"""Asks nodes now and then whether they answer ICP, for the operator: ``[icp] mode = "forward"`` and peers of theirs need it.

    probes = IcpProbes(client)
    probes.place(views)
    probes.told["cache1"]      # "MISS in 0.3 ms"

A node that does not answer ICP is not dead for it (over that ``nodes.probes`` decides): HTTP is what it is there for, and many
Squids have no icp_port.  It is asked seldom, for each query is a line in its access.log, which no acl keeps out (Squid 5.7).

Left out: what follows from it (``cachelb-stats``, the operator).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from icp import Opcode

if TYPE_CHECKING:
    from cachelb.snapshot import NodeView
    from icp.client import IcpClient

log = logging.getLogger("cachelb.cluster")

URL = b"http://probe.invalid/"
INTERVAL_S = 60.0  # of one node
NEW_S = 0.1  # between two that were not asked yet
TIMEOUT_S = 1.0  # 200 times what a Squid waits for a peer
SILENT = f"no answer in {TIMEOUT_S:g} s"
DENIED = "DENIED: its squid.conf needs icp_access allow for the director"


class IcpProbes:
    """Keeps asking.  All of it runs in one event loop.

    told: what each node said last, in a few words, by its name; nothing of those that speak no ICP (icp_port 0), are dead, or
    were not asked yet.
    """

    def __init__(self, client: IcpClient, interval_s: float = INTERVAL_S) -> None:
        self.told: dict[str, str] = {}
        self._client = client
        self._interval_s = interval_s
        self._addresses: dict[str, tuple[str, int]] = {}

    def place(self, views: Sequence[NodeView]) -> None:
        """These nodes from now on, in these states."""
        before = self._addresses
        self._addresses = {
            view.name: (view.addresses[0], view.icp_port)
            for view in views
            if view.icp_port and view.addresses and view.state in ("up", "drain")
        }
        self.told = {name: text for name, text in self.told.items() if self._addresses.get(name) == before[name]}

    async def run(self) -> None:
        """Ask all nodes, until cancelled: those that were not asked yet soon, the others in turns."""
        while True:
            names = list(self._addresses)
            for name in names:
                if name in self._addresses:
                    is_new = name not in self.told
                    await self._ask(name, self._addresses[name])
                    await asyncio.sleep(NEW_S if is_new else self._interval_s / len(names))
            if not names:
                await asyncio.sleep(NEW_S)

    async def _ask(self, name: str, address: tuple[str, int]) -> None:
        try:
            answer = await self._client.query(address, URL, TIMEOUT_S)
        except OSError as exc:  # no socket, or no route
            text = exc.strerror or str(exc)
        else:
            if answer is None:
                text = SILENT
            elif answer.reply.opcode is Opcode.DENIED:
                text = DENIED
            else:
                text = f"{answer.reply.opcode.name} in {answer.rtt_s * 1000:.1f} ms"
        if self._addresses.get(name) != address:
            return  # it is another node by now
        if self.is_deaf(name) != (text in (SILENT, DENIED)):
            log.info("node %s, ICP at %s:%d: %s", name, *address, text)
        self.told[name] = text

    def is_deaf(self, name: str) -> bool:
        """Whether the node was asked and gives no answers of use."""
        return self.told.get(name) in (SILENT, DENIED)
