"""The director's side of a build: it goes on meanwhile, and whatever befalls the process is one error."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from processes import children

from cachelb.cluster import builder as module
from cachelb.cluster.build import Built
from cachelb.cluster.builder import Builder, BuildError, order_for
from cachelb.cluster.holdings import BUCKETS, Holdings, Source, mask_of
from digest import Digest, Geometry, build, parse_digest

NOW = 1_800_000_000
LATER = NOW + 3600
ALL = mask_of(range(4096))
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on the standard library's event loop, and on the one that the director has."""

    def in_loop(job: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as runner:
            return runner.run(job)

    return in_loop


@pytest.fixture
def fd() -> Iterator[int]:
    number = os.memfd_create("digest")
    yield number
    os.close(number)


@pytest.fixture
def builder() -> Iterator[Builder]:
    """Leaves no descriptor and no process."""
    uvloop.new_event_loop().close()  # libuv keeps two descriptors from its first loop on
    gc.collect()  # other tests' descriptors must not be closed meanwhile
    before, others = sorted(os.listdir("/proc/self/fd")), children()
    made = Builder()
    yield made
    made.close()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert children() <= others


def some_keys(count: int, seed: int = 0) -> list[bytes]:
    data = random.Random(seed).randbytes(16 * count)
    return [data[at : at + 16] for at in range(0, len(data), 16)]


def filled(keys: list[bytes], nodes: int = 3) -> Holdings:
    holdings = Holdings()
    for number, key in enumerate(keys):
        holdings.add(key, number % nodes, LATER, Source(number % 3))
    return holdings


async def built(builder: Builder, holdings: Holdings, fd: int, live: int = ALL, bits_per_entry: int = 8) -> Built:
    return await builder.build(holdings, order_for(holdings, live, NOW, bits_per_entry), fd)


def content(fd: int) -> Digest:
    return parse_digest(os.pread(fd, 1 << 20, 0))


@pytest.mark.parametrize(
    ("records", "step"), [(0, 4096), (1_000_000, 2048), (5_000_000, 1024), (20_000_000, 256), (100_000_000, 64)]
)
def test_a_slice_is_as_much_work_however_many_records_there_are(records: int, step: int, monkeypatch: pytest.MonkeyPatch):
    holdings = Holdings()
    monkeypatch.setattr(Holdings, "count", lambda self: records)
    assert order_for(holdings, ALL, NOW, 8).step == step
    assert BUCKETS % step == 0
    assert module.SLICE_WORK / 2 < step * (records / BUCKETS + 6) <= module.SLICE_WORK


def test_another_process_builds_it(builder: Builder, fd: int, run: Run):
    keys = some_keys(5000)
    told = run(built(builder, filled(keys), fd, mask_of([0, 2]), 5))
    assert content(fd) == build(b"".join(keys[0::3] + keys[2::3]), 5)
    assert (told.records, told.keys, told.bits_per_entry) == (5000, 3333, 5)
    assert [(node, count) for node, count, _ in told.nodes] == [(0, 1667), (2, 1666)]
    assert told.size_bytes == os.fstat(fd).st_size
    assert told.cpu_s > 0
    assert 4 << 20 < told.peak_bytes < 100 << 20


def test_of_nothing_it_is_empty(builder: Builder, fd: int, run: Run):
    told = run(built(builder, Holdings(), fd, 0, 16))
    assert content(fd) == Digest.empty(Geometry(1000, 16))
    assert (told.keys, told.nodes, told.fill) == (0, [], 0.0)


def test_the_table_may_change_while_it_is_streamed(builder: Builder, fd: int, run: Run):
    async def build_and_change() -> None:
        building = asyncio.ensure_future(built(builder, holdings, fd))
        for key in some_keys(20_000, 1):
            holdings.add(key, 5, LATER, Source.SEEN)
            holdings.remove(key, 5)
            if building.done():
                break
            await asyncio.sleep(0)
        await building

    keys = some_keys(3000)
    holdings = filled(keys)
    run(build_and_change())
    assert content(fd).mask.contains_many(b"".join(keys)) == b"\1" * 3000


def test_others_get_their_turn_between_two_slices(builder: Builder, fd: int, run: Run):
    async def turns() -> int:
        count = 0
        building = asyncio.ensure_future(built(builder, filled(some_keys(100)), fd))
        while not building.done():
            await asyncio.sleep(0.001)
            count += 1
        await building
        return count

    assert run(turns()) >= BUCKETS / 4096 / 2


def test_one_process_builds_one_digest_after_the_other(builder: Builder, run: Run):
    async def several() -> None:
        for count in (10, 2000, 5):
            fd = os.memfd_create("digest")
            await built(builder, filled(some_keys(count)), fd)
            assert content(fd).count == count
            os.close(fd)
            pids.add(builder._process.pid)  # type: ignore[union-attr]

    pids: set[int] = set()
    run(several())
    assert len(pids) == 1


def test_a_failure_is_told_and_the_process_goes_on(builder: Builder, fd: int, run: Run):
    async def both() -> None:
        readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        try:
            with pytest.raises(BuildError, match=r"^the process that builds failed: OSError: .*Bad file descriptor"):
                await built(builder, filled(some_keys(3000)), readable)
        finally:
            os.close(readable)
        process = builder._process
        await built(builder, filled(some_keys(3000)), fd)
        assert builder._process is process

    run(both())
    assert content(fd).count == 3000


def test_a_process_that_was_killed_is_started_again(builder: Builder, fd: int, run: Run):
    run(built(builder, Holdings(), fd))
    assert builder._process is not None
    os.kill(builder._process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, builder._process.pid, os.WEXITED | os.WNOWAIT)
    os.ftruncate(fd, 0)
    os.lseek(fd, 0, os.SEEK_SET)
    run(built(builder, filled(some_keys(3000)), fd))
    assert content(fd).count == 3000


@pytest.fixture
def run_instead(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[subprocess.Popen[bytes]]]:
    """``run_instead(program)``: that is what the process does; returns where the processes will be found."""

    def choose(program: str) -> list[subprocess.Popen[bytes]]:
        started = []

        def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
            started.append(real([sys.executable, "-c", program], **options))  # type: ignore[call-overload]
            return started[-1]

        real = subprocess.Popen
        monkeypatch.setattr(module.subprocess, "Popen", start)
        return started

    return choose


TAKE = """
import os, socket, sys, time
sock = socket.socket(fileno=socket.recv_fds(socket.socket(fileno=0), 16, 2)[1][0])
"""
READ = TAKE + "sock.makefile('rb').readline(); sock.recv(1 << 18, socket.MSG_WAITALL);"
READ_ALL = "sock.makefile('rb').read();"


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("", "the process that builds"),  # either it cannot be told any more, or it ends early
        (TAKE, "ended early"),
        (READ, "ended early"),
        (READ + "os.kill(os.getpid(), 9)", "ended early"),
        (TAKE + "sock.sendall(b'{')", "ended early"),
        (TAKE + "sock.sendall(bytes(2_000_000))", "ended early"),
        (TAKE + READ_ALL + 'sock.sendall(b\'{"problem": "MemoryError: no room"}\\n\')', "failed: MemoryError: no room"),
        (TAKE + READ_ALL + "sock.sendall(b'hello\\n')", "said: hello"),
        (TAKE + READ_ALL + "sock.sendall(b'[]\\n')", "said: []"),
    ],
)
def test_however_the_process_ends_there_is_one_error(
    program: str,
    text: str,
    builder: Builder,
    fd: int,
    run: Run,
    run_instead: Callable[[str], list[subprocess.Popen[bytes]]],
):
    run_instead(program)
    with pytest.raises(BuildError, match=r"^the process that builds") as problem:
        run(built(builder, filled(some_keys(3000)), fd))
    assert text in str(problem.value)


