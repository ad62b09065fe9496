"""The documents of the admin API, each field once: what the handlers build, and what the OpenAPI document is made from.

Units are in the names: ``_s`` seconds, ``_ms`` milliseconds, ``_per_s``; a share or a ratio is 0 to 1.  ``None`` (null) means
that it is not known, or that there is none.  Later versions may add fields; clients ignore those that they do not know.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Counts = dict[str, int]
State = Literal["up", "drain", "down", "dead"]
OperatorState = Literal["up", "drain", "down"]


class Document(BaseModel):
    """What all of them have in common."""

    model_config = ConfigDict(frozen=True)


class Rates(Document):
    """What has happened lately: over ``window_s`` seconds, 1 to 2 as a rule; 0 before there is anything to compare."""

    window_s: float
    requests_per_s: float
    hits_per_s: float
    hit_ratio: float | None = Field(description="hits of answers; null without answers")
    bytes_per_s: float
    errors_per_s: float = Field(description="exchanges that failed because of a node, an origin or the director")
    p50_ms: float | None = Field(description="of the time from a request's head to the end of its answer; null without requests")
    p99_ms: float | None
    first_byte_p50_ms: float | None = Field(description="until the head of an answer was there")
    first_byte_p99_ms: float | None


class FarmRates(Rates):
    """The farm's: all nodes, and what does not go to a node."""

    bypassed_per_s: float
    refused_per_s: float
    retries_per_s: float
    clients_per_s: float = Field(description="connections accepted")
    icp_per_s: float = Field(description="ICP queries answered")
    htcp_per_s: float


class Drain(Document):
    """How far the draining of a node, or its being taken down, has come."""

    for_s: float = Field(description="since it was asked for")
    in_flight: int
    in_flight_at_start: int
    keys_moved: float = Field(description="share of its keys that go elsewhere now; all workers know of it: 1")
    eta_s: float | None = Field(description="until nothing is in flight, as it went so far; 0: done; null: not known")
    done: bool = Field(description="no key goes to it, and nothing is in flight: it can be stopped")


class Operator(Document):
    """What was set by way of the API, and not in the file; null: nothing.  It lasts until the file's own value changes."""

    state: OperatorState | None
    weight: float | None


class FileValues(Document):
    """What the configuration file says."""

    state: OperatorState
    weight: float


class Node(Document):
    """One Squid of the farm."""

    name: str
    host: str
    addresses: list[str]
    port: int
    icp_port: int
    icp: str = Field(description="what it said when it was last asked by ICP; empty if it was not")
    weight: float = Field(description="in force")
    state: State = Field(description="in force: up, drain, down (by the operator) or dead (by health)")
    share: float = Field(description="part of its own keys that it takes: below 1 while it returns slowly")
    key_share: float = Field(description="part of all keys that it owns now, with the states as they are")
    pools: list[str] = Field(description="of [[pool]] that it is in, besides the farm as a whole")
    since_s: float | None = Field(description="for how long it has been alive or dead")
    cause: str = Field(description="why, as half a sentence")
    in_flight: int
    idle: int = Field(description="idle connections kept to it")
    rates: Rates
    operator: Operator
    file: FileValues
    drain: Drain | None = Field(description="while its state is drain or down")
    store: dict[str, Any] = Field(description="what is known of what it holds: keys, digest, store_log")
    counters: Counts = Field(description="since the start, as cachelb.counters.NODE lists them")


class Worker(Document):
    """One relay process."""

    number: int
    pid: int = Field(description="0 while there is none")
    epoch: int = Field(description="of the Snapshot that it runs on; -1 before the first")
    restarts: int
    requests: int
    clients_open: int
    loop_lag_ms: float = Field(description="by how much its last tick came too late")


class Listener(Document):
    """Where the director listens."""

    kind: Literal["http", "icp", "htcp", "store_log", "admin", "admin_socket"]
    address: str


class Configuration(Document):
    """The configuration in force."""

    path: str
    digest: str = Field(description="16 hex digits of the SHA-256 of all effective values: equal where the values are")
    loaded_at: float = Field(description="wall clock, seconds")
    problems: list[str] = Field(description="why the last reload was refused; empty if it was not")


