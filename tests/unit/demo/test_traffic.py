"""The demo's clients against the origin alone, and against an origin that lies."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from cachelb.demo.origin import Origin
from cachelb.demo.traffic import Errand, cacheable, private, run_errands, uncacheable


@pytest.fixture(scope="module")
def origin() -> Iterator[tuple[str, int]]:
    """An origin in a thread, which also plays the proxy: it only looks at the path of an absolute URL."""
    loop = asyncio.new_event_loop()
    server = Origin()
    loop.run_until_complete(server.start("127.0.0.1"))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield "127.0.0.1", server.port
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(server.stop())
    loop.close()


def test_no_two_errands_of_different_kinds_share_a_url():
    paths = [errand.path for errand in cacheable() + uncacheable() + private()]
    assert len(set(paths)) == len(paths)


def test_right_answers_have_no_problem(origin: tuple[str, int]):
    errands = [*cacheable()[:20], *private(), *(errand for errand in uncacheable() if not errand.tunnel)]
    results = run_errands(origin, origin, errands)
    assert [result for result in results if result.problem] == []
    assert {result.errand for result in results} == set(errands)


@pytest.mark.parametrize(
    ("errand", "problem"),
    [
        (Errand("x", "/nothing", b""), "status 404"),
        (Errand("x", "/static/1", b"", tunnel=True), "OSError: Tunnel connection failed: 404 Fine"),
        (Errand("x", "/static/1?size=3", b"abc"), "3 bytes that are not the 3 expected"),
        (Errand("x", "/static/1?size=4", b"abc"), "4 bytes that are not the 3 expected"),
    ],
)
def test_wrong_answers_are_told(origin: tuple[str, int], errand: Errand, problem: str):
    (result,) = run_errands(origin, origin, [errand])
    assert result.problem == problem


def test_a_proxy_that_is_not_there_is_a_problem_and_not_an_exception():
    (result,) = run_errands(("127.0.0.1", 1), ("127.0.0.1", 1), [Errand("x", "/", None)])
    assert result.problem.startswith("ConnectionRefusedError")
