"""The configuration: its schema, with every default and its reason, and how a TOML text becomes one.

``load`` and ``parse`` return a ``Config`` or raise a ConfigError with *every* problem: each with file, line, key and,
where there is one, a hint.  Units are in the names: ``_s`` seconds, ``_bytes``.  All of it is frozen.
``Config.model_dump_json`` and ``model_validate_json`` carry it to the workers.

Left out: lines of keys, writing TOML and warnings (config_text.py); rules between keys (config_rules.py).
"""

from __future__ import annotations

import platform
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, PlainValidator, ValidationError

from cachelb import config_links, config_rules, config_text
from cachelb.config_base import WEEK_S, Addresses, Name, Network, Networks, Port, Ports, Seconds, SecondsOrNone, Section, Share
from cachelb.config_hostnet import HostnetConfig, InterceptConfig, PeersConfig
from cachelb.config_policy import AffinityConfig, CookieConfig, PoolConfig, RuleConfig, TcpConfig
from cachelb.config_values import (
    Address,
    check_account,
    check_header_rule,
    check_host,
    check_host_rule,
    check_mode,
    check_path,
    check_path_rule,
    check_pseudonym,
    check_workers,
    parse_network,
    parse_server,
)
from cachelb.errors import ConfigError, Problem

__all__ = ["Address", "Config", "NodeConfig", "load", "parse"]

CONFIG_BYTES = 16 << 20  # 1,000 nodes take 100 KB; more is a wrong file
SETTINGS_BYTES = 8_000_000  # half of what one message to a worker may have (``control``): 22,000 rules with a host each


class ListenConfig(Section):
    """Where the director listens: "address:port", a list of them, or "" for nowhere."""

    http: Addresses = (Address("0.0.0.0", 3128),)  # for clients: Squid's own port
    icp: Addresses = ()  # udp; Squid's own is 3130
    htcp: Addresses = ()  # udp; Squid's own is 4827
    store_log: Addresses = ()  # udp; where the nodes' cache_store_log feeds go
    admin: Addresses = (Address("127.0.0.1", 3180),)  # API, page and metrics; never the world by default: it steers the farm
    # proxies before us that tell who the client is: from these, HTTP and TCP services take connections with a PROXY header only
    proxy_protocol: Networks = ()
    # host names of this director besides the system's own: which absolute URLs of internal pages (the digest) mean us
    names: tuple[Annotated[str, BeforeValidator(check_host)], ...] = ()


class AccessConfig(Section):
    """Who may use the director, and for what."""

    # Squid's localnet: RFC 1122, 1918, 6598, 3927; RFC 4193, 4291
    allow: tuple[Network, ...] = tuple(
        parse_network(text)
        for text in (
            "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
            "::1/128", "fc00::/7", "fe80::/10",
        )
    )  # fmt: skip
    manager: tuple[Network, ...] = (parse_network("127.0.0.0/8"), parse_network("::1/128"))  # Squid's manager ACL: the reports
    purge: tuple[Network, ...] = ()  # who may have URLs forgotten (PURGE, HTCP CLR): nobody, for it empties caches
    connect_ports: Ports = (443, 563)  # what CONNECT may ask for: Squid's SSL_ports
    safe_ports: Ports = (80, 443, 21, 70, 210, 280, 488, 591, 777, "1025-65535")  # origins' ports: Squid's Safe_ports


class AdminConfig(Section):
    """Who may steer the farm by the admin API."""

    socket: Annotated[str, BeforeValidator(check_path)] = ""  # a Unix socket; who can open it may change things
    socket_mode: Annotated[str, BeforeValidator(check_mode)] = "0600"  # "0660": its group may, too
    token_file: Annotated[str, BeforeValidator(check_path)] = ""  # a bearer token; without it TCP is for reading, on loopback
    # by which names loopback may be asked, besides its addresses and localhost: others are another site's (DNS rebinding)
    names: tuple[Annotated[str, BeforeValidator(check_host)], ...] = ()


class RelayConfig(Section):
    """How requests are relayed."""

    workers: Annotated[Literal["auto"] | int, PlainValidator(check_workers)] = "auto"  # processes; auto: one per core
    via: Annotated[str, BeforeValidator(check_pseudonym)] = ""  # our name in Via; "": host name and port
    forwarded_for: Literal["append", "set", "delete", "off"] = "append"  # X-Forwarded-For; as Squid's forwarded_for on
    forwarded_for_hops: Annotated[int, Field(ge=1, le=1000)] = 64  # entries kept: as many as Squid follows

    def worker_count(self, cores: int) -> int:
        """How many worker processes there are on a machine with so many cores."""
        return max(1, cores) if self.workers == "auto" else self.workers


