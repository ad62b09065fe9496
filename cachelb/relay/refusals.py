"""A node's 504 to a request with ``only-if-cached`` while the rest of it arrives.

Other nodes may have the URL, and the next one is asked.  But first the whole 504 is read: then its connection can be used
again, and there is something to pass on if nobody else answers.  What is long, or of unknown length, is not worth that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachelb.http.response import ResponseHead
    from cachelb.relay.answer import Answer
    from cachelb.relay.upstream import Link

REFUSAL_BYTES = 65536  # Squid's has 3.6 KB; operators write their own


class Refusal:
    """Reads the rest of a 504 on behalf of its exchange.  Time is the exchange's: it ends as the first byte's would."""

    def __init__(self, exchange: Answer, head: ResponseHead, body: bytes, length: int) -> None:
        self.exchange = exchange
        self.head = head
        self.body = body
        self.length = length

    def link_data(self, link: Link, data: bytes) -> None:
        """More of the body."""
        self.body += data
        if len(self.body) >= self.length:
            self.exchange.passed_over(link, self.head, self.body, self.length)

    def link_lost(self, link: Link) -> None:
        """It ended too early: enough to know that the node does not have the URL."""
        self.exchange.passed_over(link, self.head, b"", -1)

    def link_ready(self, link: Link) -> None:
        """Not called: the connection is open."""

    def link_failed(self, error: OSError) -> None:
        """Not called: the connection is open."""

    def link_readable(self, link: Link) -> None:
        """Not called: nothing is pumped."""

    def crashed(self, exc: Exception) -> None:
        """A bug of ours."""
        self.exchange.crashed(exc)