@pytest.mark.parametrize("program", [TAKE + "time.sleep(60)", READ + "time.sleep(60)"])
def test_a_process_that_hangs_is_killed_in_time(
    program: str,
    builder: Builder,
    fd: int,
    run: Run,
    run_instead: Callable[[str], list[subprocess.Popen[bytes]]],
    monkeypatch: pytest.MonkeyPatch,
):
    processes = run_instead(program)
    monkeypatch.setattr(module, "LIMIT_S", 0.3)
    with pytest.raises(BuildError, match="not built within 0 s"):
        run(built(builder, filled(some_keys(3000)), fd))
    assert processes[0].returncode == -signal.SIGKILL


def test_a_process_that_cannot_be_started_is_an_error_too(builder: Builder, fd: int, run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    for _ in range(2):
        with pytest.raises(BuildError, match=r"^the process that builds: No such file or directory"):
            run(built(builder, Holdings(), fd))


@pytest.mark.parametrize("turns", [1, 2, 5, 100])
def test_whoever_is_cancelled_ends_the_process(
    turns: int, builder: Builder, fd: int, run: Run, run_instead: Callable[[str], list[subprocess.Popen[bytes]]]
):
    async def cancel() -> None:
        building = asyncio.ensure_future(built(builder, holdings, fd))
        for _ in range(turns):
            await asyncio.sleep(0)
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building

    holdings = filled(some_keys(100))
    processes = run_instead(READ + "time.sleep(60)")
    run(cancel())
    assert [process.returncode for process in processes] == [-signal.SIGKILL]


def test_a_build_ends_with_the_process(builder: Builder, fd: int, run: Run):
    def forked() -> list[int]:
        if builder._process is None:
            return []
        pid = builder._process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def stopped() -> int:
        building = asyncio.ensure_future(built(builder, filled(some_keys(100)), fd))
        while not forked():  # noqa: ASYNC110  what it waits for happens in another process
            await asyncio.sleep(0.001)
        (pid,) = forked()
        pidfd = os.pidfd_open(pid)
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
        return pidfd

    pidfd = run(stopped())
    assert select.select([pidfd], [], [], 10)[0]  # readable: it has ended
    os.close(pidfd)


PROMPTED = """
import os
from cachelb.cluster.builder import Builder
from cachelb.priority import prompt
nice = os.getpriority(os.PRIO_PROCESS, 0)
prompt()
builder = Builder()
builder.prepare()
print(os.getpriority(os.PRIO_PROCESS, builder._process.pid) - nice)
builder.close()
"""


def test_the_process_is_nicer_than_a_worker_also_where_the_director_is_less_nice():
    done = subprocess.run([sys.executable, "-c", PROMPTED], capture_output=True, text=True, check=True)
    assert int(done.stdout) == module.NICE


def test_the_process_that_was_prepared_builds(builder: Builder, fd: int, run: Run):
    before = children()
    builder.prepare()
    builder.prepare()
    (pid,) = children() - before
    assert run(built(builder, filled(some_keys(9)), fd)).keys == 9
    assert children() - before == {pid}


def test_if_none_can_be_prepared_the_build_says_so(builder: Builder, fd: int, run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/there/is/none")
    builder.prepare()
    with pytest.raises(BuildError, match="No such file"):
        run(built(builder, filled(some_keys(9)), fd))


def test_the_process_is_nice_and_a_ctrl_c_is_not_for_it(builder: Builder, fd: int, run: Run):
    run(built(builder, Holdings(), fd))
    assert builder._process is not None
    pid = builder._process.pid
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + module.NICE
    assert os.getpgid(pid) == pid
