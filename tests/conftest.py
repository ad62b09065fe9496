"""What holds for all tests: they run the sources, and the signals that the programs under test are sent reach them.

Compiled modules (``cachelb.compiled``) do not let tests put fakes in the place of their parts, so within pytest the sources
run, unless ``CACHELB_COMPILED=1`` asks for the others; directors that tests start use what a user's would.

A shell's ``&`` and ``nohup`` make SIGINT and SIGHUP ignored, and that is inherited by every process below: nothing could be
interrupted or reloaded, and tests waited for ever.  A handler is not inherited, and one that does nothing keeps pytest itself
running at a hangup, as before.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import pytest

os.environ.setdefault("CACHELB_COMPILED", "0")  # before anything imports cachelb

for _number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)


@pytest.fixture(autouse=True)
def _signals_stay_as_they_are() -> Iterator[None]:
    """What a command that is run in this process does to its signals ends with the test: later tests' programs inherit it."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where compiled modules are asked for, leave out what only the sources let a test do."""
    if os.environ["CACHELB_COMPILED"] == "1":
        for item in items:
            if item.get_closest_marker("sources"):
                item.add_marker(pytest.mark.skip(reason="it looks into a module, or puts a fake into it: for the sources"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed goes from one of several processes to another, which not every string can."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
