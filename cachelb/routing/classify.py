"""What kind of request this is: a table of rules, of which the first that matches decides.

    REFUSE  a port that clients may not ask for
    TUNNEL  CONNECT and Upgrade: bytes both ways
    LOCAL   answered by the director itself
    PURGE   the whole farm is to forget the URL
    BYPASS  no cache could store the answer: around the farm
    HASH    to the node that owns the URL

Left out: what answers taught (learned.py), which node (route.py), how bypass is done.  Squid itself stores only answers
to GET and HEAD without Authorization and ``no-store``; the BYPASS rules are the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from cachelb.errors import Reason
from cachelb.routing.globs import checked, checked_host, compile_globs, compile_header, is_pattern
from cachelb.routing.ports import PortSet

if TYPE_CHECKING:
    from cachelb.http.fields import RequestFields
    from cachelb.http.url import Url

INTERNAL_PREFIX: Final = b"/squid-internal-"
# A node would take this for its own cache manager, and the director, whom it trusts, for who asks.
MANAGER_PREFIX: Final = b"/squid-internal-mgr"
DIGEST_PATH: Final = b"/squid-internal-periodic/store_digest"

Here = tuple[bytes, int]


class Kind(Enum):
    """What is done with a request."""

    HASH = "hash"
    BYPASS = "bypass"
    TUNNEL = "tunnel"
    LOCAL = "local"
    PURGE = "purge"
    REFUSE = "refuse"


class Verdict(NamedTuple):
    """kind: what is done.  why: the rule, in a few words, for the log.  reason: set if and only if it is refused."""

    kind: Kind
    why: str
    reason: Reason | None = None


class BypassRules:
    """The operator's own bypass rules, compiled.

    hosts: ``www.a.com`` itself, ``.a.com`` for a.com and everything under it, or a pattern such as ``img*.a.com``.
    paths: patterns for the whole of path and query, such as ``/cart/*``; case matters.
    headers: ``Cookie`` (the field is there) or ``Cookie: *session=*`` (its value is like this; case matters).

    In a pattern, ``*`` is any number of characters and ``?`` is one; everything else stands for itself.
    """

    __slots__ = ("_exact", "_headers", "_host_patterns", "_paths", "_suffixes", "active")

    def __init__(self, hosts: Iterable[str] = (), paths: Iterable[str] = (), headers: Iterable[str] = ()) -> None:
        """Compile the rules.

        Raises:
            ValueError: A rule cannot be used; the message is one sentence that quotes it.
        """
        names = [checked_host(host) for host in hosts]
        plain = [name for name in names if not is_pattern(name)]
        self._exact = {name.encode("latin-1"): name for name in plain if not name.startswith(".")}
        self._suffixes = {name[1:].encode("latin-1"): name for name in plain if name.startswith(".")}
        self._host_patterns = [(name, compile_globs([name])) for name in names if is_pattern(name)]
        self._paths = [(path, compile_globs([checked(path, "path")])) for path in paths]
        self._headers = [(header, compile_header(checked(header, "header"))) for header in headers]
        self.active = bool(names or self._paths or self._headers)

    def match(self, url: Url, block: bytes) -> str | None:
        """Return the rule that the request falls under, as it was written, or None.

        Args:
            block: All field lines, each with its CRLF.
        """
        if not self.active:
            return None
        host = url.host
        return (
            self._exact.get(host)
            or self._match_suffix(host)
            or _first(self._host_patterns, host)
            or _first(self._paths, url.path)
            or next((rule for rule, pattern in self._headers if pattern.search(block)), None)
        )

    def _match_suffix(self, host: bytes) -> str | None:
        suffixes = self._suffixes
        if not suffixes:
            return None
        while host:
            if host in suffixes:
                return suffixes[host]
            host = host.partition(b".")[2]
        return None


class Policy(NamedTuple):
    """What the configuration says about kinds of requests.

    own_hosts, own_ports: whose internal pages, asked for by their full URLs, are the director's.
    """

    connect_ports: PortSet
    safe_ports: PortSet
    rules: BypassRules = BypassRules()
    own_hosts: frozenset[bytes] = frozenset()
    own_ports: frozenset[int] = frozenset()


# Verdicts that carry no detail are made once: nothing is allocated for a request that is simply hashed.
HASH_GET: Final = Verdict(Kind.HASH, "get")
HASH_ONLY_IF_CACHED: Final = Verdict(Kind.HASH, "only-if-cached")
BYPASS_AUTHORIZATION: Final = Verdict(Kind.BYPASS, "authorization")
BYPASS_NO_STORE: Final = Verdict(Kind.BYPASS, "no-store")
TUNNEL_CONNECT: Final = Verdict(Kind.TUNNEL, "connect")
TUNNEL_UPGRADE: Final = Verdict(Kind.TUNNEL, "upgrade")
LOCAL_OPTIONS: Final = Verdict(Kind.LOCAL, "options")
LOCAL_MAX_FORWARDS: Final = Verdict(Kind.LOCAL, "max-forwards")
LOCAL_INTERNAL: Final = Verdict(Kind.LOCAL, "internal")
LOCAL_DIGEST: Final = Verdict(Kind.LOCAL, "digest")
LOCAL_MANAGER: Final = Verdict(Kind.LOCAL, "manager")
PURGE: Final = Verdict(Kind.PURGE, "purge")
REFUSE_PORT: Final = Verdict(Kind.REFUSE, "the port is not in [access] safe_ports", Reason.PORT_DENIED)
REFUSE_CONNECT_PORT: Final = Verdict(Kind.REFUSE, "the port is not in [access] connect_ports", Reason.PORT_DENIED)
REFUSE_TARGET: Final = Verdict(Kind.REFUSE, "target", Reason.BAD_URL)


def classify(
    method: bytes,
    url: Url | None,
    fields: RequestFields,
    form: str,
    policy: Policy,
    block: bytes = b"",
    port: int = 0,
    here: Here | None = None,
) -> Verdict:
    """Decide what is done with a request.  0.2 us for a GET without user rules (2026-11).

    Args:
        url: None for CONNECT and for the asterisk.
        form: Of the request target: "absolute", "origin", "authority" or "asterisk" (RFC 9112, section 3.2).
        block: The request's field lines, for the operator's header rules.
        port: What CONNECT asks for; unused otherwise.
        here: The address and port of ours that the client has connected to, as a URL has them.
    """
    if method == b"CONNECT":
        return TUNNEL_CONNECT if policy.connect_ports.allows(port) else REFUSE_CONNECT_PORT
    if url is None:
        return LOCAL_OPTIONS if method == b"OPTIONS" and form == "asterisk" else REFUSE_TARGET
    if url.path.startswith(MANAGER_PREFIX) or url.scheme == b"cache_object":  # the latter is squidclient's, up to Squid 6
        return LOCAL_MANAGER
    if url.path.startswith(INTERNAL_PREFIX) and (form == "origin" or _is_us(url, policy, here)):
        return LOCAL_DIGEST if url.path == DIGEST_PATH else LOCAL_INTERNAL
    if not policy.safe_ports.allows(url.port):
        return REFUSE_PORT
    if method == b"PURGE":
        return PURGE  # whatever else it says: an origin would not know the word, or know it too well
    cacheable = method == b"GET" or method == b"HEAD"
    if cacheable and fields.only_if_cached:
        return HASH_ONLY_IF_CACHED  # it asks what the farm has: the origin must not see it
    if fields.upgrade and not _is_http2(fields.upgrade):
        return TUNNEL_UPGRADE
    if not cacheable:
        if fields.max_forwards == 0 and (method == b"OPTIONS" or method == b"TRACE"):
            return LOCAL_MAX_FORWARDS
        return Verdict(Kind.BYPASS, "method " + method.decode("latin-1"))
    if fields.authorization or url.has_userinfo:
        return BYPASS_AUTHORIZATION
    if fields.no_store:
        return BYPASS_NO_STORE
    if policy.rules.active:
        rule = policy.rules.match(url, block)
        if rule is not None:
            return Verdict(Kind.BYPASS, "rule " + rule)
    return HASH_GET


def _is_us(url: Url, policy: Policy, here: Here | None) -> bool:
    """Whether a URL names the director: by the place that the client has connected to, or by a name and a port of its own."""
    address, port = here or (b"", 0)
    is_host = url.host == address or url.host in policy.own_hosts
    return is_host and url.scheme == b"http" and (url.port == port or url.port in policy.own_ports)


def _is_http2(upgrade: bytes) -> bool:
    """Tell whether all that is offered is HTTP/2 in clear text.

    curl and Java's client offer it on every plain GET; ignoring it is what everyone does (RFC 9113, section 3.1), and
    tunnelling those requests would take them away from the caches.
    """
    return upgrade.strip().lower() == b"h2c"


def _first(rules: list[tuple[str, re.Pattern[bytes]]], text: bytes) -> str | None:
    for rule, pattern in rules:
        if pattern.fullmatch(text):
            return rule
    return None
