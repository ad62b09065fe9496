"""Which session a TLS server has just begun, as far as it says so in the clear.

Up to TLS 1.2 the session id is in its ServerHello and the ticket follows before the encryption begins.  In TLS 1.3 everything
behind the ServerHello is encrypted: there is nothing to be learned.

Left out: who remembers it (``relay.sessions``).  Source: RFC 5246, 7.4.1.3; RFC 5077, 3.3; RFC 8446, 4.1.3 and 4.2.1.
"""

from __future__ import annotations

from typing import Final

from cachelb.wire.tls import BadTlsError, Fields, Handshake, extensions

# What a server says before its ticket: mostly certificates, which have a few KiB.  What is longer goes unlearned.
SERVER_BYTES: Final = 65536

_SERVER_HELLO, _NEW_SESSION_TICKET = 2, 4
_SUPPORTED_VERSIONS: Final = 43


class SessionReader:
    """Follows what a server says in the clear.

    session: the id that it gave to the session; ticket: the ticket; b"": none so far.  done: nothing more can be learned.
    """

    __slots__ = ("_greeted", "_handshake", "_seen", "done", "session", "ticket")

    def __init__(self) -> None:
        self._handshake = Handshake(SERVER_BYTES)
        self._seen = 0
        self._greeted = False
        self.session = b""
        self.ticket = b""
        self.done = False

    def feed(self, data: bytes) -> None:
        """Take more bytes from the server.  What is no TLS ends it; it is the client's to complain."""
        if self.done:
            return
        self._seen += len(data)
        self._handshake.feed(data)
        try:
            while not self.done and (message := self._handshake.next()) is not None:
                self._take(*message)
        except BadTlsError:
            self.done = True
        if self._handshake.ended or self._seen >= SERVER_BYTES:
            self.done = True

    def _take(self, kind: int, body: bytes) -> None:
        fields = Fields(body)
        if not self._greeted:
            if kind != _SERVER_HELLO:
                raise BadTlsError(f"a message of type {kind}, not a ServerHello")
            self._greeted = True
            fields.take(34)
            session = fields.vector(1)
            fields.take(3)
            if _SUPPORTED_VERSIONS in extensions(fields):
                self.done = True  # TLS 1.3: the session id is the client's own, given back
            else:
                self.session = session
        elif kind == _NEW_SESSION_TICKET:
            fields.take(4)
            self.ticket = fields.vector(2)
            self.done = True
