"""The boundary between the control plane and whatever moves bytes.

Everything a relay needs arrives as file descriptors and one immutable Snapshot; everything it reports leaves as one block of
integers.  An engine in the kernel or in another language can stand behind the same four verbs; ``tests/relay`` is the
contract that each has to pass.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol


class Relay(Protocol):
    """The part of the program that touches every request."""

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Begin to accept on ``listeners``; ``drain`` closes them."""

    def apply(self, blob: bytes) -> int:
        """Route later requests by the Snapshot in ``blob``; return its epoch.

        Raises:
            BadSnapshot: It cannot be read; the one in force stays.
        """

    def counters(self) -> memoryview:
        """The live block of 64-bit counters, in the order of ``cachelb.counters``."""

    async def drain(self, deadline_s: float, *, patient: bool = False) -> int:
        """Stop accepting, let exchanges finish; return how many were cut.

        patient: Somebody else accepts on the same sockets.  Connections are not closed between requests, where the next one may
        be on its way already, but with their next answer, which says so; at the deadline those that are idle are closed.
        """
