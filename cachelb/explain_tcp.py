"""What the director would do with one connection to a TCP service, and why.

It is asked about as ``tcp://ADDRESS:PORT``, where the client connects to, or as ``tls://NAME:PORT``, with the name that a TLS
client asks for.  Left out: what has to be seen first: which node is the least busy, which TLS sessions are known.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from cachelb.config_values import is_address, overlap, parse_listen
from cachelb.errors import Reason
from cachelb.explained import CHOSEN, BadQuestionError, Explanation, Followed, States, instead, node_lines, pools_of, template_of
from cachelb.relay.plan import OWNERS
from cachelb.routing.guard import is_within
from cachelb.routing.pool import Pool, pool_by_name
from cachelb.routing.route import pick
from cachelb.wire.client_hello import is_name

if TYPE_CHECKING:
    from cachelb.config import Config
    from cachelb.config_policy import TcpConfig

KIND: Final = "tcp"
_ALGORITHM: Final = "ring"

_connection = re.compile(r"(tcp|tls)://(?:\[([^\]/]*)\]|([^:/\[\]]*)):([0-9]{1,5})/?", re.IGNORECASE).fullmatch
_scheme = re.compile(r"(?:tcp|tls)://", re.IGNORECASE).match


def is_connection(url: str) -> bool:
    """Whether it is a TCP service that is asked about."""
    return _scheme(url) is not None


def explain_service(
    config: Config, url: str, client: str, states: States, followed: Followed
) -> Explanation:
    """Say what would happen to a connection; arguments as of ``explain``.

    Raises:
        BadQuestionError: It is none, or no service listens there.
    """
    match = _connection(url)
    if match is None:
        raise BadQuestionError(f'{url!r} is not a connection; write it like "tcp://10.0.0.1:21" or "tls://shop.example:443"')
    host, port = (match[2] or match[3]).lower(), int(match[4])
    is_tls = match[1].lower() == "tls"
    if not (is_address(host) or (is_tls and is_name(host.encode("utf-8", "replace")))):
        raise BadQuestionError(f"{host!r} is not {'a host that a TLS client asks for' if is_tls else 'an IP address'}")
    service, is_range = _service_at(config, host if is_address(host) else "", port, is_tls)
    name = host.rstrip(".") if service.tls and is_tls and not is_address(host) else ""
    pools = pools_of(config, states)
    pool = pools[pool_by_name({name.lower(): pool for name, pool in service.pools.items()}, name, service.pool)]
    known: dict[str, Any] = {"method": "", "url": url, "client": client, "rule": service.name, "rule_in": "tcp"}
    known |= {"pool": pool.name, "scheduler": service.scheduler, "affinity": service.affinity}
    if not is_within(client, config.access.allow):
        return _refused(Reason.ACCESS_DENIED, f"{client} is in no network of [access] allow", known)
    template = template_of(config, service.affinity, pool, client, followed)
    asked, most = service.port or port, 1 if is_range else OWNERS  # on a port of a range others have other clients
    known |= {"kind": KIND, "why": f"service {service.name}", "template": template}
    if service.affinity or service.scheduler in CHOSEN:
        known["nodes"] = node_lines(config, states, pool, [], {}, asked)
        return _chosen(service, pool, known, template, most)
    key = name if service.scheduler == "host" and name else client
    return _hashed(config, states, service, pool, key, asked, most, known)


def _service_at(config: Config, host: str, port: int, is_tls: bool) -> tuple[TcpConfig, bool]:
    """The service that listens there, and whether on more ports than one; host: "" for any.

    is_tls: rather one that reads what TLS clients ask for.
    """
    places = [(service, parse_listen(listen)) for service in config.tcp for listen in service.listen]
    for service, place in sorted(places, key=lambda each: is_tls and not each[0].tls):
        is_here = not host or overlap(place.host, str(ip_address(host)))
        if is_here and place.first <= port <= place.last:
            return service, place.last > place.first
    listening = ", ".join(f"{place} ({service.name})" for service, place in places) or "there is no [[tcp]]"
    raise BadQuestionError(f"no TCP service listens on {f'{host} ' if host else ''}port {port}: {listening}")


def _chosen(service: TcpConfig, pool: Pool[str], known: dict[str, Any], template: str, most: int) -> Explanation:
    """By something that only a running director knows: how busy the nodes are, whose turn it is, where the client has been."""
    serving = tuple(pool.targets[i] for i in pool.serving)
    if not serving and not template:
        return _refused(Reason.NO_NODE, known["why"], known)
    if template:
        goes = f"to {template}, where the client's template in the group {service.affinity} sends it"
        serving = (template, *(name for name in serving if name != template))[:most]
    else:
        goes = f"to a node of {_named(pool)}, {CHOSEN.get(service.scheduler) or _by(service)}"
    return Explanation(**known, goes=goes + _session(service), to=serving)


def _hashed(
    config: Config, states: States, service: TcpConfig, pool: Pool[str], key: str, port: int, most: int, known: dict[str, Any]
) -> Explanation:
    table = pool.table(_ALGORITHM)
    if table is None:
        return _refused(Reason.NO_NODE, known["why"], known)
    data = key.encode()
    order, fraction = table.owners(data, len(pool.members)), table.fraction(data)
    asked = pick(order, pool.admits, fraction)[:most]
    turns = {index: turn for turn, index in enumerate(asked, 1)}
    owner = pool.targets[order[0]] if order else ""
    known |= {"key": key, "algorithm": _ALGORITHM, "table": table.digest(), "hash": f"{table.place(data):08x}"}
    known |= {"fraction": fraction, "owner": owner, "nodes": node_lines(config, states, pool, order, turns, port)}
    if not asked:
        return _refused(Reason.NO_NODE, known["why"], known)
    first = pool.targets[asked[0]]
    goes = f"to {first}{instead(config, states, first, owner)}, {_by(service)}{_session(service)}"
    return Explanation(**known, goes=goes, to=tuple(pool.targets[index] for index in asked))


def _by(service: TcpConfig) -> str:
    return "by the name that it asks for" if service.scheduler == "host" else "by the client's address"


def _session(service: TcpConfig) -> str:
    return "; a TLS session that is known goes to the node that it was begun with" if service.tls == "session" else ""


def _named(pool: Pool[str]) -> str:
    return f"pool {pool.name}" if pool.name else "the farm"


def _refused(reason: Reason, why: str, known: dict[str, Any]) -> Explanation:
    goes = f"nowhere: the connection is closed, {reason.value.text}"
    return Explanation(**known | {"kind": "refuse", "why": why, "reason": reason.label, "goes": goes})
