"""Lines of logs, and a trace of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cachelb.config import Config
from cachelb.relay.plan import plan_settings
from cachelb.routing.classify import Policy
from cachelb.simulate.reader import Reader
from cachelb.simulate.trace import Trace


@pytest.fixture
def policy() -> Policy:
    """The director's, without configuration."""
    return plan_settings(Config()).policy


@pytest.fixture
def traced() -> Iterator[Callable[..., Trace]]:
    """``traced(lines, ...)``: a trace of logs, each a list of lines."""
    made: list[Trace] = []

    def make(*logs: list[bytes]) -> Trace:
        reader, trace = Reader(plan_settings(Config()).policy), Trace()
        made.append(trace)
        for lines in logs:
            trace.add(reader.feed(lines), reader.take_urls())
            trace.end_log()
        trace.finish()
        return trace

    yield make
    for trace in made:
        trace.__exit__()