class Hashing(Document):
    """Who owns what."""

    algorithm: str
    table: str = Field(description="fingerprint of the table of owners: equal on directors that agree on every owner")


class Upgrade(Document):
    """Attempts to let a new version take over."""

    tries: int
    problem: str = Field(description="why the last one failed; empty if it did not, or there was none")


class Peer(Document):
    """Another director of [peers] directors."""

    url: str
    agrees: bool | None = Field(description="whether it routes as this one does; null: that is not known")
    differs: list[str] = Field(description="sections of the configuration that are not the same")
    problem: str = Field(description="why it is not known; empty if it is")


class Shared(Document):
    """What all directors of a farm must have alike."""

    id: str = Field(description="of this process")
    sections: dict[str, str] = Field(description="for each section a digest of what is in force")


class Status(Document):
    """Everything at a glance."""

    version: str
    versions: dict[str, str] = Field(description="of Python and of the libraries that matter")
    state: Literal["starting", "running", "draining"]
    pid: int
    compiled: str = Field(description='"in use", or why the busiest modules do not run compiled')
    upgrade: Upgrade
    started_at: float
    now: float = Field(description="wall clock of this answer, seconds")
    uptime_s: float
    epoch: int
    reloads: int
    config: Configuration
    hash: Hashing
    listeners: list[Listener]
    workers: list[Worker]
    farm: Counts = Field(description="since the start, over all workers, as cachelb.counters.FARM lists them")
    rates: FarmRates
    onecache: dict[str, Any] = Field(description="icp, index, digest, counters")
    affinity: Counts = Field(description="persistent client connections, as cachelb.counters.AFFINITY lists them")
    nodes: list[Node]
    peers: list[Peer]


class Nodes(Document):
    """All nodes, in the order of the configuration."""

    nodes: list[Node]


