"""Errors of the admin API: problem documents, RFC 9457."""

from __future__ import annotations

import http
import json
from collections.abc import Sequence
from typing import Any

from aiohttp import web

CONTENT_TYPE = "application/problem+json"
_DETAILS = {
    404: "there is nothing of this name",
    405: "this method is not for this resource",
    413: "the body is too large",
}


class ProblemError(Exception):
    """A request that is refused.  errors: pointer and sentence of each thing that is wrong."""

    def __init__(self, status: int, detail: str, errors: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors


def answer(request: web.Request, status: int, detail: str, errors: Sequence[tuple[str, str]] = ()) -> web.Response:
    """The problem document."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.rel_url.raw_path,
        "errors": [{"pointer": pointer, "detail": text} for pointer, text in errors],
    }
    fields = {"WWW-Authenticate": 'Bearer realm="cachelb"'} if status == 401 else {}
    body = json.dumps(document).encode()
    return web.Response(status=status, body=body, content_type=CONTENT_TYPE, headers=fields)


def of_http(request: web.Request, exc: web.HTTPException) -> web.Response:
    """What aiohttp raises, as a problem document."""
    found = answer(request, exc.status, _DETAILS.get(exc.status, exc.reason.lower()))
    for name in ("Allow", "Location"):
        if name in exc.headers:
            found.headers[name] = exc.headers[name]
    return found
