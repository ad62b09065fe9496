"""The digest that a process of its own builds: it has what it should, and whatever befalls the process is one error."""

from __future__ import annotations

import asyncio
import io
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from cachelb.cluster import build as module
from cachelb.cluster.build import BuildError, Built, Order, build_aside, frame, gather, order_for, unite
from cachelb.cluster.holdings import BUCKETS, Holdings, Source, mask_of
from digest import Digest, Geometry, build, pack_digest, parse_digest

NOW = 1_800_000_000
LATER = NOW + 3600
ALL = mask_of(range(4096))
Run = Callable[[Coroutine[Any, Any, Any]], Any]


def some_keys(count: int, seed: int = 0) -> list[bytes]:
    data = random.Random(seed).randbytes(16 * count)
    return [data[at : at + 16] for at in range(0, len(data), 16)]


def filled(keys: list[bytes], nodes: int = 3) -> Holdings:
    holdings = Holdings()
    for number, key in enumerate(keys):
        holdings.add(key, number % nodes, LATER, Source(number % 3))
    return holdings


def stream(holdings: Holdings, step: int) -> io.BytesIO:
    return io.BytesIO(b"".join(frame(holdings, first, step) for first in range(0, BUCKETS, step)))


def gathered(holdings: Holdings, live: int = ALL, fresh_after: int = NOW) -> dict[int, list[bytes]]:
    """Node -> its keys, sorted."""
    order = order_for(holdings, live, fresh_after, 8)
    _, keys = gather(stream(holdings, order.step), order)
    return {node: sorted(cut(bytes(some))) for node, some in keys.items()}


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


def content(fd: int) -> Digest:
    return parse_digest(os.pread(fd, 1 << 20, 0))


def test_every_live_node_s_keys_arrive_whole_whatever_told_of_them():
    keys = some_keys(1000)
    holdings = filled(keys)
    assert gathered(holdings) == {node: sorted(keys[node::3]) for node in range(3)}
    assert gathered(holdings, mask_of([2, 7])) == {2: sorted(keys[2::3])}
    assert gathered(holdings, 0) == {}


def test_what_is_fresh_for_long_enough_counts_and_what_nobody_knows_that_of():
    holdings = Holdings()
    for key, expires in zip(some_keys(4), (NOW - 1, NOW, NOW + 1, 0), strict=True):
        holdings.add(key, 0, expires, Source.STORE_LOG)
    assert gathered(holdings) == {0: sorted(some_keys(4)[2:])}


def test_a_forgotten_node_has_nothing_even_before_its_records_are_collected():
    holdings = filled(some_keys(30))
    holdings.forget_node(1)
    holdings.add(some_keys(1)[0], 1, LATER, Source.SEEN)
    assert {node: len(keys) for node, keys in gathered(holdings).items()} == {0: 10, 1: 1, 2: 10}


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 4095), st.sampled_from([0, NOW, LATER]))),
)
def test_it_is_what_the_table_itself_says_its_keys_are(found: list[tuple[bytes, int, int]]):
    holdings = Holdings()
    for key, node, expires in found:
        holdings.add(key, node, expires, Source.STORE_LOG)
    some = {node for _, node, _ in found[::2]}
    expected = {node: sorted(cut(b"".join(holdings.keys(node, NOW)))) for node in some}
    assert gathered(holdings, mask_of(some)) == expected


def cut(keys: bytes) -> Iterator[bytes]:
    return (keys[at : at + 16] for at in range(0, len(keys), 16))


@pytest.mark.parametrize("step", [4, 64, 1024, BUCKETS])
def test_the_size_of_the_slices_changes_nothing(step: int):
    holdings = filled(some_keys(500))
    order = order_for(holdings, ALL, NOW, 8)
    order = Order(order.bits_per_entry, order.fresh_after, order.nodes, step)
    records, keys = gather(stream(holdings, step), order)
    assert records == 500
    assert sorted(cut(b"".join(keys.values()))) == sorted(some_keys(500))