class LimitsConfig(Section):
    """Bounds.  Reaching one is an answer with a reason (431, 414, 429, 503) or a closed idle connection."""

    head_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = 65536  # of a head: Squid's request_header_max_size
    fields: Annotated[int, Field(ge=16, le=10_000)] = 256  # of a head: Apache has 100, nginx none; real requests have below 50
    url_bytes: Annotated[int, Field(ge=256, le=1 << 20)] = 32768  # of a URL: RFC 9110 asks for 8,000 at least
    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000  # clients, per worker; two descriptors each
    connections_per_client: Annotated[int, Field(ge=1, le=1_000_000)] = 4096  # per worker; for a downstream Squid
    idle_per_node: Annotated[int, Field(ge=0, le=65535)] = 256  # connections kept open to each node, over all workers
    idle_direct: Annotated[int, Field(ge=0, le=65535)] = 256  # connections kept open to all origins, per worker
    memo_entries: Annotated[int, Field(ge=0, le=1_000_000)] = 16384  # remembered heads; about 1 KiB each, twice over


class TimeoutsConfig(Section):
    """How long what may take."""

    head_s: Seconds = 10.0  # from a request's first byte to the end of its head: slow-loris; as in HAProxy's examples
    connect_s: Seconds = 3.0  # to a node or an origin: one lost SYN (1 s) is repeated and answered in time
    first_byte_s: Seconds = 60.0  # of an answer: below Squid's own read_timeout, as origins may be slow
    idle_body_s: Seconds = 60.0  # without one byte of a body, either way: nginx's proxy_read_timeout
    keep_alive_s: Seconds = 120.0  # an idle client connection: Squid's client_idle_pconn_timeout
    node_keep_alive_s: Seconds = 55.0  # an idle node connection: well below the same timeout of the node
    tunnel_idle_s: Seconds = 600.0  # CONNECT and Upgrade: above the pings of WebSockets and ssh
    tunnel_total_s: Seconds = 86400.0  # of a tunnel in all: Squid's client_lifetime
    drain_s: Seconds = 30.0  # for exchanges to finish after SIGTERM: Kubernetes' and Envoy's order of magnitude


class HashConfig(Section):
    """Which node owns a URL."""

    algorithm: Literal["ring", "carp"] = "ring"  # carp: the same owners as Squid's own carp parents
    key: Literal["url"] = "url"  # the canonical URL, under which Squid stores it


class HealthConfig(Section):
    """When a node counts as dead, and when as alive again."""

    interval_s: Seconds = 2.0  # between probes of one node: HAProxy's inter
    timeout_s: Seconds = 1.0  # of one probe; a hung node is dead within 3 intervals
    jitter: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] = 0.1  # of the interval, against probes in step
    rise: Annotated[int, Field(ge=1, le=100)] = 2  # probes in a row that must pass: HAProxy's rise
    fall: Annotated[int, Field(ge=1, le=100)] = 2  # that must fail: one lost packet is not a death
    backoff_max_s: Seconds = 60.0  # the longest pause between probes of a dead node
    slow_start_s: SecondsOrNone = 10.0  # until a returning node has all its keys again; its memory is cold
    passive_failures: Annotated[int, Field(ge=1, le=10_000)] = 5  # of traffic, in a row: Envoy's consecutive_5xx
    max_ejected_share: Share = 0.5  # of nodes taken out for failing traffic although they answer probes


class IcpConfig(Section):
    """What peers are answered by ICP, and by HTCP where [listen] has it."""

    allow: tuple[Network, ...] | None = None  # not set: as [access] allow
    mode: Literal["index", "forward"] = "index"  # from memory, or by asking the owner each time
    rate_per_s: Annotated[int, Field(ge=0, le=10_000_000)] = 20_000  # queries of one source; 0: no limit. A busy Squid has 5,000


class IndexConfig(Section):
    """What the director knows of what the farm holds: ICP, HTCP and the digest answer from it."""

    keys: Annotated[int, Field(ge=1000, le=100_000_000)] = 5_000_000  # objects times nodes; 36 bytes each
    state: Annotated[str, BeforeValidator(check_path)] = ""  # directory; "": systemd's StateDirectory, or not kept
    save_s: Seconds = 300.0  # between savings: what is lost with the machine
    node_digests: bool = True  # fetch the nodes' digests, to find out what they have dropped


