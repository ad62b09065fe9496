"""The OpenAPI document."""

from __future__ import annotations

import json
import re
from pathlib import Path

from openapi_spec_validator import validate

from cachelb.admin import openapi


def test_the_document_is_a_sound_one():
    validate(openapi.document())


def test_every_operation_is_in_it_with_its_errors_and_who_may():
    document = openapi.document()
    for operation in openapi.OPERATIONS:
        found = document["paths"][operation.path][operation.method.lower()]
        assert found["operationId"] == operation.name
        assert {"200", "401", "403", "421", "500"} <= set(found["responses"])
        assert found["security"] == ([{"token": []}] if operation.changes else [{}, {"token": []}])
        assert operation.changes == (operation.method not in ("GET", "HEAD"))


def test_every_schema_that_is_named_is_there():
    document = openapi.document()
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert named <= set(document["components"]["schemas"])


def test_the_page_about_the_api_names_every_operation():
    text = (Path(__file__).parents[3] / "docs/api.md").read_text("utf-8")
    for operation in openapi.OPERATIONS:
        path = operation.path.replace("{name}", "NAME")
        assert f"{operation.method} {path}" in text, operation