@pytest.mark.parametrize(
    ("records", "step"), [(0, 4096), (1_000_000, 2048), (5_000_000, 1024), (20_000_000, 256), (100_000_000, 64)]
)
def test_a_slice_is_as_much_work_however_many_records_there_are(records: int, step: int, monkeypatch: pytest.MonkeyPatch):
    holdings = Holdings()
    monkeypatch.setattr(Holdings, "count", lambda self: records)
    assert order_for(holdings, ALL, NOW, 8).step == step
    assert BUCKETS % step == 0
    assert module.SLICE_WORK / 2 < step * (records / BUCKETS + 6) <= module.SLICE_WORK


@pytest.mark.parametrize("missing", [1, 20, 4096, 262_144])
def test_a_stream_that_ends_early_is_no_digest(missing: int):
    holdings = filled(some_keys(500))
    order = order_for(holdings, ALL, NOW, 8)
    data = stream(holdings, order.step).getvalue()
    with pytest.raises(EOFError):
        gather(io.BytesIO(data[:-missing]), order)


def test_what_is_said_of_a_digest_is_true_of_it():
    keys = {4: b"".join(some_keys(900)), 0: b"".join(some_keys(100, 1)), 9: b""}
    digest, built = unite(Order(8, NOW, [], 1024), 1234, keys)
    assert digest == build(keys[4] + keys[0], 8)
    assert built.records == 1234
    assert (built.keys, built.capacity, built.bits_per_entry, built.size_bytes) == (1000, 1000, 8, 1128)
    assert (built.fill, built.false_positives) == (digest.mask.fill, digest.mask.false_positives)
    assert [(node, count) for node, count, _ in built.nodes] == [(4, 900), (0, 100), (9, 0)]
    assert [fill for _, _, fill in built.nodes] == [pytest.approx(0.362, abs=0.01), pytest.approx(0.049, abs=0.005), 0.0]


def test_more_bits_than_any_squid_could_read_are_fewer():
    assert module._bits_per_entry(100_000_000, 127) == 21
    assert module._bits_per_entry(100_000_000, 8) == 8
    assert module._bits_per_entry(5_000_000, 127) == 127
    assert module._bits_per_entry(10, 1) == 1


@pytest.mark.parametrize("bits_per_entry", [5, 8, 16])
def test_bit_for_bit_it_is_what_real_children_accept(bits_per_entry: int):
    """They are given such digests in tests/squid/test_digest.py."""
    keys = some_keys(3000)
    holdings = filled(keys)
    order = order_for(holdings, ALL, NOW, bits_per_entry)
    digest, _ = unite(order, *gather(stream(holdings, order.step), order))
    assert pack_digest(digest) == pack_digest(build(b"".join(keys), bits_per_entry))


def test_another_process_builds_it(fd: int, run: Run):
    keys = some_keys(5000)
    holdings = filled(keys)
    built = run(build_aside(holdings, order_for(holdings, mask_of([0, 2]), NOW, 5), fd))
    assert content(fd) == build(b"".join(keys[0::3] + keys[2::3]), 5)
    assert (built.records, built.keys, built.bits_per_entry) == (5000, 3333, 5)
    assert [(node, count) for node, count, _ in built.nodes] == [(0, 1667), (2, 1666)]
    assert built.size_bytes == os.fstat(fd).st_size
    assert built.cpu_s > 0
    assert 4 << 20 < built.peak_bytes < 100 << 20


def test_of_nothing_it_is_empty(fd: int, run: Run):
    holdings = Holdings()
    built = run(build_aside(holdings, order_for(holdings, 0, NOW, 16), fd))
    assert content(fd) == Digest.empty(Geometry(1000, 16))
    assert (built.keys, built.nodes, built.fill) == (0, [], 0.0)


def test_the_table_may_change_while_it_is_streamed(fd: int, run: Run):
    async def build_and_change() -> Built:
        building = asyncio.ensure_future(build_aside(holdings, order_for(holdings, ALL, NOW, 8), fd))
        for key in some_keys(20_000, 1):
            holdings.add(key, 5, LATER, Source.SEEN)
            holdings.remove(key, 5)
            if building.done():
                break
            await asyncio.sleep(0)
        return await building

    keys = some_keys(3000)
    holdings = filled(keys)
    run(build_and_change())
    assert content(fd).mask.contains_many(b"".join(keys)) == b"\1" * 3000


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


