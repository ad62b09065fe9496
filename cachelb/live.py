"""``cachelb check --live``: is the director that runs here one that clients should be sent to?

For keepalived's ``vrrp_script``, and for who else has to know by an exit status.  It asks what is there: the admin listener for
the director's state, and the HTTP listener, by a request that ends there (TRACE, Max-Forwards 0), for a worker's.
"""

from __future__ import annotations

import http.client
import json
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from cachelb.admin.guard import read_token

if TYPE_CHECKING:
    from cachelb.config import Config

ASK_S = 2.0  # for an answer: keepalived takes an address away after a few checks, and an overloaded director still serves
_TRACE = b"TRACE http://live.invalid/ HTTP/1.1\r\nHost: live.invalid\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n"
_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def problems(config: Config) -> list[str]:
    """Why clients should not be sent here: a sentence each; empty when they should."""
    found = []
    if not config.listen.admin:
        found.append("[listen] admin is empty: nothing can be asked")
    for address in config.listen.admin[:1]:
        try:
            token, _ = read_token(config.admin.token_file)
            found += judged(_status(address.host, address.port, token), config.bypass.mode == "direct")
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as exc:
            why = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
            found.append(f"the admin listener {address} does not say how it is: {why}")
    for address in config.listen.http[:1]:
        if not _is_elsewhere(address.host) and (problem := _serves(_HERE.get(address.host, address.host), address.port)):
            found.append(f"the HTTP listener {address} {problem}")
    return found


def judged(status: dict[str, Any], goes_direct: bool) -> list[str]:
    """What is wrong with a director of this status.  goes_direct: without nodes it still serves, though no cache."""
    found = []
    if status["state"] != "running":
        found.append(f"the director is {status['state']}")
    if not any(worker["pid"] for worker in status["workers"]):
        found.append("no worker runs")
    serving = [node for node in status["nodes"] if node["state"] in ("up", "drain")]
    if not serving:
        found.append("no node serves" + (": all goes straight to the origins" if goes_direct else ""))
    return found


def _status(host: str, port: int, token: str) -> Any:
    connection = http.client.HTTPConnection(_HERE.get(host, host), port, timeout=ASK_S)
    try:
        connection.request("GET", "/api/v1/status", headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        return json.loads(data)
    finally:
        connection.close()


def _serves(host: str, port: int) -> str:
    """Why a worker does not answer at this place; any answer is one."""
    try:
        with socket.create_connection((host, port), ASK_S) as sock:
            sock.sendall(_TRACE)
            return "" if sock.recv(16).startswith(b"HTTP/1.") else "says nothing that is HTTP"
    except OSError as exc:
        return f"does not answer: {exc.strerror or exc}"


def _is_elsewhere(host: str) -> bool:
    """Whether an address is not this host's just now: a virtual one that another director has."""
    if ip_address(host).is_unspecified:
        return False
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return True
    return False
