"""The sections about requests that do not simply go to the owner of their URL: pools, rules, affinity, cookies, TCP services.

They name each other: a rule sends to a pool, keeps clients together by an affinity group, or by cookies.  Every default has its
reason beside it.  Left out: rules between sections (config_links.py), what they do (``routing.rules``, ``relay.steer``).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cachelb.config_base import (
    HeaderRules,
    HostRules,
    Label,
    Labels,
    Name,
    Names,
    Networks,
    PathRules,
    PortList,
    QueryRules,
    Regexes,
    Seconds,
    SecondsOrNone,
    Section,
)
from cachelb.config_values import as_list, check_cookie_name, check_cookie_path, check_domain, check_listen, check_methods

Scheduler = Literal["", "url", "carp", "client", "host", "rr", "wrr", "lc", "wlc"]
PoolWeight = Annotated[float, Field(ge=0, le=256, allow_inf_nan=False)]


class PoolConfig(Section):
    """Nodes that serve something together.  A node may be in several pools, and is in the farm as a whole besides."""

    name: Name  # for rules and TCP services
    nodes: Names  # names of [[node]]; their order does not matter
    # of nodes that have another weight here than in the farm; 0: nothing new
    weights: dict[str, PoolWeight] = Field(default_factory=dict)


class AffinityConfig(Section):
    """A group of persistent client connections: a client stays with the node that its first request went to."""

    name: Name  # rules and TCP services that name the same group share it: LVS's port 0
    netmask_v4: Annotated[int, Field(ge=0, le=32)] = 32  # clients that count as one; LVS's default
    netmask_v6: Annotated[int, Field(ge=0, le=128)] = 64  # a host has many addresses, but one network
    timeout_s: Seconds = 1800.0  # without any use; a client that is connected is using it
    expire_on_drain: bool = False  # true: a node that drains loses its clients at once
    after_death: Literal["stay", "return"] = "stay"  # whether clients go back to a node that died and lives again


class CookieConfig(Section):
    """A cookie that keeps a browser with its node: for sites that are served by the director as an accelerator."""

    name: Name  # for rules
    cookie: Annotated[str, BeforeValidator(check_cookie_name)] = "CACHELB"  # its name; with prefix and rewrite: the application's
    mode: Literal["insert", "prefix", "rewrite"] = "insert"  # our own; the application's with the node before or behind its value
    domain: Annotated[str, BeforeValidator(check_domain)] = ""  # "": the host that was asked for
    path: Annotated[str, BeforeValidator(check_cookie_path)] = "/"  # and below
    secure: bool = False  # only over TLS, which somebody before the director has to end
    http_only: bool = True  # no script has use for it
    same_site: Literal["", "Lax", "Strict", "None"] = "Lax"  # whether pages of other sites have it sent; "": browsers decide
    max_idle_s: SecondsOrNone = 0.0  # a cookie that was not used for so long is replaced; 0: none is
    max_life_s: SecondsOrNone = 0.0  # and one that is as old as this


class RuleConfig(Section):
    """Which requests go where.  The first rule whose conditions are all met decides; of several values, one has to match."""

    name: Label = ""  # for explain and logs; "": its number
    host: HostRules = ()  # "www.a.com", ".a.com" with all under it, "img*.a.com"
    path: PathRules = ()  # of path and query: "/cart/*", "*.html"; case matters
    path_prefix: PathRules = ()  # of the path: "/static/"
    path_regex: Regexes = ()  # RE2, found anywhere in the path: "^/item/[0-9]+$"
    query: QueryRules = ()  # a pattern for what stands behind "?": "*session=*"
    method: Annotated[tuple[str, ...], BeforeValidator(check_methods)] = ()  # "GET", "CONNECT"
    scheme: Annotated[tuple[Literal["http", "https", "ftp"], ...], BeforeValidator(as_list)] = ()  # "https": CONNECT, too
    port: PortList = ()  # of the origin: 80, "8000-8099"
    header: HeaderRules = ()  # "Cookie", "Cookie: *session=*"
    client: Networks = ()  # "10.0.0.0/8"
    pool: Label = ""  # where to; "": the whole farm
    scheduler: Scheduler = ""  # "": by URL as in [hash]; with an affinity wlc
    affinity: Label = ""  # a group of [[affinity]]
    cookie: Labels = ()  # names of [[cookie]]
    bypass: bool | None = None  # true: around the farm; false: never; not set: what no cache could store, if only the URL decides
    refuse: bool = False  # true: 403
    # What makes URLs one: the key by which they are routed and known.  Such a rule has conditions on the URL alone.

    key_host: Annotated[str, BeforeValidator(check_domain)] = ""  # mirrors have this name: "cdn.example"
    key_sort_query: bool = False  # parameters in alphabetical order
    key_strip_query: QueryRules = ()  # parameters left out: "utm_*"
    key_send: Literal["key", "url"] = "key"  # nodes are sent the key; "url": as asked, for nodes that map it themselves (StoreID)


class TcpConfig(Section):
    """A TCP service: connections are relayed to a pool as they are."""

    name: Name  # for logs
    listen: Annotated[tuple[str, ...], BeforeValidator(check_listen)]  # "0.0.0.0:21", "0.0.0.0:50000-50099"
    pool: Label = ""  # "": the whole farm
    port: Annotated[int, Field(ge=0, le=65535)] = 0  # of the nodes; 0: the one that the client has connected to
    scheduler: Literal["client", "host", "rr", "wrr", "lc", "wlc"] = "wlc"  # "host": by the name that a TLS client asks for
    affinity: Label = ""  # a group of [[affinity]]
    tls: Literal["", "sni", "session"] = ""  # read what TLS clients say first: the name; also which session they go on with
    # pools by the name that a TLS client asks for: {"shop.example" = "shop", ".b.example" = "b"}
    pools: dict[str, str] = Field(default_factory=dict)
    hello_s: Seconds = 5.0  # for a TLS client to say that
    send_proxy: Literal["", "v1", "v2"] = ""  # tell nodes who the client is: the PROXY protocol
    idle_s: Seconds = 600.0  # without one byte, either way; as [timeouts] tunnel_idle_s