def failure(fd: int, run: Run) -> str:
    holdings = filled(some_keys(3000))
    with pytest.raises(BuildError) as problem:
        run(build_aside(holdings, order_for(holdings, ALL, NOW, 8), fd))
    return str(problem.value)


READ_ALL = "import os, sys, time; sys.stdin.buffer.read(1_000_000);"


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("", "said: nothing"),
        ("raise MemoryError('no room')", "exit status 1 and said: MemoryError: no room"),
        ("import sys; sys.exit(3)", "exit status 3 and said: nothing"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
        (f"{READ_ALL} os.kill(os.getpid(), 9)", "killed by signal 9"),
        (f"{READ_ALL} print('hello')", "said: hello"),
        (f"{READ_ALL} print('{{}}')", "said: {}"),
        (f"{READ_ALL} print('[1]')", "said: [1]"),
        (f"{READ_ALL} os.write(1, bytes(range(256)) * 1000)", "said: "),
    ],
)
def test_however_the_process_ends_there_is_one_error(
    program: str, text: str, fd: int, run: Run, run_instead: Callable[[str], list[subprocess.Popen[bytes]]]
):
    processes = run_instead(program)
    assert text in failure(fd, run)
    assert processes[0].returncode is not None


@pytest.mark.parametrize("program", ["import time; time.sleep(60)", f"{READ_ALL} time.sleep(60)"])
def test_a_process_that_hangs_is_killed_in_time(
    program: str, fd: int, run: Run, run_instead: Callable[[str], list[subprocess.Popen[bytes]]], monkeypatch: pytest.MonkeyPatch
):
    processes = run_instead(program)
    monkeypatch.setattr(module, "LIMIT_S", 0.3)
    assert failure(fd, run) == "not built within 0 s"
    assert processes[0].returncode == -signal.SIGKILL


def test_a_process_that_cannot_be_started_is_an_error_too(fd: int, run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert failure(fd, run) == "the process that builds: No such file or directory"


@pytest.mark.parametrize("is_started", [False, True])
def test_whoever_is_cancelled_leaves_nothing(
    is_started: bool, fd: int, run: Run, run_instead: Callable[[str], list[subprocess.Popen[bytes]]]
):
    async def cancel() -> None:
        building = asyncio.ensure_future(build_aside(holdings, order_for(holdings, ALL, NOW, 8), fd))
        while is_started and not processes:  # noqa: ASYNC110  what it waits for happens in the code under test
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building

    holdings = filled(some_keys(100))
    processes = run_instead("import time; time.sleep(60)")
    before = sorted(os.listdir("/proc/self/fd"))
    run(cancel())
    assert [process.returncode for process in processes] == [-signal.SIGKILL]
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_the_process_is_nice_from_the_start(fd: int, run: Run, run_instead: Callable[[str], list[subprocess.Popen[bytes]]]):
    run_instead(f"{READ_ALL} sys.exit(os.nice(0))")
    assert f"exit status {os.nice(0) + module.NICE}" in failure(fd, run)


def test_the_process_ends_when_the_director_is_gone(fd: int):
    process = subprocess.Popen([sys.executable, "-m", module.__name__, str(fd)], stdin=-1, stderr=-1, pass_fds=[fd])
    _, said = process.communicate(b'{"bits_per_entry": 8, "fresh_after": 1, "nodes": [[0, 0]], "step": 1024}\nabc', 20)
    assert process.returncode == 1
    assert said.splitlines()[-1] == b"EOFError: the stream ended 4093 bytes early"
    assert os.fstat(fd).st_size == 0


def test_peak_memory_is_this_process_s():
    before = module._peak_bytes()
    data = b"x" * (before + (32 << 20))
    assert module._peak_bytes() - before > 24 << 20
    assert data


def test_others_get_their_turn_between_two_slices(fd: int, run: Run):
    async def turns() -> int:
        count = 0
        building = asyncio.ensure_future(build_aside(holdings, order_for(holdings, ALL, NOW, 8), fd))
        while not building.done():
            await asyncio.sleep(0.001)
            count += 1
        await building
        return count

    holdings = filled(some_keys(100))
    assert run(turns()) >= BUCKETS / 4096 / 2
