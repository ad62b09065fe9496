"""While two directors serve, in an upgrade: each tells the other what becomes of templates, so that none is decided twice.

A record is [group, address in hex, node, home]; without a node the template was flushed, without an address all of the node's,
or of the group, were.  Nodes go by name: their slots may differ.  Where both have decided at the same time, the director's word
holds: the old one's until it says GO, the new one's from then on.

What the other one does not read is dropped beyond UNREAD_BYTES: a client may then visit two nodes, but is served.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

BATCH = 10_000  # records of a message: a megabyte at most
UNREAD_BYTES = 8 << 20

Record = list[str]


class Journal:
    """Gathers what happens in one turn of the event loop.

    Args:
        send: Takes the payload of a message.
        unread: How many bytes of it wait to be read by the other director.
    """

    def __init__(self, send: Callable[[bytes], None], unread: Callable[[], int]) -> None:
        self._send = send
        self._unread = unread
        self._records: list[Record] = []

    def note(self, record: Record) -> None:
        """Tell it soon."""
        if not self._records:
            asyncio.get_running_loop().call_soon(self._flush)
        self._records.append(record)

    def _flush(self) -> None:
        records, self._records = self._records, []
        for at in range(0, len(records), BATCH):
            if self._unread() < UNREAD_BYTES:
                self._send(json.dumps(records[at : at + BATCH]).encode())


def read(payload: bytes) -> list[tuple[str, bytes, str, str]]:
    """The records of a message: group, address (empty: all), node ("": flushed) and home ("": none).

    What is no record is left out: the other director may be of another version.
    """
    try:
        records: Any = json.loads(payload)
    except (ValueError, RecursionError):
        return []
    found = []
    for record in records if isinstance(records, list) else ():
        if not isinstance(record, list) or len(record) < 4 or not all(isinstance(text, str) for text in record[:4]):
            continue
        try:
            address = bytes.fromhex(record[1])
        except ValueError:
            continue
        if len(address) in (0, 4, 16):
            found.append((record[0], address, record[2], record[3]))
    return found
