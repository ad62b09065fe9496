"""Host names and addresses as text, and /etc/hosts: what can be told without asking DNS.

Left out: DNS (``resolve``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain, zip_longest
from pathlib import Path

HOSTS_PATH = Path("/etc/hosts")
HOSTS_CHECK_S = 1.0  # how soon a change of /etc/hosts is seen
HOSTS_LIMIT_BYTES = 16 << 20  # block lists of some hundred thousand names are 5 MB; more is a mistake
LOOPBACK = ["::1", "127.0.0.1"]

# RFC 1035 section 2.3.4: a label has 63 bytes at most.  Underscores are not for host names, but hosts have them.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_NAME_LIMIT = 253  # characters, without the final dot


def literal(host: str) -> list[str] | None:
    """[the address] when `host` is an IP literal (IPv6 in brackets or not), else None.

    Only full dotted quads are IPv4 addresses: "127.1" and "0x7f000001" are what some libraries take for loopback, and a
    way around address rules; here they are neither addresses nor names.
    """
    if ":" in host:
        host = host.removeprefix("[").removesuffix("]")
        if "%" in host:  # a zone only means something on one machine's link
            return None
    elif not host[-1:].isdigit():
        return None
    try:
        return [plain_address(host)]
    except ValueError:
        return None


def plain_address(text: str) -> str:
    """An address in its one canonical form; IPv4 mapped into IPv6 becomes IPv4, so that no address rule can miss it.

    Raises ValueError.
    """
    address: IPv4Address | IPv6Address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def canonical_name(host: str) -> str | None:
    """`host` as a name to ask for: lower case, no final dot.  None when it cannot be the name of a host: also when its
    last label is a number (a malformed address: no top-level domain is, and the WHATWG URL standard says the same)."""
    name = host.lower().removesuffix(".")
    if not host.isascii() or not 0 < len(name) <= _NAME_LIMIT:
        return None
    labels = name.split(".")
    if not all(map(_LABEL.fullmatch, labels)) or _NUMERIC.fullmatch(labels[-1]):
        return None
    return name


def interleave(*families: Sequence[str]) -> list[str]:
    """One of each in turn, in the order given (RFC 8305 section 4), without repetitions."""
    mixed = chain.from_iterable(zip_longest(*families))
    return list(dict.fromkeys(address for address in mixed if address is not None))


def parse_hosts(text: str) -> dict[str, list[str]]:
    """The addresses of each name in a hosts file.  Lines that are not understood are skipped, as everybody does."""
    found: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if not names or "%" in address:
            continue
        try:
            address = plain_address(address)
        except ValueError:
            continue
        for name in names:
            families = found.setdefault(name.lower().removesuffix("."), [[], []])
            families[":" not in address].append(address)
    return {name: interleave(*families) for name, families in found.items()}


class Hosts:
    """A hosts file, read again when it has changed.  A file that is missing or unreadable is an empty one."""

    def __init__(self, path: Path = HOSTS_PATH) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._names: dict[str, list[str]] = {}
        self._checked_at = -HOSTS_CHECK_S

    def lookup(self, name: str, now: float | None = None) -> list[str] | None:
        """The addresses of a canonical name; None when the file does not have it.

        ``localhost`` and everything below it is loopback whatever DNS thinks (RFC 6761 section 6.3).
        """
        self._refresh(time.monotonic() if now is None else now)
        if found := self._names.get(name):
            return found
        return LOOPBACK if name == "localhost" or name.endswith(".localhost") else None

    def _refresh(self, now: float) -> None:
        if now - self._checked_at < HOSTS_CHECK_S:
            return
        self._checked_at = now
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp == self._stamp:
                return
            text = self._path.read_text("utf-8", "replace") if stat.st_size <= HOSTS_LIMIT_BYTES else ""
        except OSError:
            stamp, text = (0, 0, 0), ""
        self._stamp = stamp
        self._names = parse_hosts(text)
