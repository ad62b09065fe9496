"""The clients that test the director notice what they are there to notice."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from fakes import FakeSquid, answer_head, ok
from load import Client, Load, expected_body, owners

PATH = "/static/x?size=3000"
RIGHT = expected_body(PATH)
ORIGIN = SimpleNamespace(base="http://origin.test", host="origin.test", port=80)


@pytest.fixture
def proxy() -> Iterator[FakeSquid]:
    fake = FakeSquid("127.0.0.31")
    yield fake
    fake.stop()


@pytest.mark.parametrize(
    ("answer", "problem", "begun"),
    [
        (ok(RIGHT), "", True),
        (ok(RIGHT[:-1]), "2999 bytes", True),
        (ok(RIGHT[:-1] + b"?"), "3000 bytes that are not", True),
        (ok(b"sorry", status="503 Sorry"), "status 503: b'sorry'", True),
        (answer_head("Content-Length: 3000", "Connection: close") + RIGHT[:9], "EOFError: the connection ended", True),
        (b"", "EOFError: the connection ended after 0 bytes", False),
    ],
)
def test_a_client_knows_a_right_answer(proxy: FakeSquid, answer: bytes, problem: str, begun: bool):
    proxy.serve(answer)
    client = Client((proxy.host, proxy.port), ORIGIN)  # type: ignore[arg-type]
    outcome = client.get(PATH)
    client.close()
    assert outcome.problem.startswith(problem)
    assert bool(outcome.problem) == bool(problem)
    assert outcome.begun == begun


def test_a_load_asks_for_all_paths_on_kept_connections_and_knows_who_answered(proxy: FakeSquid):
    proxy.serve(ok(RIGHT, "X-Cache: HIT from cache2.test"))
    with Load((proxy.host, proxy.port), ORIGIN, [PATH] * 40, clients=3) as load:  # type: ignore[arg-type]
        load.join()
    assert load.problems == []
    assert len(load.outcomes) == 40
    assert proxy.connections <= 3
    assert owners(load.outcomes) == {PATH: {"cache2"}}
    assert all(o.hit for o in load.outcomes)
