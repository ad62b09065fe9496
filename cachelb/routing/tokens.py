"""What stands in a cookie: which node, since when, last used when; readable and writable only with the director's secret.

A token is 43 characters: 16 bytes of HMAC-SHA256 over the content, then the content, encrypted with a stream that is made of
those 16 bytes and a second key (a synthetic initialisation vector: nothing random is needed, equal contents look equal).
A node is named by 8 bytes that are made of its name with a third key.  All keys are made of the secret and the cookie's name,
so that the token of one cookie is worth nothing in another.

Source: RFC 2104; RFC 5297 for the construction, with HMAC in the place of CMAC.
"""

from __future__ import annotations

import base64
import hmac
import re
import struct
from typing import Final, NamedTuple

TOKEN_CHARS: Final = 43
MAC_BYTES: Final = 16
AHEAD_S: Final = 300  # a clock that was further ahead than this when it wrote a token was wrong
_is_token: Final = re.compile(rb"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]").fullmatch  # the last one has 4 bits
_content: Final = struct.Struct(">8sII")


class Token(NamedTuple):
    """node: see ``Sealer.node_id``; since, used: seconds since 1970."""

    node: bytes
    since: int
    used: int


class Sealer:
    """Writes and reads the tokens of one cookie."""

    def __init__(self, secret: bytes, cookie: str) -> None:
        name = cookie.encode()
        self._mac_key = hmac.digest(secret, b"cachelb cookie: mac: " + name, "sha256")
        self._stream_key = hmac.digest(secret, b"cachelb cookie: stream: " + name, "sha256")
        self._node_key = hmac.digest(secret, b"cachelb cookie: node: " + name, "sha256")

    def node_id(self, name: str) -> bytes:
        """8 bytes that stand for a node."""
        return hmac.digest(self._node_key, name.encode(), "sha256")[:8]

    def seal(self, token: Token) -> bytes:
        """The token's 43 characters."""
        content = _content.pack(*token)
        mac = hmac.digest(self._mac_key, content, "sha256")[:MAC_BYTES]
        return base64.urlsafe_b64encode(mac + self._crypt(mac, content)).rstrip(b"=")

    def open(self, text: bytes) -> Token | None:
        """What ``seal`` was given; None for all that it has not made."""
        if not is_token(text):
            return None
        data = base64.urlsafe_b64decode(text + b"=")
        mac = data[:MAC_BYTES]
        content = self._crypt(mac, data[MAC_BYTES:])
        if not hmac.compare_digest(mac, hmac.digest(self._mac_key, content, "sha256")[:MAC_BYTES]):
            return None
        return Token(*_content.unpack(content))

    def _crypt(self, mac: bytes, data: bytes) -> bytes:
        stream = hmac.digest(self._stream_key, mac, "sha256")[: len(data)]
        return (int.from_bytes(data) ^ int.from_bytes(stream)).to_bytes(len(data))


def is_token(text: bytes) -> bool:
    """Whether a text looks like a token; whose, only the secret can tell."""
    return len(text) == TOKEN_CHARS and _is_token(text) is not None


def is_expired(token: Token, now: float, max_idle_s: float, max_life_s: float) -> bool:
    """Whether a token is too old, or not used for too long; 0 is no limit."""
    if token.since > now + AHEAD_S:
        return True
    return bool((max_life_s and now - token.since > max_life_s) or (max_idle_s and now - token.used > max_idle_s))
