"""Problem documents."""

from __future__ import annotations

import json

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from cachelb.admin.problems import answer, of_http


def test_a_problem_says_what_where_and_all_that_is_wrong():
    found = answer(make_mocked_request("PUT", "/x?y=1"), 422, "a sentence", [("/weight", "is wrong")])
    assert (found.status, found.content_type) == (422, "application/problem+json")
    assert json.loads(found.body) == {  # type: ignore[arg-type]
        "type": "about:blank", "title": "Unprocessable Entity", "status": 422, "detail": "a sentence", "instance": "/x",
        "errors": [{"pointer": "/weight", "detail": "is wrong"}],
    }  # fmt: skip


def test_who_needs_a_token_is_told_of_which_kind():
    request = make_mocked_request("GET", "/")
    assert answer(request, 401, "").headers["WWW-Authenticate"] == 'Bearer realm="cachelb"'
    assert "WWW-Authenticate" not in answer(request, 403, "").headers


def test_what_aiohttp_raises_keeps_its_fields():
    found = of_http(make_mocked_request("PUT", "/"), web.HTTPMethodNotAllowed("PUT", ["GET"]))
    assert (found.status, found.headers["Allow"]) == (405, "GET")
