"""The operator's rules: which requests go where, the first that matches.

A rule has conditions on what the first line says (host, path, query, method, scheme, port), which are judged once for each
plan of a line, and conditions on the fields and the client, which are judged for each request.  So a line is left with its
*candidates*: the rules that its own conditions allow, up to the first that asks for nothing else.

The key of a URL is that of the first rule which asks for nothing but the URL: peers that ask by ICP, HTCP or the digest know no
more of a request, and must find what the nodes have.

Left out: what rules lead to (``relay.steer``), where they are written (``config_policy``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final

from cachelb.routing.classify import BypassRules
from cachelb.routing.guard import is_within
from cachelb.routing.patterns import compile_expression
from cachelb.routing.ports import PortSet

if TYPE_CHECKING:
    from cachelb.http.url import Url

HASHED: Final = frozenset(("url", "carp", "host"))  # schedulers that the first line alone decides


class Rule:
    """One rule, compiled.

    Attributes:
        name: as the operator calls it; number: its place, from 1.
        pool: where to, "" for the whole farm; scheduler: "" as in [hash]; affinity, cookie: names.
        bypass: True around the farm, False never, None as for other requests; refuse: it ends with 403.
        steers: it leads elsewhere than the owner of the URL in the whole farm, or may.
        asks_more: it has conditions on fields or the client.
    """

    __slots__ = (
        "_client", "_fields", "_hosts", "_methods", "_paths", "_ports", "_prefixes", "_query", "_regexes", "_schemes", "affinity",
        "asks_more", "bypass", "cookie", "key", "name", "number", "pool", "refuse", "scheduler", "steers",
    )  # fmt: skip