class NodeChange(BaseModel):
    """What to change; what is left out stays.  At least one of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    state: OperatorState | None = None
    weight: Annotated[float, Field(ge=0, le=256, allow_inf_nan=False)] | None = None


class AffinityGroup(Document):
    """A group of persistent client connections."""

    name: str
    netmask_v4: int
    netmask_v6: int
    timeout_s: float
    expire_on_drain: bool
    after_death: Literal["stay", "return"]
    templates: int
    nodes: dict[str, int] = Field(description="templates of each node; without those that have none")


class AffinityTemplate(Document):
    """Where one client goes, or the clients of one network."""

    group: str
    client: str = Field(description="address, or network where a netmask makes several clients one")
    node: str
    home: str = Field(description='the node that has died, to which the client will return; "": there is none')
    idle_s: float = Field(description="since it was used last, as far as workers have told: they do every few seconds")
    expires_in_s: float = Field(description="unless it is used, or a connection of the client lives")


class Affinity(Document):
    """Persistent client connections: the groups, and as many of their templates as were asked for."""

    templates: int
    limit: int = Field(description="beyond it the longest unused go")
    counters: Counts = Field(description="since the start, as cachelb.counters.AFFINITY lists them")
    groups: list[AffinityGroup]
    clients: list[AffinityTemplate]
    next: str = Field(description='for the parameter after of the next page; "": this is the last')


class Flushed(Document):
    """What a flush did."""

    flushed: int = Field(description="templates")


class ExplainNode(Document):
    """One node as the key sees it."""

    place: int = Field(description="in the key's failover order, from 1; 0: never asked, for it has no weight")
    name: str
    host: str
    port: int
    state: State
    weight: float
    share: float
    tried: int = Field(description="its turn, from 1; 0: not asked")


class Explanation(Document):
    """What would happen to a request, or to a connection to a TCP service, now, and why."""

    method: str = Field(description='"" for a connection')
    url: str
    client: str
    kind: Literal["hash", "bypass", "tunnel", "local", "purge", "refuse", "tcp"]
    why: str
    goes: str = Field(description="as a sentence")
    reason: str
    status: int
    rule: str = Field(description="the operator's own under which it falls, or the service")
    rule_in: Literal["", "bypass", "rule", "tcp"] = Field(description="where that is written: [bypass], [[rule]] or [[tcp]]")
    pool: str = Field(description='of a [[rule]] or [[tcp]]; "": the whole farm')
    scheduler: str = Field(description="of a [[rule]] or [[tcp]], the one in force")
    affinity: str = Field(description="of a [[rule]] or [[tcp]]: its group")
    cookies: list[str] = Field(description="of a [[rule]]")
    template: str = Field(description="the node that the client has in the group; empty if none")
    key: str
    algorithm: str
    table: str
    hash: str
    fraction: float
    owner: str
    to: list[str]
    sent: str
    nodes: list[ExplainNode]
    holders: list[str] = Field(description="nodes that hold the URL, as far as the index knows")
    templates: list[AffinityTemplate] = Field(description="of this client, in any group")


class HotEntry(Document):
    """A URL, a host, or a host and first path segment, that is asked for much.  Counts are estimates from samples."""

    name: str = Field(description="the URL, the host, or host and first path segment")
    owner: str = Field(description='for a URL: the node that owns it now; "" for the others and where there is none')
    requests: int
    requests_share: float = Field(description="of all requests in the window")
    bytes: int
    bytes_share: float
    hit_ratio: float | None
    bypassed_share: float = Field(description="of its own requests, those that went around the farm")
    nodes: dict[str, float] = Field(description="of its own requests, the part that each node answered")
    error: int = Field(description="so many requests at most may have been missed, beside what sampling does")


class Hot(Document):
    """What is asked for most."""

    window_s: float = Field(description="how far back it looks")
    samples: int = Field(description="exchanges that were looked at")
    requests: int = Field(description="that they stand for")
    bytes: int
    urls_by_requests: list[HotEntry]
    urls_by_bytes: list[HotEntry]
    hosts_by_requests: list[HotEntry]
    hosts_by_bytes: list[HotEntry]
    around_by_requests: list[HotEntry] = Field(description="what goes around the farm, by host and first path segment")


class Digest(Document):
    """The farm's cache digest, and those of the nodes."""

    path: str
    merged: dict[str, Any]
    nodes: dict[str, dict[str, Any]]


class Reloaded(Document):
    """What a reload did."""

    reloads: int
    epoch: int
    config: Configuration
    changes: str = Field(description="in a few words")


class Event(Document):
    """Something that happened."""

    id: int = Field(description="grows by one with each; begins anew when the director is started")
    at: float = Field(description="wall clock, seconds")
    kind: Literal[
        "start", "node", "operator", "farm", "reload", "reload_refused", "worker", "refusals", "errors", "affinity", "gap"
    ]
    level: Literal["info", "warning", "error"]
    text: str = Field(description="a sentence")
    node: str = Field(description='"" if it is about no node')
    data: dict[str, Any]


class Events(Document):
    """The latest events, the oldest first."""

    last_id: int
    events: list[Event]


class Series(Document):
    """One value for each of ``at``; null where nothing is known."""

    requests_per_s: list[float | None]
    hit_ratio: list[float | None]
    bytes_per_s: list[float | None]
    errors_per_s: list[float | None]
    p50_ms: list[float | None]
    p99_ms: list[float | None]
    in_flight: list[int | None]


class FarmSeries(Series):
    """The farm's."""

    bypassed_per_s: list[float | None]
    refused_per_s: list[float | None]
    icp_per_s: list[float | None]


class History(Document):
    """The last minutes."""

    step_s: float
    at: list[float] = Field(description="the end of each step, wall clock, the oldest first")
    farm: FarmSeries
    nodes: dict[str, Series]


class ProblemDetail(Document):
    """One thing wrong with what was sent."""

    pointer: str = Field(description="JSON pointer, or the name of the query's parameter")
    detail: str


class Problem(Document):
    """An error: RFC 9457, application/problem+json."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str = ""
    errors: list[ProblemDetail] = []
