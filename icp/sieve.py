"""Drops in the kernel what would get no answer anyway: classic BPF programs for a socket (SO_ATTACH_FILTER, Linux).

    attach(sock, ICP)     # from now on only what may be a query comes through
    detach(sock)

A bad packet that reaches us costs 0.4 times what a query costs, one that the program drops costs us nothing: the program runs
where the packet comes in.  But then nobody can say what was wrong with it, so ``service`` attaches it in a flood only.  Whoever
may use a socket may do this; no privilege is needed.

ICP and HTCP let pass all that ``answer`` and ``answer_htcp`` reply to.  They look at lengths, version, opcode, and reqnum or
flags; who sent it, and the URL, are none of their business.

Left out: when to use it (``service``).

Source: Linux, Documentation/networking/filter.rst.  For UDP a program sees the 8 bytes of the UDP header first.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from typing import NamedTuple

_UDP = 8  # bytes of its header
_ATTACH, _DETACH, _MEMINFO = 26, 27, 55  # SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_MEMINFO
_DROPS = 8  # place in what SO_MEMINFO gives
_LOAD_SIZE, _LOAD_U32, _LOAD_U16, _LOAD_U8, _LOAD_U16_AT_X = 0x80, 0x20, 0x28, 0x30, 0x48
_SUBTRACT, _AND, _TO_X, _FROM_X = 0x14, 0x54, 0x07, 0x87
_EQUAL, _EQUAL_X, _AT_LEAST, _ABOVE, _RETURN = 0x15, 0x1D, 0x35, 0x25, 0x06
_DROP = -1  # as a jump: to the last step


class _Step(NamedTuple):
    """code: see above.  value: to load from, compare with.  yes, no: steps to skip."""

    code: int
    value: int = 0
    yes: int = 0
    no: int = 0


def _program(*steps: _Step) -> bytes:
    """What all `steps` let pass, whole."""
    steps = (*steps, _Step(_RETURN, 0xFFFFFFFF), _Step(_RETURN, 0))
    code = b""
    for at, (operation, value, yes, no) in enumerate(steps):
        last = len(steps) - at - 2
        code += struct.pack("=HBBI", operation, last if yes == _DROP else yes, last if no == _DROP else no, value)
    return code


def _size_in_x(shortest: int, length_at: int) -> tuple[_Step, ...]:
    """The datagram's size, which its length field must give too, is in A and X then."""
    return (
        _Step(_LOAD_SIZE),
        _Step(_SUBTRACT, _UDP),
        _Step(_TO_X),
        _Step(_AT_LEAST, shortest, no=_DROP),
        _Step(_LOAD_U16, _UDP + length_at),
        _Step(_EQUAL_X, no=_DROP),
    )


ICP = _program(
    *_size_in_x(20, 2),
    *(_Step(_LOAD_U8, _UDP + 1), _Step(_EQUAL, 2, no=_DROP)),
    *(_Step(_LOAD_U8, _UDP), _Step(_EQUAL, 1, yes=1), _Step(_EQUAL, 11, no=_DROP)),  # QUERY, DECHO
    *(_Step(_LOAD_U32, _UDP + 4), _Step(_EQUAL, 0, yes=_DROP)),
)
HTCP = _program(
    *_size_in_x(14, 0),
    _Step(_ABOVE, 8192, yes=_DROP),
    *(_Step(_LOAD_U16, _UDP + 2), _Step(_ABOVE, 1, yes=_DROP)),  # 0.0 and 0.1
    *(_Step(_LOAD_U16_AT_X, _UDP - 2), _Step(_EQUAL, 2, no=_DROP)),  # not signed
    *(_Step(_LOAD_U8, _UDP + 6), _Step(_EQUAL, 0x10, yes=1), _Step(_EQUAL, 0x40, no=_DROP)),  # TST, CLR
    *(_Step(_LOAD_U8, _UDP + 7), _Step(_AND, 0xFD), _Step(_EQUAL, 0, no=_DROP)),  # no reply, no flags but "I want one"
    *(_Step(_FROM_X), _Step(_SUBTRACT, 6), _Step(_TO_X), _Step(_LOAD_U16, _UDP + 4), _Step(_EQUAL_X, no=_DROP)),
)


def attach(sock: socket.socket, program: bytes) -> bool:
    """Let only through what `program` lets pass.  Returns whether the system does it."""
    code = ctypes.create_string_buffer(program, len(program))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _ATTACH, struct.pack("HP", len(program) // 8, ctypes.addressof(code)))
    except OSError:
        return False
    return True


def detach(sock: socket.socket) -> None:
    """Let everything through again."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _DETACH, 0)


def dropped(sock: socket.socket) -> int:
    """Datagrams that the kernel has dropped: a program's doing, or there was no room for them."""
    try:
        return int(struct.unpack("=9I", sock.getsockopt(socket.SOL_SOCKET, _MEMINFO, 36))[_DROPS])
    except (OSError, struct.error):
        return 0