class DigestConfig(Section):
    """The farm's cache digest."""

    bits_per_entry: Annotated[int, Field(ge=1, le=127)] = 8  # the size: Squid has 5, and takes up to 127 from others
    rebuild_s: Annotated[float, Field(ge=1, le=WEEK_S, allow_inf_nan=False)] = 300.0  # between digests: Squid rebuilds hourly
    pause_s: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 0.15  # before the mask: Squid's bug 5510; 0: none


class BypassConfig(Section):
    """What goes around the caches because no cache could store it."""

    mode: Literal["direct", "nodes", "off"] = "direct"  # to the origin; spread over the nodes; hash it all the same
    allow_private: bool = False  # may direct reach private and loopback addresses: a hole, if clients are not trusted
    learn: bool = True  # from answers that say private, no-store, Vary: *
    learn_ttl_s: Seconds = 600.0  # until a learned URL is tried through the farm again
    hosts: tuple[Annotated[str, BeforeValidator(check_host_rule)], ...] = ()  # "www.a.com", ".a.com", "img*.a.com"
    paths: tuple[Annotated[str, BeforeValidator(check_path_rule)], ...] = ()  # "/cart/*"
    headers: tuple[Annotated[str, BeforeValidator(check_header_rule)], ...] = ()  # "Cookie", "Cookie: *session=*"


class ResolverConfig(Section):
    """How names of nodes and origins are resolved."""

    nameservers: tuple[Annotated[str, BeforeValidator(parse_server)], ...] = ()  # "127.0.0.53:53"; none: the system's
    ttl_min_s: SecondsOrNone = 1.0  # a TTL of 0 must not mean a look-up per request
    ttl_max_s: Seconds = 3600.0  # a wrong record heals within the hour; Squid's positive_dns_ttl is 6 h
    negative_ttl_s: SecondsOrNone = 10.0  # Squid's negative_dns_ttl has 60 s
    timeout_s: Seconds = 5.0  # of one look-up, all tries: resolv.conf's


class LogConfig(Section):
    """What is written where."""

    access: Annotated[str, BeforeValidator(check_path)] = ""  # a path; "-": stdout; "": off
    access_format: Literal["squid", "combined", "json"] = "squid"
    events: Literal["text", "json"] = "text"  # on stderr
    level: Literal["debug", "info", "warning", "error"] = "info"


class ServiceConfig(Section):
    """How the director lives on its host."""

    user: Annotated[str, BeforeValidator(check_account)] = ""  # whom root becomes when all sockets are had; "": stay
    group: Annotated[str, BeforeValidator(check_account)] = ""  # "": the user's own; its further groups are the system's word
    pid_file: Annotated[str, BeforeValidator(check_path)] = ""  # "": none
    # what [[cookie]] is sealed with, 32 characters or more; directors that share clients share it. "": kept in [index] state
    cookie_secret_file: Annotated[str, BeforeValidator(check_path)] = ""
    upgrade_s: Seconds = 60.0  # for a new version to be ready; else the old one goes on. 5 million keys take 2 s
    upgrade_drain_s: Seconds = 600.0  # for the old version to finish then: nobody waits for it, and tunnels last


class NodeConfig(Section):
    """One Squid of the farm."""

    name: Name  # identity: the ring follows it, never the address or the order
    host: Annotated[str, BeforeValidator(check_host)]  # address or DNS name
    http_port: Port = 3128
    icp_port: Annotated[int, Field(ge=0, le=65535)] = 3130  # 0: it speaks no ICP
    probe: Literal["http", "connect"] = "http"  # what shows that it lives: an answer, or, where it speaks no HTTP, a connection
    probe_port: Annotated[int, Field(ge=0, le=65535)] = 0  # where that is looked for; 0: its HTTP port
    store_log: Addresses = ()  # udp; an own place for its store log, where several nodes have one address
    send_proxy: Literal["", "v1", "v2"] = ""  # its HTTP port is told who the client is: the PROXY protocol
    weight: Annotated[float, Field(ge=0, le=256, allow_inf_nan=False)] = 1.0  # its part of the URLs; 0: none
    state: Literal["up", "drain", "down"] = "up"  # drain: takes no new keys unless it is the last


