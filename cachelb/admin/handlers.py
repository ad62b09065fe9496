"""What each operation of ``openapi.OPERATIONS`` does: a method of the same name.

Raises ProblemError for what cannot be done.  Left out: who may ask (``guard``).
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import ValidationError

from cachelb.admin import metrics, openapi
from cachelb.admin.history import KEPT_S, NODES_SHOWN
from cachelb.admin.model import NodeChange
from cachelb.admin.problems import ProblemError
from cachelb.admin.status import Reader
from cachelb.admin.stream import Streams
from cachelb.affinity import listing
from cachelb.explain import explain
from cachelb.explained import BadQuestionError
from cachelb.listen import host_names
from cachelb.routing.classify import DIGEST_PATH
from cachelb.routing.template import packed

if TYPE_CHECKING:
    from cachelb.supervisor import Supervisor

log = logging.getLogger("cachelb.admin")

METHOD_CHARS = 64


class Handlers:
    """All operations on one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.reader = Reader(supervisor)
        self.streams = Streams(supervisor.desk.events)

    async def shutdown(self, _app: web.Application) -> None:
        """End what never ends by itself."""
        self.streams.close()

    async def status(self, _request: web.Request) -> web.StreamResponse:
        return _json(self.reader.status())

    async def nodes(self, _request: web.Request) -> web.StreamResponse:
        return _json({"nodes": self.reader.nodes()})

    async def node(self, request: web.Request) -> web.StreamResponse:
        return _json(self._node(request))

    async def change_node(self, request: web.Request) -> web.StreamResponse:
        name = self._node(request)["name"]
        try:
            change = NodeChange.model_validate_json(await _body(request))
        except ValidationError as exc:
            errors = [("/" + "/".join(map(str, error["loc"])), error["msg"]) for error in exc.errors(include_url=False)]
            raise ProblemError(422, 'write it like {"state": "drain"} or {"weight": 2}', errors) from exc
        values = change.model_dump(exclude_none=True)
        if not values:
            raise ProblemError(422, 'nothing to change: write it like {"state": "drain"} or {"weight": 2}')
        self._steer(name, values)
        return _json(self._node(request))

    async def reset_node(self, request: web.Request) -> web.StreamResponse:
        self._steer(self._node(request)["name"], {})
        return _json(self._node(request))

    def _steer(self, name: str, values: dict[str, Any]) -> None:
        try:
            self.supervisor.steer(name, **values)
        except ValueError as exc:
            raise ProblemError(409, str(exc)) from exc
        self.supervisor.desk.note_drains(time.monotonic())

    def _node(self, request: web.Request) -> dict[str, Any]:
        name = request.match_info["name"]
        try:
            return self.reader.node(name)
        except KeyError as exc:
            known = ", ".join(list(self.supervisor.farm.nodes)[:20])
            raise ProblemError(404, f"there is no node {name[:64]!r}; the nodes are {known}") from exc

    async def explain(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if "url" not in query:
            raise ProblemError(400, "which URL? add ?url=http://www.example.com/", [("url", "is missing")])
        method = query.get("method", "GET")
        if not 0 < len(method) <= METHOD_CHARS or not method.isascii() or not method.isprintable() or " " in method:
            raise ProblemError(400, "this is no method", [("method", "is no token")])
        supervisor = self.supervisor
        states, taught = {view.name: (view.state, view.share) for view in self.reader.views()}, supervisor.desk.taught
        headers, client = query.getall("header", []), query.get("client", "127.0.0.1")
        register, names = supervisor.affinity, self._names()

        def followed(group: str, client: str) -> str:
            known = listing.of_client(register.templates, [group], packed(client), names, register.clock())
            return str(known[0]["node"]) if known else ""

        try:
            found = explain(supervisor.config, query["url"], method, headers, client, states, host_names(), taught, followed)
        except (BadQuestionError, UnicodeError) as exc:
            raise ProblemError(400, str(exc)) from exc
        index = supervisor.onecache.index
        is_url = bool(found.hash) and found.rule_in != "tcp"
        held = index.holders(found.key.encode("utf-8", "surrogateescape")) if is_url else []
        holders = [index.names[slot] for slot in held if slot in index.names]
        groups = list(register.templates.shelves)
        templates = listing.of_client(register.templates, groups, packed(client), names, register.clock())
        return _json(found.as_dict() | {"holders": holders, "templates": templates})

    async def affinity(self, request: web.Request) -> web.StreamResponse:
        register, names = self.supervisor.affinity, self._names()
        groups, slot, address = self._templates(request)
        limit, after, now = _number(request, "limit", 100, 0, 1000), request.query.get("after", ""), register.clock()
        next_page = ""
        if address is not None:
            clients = listing.of_client(register.templates, groups, address, names, now)
            clients = [client for client in clients if slot is None or client["node"] == names[slot]][:limit]
        else:
            try:
                clients, next_page = listing.page(register.templates, groups, slot, limit, after, names, now)
            except listing.BadPageError as exc:
                raise ProblemError(400, str(exc), [("after", "is no page")]) from exc
        found = {"templates": register.templates.size, "limit": register.templates.limit, "counters": register.counters()}
        return _json(found | {"groups": listing.groups(register.templates, names), "clients": clients, "next": next_page})

    async def flush_affinity(self, request: web.Request) -> web.StreamResponse:
        supervisor, register = self.supervisor, self.supervisor.affinity
        groups, slot, address = self._templates(request)
        query = request.query
        if not any(query.get(name) for name in ("group", "node", "client")):
            raise ProblemError(400, "flush what? name a client, a node or a group")
        if address is not None and slot is not None:
            raise ProblemError(400, "a client or a node, not both")
        count = register.flush_client(groups, address) if address is not None else await register.flush(groups, slot)
        what = [f"{name} {query[name]}" for name in ("client", "node", "group") if query.get(name)]
        text = f"{count} templates flushed: {', '.join(what)}, by the operator"
        log.info("%s", text)
        supervisor.desk.events.add("affinity", text, node=query.get("node", ""), flushed=count)
        return _json({"flushed": count})

    def _names(self) -> dict[int, str]:
        return {slot: name for name, slot in self.supervisor.farm.slots.items()}

    def _templates(self, request: web.Request) -> tuple[list[str], int | None, bytes | None]:
        """The groups, the node's slot and the client's address that a query names."""
        query, shelves = request.query, self.supervisor.affinity.templates.shelves
        group, node, client = (query.get(name, "") for name in ("group", "node", "client"))
        if group and group not in shelves:
            raise ProblemError(404, f"there is no [[affinity]] {group[:64]!r}; there are {', '.join(shelves) or 'none'}")
        if node and node not in self.supervisor.farm.slots:
            raise ProblemError(404, f"there is no node {node[:64]!r}")
        try:
            address = packed(client) if client else None
        except ValueError as exc:
            raise ProblemError(400, f"{client[:64]!r} is not the IP address of a client", [("client", "is none")]) from exc
        return [group] if group else list(shelves), self.supervisor.farm.slots[node] if node else None, address

    async def hot(self, request: web.Request) -> web.StreamResponse:
        supervisor = self.supervisor
        limit, minutes = _number(request, "limit", 10, 1, 100), _number(request, "minutes", 5, 1, 10)
        names = {slot: name for name, slot in supervisor.farm.slots.items()}

        def owner(url: bytes) -> str:
            slots = supervisor.onecache.owners.owners(url, 1) if b"://" in url else ()
            return names.get(slots[0], "") if slots else ""

        return _json(supervisor.desk.hot.as_dict(minutes, limit, time.monotonic(), names, owner))

    async def digest(self, _request: web.Request) -> web.StreamResponse:
        onecache = self.supervisor.onecache
        nodes = {name: store["digest"] for name, store in onecache.nodes(self.supervisor.farm.slots).items()}
        return _json({"path": DIGEST_PATH.decode(), "merged": onecache.merged.status(), "nodes": nodes})

    async def reload(self, _request: web.Request) -> web.StreamResponse:
        supervisor = self.supervisor
        changes = supervisor.reload()
        if changes is None:
            errors = [("", problem) for problem in supervisor.problems]
            raise ProblemError(409, "the new configuration cannot be used; the old one stays in force", errors)
        config = self.reader.configuration()
        found = {"reloads": supervisor.reloads, "epoch": supervisor.wanted_epoch(), "config": config, "changes": changes}
        return _json(found)

    async def events(self, request: web.Request) -> web.StreamResponse:
        events = self.supervisor.desk.events
        after = _number(request, "after", 0, 0, 1 << 62)
        if request.method == "GET" and "text/event-stream" in request.headers.get("Accept", ""):
            last = request.headers.get("Last-Event-ID", "")
            return await self.streams.serve(request, int(last) if last.isascii() and last.isdigit() and len(last) < 19 else after)
        return _json({"last_id": events.last_id, "events": [event.as_dict() for event in events.after(after)]})

    async def history(self, request: web.Request) -> web.StreamResponse:
        seconds = _number(request, "seconds", int(KEPT_S), 5, int(KEPT_S))
        known = list(self.supervisor.farm.nodes)
        asked = request.query.get("nodes")
        if asked is None:
            names = known if len(known) <= NODES_SHOWN else []
        else:
            names = known if asked == "*" else [name for name in asked.split(",") if name]
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise ProblemError(400, f"there is no node {unknown[0][:64]!r}", [("nodes", "names an unknown node")])
        return _json(self.supervisor.desk.history.as_dict(seconds, list(dict.fromkeys(names))))

    async def shared(self, _request: web.Request) -> web.StreamResponse:
        return _json(self.supervisor.peers.own())

    async def openapi(self, _request: web.Request) -> web.StreamResponse:
        return _json(openapi.document())

    async def metrics(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=await metrics.render(self.reader), headers={"Content-Type": metrics.CONTENT_TYPE})


def _number(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not low <= number <= high:
        raise ProblemError(400, f"{name} must be a whole number from {low} to {high}", [(name, f"is {text[:32]!r}")])
    return number


async def _body(request: web.Request) -> bytes:
    """What was sent, which must be said to be JSON: a form of another site's page cannot say that."""
    if request.content_type != "application/json":
        raise ProblemError(415, "send JSON, and say so: Content-Type: application/json")
    data = await request.read()
    try:
        json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ProblemError(400, f"the body is not JSON: {exc}") from exc
    return data


def _json(value: Any) -> web.Response:
    return web.json_response(value, dumps=lambda found: json.dumps(found, indent=1))
