"""The OpenAPI document, made from the table of operations and the models: nothing is written twice.

``OPERATIONS`` is what ``api`` makes its routes of.  Left out: what they do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from cachelb import __version__
from cachelb.admin import model

PREFIX = "/api/v1"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a query, or of the path where ``place`` says so."""

    name: str
    text: str
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})
    required: bool = False
    place: str = "query"


@dataclass(frozen=True)
class Operation:
    """One method on one path.

    name: of the handler; answer: the model of its answer, or None with ``content_type``; body: the model of what is sent.
    changes: it steers the farm, so it needs a token (or the Unix socket); errors: statuses besides those that all have.
    """

    method: str
    path: str
    name: str
    text: str
    answer: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    parameters: tuple[Parameter, ...] = ()
    changes: bool = False
    content_type: str = "application/json"
    errors: tuple[int, ...] = ()


_NAME = Parameter("name", "of the node", {"type": "string", "minLength": 1}, required=True, place="path")

_TEMPLATES = (
    Parameter("group", "of [[affinity]]; all if not given"),
    Parameter("node", "only its templates"),
    Parameter("client", "only the template of this IP address"),
)

OPERATIONS = (
    Operation("GET", f"{PREFIX}/status", "status", "The farm, its nodes, workers, rates and counters", model.Status),
    Operation("GET", f"{PREFIX}/nodes", "nodes", "All nodes", model.Nodes),
    Operation("GET", f"{PREFIX}/nodes/{{name}}", "node", "One node", model.Node, parameters=(_NAME,), errors=(404,)),
    Operation(
        *("PUT", f"{PREFIX}/nodes/{{name}}", "change_node", "Set a node's state or weight; the answer is the node"),
        *(model.Node, model.NodeChange, (_NAME,), True),
        errors=(400, 404, 409, 413, 415, 422),
    ),
    Operation(
        *("DELETE", f"{PREFIX}/nodes/{{name}}/operator", "reset_node", "Give a node back to the configuration file"),
        *(model.Node, None, (_NAME,), True),
        errors=(404, 409),
    ),
    Operation(
        *("GET", f"{PREFIX}/explain", "explain", "What would happen to a request now, and why", model.Explanation),
        parameters=(
            Parameter("url", "as a client asks for it", required=True),
            Parameter("method", "of the request (GET)"),
            Parameter("client", "the client's IP address (127.0.0.1)"),
            Parameter("header", '"Name: value"; may be repeated', {"type": "array", "items": {"type": "string"}}),
        ),
        errors=(400,),
    ),
    Operation(
        *("GET", f"{PREFIX}/affinity", "affinity", "Persistent client connections: groups, counts and templates", model.Affinity),
        parameters=(
            *_TEMPLATES,
            Parameter("limit", "templates in the answer (100)", {"type": "integer", "minimum": 0, "maximum": 1000}),
            Parameter("after", "what the page before says under next"),
        ),
        errors=(400, 404),
    ),
    Operation(
        *("DELETE", f"{PREFIX}/affinity", "flush_affinity", "Flush templates: of a client, a node or a group, at least one"),
        *(model.Flushed, None, _TEMPLATES, True),
        errors=(400, 404),
    ),
    Operation(
        *("GET", f"{PREFIX}/hot", "hot", "URLs and hosts that are asked for most", model.Hot),
        parameters=(
            Parameter("limit", "entries in each list (10)", {"type": "integer", "minimum": 1, "maximum": 100}),
            Parameter("minutes", "how far back (5)", {"type": "integer", "minimum": 1, "maximum": 10}),
        ),
        errors=(400,),
    ),
    Operation("GET", f"{PREFIX}/digest", "digest", "The farm's cache digest, and the nodes'", model.Digest),
    Operation(
        *("POST", f"{PREFIX}/reload", "reload", "Read the configuration file again", model.Reloaded),
        changes=True,
        errors=(409,),
    ),
    Operation(
        *("GET", f"{PREFIX}/events", "events", "What happened; as text/event-stream where Accept says so", model.Events),
        parameters=(
            Parameter("after", "only events with a higher id", {"type": "integer", "minimum": 0}),
            Parameter("Last-Event-ID", "the same, as browsers say it", {"type": "string"}, place="header"),
        ),
        errors=(400, 503),
    ),
    Operation(
        *("GET", f"{PREFIX}/history", "history", "The last 15 minutes, in steps of 5 s", model.History),
        parameters=(
            Parameter("seconds", "how far back (900)", {"type": "integer", "minimum": 5, "maximum": 900}),
            Parameter("nodes", "names, with commas between them; * for all (all of up to 64 nodes, else none)"),
        ),
        errors=(400,),
    ),
    Operation("GET", f"{PREFIX}/shared", "shared", "Digests of what all directors of a farm must have alike", model.Shared),
    Operation("GET", f"{PREFIX}/openapi.json", "openapi", "This document", content_type="application/json"),
    Operation("GET", "/metrics", "metrics", "For Prometheus", content_type="text/plain"),
)

_TEXTS = {
    400: "The query or the body cannot be understood",
    401: "A bearer token is needed, or the one given is wrong",
    403: "Not allowed: no token is configured, or another site's page asks",
    404: "There is no such node, or group",
    409: "That would leave the farm without owners, or the new configuration cannot be used",
    413: "The body is too large",
    415: "The body is not JSON",
    421: "The Host field names something else than this director",
    422: "The body is JSON, but not one that is understood",
    500: "An error of the director's own",
    503: "Too many listeners already",
}
_REF = "#/components/schemas/{model}"


def document() -> dict[str, Any]:
    """The whole document."""
    models = {kind for op in OPERATIONS for kind in (op.answer, op.body) if kind} | {model.Problem, model.Event}
    kinds = [(kind, "serialization") for kind in sorted(models, key=lambda kind: kind.__name__)]
    _, schemas = models_json_schema(kinds, ref_template=_REF)  # type: ignore[arg-type]
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cachelb admin API",
            "version": __version__,
            "description": "See docs/api.md. Reading needs no token from loopback or the Unix socket; changing anything does, "
            "except by the Unix socket.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    if operation.answer is not None:
        content: dict[str, Any] = {operation.content_type: {"schema": {"$ref": _REF.format(model=operation.answer.__name__)}}}
    else:
        content = {operation.content_type: {"schema": {"type": "object" if "json" in operation.content_type else "string"}}}
    if operation.name == "events":
        content["text/event-stream"] = {"schema": {"type": "string"}}
    answers: dict[str, Any] = {"200": {"description": operation.text, "content": content}}
    problem = {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}}
    for status in sorted({*operation.errors, 401, 403, 421, 500}):
        answers[str(status)] = {"description": _TEXTS[status], "content": problem}
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.text,
        "responses": answers,
        "security": [{"token": []}] if operation.changes else [{}, {"token": []}],
    }
    if operation.parameters:
        found["parameters"] = [
            {"name": p.name, "in": p.place, "description": p.text, "required": p.required, "schema": p.schema}
            for p in operation.parameters
        ]
    if operation.body is not None:
        schema = {"$ref": _REF.format(model=operation.body.__name__)}
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return found
