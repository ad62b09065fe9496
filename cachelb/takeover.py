"""One director takes over from another, on the very sockets of that one, so that no request fails.

The old one starts the new one with its own command line and its sockets, and they talk over a Unix socket, in messages as of
``control``::

    old    OFFER  descriptors, and what is known of the nodes          as soon as it is started
    new    ASK    the configuration can be used, the sockets are had
    old    SAVED  what the index knows, in a file
    new    READY  every worker accepts, beside the old one's
    old    GO     you are the director now
    both   TOLD   what becomes of templates, as long as both serve (affinity.journal)

Until GO the old one is the director: if the new one ends, or takes too long (then SIGTERM ends it), the old one goes on.  A new
one whose predecessor dies meanwhile is the only one left, and takes over.

The two may be of different versions.  So the offer is a JSON object; keys that one does not know are left alone, and what is
missing has a default.

Left out: what else changes hands at GO (``upgrades``, ``supervisor``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cachelb import control
from cachelb.capabilities import NET_ADMIN, NET_RAW, given_to_children
from cachelb.errors import CachelbError
from cachelb.handover import Published

VARIABLE = "CACHELB_TAKEOVER"  # names the descriptor of the new one's end
OFFER, ASK, SAVED, READY, GO, TOLD = b"O", b"A", b"S", b"R", b"G", b"T"
FIRST_WORD_S = 10.0  # the offer is on its way before the new one runs
KILLED_AFTER_S = 5.0  # beyond the time that it has to finish what it accepted


class TakeoverError(CachelbError):
    """The new director cannot take over; why, as half a sentence."""


@dataclass(frozen=True)
class Offer:
    """What the old one gives.

    sockets: all that are listened on.  pid_file, lock: locked files (``pidfile``, ``Keeper.lock``).  host: the claim on it
    (``hostnet.claim``).  digest: what workers serve.
    dead: nodes, with the reason.  addresses: of nodes.  operator: ``Overrides.told``.  The others are descriptors; -1: none.
    """

    sockets: list[int] = field(default_factory=list)
    pid_file: int = -1
    lock: int = -1
    digest: list[int] | None = None
    dead: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, list[str]] = field(default_factory=dict)
    operator: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    host: int = -1

    @property
    def descriptors(self) -> list[int]:
        """All that the new one has to inherit."""
        digest = self.digest[:1] if self.digest else []
        return [fd for fd in (*self.sockets, self.pid_file, self.lock, self.host, *digest) if fd >= 0]

    def published(self) -> Published | None:
        """The digest."""
        return Published(*self.digest) if self.digest else None


def command_line(words: Sequence[str], python: str) -> list[str]:
    """How to start the program again, as ``sys.orig_argv`` says that it was started.

    A script is started itself, not the Python that its first line meant when this process began: an installation may be behind a
    symbolic link that leads to another one by now.
    """
    if len(words) > 1 and os.path.isfile(words[1]) and os.access(words[1], os.X_OK):
        return list(words[1:])
    return [python, *words[1:]]


class Successor:
    """The new director, as the old one sees it.  heard: is given what it tells of templates."""

    def __init__(self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._listening: asyncio.Task[None] | None = None
        self.heard: Callable[[bytes], None] | None = None
        self.pid = process.pid

    @classmethod
    async def start(cls, offer: Offer, command: Sequence[str] | None = None) -> Successor:
        """Start it.

        Raises:
            TakeoverError: It cannot be started.
        """
        command = command_line(sys.orig_argv, sys.executable) if command is None else command
        ours, theirs = socket.socketpair()
        environment = {**os.environ, VARIABLE: str(theirs.fileno())}
        environment.pop("WATCHDOG_PID", None)  # systemd's word for whom it watches: that is the new one, once it is told
        with theirs:
            try:
                with given_to_children(NET_ADMIN, NET_RAW):
                    process = subprocess.Popen(  # noqa: ASYNC220  not asyncio's, whose loop would end it when that of this one ends
                        command, stdin=subprocess.DEVNULL, env=environment, pass_fds=[theirs.fileno(), *offer.descriptors]
                    )
            except OSError as exc:
                ours.close()
                raise TakeoverError(f"{command[0]} cannot be started: {exc.strerror}") from exc
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        successor = cls(process, reader, writer)
        successor._say(OFFER, json.dumps(asdict(offer)).encode())
        return successor

    def _say(self, kind: bytes, payload: bytes = b"") -> None:
        with contextlib.suppress(OSError):
            self._writer.write(control.pack(kind, payload))

    async def until_ready(self, save: Callable[[], Awaitable[Path | None]]) -> None:
        """Wait until it is ready; ``save`` saves what the index knows and says where, None for the state directory.

        Raises:
            TakeoverError: It has ended.
        """
        while (message := await control.receive(self._reader)) is not None:
            if message[0] == ASK:
                self._say(SAVED, str(await save() or "").encode())
            elif message[0] == READY:
                return
            else:
                self._hear(*message)
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, KILLED_AFTER_S)
        code = self._process.returncode
        how = "closed the connection" if code is None else f"exit status {code}" if code >= 0 else f"signal {-code}"
        raise TakeoverError(f"the new one ended before it was ready ({how}); what it says is in the log above")

    def _hear(self, kind: bytes, payload: bytes) -> None:
        if kind == TOLD and self.heard is not None:
            self.heard(payload)

    async def _listen(self) -> None:
        while (message := await control.receive(self._reader)) is not None:
            self._hear(*message)

    def tell(self, payload: bytes) -> None:
        """Tell it of templates."""
        self._say(TOLD, payload)

    def unread(self) -> int:
        """How many bytes it has not read yet."""
        return self._writer.transport.get_write_buffer_size()

    async def go(self) -> None:
        """Make it the director."""
        self._listening = asyncio.create_task(self._listen())
        self._say(GO)
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def signal(self, number: int) -> None:
        """Pass on a signal, if it lives."""
        self._process.send_signal(number)

    async def end(self, within_s: float) -> None:
        """End it: gently, for it may have accepted clients; by force after ``within_s`` and a little."""
        self._writer.close()
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, within_s + KILLED_AFTER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def close(self) -> None:
        """Say nothing more to it."""
        if self._listening is not None:
            self._listening.cancel()
        self._writer.close()


class Predecessor:
    """The old director, as the new one sees it.

    offer: what it gives; the descriptors are ours.  early: what it has told of templates before ``listen``.
    heard: is given what it tells of them then; gone: is called when it has ended.
    """

    def __init__(self, sock: socket.socket, offer: Offer) -> None:
        self._sock = sock
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self.offer = offer
        self.early: list[bytes] = []
        self.heard: Callable[[bytes], None] | None = None
        self.gone: Callable[[], None] | None = None
        self._go = asyncio.Event()

    @classmethod
    def find(cls, environment: MutableMapping[str, str]) -> Predecessor | None:
        """The one that has started this process to replace itself; None when nobody has.

        Raises:
            TakeoverError: It says nothing that can be understood.
        """
        number = environment.pop(VARIABLE, None)
        if number is None:
            return None
        try:
            sock = socket.socket(fileno=int(number))
            sock.settimeout(FIRST_WORD_S)
            message = _receive(sock)
            if message is None or message[0] != OFFER:
                raise ValueError("no offer")
            given = json.loads(message[1])
            if not isinstance(given, dict):
                raise ValueError("not an offer")
            offer = Offer(**{name: given[name] for name in Offer.__dataclass_fields__ if name in given})
            for fd in (sock.fileno(), *offer.descriptors):
                os.set_inheritable(fd, False)
        except (OSError, ValueError, TypeError) as exc:
            raise TakeoverError(f"{VARIABLE}={number}, but there is no director to take over from: {exc}") from exc
        sock.settimeout(None)
        return cls(sock, offer)

    def sockets(self) -> list[socket.socket]:
        """All that it listens on."""
        return [socket.socket(fileno=fd) for fd in self.offer.sockets]

    def ask(self) -> Path | None:
        """Have it save what the index knows; the directory where it is, None for the state directory.

        It may take its time: who takes too long is the old one's to say.
        """
        try:
            self._sock.sendall(control.pack(ASK))
            while (message := _receive(self._sock)) is not None and message[0] == TOLD:
                self.early.append(message[1])
        except OSError:
            message = None
        return Path(message[1].decode()) if message is not None and message[1] else None

    async def listen(self) -> None:
        """Hear from now on what it says, and be able to tell it things."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._sock)
        self._listening = asyncio.create_task(self._listen(reader, self._writer))

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (message := await control.receive(reader)) is not None:
            if message[0] == GO:
                self._go.set()
            elif message[0] == TOLD and self.heard is not None:
                self.heard(message[1])
        self._go.set()
        writer.close()
        if self.gone is not None:
            self.gone()

    async def ready(self) -> None:
        """Tell it that every worker accepts; return when this process is the director."""
        if self._writer is None:
            await self.listen()
        self._say(READY)
        await self._go.wait()

    def tell(self, payload: bytes) -> None:
        """Tell it of templates."""
        self._say(TOLD, payload)

    def _say(self, kind: bytes, payload: bytes = b"") -> None:
        """Without effect where it has ended meanwhile."""
        if self._writer is not None and not self._writer.is_closing():
            with contextlib.suppress(OSError):
                self._writer.write(control.pack(kind, payload))

    def unread(self) -> int:
        """How many bytes it has not read yet."""
        return self._writer.transport.get_write_buffer_size() if self._writer is not None else 0


def _receive(sock: socket.socket) -> tuple[bytes, bytes] | None:
    """The next message, waited for; None when the other side has gone."""
    length = int.from_bytes(_exactly(sock, 4), "big")
    data = _exactly(sock, length) if 1 <= length <= control.MESSAGE_BYTES else b""
    return (data[:1], data[1:]) if data else None


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            return b""
        data += part
    return data
