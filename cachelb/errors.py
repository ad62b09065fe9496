"""What can go wrong, in one place.

``Reason`` lists every way an exchange can end: one row each, from which the counter, the log line, the error page and the
``Proxy-Status`` field are derived.  The exceptions are::

    CachelbError
      ConfigError   the configuration cannot be used; carries every problem found
      CommandError  a command cannot do what it was asked; one sentence says why
      BadMessage    a peer sent bytes that are not the HTTP we accept; carries the Reason
        BadRequest
        BadResponse
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class ReasonRow(NamedTuple):
    """One way an exchange can end.

    status: what the client is told; 0 where no answer is (or can be) sent.
    is_error: counts as a failure of ours, of a node or of an origin, not of the client.
    proxy_status: the error type of RFC 9209, section 2.3; empty where none fits.
    text: one sentence for the error page and the log.
    """

    status: int
    is_error: bool
    proxy_status: str
    text: str


class Reason(Enum):
    """Why an exchange ended.  The member's name, in lower case, is the counter's and the log's word for it."""

    DONE = ReasonRow(0, False, "", "the exchange was completed")
    # what the client sent
    BAD_REQUEST = ReasonRow(400, False, "http_request_error", "the request is malformed or ambiguous")
    BAD_FRAMING = ReasonRow(400, False, "http_request_error", "the length of the request body is ambiguous")
    BAD_CHUNK = ReasonRow(400, False, "http_request_error", "the chunked request body is malformed")
    BAD_URL = ReasonRow(400, False, "http_request_error", "the requested URL cannot be understood")
    URL_TOO_LONG = ReasonRow(414, False, "http_request_error", "the requested URL is longer than the limit")
    HEAD_TOO_LARGE = ReasonRow(431, False, "http_request_error", "the request's header fields are larger than the limit")
    TOO_MANY_FIELDS = ReasonRow(431, False, "http_request_error", "the request has more header fields than the limit")
    NOT_IMPLEMENTED = ReasonRow(501, False, "http_request_error", "the request asks for something that is not supported")
    BAD_VERSION = ReasonRow(505, False, "http_request_error", "only HTTP/1.0 and HTTP/1.1 are spoken here")
    EXPECTATION_FAILED = ReasonRow(417, False, "http_request_error", "the request's Expect field cannot be met")
    HEAD_TIMEOUT = ReasonRow(408, False, "http_request_error", "the request did not arrive in time")
    BODY_TIMEOUT = ReasonRow(408, False, "http_request_error", "the request body stopped arriving")
    CLIENT_GONE = ReasonRow(0, False, "", "the client closed the connection before the answer was complete")
    CLIENT_STALLED = ReasonRow(0, False, "", "the client stopped reading the answer")
    # what we do not allow
    ACCESS_DENIED = ReasonRow(403, False, "http_request_denied", "this client network may not use the cache")
    RULE_DENIED = ReasonRow(403, False, "http_request_denied", "a rule of this cache refuses the request")
    PORT_DENIED = ReasonRow(403, False, "http_request_denied", "this port is not one that clients may ask for")
    DESTINATION_DENIED = ReasonRow(
        403, False, "destination_ip_prohibited", "the destination is a private, loopback or own address"
    )
    TOO_MANY_CONNECTIONS = ReasonRow(429, False, "http_request_denied", "this client has too many connections open")
    LOOP = ReasonRow(508, False, "proxy_loop_detected", "the request has passed through this director before")
    PURGE_DENIED = ReasonRow(403, False, "http_request_denied", "this client network may not have URLs forgotten")
    MANAGER_DENIED = ReasonRow(403, False, "http_request_denied", "this client network may not read the director's reports")
    NOT_INTERCEPTED = ReasonRow(
        403, False, "http_request_denied", "this port is for connections that the kernel has brought here"
    )
    NOT_HTTP = ReasonRow(0, False, "", "an intercepted client does not speak HTTP")
    NOT_FOUND = ReasonRow(404, False, "", "there is no such internal page")
    # what nodes and origins do
    NO_NODE = ReasonRow(503, True, "destination_unavailable", "no cache of the farm can serve this request")
    CONNECT_REFUSED = ReasonRow(503, True, "connection_refused", "no connection could be made")
    CONNECT_TIMEOUT = ReasonRow(504, True, "connection_timeout", "connecting took too long")
    DNS_ERROR = ReasonRow(503, True, "dns_error", "the name of the origin cannot be resolved")
    DNS_TIMEOUT = ReasonRow(504, True, "dns_timeout", "resolving the name of the origin took too long")
    FIRST_BYTE_TIMEOUT = ReasonRow(504, True, "http_response_timeout", "no answer arrived in time")
    RESET = ReasonRow(502, True, "connection_terminated", "the connection was closed before an answer arrived")
    PIN_LOST = ReasonRow(0, False, "connection_terminated", "the connection that the client was authenticated on has ended")
    NODE_DEAD = ReasonRow(502, True, "destination_unavailable", "the cache died before it answered")
    BAD_RESPONSE = ReasonRow(502, True, "http_protocol_error", "the answer is malformed or ambiguous")
    RESPONSE_TOO_LARGE = ReasonRow(502, True, "http_response_header_section_size", "the answer's header is too large")
    PURGE_INCOMPLETE = ReasonRow(502, True, "http_response_incomplete", "not every cache has confirmed the purge")
    PURGE_TIMEOUT = ReasonRow(504, True, "http_response_timeout", "the purge was not confirmed in time")
    # after the answer's head is out, so that the connection can only be cut
    TRUNCATED = ReasonRow(0, True, "http_response_incomplete", "the answer ended before its declared length")
    BAD_CHUNKED_ANSWER = ReasonRow(0, True, "http_protocol_error", "the chunked answer is malformed")
    BODY_STALLED = ReasonRow(0, True, "connection_read_timeout", "the answer stopped arriving")
    AUDIT_FAILED = ReasonRow(0, True, "proxy_internal_error", "bytes in, bytes out and declared length disagree")
    # tunnels
    TUNNEL_IDLE = ReasonRow(0, False, "", "the tunnel was idle for too long")
    TUNNEL_LIMIT = ReasonRow(0, False, "", "the tunnel reached its time limit")
    # TCP services, and proxies that tell who their clients are
    TCP_CLOSED = ReasonRow(0, False, "", "both sides have ended the connection of a TCP service")
    TCP_RESET = ReasonRow(0, False, "", "one side has reset the connection of a TCP service")
    TCP_IDLE = ReasonRow(0, False, "", "the connection of a TCP service was idle for too long")
    BAD_HELLO = ReasonRow(0, False, "", "the client of a TLS service has not begun with a ClientHello")
    HELLO_TIMEOUT = ReasonRow(0, False, "", "the ClientHello did not arrive in time")
    BAD_PROXY_HEADER = ReasonRow(0, False, "", "the PROXY header is missing, malformed or not allowed from there")
    PROXY_HEADER_TIMEOUT = ReasonRow(0, False, "", "the PROXY header did not arrive in time")
    # ourselves
    OVERLOADED = ReasonRow(503, True, "proxy_internal_response", "the director has reached its connection limit")
    PURGE_UNAVAILABLE = ReasonRow(503, True, "proxy_internal_response", "no purge can be taken at the moment")
    MANAGER_UNAVAILABLE = ReasonRow(503, True, "proxy_internal_response", "no report can be made at the moment")
    SHUTDOWN = ReasonRow(503, True, "proxy_internal_response", "the director is shutting down")
    INTERNAL = ReasonRow(500, True, "proxy_internal_error", "an error in the director itself")

    # CPython makes every member's value its identity; rows that say the same would become aliases.
    @property
    def label(self) -> str:
        """The word for this Reason in counters and logs."""
        return self.name.lower()


class CachelbError(Exception):
    """Base of everything raised on purpose."""


class Problem(NamedTuple):
    """One thing wrong with a configuration.

    place: where, as a person would look for it: ``cachelb.toml:12 node[2].weight``.
    text: what is wrong.
    hint: what to write instead; may be empty.
    """

    place: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(CachelbError):
    """The configuration cannot be used.

    problems: all that was found, in the order of the file; never empty.
    """

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class CommandError(CachelbError):
    """A command cannot do what it was asked; its text is one sentence that says why."""


class BadMessage(CachelbError):
    """A peer sent bytes that are not the HTTP we accept.

    reason: how the exchange ends; detail: what exactly was wrong, with the numbers, for the log.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value.text}: {detail}" if detail else reason.value.text)
        self.reason = reason
        self.detail = detail


class BadRequest(BadMessage):
    """The client's request is refused."""


class BadResponse(BadMessage):
    """The answer of a node or an origin is refused."""
