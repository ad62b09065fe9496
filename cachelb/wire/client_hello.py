"""What a TLS client says first, in the clear: the name that it asks for, and the session that it would go on with.

Only read, never changed: the bytes go on to the node as they came.

Left out: what decides by it (``relay.services``), encrypted hellos, whose outer name is what is seen.  Source: RFC 5246, 7.4.1.2;
RFC 8446, 4.1.2; RFC 6066, 3 (names); RFC 5077, 3.2 (tickets).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from cachelb.wire.tls import BadTlsError, Fields, Handshake, extensions

# All of it, records' headers included.  With a post-quantum key and a ticket it has 2 to 4 KiB; a buffer of HAProxy's has 16.
HELLO_BYTES: Final = 16384

_CLIENT_HELLO: Final = 1
_SERVER_NAME, _SESSION_TICKET, _PRE_SHARED_KEY, _SUPPORTED_VERSIONS = 0, 35, 41, 43
_NAME: Final = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\Z")


class Hello(NamedTuple):
    """A ClientHello.

    name: the host asked for, in lower case; b"": none.
    session: the session id that it goes on with, or made up, as TLS 1.3 and tickets have it.
    ticket: of TLS 1.2; b"": none.  resumes_13: it goes on with a session of TLS 1.3, whose ticket nobody but the node can read.
    """

    name: bytes
    session: bytes
    ticket: bytes
    resumes_13: bool


class HelloReader:
    """Finds the ClientHello in bytes that come in any pieces."""

    __slots__ = ("_handshake", "_seen")

    def __init__(self) -> None:
        self._handshake = Handshake(HELLO_BYTES)
        self._seen = 0

    def feed(self, data: bytes) -> Hello | None:
        """Take more bytes from the client; the hello when it is whole, else None.

        Raises:
            BadTlsError: They are no ClientHello, or a malformed one, or it is too large.
        """
        self._seen += len(data)
        self._handshake.feed(data)
        message = self._handshake.next()
        if message is None:
            if self._handshake.ended:
                raise BadTlsError(f"a record of type {self._handshake.ended} where a ClientHello should be")
            if self._seen >= HELLO_BYTES:
                raise BadTlsError(f"no whole ClientHello within {HELLO_BYTES} bytes")
            return None
        kind, body = message
        if kind != _CLIENT_HELLO:
            raise BadTlsError(f"a handshake message of type {kind}, not a ClientHello")
        return read_hello(body)


def read_hello(body: bytes) -> Hello:
    """Read the body of a ClientHello.

    Raises:
        BadTlsError: It is malformed.
    """
    fields = Fields(body)
    if fields.number(1) != 3:
        raise BadTlsError("not a version of TLS")
    fields.take(33)
    session = fields.vector(1)
    ciphers, compressions = fields.vector(2), fields.vector(1)
    if len(session) > 32 or not ciphers or len(ciphers) % 2 or not compressions:
        raise BadTlsError("a session id, ciphers or compressions of a wrong length")
    found = extensions(fields)
    name = _server_name(found[_SERVER_NAME]) if _SERVER_NAME in found else b""
    is_13 = _PRE_SHARED_KEY in found and _SUPPORTED_VERSIONS in found
    return Hello(name, session, found.get(_SESSION_TICKET, b""), is_13)


def is_name(value: bytes) -> bool:
    """Whether it is a host's name, as a ClientHello may ask for."""
    return _NAME.match(value) is not None


def _server_name(data: bytes) -> bytes:
    fields = Fields(data)
    names = Fields(fields.vector(2))
    if fields.left or not names.left:
        raise BadTlsError("a malformed list of names")
    name = b""
    while names.left:
        kind, value = names.number(1), names.vector(2)
        if kind == 0 and not name:
            if not is_name(value):
                raise BadTlsError("a name that is none of a host")
            name = value.lower()
    return name
