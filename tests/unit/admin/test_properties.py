"""Whatever is asked, in whatever words: never an error of ours, and every answer is one that the OpenAPI document promises."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import pytest
from fakes_admin import TOKEN, config_of, free_address, token_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachelb.admin import model, openapi
from cachelb.admin.api import AdminServer
from cachelb.supervisor import Supervisor
from cachelb.workers import Workers

TIMEOUT_S = 20.0
text = st.text(max_size=60)
words = st.sampled_from(["a", "c", "zz", "*", "a,b", "5", "0", "-1", "1e9", "GET", "127.0.0.1", "http://www.test/x", "x: y", ""])
value = st.one_of(words, text, st.integers(-5, 10**20).map(str))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
changes = st.fixed_dictionaries(
    {},
    optional={"state": st.sampled_from(["up", "drain", "down", "dead", None, 1]), "weight": st.floats() | st.integers(-1, 300)},
)
field_text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40)
fields = st.dictionaries(
    st.sampled_from(["Accept", "Content-Type", "Last-Event-ID", "Origin", "Host", "Authorization", "Sec-Fetch-Site"]),
    field_text,
    max_size=3,
)


class Served:
    """An admin listener in a thread."""

    def __init__(self, token: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.address = free_address()
        self.call(self._start(token))

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(TIMEOUT_S)

    async def _start(self, token: str) -> None:
        self.supervisor = Supervisor(Path("there/is/none"), config_of(admin={"token_file": token}))
        self.supervisor.workers = Workers([[], []], b"")
        self.supervisor.desk.take(1.0)
        self.supervisor.desk.take(9.0)
        self.admin = AdminServer(self.supervisor)
        await self.admin.start([self.address])
        self.session = aiohttp.ClientSession(f"http://{self.address.host}:{self.address.port}")

    async def _ask(self, method: str, path: str, **options: Any) -> tuple[int, str, bytes]:
        async with self.session.request(method, path, **options) as answer:
            if answer.content_type == "text/event-stream":
                answer.close()
                return answer.status, answer.content_type, b""
            return answer.status, answer.content_type, await answer.read()

    def ask(self, method: str, path: str, **options: Any) -> tuple[int, str, bytes]:
        return self.call(self._ask(method, path, **options))

    async def _stop(self) -> None:
        await self.session.close()
        await self.admin.stop()
        await self.supervisor.names.stop()

    def stop(self) -> None:
        self.call(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(TIMEOUT_S)
        self.loop.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = Served(token_file(tmp_path_factory.mktemp("token")))
    yield found
    found.stop()


@pytest.mark.parametrize("operation", openapi.OPERATIONS, ids=lambda operation: operation.name)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_every_answer_is_one_that_was_promised(served: Served, operation: openapi.Operation, data: st.DataObject):
    known = [parameter.name for parameter in operation.parameters if parameter.place == "query"]
    names = st.sampled_from(known) | text if known else text
    query = data.draw(st.lists(st.tuples(names, value), max_size=4))
    path = operation.path.replace("{name}", quote(data.draw(st.sampled_from("abc") | value) or "x", safe=""))
    url = path + ("?" + urlencode(query, errors="surrogatepass") if query else "")
    sent = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"} | data.draw(fields)
    body = None
    if operation.body is not None:
        body = data.draw(
            st.binary(max_size=50)
            | json_values.map(_dumped)
            | changes.map(_dumped)
            | st.sampled_from([b"[" * 60_000, b" " * 70_000, b"1" * 60_000])
        )
    status, kind, answer = served.ask(operation.method, url, headers=sent, data=body)
    promised = {200, 400, 401, 403, 404, 421, *operation.errors}
    assert status in promised
    assert status != 500
    if status == 200:
        if operation.answer is not None and kind == "application/json":
            operation.answer.model_validate_json(answer)
    elif b"<" not in answer[:1]:
        problem = model.Problem.model_validate_json(answer)
        assert (problem.status, kind) == (status, "application/problem+json")


def _dumped(found: Any) -> bytes:
    return json.dumps(found).encode("utf-8", "surrogatepass")
