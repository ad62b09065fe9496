"""A director in processes of its own, and a node for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_director import LiveDirector, SlowNode

from cachelb.demo.leash import Leash


@pytest.fixture
def node() -> Iterator[SlowNode]:
    """A node that serves by itself."""
    made = SlowNode("127.0.0.61")
    yield made
    made.stop()


@pytest.fixture
def director(tmp_path: Path, node: SlowNode) -> Iterator[Callable[..., LiveDirector]]:
    """``director(sections="", until="ready: ")``: a director in front of ``node``; no process of it may be left.

    until: what to wait for in its log; "" for nothing, None to have it not even started.
    """
    made: list[LiveDirector] = []
    with Leash() as leash:

        def make(sections: str = "", until: str | None = "ready: ") -> LiveDirector:
            directory = tmp_path / f"director{len(made)}"
            directory.mkdir()
            made.append(LiveDirector(directory, leash, {"cache1": node}, sections))
            if until is not None:
                made[-1].launch()
                made[-1].wait_for(until)
            return made[-1]

        yield make
        for subject in made:
            subject.close()
