"""Linux capabilities of this process: what it has, what it keeps when it stops being root, what its children get.

    NET_ADMIN   addresses, rules and routes of the host, and nft
    NET_RAW     ARP; sockets that speak from others' addresses (IP_TRANSPARENT)

The supervisor keeps the first, so that it can take back what it has set; workers, who read what strangers send, get the second
at most, and only for spoofing.  All of this is about the calling thread, as Linux has it.

Source: capabilities(7), capset(2), prctl(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from typing import Final

NET_BIND_SERVICE: Final = 10
NET_ADMIN: Final = 12
NET_RAW: Final = 13
NAMES: Final = {NET_BIND_SERVICE: "CAP_NET_BIND_SERVICE", NET_ADMIN: "CAP_NET_ADMIN", NET_RAW: "CAP_NET_RAW"}

_VERSION_3: Final = 0x20080522
_SET_KEEPCAPS: Final = 8
_AMBIENT, _AMBIENT_RAISE, _AMBIENT_LOWER = 47, 2, 3
_header = struct.Struct("=Ii")
_sets = struct.Struct("=6I")  # effective, permitted, inheritable of 0 to 31; the same of 32 to 63


def effective() -> frozenset[int]:
    """Those that count now."""
    return _members(_read()[0])


def permitted() -> frozenset[int]:
    """Those that can be made to count."""
    return _members(_read()[1])


def keep_over_change_of_user() -> None:
    """The next change of user leaves what is permitted; ``limit`` must follow."""
    _prctl(_SET_KEEPCAPS, 1)


def limit(wanted: frozenset[int]) -> None:
    """Have these from now on, as far as they are permitted, and no others.

    Raises:
        OSError: The system does not let us.
    """
    kept = wanted & permitted()
    mask = sum(1 << number for number in kept)
    _write(mask, mask, 0)
    _prctl(_SET_KEEPCAPS, 0)


def give_to_children(*numbers: int) -> None:
    """Children that are started from now on have these, as far as this process has them."""
    for number in numbers:
        _set_ambient(number, True)


@contextlib.contextmanager
def given_to_children(*numbers: int) -> Iterator[None]:
    """Children that are started meanwhile have these, as far as this process has them.  Root's have them anyway."""
    if os.geteuid() == 0:
        yield
        return
    before = _ambient()
    added = [number for number in numbers if number not in before and _set_ambient(number, True)]
    try:
        yield
    finally:
        for number in added:
            _set_ambient(number, False)


def withhold_from_children(*numbers: int) -> None:
    """Children that are started from now on do not have these, unless this process is root."""
    for number in numbers:
        _set_ambient(number, False)


def missing(*numbers: int) -> str:
    """Those of these that this process lacks, by their names; "" when it has all."""
    return " and ".join(NAMES[number] for number in numbers if number not in effective())


def _ambient() -> frozenset[int]:
    with open("/proc/thread-self/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapAmb:"):
                return _members(int(line.split()[1], 16))
    return frozenset()


def _set_ambient(number: int, on: bool) -> bool:
    if on:
        effective_, permitted_, inheritable = _read()
        if not permitted_ >> number & 1:
            return False
        _write(effective_, permitted_, inheritable | 1 << number)
    with contextlib.suppress(OSError):
        _prctl(_AMBIENT, _AMBIENT_RAISE if on else _AMBIENT_LOWER, number)
        return True
    return False


def _members(mask: int) -> frozenset[int]:
    return frozenset(number for number in range(64) if mask >> number & 1)


def _read() -> tuple[int, int, int]:
    """Masks: effective, permitted, inheritable."""
    data = ctypes.create_string_buffer(_sets.size)
    _call("capget", _header.pack(_VERSION_3, 0), data)
    low = _sets.unpack(data.raw)
    return low[0] | low[3] << 32, low[1] | low[4] << 32, low[2] | low[5] << 32


def _write(effective_: int, permitted_: int, inheritable: int) -> None:
    masks = effective_, permitted_, inheritable
    data = _sets.pack(*(mask & 0xFFFFFFFF for mask in masks), *(mask >> 32 for mask in masks))
    _call("capset", _header.pack(_VERSION_3, 0), ctypes.create_string_buffer(data, len(data)))


def _call(name: str, header: bytes, data: ctypes.Array[ctypes.c_char]) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(ctypes.create_string_buffer(header, len(header)), data) != 0:
        raise _error(name)


def _prctl(option: int, *values: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    if library.prctl(option, *arguments) != 0:
        raise _error("prctl")


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
