"""Many datagrams per system call: Linux's recvmmsg and sendmmsg, for one socket.

    batch = Batch.of(sock)                      # None where the system has no such calls
    datagrams = batch.receive()                 # what waits, up to SLOTS of them
    batch.send([b"to the sender of the first", b"to that of the third"], places=[0, 2])

What the kernel reads and fills is laid out once; then only lengths change, which are read and written for a whole batch at a
time.  An answer goes to where a datagram came from by the very bytes that the kernel left.

Left out: waiting for datagrams, and what to answer (``service``).
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate, count
from typing import Any, Final

# 8 save half of what can be saved, 32 nearly all, 64 some more (service.py, MAX_FULL); but the first one waits for its answer
# until the last one has its own: 0.3 ms
SLOTS: Final = 64
SLOT_BYTES: Final = 1 << 16  # any UDP payload; pages that no datagram has reached take no memory
MAX_HOSTS: Final = 10_000  # addresses remembered as text, 2 MB; a farm has tens of peers, the rest are forgers
_NAME_BYTES: Final = 32  # sockaddr_in has 16, sockaddr_in6 28


# struct mmsghdr, padded as the compiler pads it: name, its size, iovecs, their count, control, its size, flags; size
_HEADER: Final = struct.Struct("@PIPNPNi0PI0P")
_SIZE_AT: Final = struct.calcsize("@PIPNPNi0P")
_IOVEC: Final = struct.Struct("@PN")

_HEADER_BYTES: Final = _HEADER.size
_IOVEC_BYTES: Final = _IOVEC.size


def _calls() -> tuple[Any, Any] | None:
    """recvmmsg and sendmmsg.  Here they never wait, so the interpreter's lock is kept (PyDLL)."""
    try:
        library = ctypes.PyDLL(None)
        receive, send = library.recvmmsg, library.sendmmsg
    except (OSError, AttributeError):
        return None
    receive.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
    send.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
    return receive, send


_CALLS = _calls()


class Batch:
    """One socket's arrays.  Not thread-safe.  When the socket is closed, nothing comes and nothing goes."""

    def __init__(self, sock: socket.socket, calls: tuple[Any, Any]) -> None:
        self._socket = sock
        self._receive, self._send = calls
        self._is_v6 = sock.family == socket.AF_INET6
        self._hosts = _Hosts()
        self._iter_hosts = struct.Struct("8x16s8x" if self._is_v6 else "4x4s24x").iter_unpack
        self._count = 0  # of datagrams received last
        sizes = (SLOT_BYTES, SLOT_BYTES, _NAME_BYTES, 2 * _HEADER_BYTES, 2 * _IOVEC_BYTES)
        self._replies_at, self._names_at, headers_at, iovecs_at, end = accumulate(size * SLOTS for size in sizes)
        self._memory = mmap.mmap(-1, end)  # a slice of it is bytes, one of a bytearray is not
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._incoming = self._base + headers_at
        self._outgoing = self._incoming + SLOTS * _HEADER_BYTES
        for place in range(2 * SLOTS):  # the first half receives, the second one sends
            iovec = iovecs_at + place * _IOVEC_BYTES
            _IOVEC.pack_into(self._memory, iovec, self._base + place * SLOT_BYTES, SLOT_BYTES)
            name = self._base + self._names_at + place % SLOTS * _NAME_BYTES, 28 if self._is_v6 else 16
            _HEADER.pack_into(self._memory, headers_at + place * _HEADER_BYTES, *name, self._base + iovec, 1, 0, 0, 0, 0)
        headers = memoryview(self._memory)[headers_at:iovecs_at].cast("I")
        self._sizes_in = headers[_SIZE_AT // 4 :: _HEADER_BYTES // 4]
        iovecs = memoryview(self._memory)[iovecs_at + SLOTS * _IOVEC_BYTES : end].cast("L")  # on Linux that is size_t
        self._bases_out, self._sizes_out = iovecs[::2], iovecs[1::2]

    @classmethod
    def of(cls, sock: socket.socket) -> Batch | None:
        """For a UDP socket, IPv4 or IPv6."""
        return cls(sock, _CALLS) if _CALLS is not None else None

    def receive(self) -> list[bytes]:
        """The datagrams that wait, at most SLOTS, in their order.  A call that fails is as good as none that wait."""
        received = self._receive(self._socket.fileno(), self._incoming, SLOTS, socket.MSG_DONTWAIT, None)
        if received <= 0:
            return []
        self._count = received
        memory = self._memory
        datagrams = []
        at = 0
        for size in self._sizes_in[:received].tolist():
            datagrams.append(memory[at : at + size])
            at += SLOT_BYTES
        return datagrams

    def hosts(self) -> list[str]:
        """The IP address that each of the datagrams came from."""
        hosts, total = self._hosts, self._count
        names = self._memory[self._names_at : self._names_at + total * _NAME_BYTES]
        if names == names[:_NAME_BYTES] * total:  # one busy peer; saves 0.1 us a datagram (2026-11)
            return [hosts[names[8:24] if self._is_v6 else names[4:8]]] * total
        return [hosts[raw] for (raw,) in self._iter_hosts(names)]

    def address(self, place: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """Where the datagram of this place came from, as ``socket.sendto`` takes it.  Not after ``send``."""
        at = self._names_at + place * _NAME_BYTES
        name = self._memory[at : at + _NAME_BYTES]
        port = int.from_bytes(name[2:4], "big")
        if not self._is_v6:
            return self._hosts[name[4:8]], port
        return self._hosts[name[8:24]], port, int.from_bytes(name[4:8], "big"), int.from_bytes(name[24:28], sys.byteorder)

    def send(self, replies: Sequence[bytes], places: Sequence[int] | None = None) -> int:
        """One reply for each of the datagrams, or for those in `places`, which ascend; once.  Returns how many were sent.

        Raises:
            TypeError: Not all are bytes; nothing has been sent.
        """
        block = b"".join(replies)
        total, size = len(replies), len(block)
        if not total or size > SLOTS * SLOT_BYTES:
            return 0
        at, end = self._replies_at, self._replies_at + size
        self._memory[at:end] = block
        sizes = array("L", map(len, replies))
        self._sizes_out[:total] = sizes
        self._bases_out[:total] = array("L", accumulate(sizes[:-1], initial=self._base + at))
        if places is not None:
            self._move_names(places)
        sent = done = 0
        while done < total:
            at = self._outgoing + done * _HEADER_BYTES
            taken = self._send(self._socket.fileno(), at, total - done, socket.MSG_DONTWAIT)
            sent += max(0, taken)
            done += max(1, taken)  # -1: the first one cannot be sent; the others may go elsewhere
        return sent

    def _move_names(self, places: Sequence[int]) -> None:
        """Where the datagrams of `places` came from, to the first places."""
        memory = self._memory
        for at, place in zip(count(self._names_at, _NAME_BYTES), places, strict=False):
            name = self._names_at + place * _NAME_BYTES
            if name != at:
                memory[at : at + _NAME_BYTES] = memory[name : name + _NAME_BYTES]


class _Hosts(dict[bytes, str]):
    """Raw addresses to text."""

    def __missing__(self, raw: bytes) -> str:
        if len(self) >= MAX_HOSTS:
            self.clear()
        host = self[raw] = socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)
        return host
