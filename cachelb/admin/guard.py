"""Who may ask the admin API for what.

Pure: it is told who asks and what the request says.  Three things are kept apart: *from where* (a Unix socket may be opened by
whom its mode allows; loopback is this machine's; the rest is the world), *what* (to read, or to change something) and *whose
page* (a browser on this machine can be sent here by any site: by a form, or by a name that resolves to 127.0.0.1).
"""

from __future__ import annotations

import hmac
import os
import stat
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

MAKE_TOKEN = "(umask 077; cachelb token > FILE), then token_file = \"FILE\" in [admin], then reload"
TOKEN_CHARS = 16  # fewer can be guessed
TOKEN_BYTES_MAX = 4096


class Refusal(NamedTuple):
    """status: of the answer; detail: a sentence."""

    status: int
    detail: str


class Asked(NamedTuple):
    """What matters of a request.

    peer: the client's address; "" for the Unix socket.  host, origin, authorization: the fields, "" where there is none.
    fetch_site: Sec-Fetch-Site.  changes: whether it would change something.  page: whether it is for a file of the web
    page, which tells nothing of the farm.
    """

    peer: str
    host: str
    origin: str
    authorization: str
    fetch_site: str
    changes: bool
    page: bool = False


def judge(asked: Asked, token: str, names: Collection[str]) -> Refusal | None:
    """Why a request is refused; None if it may be carried out.

    Args:
        token: the operator's; "" where there is none.
        names: by which this director may be called besides its addresses and localhost, in lower case.
    """
    if not asked.peer:
        return None  # a browser cannot reach it, and who may is the file system's matter
    loopback = is_loopback(asked.peer)
    if loopback and not _is_ours(asked.host, names):
        shown = asked.host[:80] or "nothing"
        return Refusal(421, f"Host is {shown!r}: an address, localhost or one of [admin] names is expected from loopback")
    if asked.page and not asked.changes:
        return None  # a browser that goes to a page can send no token, and may have come by a link; the page asks for the token
    if asked.origin and asked.origin.rpartition("://")[2].lower() != asked.host.lower():
        return Refusal(403, f"a page of {asked.origin[:80]!r} has sent this, not one of this director's")
    if asked.fetch_site in ("cross-site", "same-site"):
        return Refusal(403, "a page of another site has sent this")
    if asked.authorization:
        return None if _is_right(asked.authorization, token) else Refusal(401, "this is not the token in [admin] token_file")
    if loopback and not asked.changes:
        return None
    why = "to change anything" if asked.changes else "from another address than loopback"
    if not token:
        return Refusal(403, f"{why} needs a token, and none is configured; make one: {MAKE_TOKEN}. Or use [admin] socket")
    return Refusal(401, f"{why} needs Authorization: Bearer and the token in [admin] token_file")


def is_loopback(peer: str) -> bool:
    """Whether an address is this machine's own, also where IPv6 carries IPv4."""
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _is_right(authorization: str, token: str) -> bool:
    scheme, _, given = authorization.partition(" ")
    same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
    return same and bool(token) and scheme.lower() == "bearer"


def _is_ours(host: str, names: Collection[str]) -> bool:
    """Whether a Host field names us in a way that no name server can have had a part in."""
    name = host.lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    if name == "localhost" or name in names:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def read_token(path: str) -> tuple[str, str]:
    """The token in a file, and what is wrong with it: one of them is "".  No path: neither."""
    if not path:
        return "", ""
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(TOKEN_BYTES_MAX)
    except (OSError, ValueError) as exc:
        return "", f"[admin] token_file {path}: {getattr(exc, 'strerror', None) or exc}; make one: {MAKE_TOKEN}"
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        return "", f"[admin] token_file {path} is open to others (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}"
    token = data.decode("ascii", "replace").strip()
    if not (len(token) >= TOKEN_CHARS and token.isascii() and token.isprintable() and " " not in token):
        return "", f"[admin] token_file {path} holds no token of at least {TOKEN_CHARS} characters; make one: {MAKE_TOKEN}"
    return token, ""
