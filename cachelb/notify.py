"""Words for the program that started the director, as systemd's ``Type=notify`` has them.

    READY=1      RELOADING=1      STOPPING=1      STATUS=for people      MAINPID=12345      WATCHDOG=1

Each is a datagram to the socket that NOTIFY_SOCKET names; without it nothing is said.  A lost word is no error of ours.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Mapping

_USEC = 1_000_000
PINGS = 3  # in the time after which systemd takes us for dead: one may be late


class Notifier:
    """Who is told.  watchdog_s: a WATCHDOG=1 is expected at least so often; 0: not at all."""

    def __init__(self, environment: Mapping[str, str], pid: int) -> None:
        """Take whom to tell from the environment; ``pid``: our own."""
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._status = ""
        self.watchdog_s = watchdog_s(environment, pid) if self._address else 0.0

    @property
    def ping_s(self) -> float:
        """How often to ``ping``; 0: never."""
        return self.watchdog_s / PINGS

    def say(self, *words: str) -> None:
        """Send some, all in one datagram."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(words).encode(), address)

    def status(self, text: str) -> None:
        """What there is to see now, in one line."""
        if text != self._status:
            self._status = text
            self.say(f"STATUS={text}")

    def ready(self) -> None:
        """All workers accept; also: a reload is over."""
        self.say("READY=1")

    def reloading(self) -> None:
        """The configuration is being read again."""
        self.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self.say("STOPPING=1")

    def main_pid(self, pid: int) -> None:
        """Another process is the director now."""
        self.say(f"MAINPID={pid}")

    def ping(self) -> None:
        """All is well."""
        self.say("WATCHDOG=1")


async def watch(notifier: Notifier, ask: Callable[[], None], is_well: Callable[[float], bool]) -> None:
    """Tell systemd for ever that all is well: this loop turns, and those whom ``ask`` asks are well.

    is_well: whether they have answered within so many seconds.
    """
    while notifier.ping_s:
        ask()
        await asyncio.sleep(notifier.ping_s)
        if is_well(2 * notifier.ping_s):
            notifier.ping()
    await asyncio.Event().wait()


def watchdog_s(environment: Mapping[str, str], pid: int) -> float:
    """The watchdog's time as systemd says it, 0 when it is not for this process."""
    text, whom = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not text.isdecimal() or (whom and whom != str(pid)):
        return 0.0
    return int(text) / _USEC