class Config(Section):
    """The whole configuration."""

    listen: ListenConfig = ListenConfig()
    admin: AdminConfig = AdminConfig()
    access: AccessConfig = AccessConfig()
    relay: RelayConfig = RelayConfig()
    limits: LimitsConfig = LimitsConfig()
    timeouts: TimeoutsConfig = TimeoutsConfig()
    hash: HashConfig = HashConfig()
    health: HealthConfig = HealthConfig()
    icp: IcpConfig = IcpConfig()
    index: IndexConfig = IndexConfig()
    digest: DigestConfig = DigestConfig()
    bypass: BypassConfig = BypassConfig()
    resolver: ResolverConfig = ResolverConfig()
    hostnet: HostnetConfig = HostnetConfig()
    intercept: InterceptConfig = InterceptConfig()
    peers: PeersConfig = PeersConfig()
    log: LogConfig = LogConfig()
    service: ServiceConfig = ServiceConfig()
    node: tuple[NodeConfig, ...] = ()
    pool: tuple[PoolConfig, ...] = ()
    affinity: tuple[AffinityConfig, ...] = ()
    cookie: tuple[CookieConfig, ...] = ()
    rule: tuple[RuleConfig, ...] = ()
    tcp: tuple[TcpConfig, ...] = ()


def load(path: Path) -> Config:
    """Read a configuration file, and fill in the name that Via gets from this host's (``[relay] via``).

    Raises:
        ConfigError: The file cannot be read, or what it says cannot be used.
    """
    return _within_limits(_named(parse(_read(path), str(path))), path)


def load_with_warnings(path: Path) -> tuple[Config, list[str]]:
    """The same, and what in it is probably not meant, each with its place.

    Raises:
        ConfigError: As ``load``.
    """
    text = _read(path)
    config = _within_limits(_named(parse(text, str(path))), path)
    doubts = config_text.place_all(config_links.doubts(config), str(path), config_text.lines_of(text))
    return config, [*config_text.warnings(config), *map(str, doubts)]


def _read(path: Path) -> str:
    name = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise ConfigError([config_text.unreadable(name, exc)]) from exc
    if len(data) > CONFIG_BYTES:
        raise ConfigError([Problem(name, f"is larger than {CONFIG_BYTES >> 20} MiB", "is it the right file?")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise ConfigError([Problem(f"{name}:{line}", f"is not UTF-8: byte 0x{data[exc.start]:02x}")]) from exc


def _within_limits(config: Config, path: Path) -> Config:
    size = len(config.model_dump_json())
    if size > SETTINGS_BYTES:
        text = f"makes {size / 1e6:.1f} MB with all defaults, as workers are told it; {SETTINGS_BYTES / 1e6:.0f} MB is the most"
        raise ConfigError([Problem(str(path), text, "can rules be joined? host, path and client take lists")])
    return config


def _named(config: Config) -> Config:
    if config.relay.via:
        return config
    host = re.sub(r"[^A-Za-z0-9._-]", "-", platform.node()) or "cachelb"
    relay = config.relay.model_copy(update={"via": f"{host}:{config.listen.http[0].port}"})
    return config.model_copy(update={"relay": relay})


def parse(text: str, name: str) -> Config:
    """Make a Config of TOML text.

    Args:
        name: What the text is called in problems, usually its file's name.

    Raises:
        ConfigError: With all problems, in the order of the text.
    """
    try:
        raw = tomllib.loads(text)
        lines = config_text.lines_of(text)
    except RecursionError as exc:
        raise ConfigError([Problem(name, "is nested too deeply")]) from exc
    except ValueError as exc:  # TOMLDecodeError, and numbers of thousands of digits
        raise ConfigError([config_text.syntax_problem(name, text, exc)]) from exc
    found = config_rules.check(raw, DEFAULTS) + config_links.check(raw)
    try:
        config = Config.model_validate(config_rules.freeze(raw))
    except ValidationError as exc:
        found += [config_rules.explain(dict(error), raw, FIELDS) for error in exc.errors(include_url=False)]
        config = None
    if found or config is None:
        raise ConfigError(config_text.place_all(found, name, lines))
    return config


def _fields_of(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(model.model_fields)


_LISTS: dict[str, type[Section]] = {
    "node": NodeConfig,
    "pool": PoolConfig,
    "affinity": AffinityConfig,
    "cookie": CookieConfig,
    "rule": RuleConfig,
    "tcp": TcpConfig,
}
# The keys of each section, for "did you mean": "" has the names of the sections.
FIELDS: dict[str, tuple[str, ...]] = {
    "": _fields_of(Config),
    **{name: _fields_of(_LISTS.get(name) or type(field.default)) for name, field in Config.model_fields.items()},
}
DEFAULTS = Config().model_dump(mode="json")
