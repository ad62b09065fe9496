"""Reads the logs into a trace, and has the policies replay it, each in a process of its own.

Left out: what is replayed (replay.py), how it is told (report.py, chart.py).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import c_uint64
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from cachelb.errors import CommandError
from cachelb.routing.classify import Policy
from cachelb.simulate.progress import Progress
from cachelb.simulate.reader import Reader, TooManyUrlsError
from cachelb.simulate.replay import Case, Outcome, replay
from cachelb.simulate.source import LogError, Source
from cachelb.simulate.trace import Trace

POLL_S = 0.2

_fork = multiprocessing.get_context("fork")  # the trace's files and what was read are there already


class PolicyError(CommandError):
    """A policy's process has ended without a result."""


def read_logs(names: Sequence[str], policy: Policy, trace: Trace, sample: float = 1.0) -> tuple[Reader, list[str]]:
    """Read all logs into `trace`; returns what was read, and a sentence for each log that is damaged.

    Raises:
        LogError: A log cannot be read, none has a request, or there are too many URLs.
    """
    reader = Reader(policy, sample)
    damages = []
    for number, name in enumerate(names, 1):
        with Source(name) as source:
            progress = Progress(f"reading {number}/{len(names)}" if len(names) > 1 else "reading", source.size)
            try:
                for lines in source.batches():
                    trace.add(reader.feed(lines), reader.take_urls())
                    progress.at(source.position, reader.lines, "lines")
            except TooManyUrlsError as exc:
                raise LogError(f"{source.name}: {exc}; look at a part of them, for instance with --sample 0.1") from exc
            finally:
                progress.end()
            if source.damage:
                damages.append(source.damage)
        trace.end_log()
    if not reader.requests:
        raise LogError(_nothing(reader, damages))
    trace.finish()
    return reader, damages


def _nothing(reader: Reader, damages: Sequence[str]) -> str:
    """Why there is not one request."""
    if reader.lines == 0:
        return damages[0] if damages else "the log is empty"
    if reader.bad == reader.lines:
        first = reader.shown[0].decode("utf-8", "backslashreplace")
        return f"none of {reader.lines:,} lines is in Squid's native format or in combined; the first: {first!r}"
    return f"none of {reader.lines:,} lines is a request that would go to a node"


def run(policies: Sequence[str], case: Case, trace: Trace, jobs: int) -> list[Outcome]:
    """Replay `trace` under each policy, `jobs` at a time; the results in the order of `policies`.

    Raises:
        ValueError: The nodes cannot be used.
        PolicyError: A process was ended from outside.
    """
    progress = Progress("replaying", trace.requests * len(policies))
    try:
        if jobs <= 1 or len(policies) == 1:
            found = []
            for number, policy in enumerate(policies):
                past = number * trace.requests
                found.append(replay(policy, case, trace, lambda n, past=past: progress.at(past + n, past + n, "requests")))  # type: ignore[misc]
            return found
        with _Team(policies, case, trace) as team:
            return team.results(jobs, progress)
    finally:
        progress.end()


class _Member(NamedTuple):
    process: Any  # a ForkProcess, which typeshed keeps to itself
    results: Connection


class _Team:
    """The processes of all policies."""

    def __init__(self, policies: Sequence[str], case: Case, trace: Trace) -> None:
        self.policies, self.case, self.trace = policies, case, trace
        self.done = _fork.RawArray(c_uint64, len(policies))
        self.members: dict[int, _Member] = {}

    def results(self, jobs: int, progress: Progress) -> list[Outcome]:
        waiting = list(range(len(self.policies)))
        found: dict[int, Outcome] = {}
        while len(found) < len(self.policies):
            while waiting and len(self.members) < jobs:
                self._begin(waiting.pop(0))
            ready = wait([member.results for member in self.members.values()], POLL_S)
            for number, member in list(self.members.items()):
                if member.results in ready:
                    found[number] = self._take(number, member)
            progress.at(sum(self.done), sum(self.done), "requests")
        return [found[number] for number in range(len(self.policies))]

    def _begin(self, number: int) -> None:
        ours, theirs = _fork.Pipe(duplex=False)
        arguments = (self.policies[number], self.case, self.trace, self.done, number, theirs)
        process = _fork.Process(target=_work, args=arguments, daemon=True)
        with _uninterrupted():  # it inherits that: Ctrl-C is for its parent, who ends it
            process.start()
            theirs.close()
            self.members[number] = _Member(process, ours)

    def _take(self, number: int, member: _Member) -> Outcome:
        try:
            result = member.results.recv()
        except EOFError:
            member.process.join()
            code = member.process.exitcode
            raise PolicyError(f"the process that replays {self.policies[number]} ended with {code}; out of memory?") from None
        member.process.join()
        member.results.close()
        del self.members[number]
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, Outcome)
        return result

    def __enter__(self) -> _Team:
        return self

    def __exit__(self, *_: object) -> None:
        with _uninterrupted():
            for process, results in self.members.values():
                process.kill()
                process.join()
                results.close()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(policy: str, case: Case, trace: Trace, done: Any, number: int, results: Connection) -> None:
    """The life of one process."""

    def tell(count: int) -> None:
        done[number] = count

    try:
        results.send(replay(policy, case, trace, tell))
    except (ValueError, OSError, MemoryError) as exc:
        results.send(exc)


def usable_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
