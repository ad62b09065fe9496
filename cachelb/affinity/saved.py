"""Templates over a restart: one file in the state directory, written whole or not at all, read whole or not at all.

    header    64 bytes: magic, version, size of a record, records, length of the tail, when saved, checksum
    records   address (IPv4 as ::ffff:a.b.c.d), when used last (wall clock, s), node, node to return to
    tail      JSON: {"groups": [[name, netmask_v4, netmask_v6, records], ...], "nodes": [name, ...]}

All numbers are little-endian; the checksum is BLAKE2b over the header (with zeros in its place) and all that follows.  Nodes are
found again by name, groups by name and netmasks; what is no longer configured is left out, and so is what is too old by now.
Records stand in the order of idleness in each shard, so that nothing has to be sorted.

An event loop is held up by ``save_aside`` for a millisecond at a time.  1 million templates: 24 MB, loaded in
4 s (2026-11).

Left out: when to save (``keeper``).
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from cachelb.affinity.templates import NOBODY, SHARDS, Template, Templates
from cachelb.routing.template import Group
from cachelb.statefile import CHECKSUM_BYTES, BadState, StateError, StateFile, cannot

FILE_NAME = "templates"
VERSION = 1
FILE_LIMIT_BYTES = 64 << 20  # 2.5 times what a million take; a larger file is not one of ours
TAIL_LIMIT_BYTES = 1 << 20

_MAGIC = b"cachelb affinity"
_HEADER = struct.Struct("<16sHHIIQ12x16s")
_RECORD = struct.Struct("<16sIHH")
_MAPPED = bytes(10) + b"\xff\xff"
_NOBODY = 0xFFFF
_STEP = 1024  # records: half a millisecond


class _Header(NamedTuple):
    magic: bytes
    version: int
    record_bytes: int
    records: int
    tail_bytes: int
    saved_at: int
    checksum: bytes

    def pack(self) -> bytes:
        return _HEADER.pack(*self)

    def sealed(self, body: bytes) -> bytes:
        """With the checksum; body: the digest of what follows."""
        bare = self._replace(checksum=bytes(CHECKSUM_BYTES)).pack()
        return self._replace(checksum=blake2b(bare + body, digest_size=CHECKSUM_BYTES).digest()).pack()


class _Saving:
    """The pieces of the file, made one by one from a table that may change between them."""

    def __init__(self, templates: Templates, names: Mapping[int, str], now: float, wall: float) -> None:
        self._templates = templates
        self._names = list(names.values())
        self._numbers = {slot: number for number, slot in enumerate(names)}
        self._began = wall - now  # of the monotonic clock, in wall clock
        self._wall = int(wall)
        self._counts: dict[Group, int] = {}

    def records(self) -> Iterator[bytes]:
        for shelf in list(self._templates.shelves.values()):
            group = shelf.group
            self._counts[group] = 0
            for shard in range(SHARDS):
                if not shelf.group.has_clients_of(group):
                    break  # since a reload other clients are one
                items = iter(shelf.items(shard))
                while piece := [self._pack(group, *item) for item in islice(items, _STEP)]:
                    known = [record for record in piece if record]
                    self._counts[group] += len(known)
                    yield b"".join(known)

    def _pack(self, group: Group, key: int, template: Template) -> bytes:
        node = self._numbers.get(template.slot)
        if node is None:
            return b""  # it has no name any more
        address = group.address(key)
        used = max(0, min(self._wall, int(template.used + self._began)))
        home = self._numbers.get(template.home, _NOBODY)
        return _RECORD.pack(address if len(address) == 16 else _MAPPED + address, used, node, home)

    def tail(self) -> tuple[bytes, _Header]:
        groups = [[group.name, group.netmask_v4, group.netmask_v6, count] for group, count in self._counts.items()]
        text = json.dumps({"groups": groups, "nodes": self._names}).encode()
        records = sum(self._counts.values())
        return text, _Header(_MAGIC, VERSION, _RECORD.size, records, len(text), self._wall, bytes(CHECKSUM_BYTES))


def save(directory: Path, templates: Templates, names: Mapping[int, str], now: float, wall: float) -> None:
    """Write everything, and return when it is on the disk.

    Args:
        names: of the nodes, by slot; now: the clock that the templates were used by; wall: wall clock.

    Raises:
        StateError: The file cannot be written; an earlier one is as it was.
    """
    saving = _Saving(templates, names, now, wall)
    file = StateFile(directory, FILE_NAME, _HEADER.size)
    try:
        try:
            file.open()
            for data in saving.records():
                file.write(data)
            text, header = saving.tail()
            file.write(text)
            file.finish(header.sealed)
        except BaseException:
            file.abandon()
            raise
    except OSError as exc:
        raise StateError(cannot("save", directory / FILE_NAME, exc)) from exc


async def save_aside(directory: Path, templates: Templates, names: Mapping[int, str], now: float, wall: float) -> None:
    """``save`` from an event loop, which is never held up for long: only what waits for the disk is left to a thread."""
    saving = _Saving(templates, names, now, wall)
    file = StateFile(directory, FILE_NAME, _HEADER.size)
    try:
        try:
            file.open()
            for data in saving.records():
                file.write(data)  # into the system's memory
                await asyncio.sleep(0)
            text, header = saving.tail()
            file.write(text)
            doing = asyncio.ensure_future(asyncio.to_thread(file.finish, header.sealed))
            try:
                await asyncio.shield(doing)
            except asyncio.CancelledError:
                await asyncio.wait({doing})
                raise
        except BaseException:
            file.abandon()
            raise
    except OSError as exc:
        raise StateError(cannot("save", directory / FILE_NAME, exc)) from exc


def load(directory: Path, templates: Templates, nodes: Mapping[str, int], now: float, wall: float) -> int:
    """Put what was saved into ``templates``, whose groups are configured; how many those are.

    Args:
        nodes: slots by name; now, wall: as of ``save``.

    Raises:
        BadState: The file is damaged, cut short, of another program or of a later version.
        StateError: It cannot be read.
    """
    path = directory / FILE_NAME
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        return 0
    except OSError as exc:
        raise StateError(cannot("read", directory / FILE_NAME, exc)) from exc
    try:
        return parse_state(data, templates, nodes, now, wall)
    except BadState as exc:
        raise BadState(f"{path}: {exc}") from exc


def parse_state(data: bytes, templates: Templates, nodes: Mapping[str, int], now: float, wall: float) -> int:
    """``load`` for the bytes of a file.  Raises BadState; nothing was taken over then."""
    header = _parse_header(data)
    tail_at = _HEADER.size + header.records * _RECORD.size
    groups, names = _parse_tail(data[tail_at:])
    if sum(count for *_, count in groups) != header.records:
        raise BadState("the groups have another number of records")
    slots = [nodes.get(name, NOBODY) for name in names]
    records = memoryview(data)[_HEADER.size : tail_at]
    if any(node >= len(slots) for _, _, node, _ in _RECORD.iter_unpack(records)):
        raise BadState("a record names no node")
    at = taken = 0
    for name, netmask_v4, netmask_v6, count in groups:
        part = records[at : at + count * _RECORD.size]
        at += count * _RECORD.size
        shelf = templates.shelves.get(name)
        if shelf is None or not shelf.group.has_clients_of(Group(name, netmask_v4, netmask_v6)):
            continue
        for address, used, node, home in _RECORD.iter_unpack(part):
            slot = slots[node]
            age = max(0.0, wall - used)  # the clock may have been set back
            if slot == NOBODY or age >= shelf.group.timeout_s:
                continue
            key = shelf.group.key(address[12:] if address.startswith(_MAPPED) else address)
            templates.put(shelf, key, slot, slots[home] if home < len(slots) else NOBODY, now - age)
            taken += 1
    return taken


def _parse_header(data: bytes) -> _Header:
    """The header of a file whose length and checksum are right."""
    if len(data) > FILE_LIMIT_BYTES:
        raise BadState(f"more than {FILE_LIMIT_BYTES} bytes")
    if not data.startswith(_MAGIC):
        raise BadState("not a file of templates" if data else "empty")
    if len(data) < _HEADER.size:
        raise BadState(f"cut short: {len(data)} bytes, the header alone has {_HEADER.size}")
    header = _Header(*_HEADER.unpack_from(data))
    if header.version != VERSION:
        raise BadState(f"version {header.version}, and only version {VERSION} is understood")
    if header.record_bytes != _RECORD.size:
        raise BadState(f"{header.record_bytes}-byte records")
    size = _HEADER.size + header.records * _RECORD.size + header.tail_bytes
    if len(data) != size:
        raise BadState(f"{len(data)} bytes instead of {size}" + (": cut short" if len(data) < size else ""))
    body = blake2b(memoryview(data)[_HEADER.size :], digest_size=CHECKSUM_BYTES)
    if not data.startswith(header.sealed(body.digest())):
        raise BadState("damaged: the checksum is wrong")
    return header


def _parse_tail(data: bytes) -> tuple[list[tuple[str, int, int, int]], list[str]]:
    """Groups with their netmasks and numbers of records, and the nodes' names."""
    if len(data) > TAIL_LIMIT_BYTES:
        raise BadState(f"{len(data)} bytes of names")
    try:
        tail = json.loads(data)
        groups = [(name, v4, v6, count) for name, v4, v6, count in tail["groups"]]
        names = list(tail["nodes"])
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise BadState(f"the names of groups and nodes: {exc}") from exc
    if not all(isinstance(name, str) for name in names):
        raise BadState("a node's name is no text")
    for name, v4, v6, count in groups:
        if not isinstance(name, str) or any(type(number) is not int or number < 0 for number in (v4, v6, count)):
            raise BadState("a group is not as it should be")
    return groups, names
