"""Workers that are started, told things, and die: real ones, and small programs in their place that misbehave."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from cachelb import control, workers
from cachelb.config import Config
from cachelb.config_values import Address
from cachelb.counters import BLOCK_BYTES, FARM_INDEX, NODE_INDEX, node_offset
from cachelb.handover import Published
from cachelb.listen import open_listeners
from cachelb.snapshot import NodeView, Snapshot
from cachelb.workers import RESTART_MAX_S, RESTART_S, YOUNG_S, Worker, Workers, restart_wait

# In the place of ``python -m cachelb.worker CONTROL BLOCK DIGESTS``: its body may use ``hear()``, ``say(kind, payload)`` and
# ``take()``: the text of the next digest that it is handed.
PROGRAM = """#!{python} -IS
import mmap, os, socket, struct, sys, time
sock = socket.socket(fileno=int(sys.argv[3]))
block_fd = int(sys.argv[4])
def read(count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            sys.exit(0)
        data += more
    return data
def hear():
    length, kind = struct.unpack("!Ic", read(5))
    return kind, read(length - 1)
digests = socket.socket(fileno=int(sys.argv[5]))
def take():
    digests.setblocking(True)
    _, fds, _, _ = socket.recv_fds(digests, 100, 1)
    return os.pread(fds[0], 100, 0)
def say(kind, payload=b""):
    sock.sendall(struct.pack("!Ic", len(payload) + 1, kind) + payload)
{body}
"""

OBEDIENT = """
while True:
    kind, payload = hear()
    if kind == b"S":
        say(b"A", payload)
    elif kind == b"D":
        say(b"X", b"0")
        break
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``program(body)``: what is started as a worker from now on."""
    python = sys.executable

    def write(body: str) -> None:
        path = tmp_path / "program"
        path.unlink(missing_ok=True)
        path.write_text(PROGRAM.format(python=python, body=body))
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return write


@pytest.fixture
def run() -> Iterator[Callable[..., None]]:
    """``run(test, count=1, snapshot=b"1")``: ``test(pool)`` with workers that have begun; none is left afterwards."""
    pids: set[int] = set()

    def run(test: Callable[[Workers], Awaitable[None]], count: int = 1, snapshot: bytes = b"1") -> None:
        async def main() -> None:
            pool = Workers([[] for _ in range(count)], snapshot)
            pool.start()
            try:
                async with asyncio.timeout(10):
                    await test(pool)
            finally:
                hurry = asyncio.Event()
                hurry.set()
                pids.update(worker.pid for worker in pool.workers)
                await pool.drain(0.0, hurry)

        uvloop.run(main())

    yield run
    assert [pid for pid in pids if pid and Path(f"/proc/{pid}").exists()] == []


async def until(is_true: Callable[[], object]) -> None:
    while not is_true():  # noqa: ASYNC110  what is waited for knows nothing of events
        await asyncio.sleep(0.002)


def snapshot_of(count: int, epoch: int) -> bytes:
    nodes = tuple(NodeView(f"cache-{i:04}.example.org", i, (f"127.1.{i // 250}.1",), 3128, 1.0, "up") for i in range(count))
    return Snapshot(epoch, Config().model_dump_json(), nodes).pack()


# -- real ones


def test_a_real_worker_takes_snapshots_that_are_larger_than_its_sockets_buffer(run):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        assert ours.send(bytes(10**7)) < 4 * len(snapshot_of(1000, 2))

    async def test(pool: Workers) -> None:
        await pool.ready()
        assert pool.workers[0].epoch == 1
        for epoch in range(2, 6):
            pool.apply(snapshot_of(1000, epoch))
        await until(lambda: pool.workers[0].epoch == 5)

    run(test, snapshot=snapshot_of(3, 1))


def test_a_real_worker_serves_on_its_listener_and_counts_in_its_block():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = Address("127.0.0.1", probe.getsockname()[1])

    async def main() -> None:
        pool = Workers([open_listeners(address, 1)], snapshot_of(0, 1))
        pool.start()
        async with asyncio.timeout(10):
            await pool.ready()
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(b"nonsense\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
            await until(lambda: pool.blocks[0][FARM_INDEX["ended_bad_request"]] == 1)
            writer.close()
            assert await pool.drain(5.0, asyncio.Event()) == 0
        assert pool.workers[0].process is not None
        assert pool.workers[0].process.returncode == 0
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(address.host, address.port)

    uvloop.run(main())


# -- those that misbehave


@pytest.mark.parametrize("kind", [control.LESSONS, control.SESSIONS])
def test_what_one_learned_is_told_to_all_others_and_not_to_itself(run, program, tmp_path, kind):
    heard = tmp_path / "heard"
    program(
        f"""
say(b"A", b"1")
hear()
say({kind!r}, b"lesson of %d" % os.getpid())
while True:
    kind, payload = hear()
    if kind == {kind!r}:
        open({str(heard)!r}, "a").write("%d heard %s\\n" % (os.getpid(), payload.decode()))
    elif kind == b"R":
        say(b"A", b"2")
"""
    )

    async def test(pool: Workers) -> None:
        await pool.ready()
        pids = [worker.pid for worker in pool.workers]
        for worker in pool.workers:
            worker._told(kind, b"lesson of %d" % worker.pid)  # after all of them have come
        pool.tell(control.REOPEN)
        await until(lambda: {worker.epoch for worker in pool.workers} == {2})
        lines = set(heard.read_text().splitlines())
        assert lines == {f"{a} heard lesson of {b}" for a in pids for b in pids if a != b}

    run(test, count=3)


def test_a_worker_that_crashes_is_started_again_with_the_latest_snapshot(run, program, tmp_path):
    program(f"import pathlib\nif not pathlib.Path({str(tmp_path / 'go')!r}).exists():\n    os._exit(3)\n" + OBEDIENT)

    async def test(pool: Workers) -> None:
        await until(lambda: pool.workers[0].restarts >= 2)
        assert not pool.workers[0].ready.is_set()
        pool.apply(b"7")
        (tmp_path / "go").touch()
        await pool.ready()
        assert pool.workers[0].epoch == 7

    run(test)


def test_a_dead_workers_counters_stay_and_its_gauges_do_not(run, program):
    position = {name: 8 * FARM_INDEX[name] for name in ("requests", "clients_open")}
    node = {name: 8 * (node_offset(5) + NODE_INDEX[name]) for name in ("requests", "ended", "idle")}
    program(
        f"""
block = mmap.mmap(block_fd, {BLOCK_BYTES})
for at, value in (({position["requests"]}, 9), ({position["clients_open"]}, 4),
                  ({node["requests"]}, 8), ({node["ended"]}, 6), ({node["idle"]}, 3)):
    block[at:at + 8] = struct.pack("=Q", value)
say(b"A", b"1")
time.sleep(60)
"""
    )

    async def test(pool: Workers) -> None:
        await pool.ready()
        block = pool.blocks[0]
        assert (block[FARM_INDEX["requests"]], block[FARM_INDEX["clients_open"]]) == (9, 4)
        program("time.sleep(60)")
        pool.workers[0].kill()
        await until(lambda: pool.workers[0].restarts == 1)
        assert (block[FARM_INDEX["requests"]], block[FARM_INDEX["clients_open"]]) == (9, 0)
        assert [block[node_offset(5) + NODE_INDEX[name]] for name in ("requests", "ended", "idle")] == [8, 8, 0]
        assert pool.workers[0].epoch == -1

    run(test)


def test_one_that_reads_nothing_any_more_is_killed(run, program, monkeypatch):
    monkeypatch.setattr(workers, "UNREAD_BYTES", 100_000)
    program('say(b"A", b"1")\ntime.sleep(60)')

    async def test(pool: Workers) -> None:
        await pool.ready()
        while not pool.workers[0].restarts:
            pool.apply(b"x" * 100_000)
            await asyncio.sleep(0)

    run(test)


def test_one_that_says_goodbye_and_stays_is_killed(run, program, monkeypatch):
    monkeypatch.setattr(workers, "GOODBYE_S", 0.05)
    program("sock.close()\ntime.sleep(60)")

    async def test(pool: Workers) -> None:
        await until(lambda: pool.workers[0].restarts == 1)

    run(test)


def test_a_program_that_is_not_there_is_an_event_and_leaks_nothing(run, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    monkeypatch.setattr(workers, "RESTART_S", 0.001)
    monkeypatch.setattr(workers, "RESTART_MAX_S", 0.001)

    async def test(pool: Workers) -> None:
        await until(lambda: pool.workers[0].restarts >= 2)
        before = len(os.listdir("/proc/self/fd"))
        await until(lambda: pool.workers[0].restarts >= 12)
        assert len(os.listdir("/proc/self/fd")) < before + 10
        assert pool.workers[0].pid == 0

    run(test)
    assert "cannot start worker 1: " in caplog.text
    assert "worker 1 ended (never began)" in caplog.text


# -- the farm's digest


def publish(pool: Workers, text: bytes) -> None:
    fd = os.memfd_create("digest-of-a-test")
    os.write(fd, text)
    pool.publish_digest(Published(fd, len(text), 0, 0))
    os.close(fd)


def digests_kept() -> int:
    fds = Path("/proc/self/fd")
    return sum("digest-of-a-test" in os.readlink(fd) for fd in fds.iterdir() if fd.is_symlink())


def test_a_digest_is_handed_to_all_and_to_those_that_start_later_before_they_begin(run, program):
    program('first = take()\nhear()\nsay(b"A", b"1")\nsay(b"T", first)\nwhile True:\n    say(b"T", take())')
    heard: dict[int, list[bytes]] = {}

    async def test(pool: Workers) -> None:
        pool.heard = lambda worker, kind, payload: heard.setdefault(worker.pid, []).append(payload)
        publish(pool, b"one")
        await pool.ready()
        assert digests_kept() == 1
        publish(pool, b"two")
        await until(lambda: len(heard) == 2 and all(texts == [b"one", b"two"] for texts in heard.values()))
        pool.workers[0].kill()
        await until(lambda: len(heard) == 3)
        assert list(heard.values())[2] == [b"two"]
        assert digests_kept() == 1

    run(test, count=2)
    assert digests_kept() == 0


def test_one_that_takes_no_digests_holds_nobody_up_and_gets_the_newest_when_it_does(run, program, tmp_path):
    program(
        f"""
hear()
say(b"A", b"1")
while not os.path.exists({str(tmp_path / "go")!r}):
    time.sleep(0.002)
while True:
    say(b"T", take())
"""
    )
    heard: list[bytes] = []

    async def test(pool: Workers) -> None:
        pool.heard = lambda worker, kind, payload: heard.append(payload)
        await pool.ready()
        for number in range(100):
            publish(pool, b"%d" % number)
        assert digests_kept() == 1
        (tmp_path / "go").touch()
        await until(lambda: heard and heard[-1] == b"99")
        assert len(heard) < 10

    run(test)


def test_one_that_dies_with_digests_on_their_way_harms_nobody(run, program, tmp_path):
    program('hear()\nsay(b"A", b"1")\ntime.sleep(60)')

    async def test(pool: Workers) -> None:
        await pool.ready()
        for number in range(50):
            publish(pool, b"%d" % number)
            if number == 20:
                pool.workers[0].kill()
            await asyncio.sleep(0)
        await until(lambda: pool.workers[0].restarts == 1 and pool.workers[0].digests is not None)
        publish(pool, b"last")

    run(test)
    assert digests_kept() == 0


# -- ending


def test_nobody_waits_for_a_worker_that_is_not_to_be_started_again(run, program, monkeypatch):
    monkeypatch.setattr(workers, "RESTART_MAX_S", 3600.0)
    monkeypatch.setattr(workers, "RESTART_S", 1800.0)
    program("os._exit(1)")

    async def test(pool: Workers) -> None:
        await until(lambda: pool.workers[0].restarts == 1)
        assert await pool.drain(600.0, asyncio.Event()) == 0
        assert pool.workers[0].restarts == 1

    run(test)


def test_one_that_is_being_started_when_it_has_to_end_is_told_so(run, program):
    program(OBEDIENT)

    async def test(pool: Workers) -> None:
        await asyncio.sleep(0)  # the process is there, its socket is not yet
        assert pool.workers[0].writer is None
        assert await pool.drain(600.0, asyncio.Event()) == 0
        assert pool.workers[0].process is not None
        assert pool.workers[0].process.returncode == 0

    run(test)


def test_what_workers_cut_is_added_up_and_those_that_were_killed_are_not_forgotten(run, program, tmp_path):
    program(
        f"""
block = mmap.mmap(block_fd, {BLOCK_BYTES})
block[{8 * FARM_INDEX["clients_open"]}:{8 * FARM_INDEX["clients_open"] + 8}] = struct.pack("=Q", 5)
say(b"A", b"1")
try:
    os.mkdir({str(tmp_path / "first")!r})
except FileExistsError:
    time.sleep(60)
while hear()[0] != b"D":
    pass
say(b"X", b"2")
"""
    )

    async def test(pool: Workers) -> None:
        await pool.ready()
        hurry = asyncio.Event()
        drain = asyncio.ensure_future(pool.drain(600.0, hurry))
        await until(lambda: any(worker.process.returncode is not None for worker in pool.workers))
        assert not drain.done()
        hurry.set()
        assert await drain == 2 + 5

    run(test, count=2)


def test_every_worker_is_told_how_long_it_may_take(run, program, tmp_path):
    program(
        f'say(b"A", b"1")\nhear()\nkind, payload = hear()\n'
        f'open("{tmp_path}/%d" % os.getpid(), "wb").write(kind + payload)\nsay(b"X", b"0")\n'
    )

    async def test(pool: Workers) -> None:
        await pool.ready()
        await pool.drain(2.5, asyncio.Event())
        told = [path.read_bytes() for path in tmp_path.glob("[0-9]*")]
        assert [(data[:1], float(data[1:])) for data in told] == [(control.DRAIN, 2.5)] * 2

    run(test, count=2)


# -- small things


def test_the_wait_before_a_restart_doubles_up_to_a_bound_and_is_forgotten():
    waits = [RESTART_S]
    for _ in range(20):
        waits.append(restart_wait(waits[-1], 0.1))
    assert waits[1:4] == [2 * RESTART_S, 4 * RESTART_S, 8 * RESTART_S]
    assert waits == sorted(waits)
    assert waits[-1] == RESTART_MAX_S
    assert restart_wait(RESTART_MAX_S, YOUNG_S) == RESTART_S


def test_a_worker_has_a_block_that_a_process_can_share():
    worker = Worker(3, [], Workers([], b""))
    assert worker.block.nbytes == BLOCK_BYTES == os.fstat(worker.block_fd).st_size
    worker.block[len(worker.block) - 1] = 2**64 - 1
    assert os.pread(worker.block_fd, 8, BLOCK_BYTES - 8) == b"\xff" * 8
    assert not os.get_inheritable(worker.block_fd)
    assert worker.pid == 0
    worker.send(control.REOPEN)  # nobody hears it
    worker.kill()


# -- that hang, or meet bugs of ours


def test_one_that_hangs_is_started_again(run, program, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(workers, "PING_S", 0.01)
    program(OBEDIENT)  # but for PINGs, which it does not know

    async def test(pool: Workers) -> None:
        watching = asyncio.create_task(pool.watch())
        (worker,) = pool.workers
        await until(lambda: worker.restarts)
        assert worker.ended == "killed by signal 9"
        watching.cancel()

    run(test)
    assert "worker 1 has not answered for 0.06 s: killing it" in caplog.text


def test_the_silence_of_one_is_not_held_against_its_successor(run, program, monkeypatch: pytest.MonkeyPatch):
    program(OBEDIENT)
    killed: list[int] = []

    async def test(pool: Workers) -> None:
        await pool.ready()
        (worker,) = pool.workers
        for _ in range(workers.SILENT_MAX + 1):
            worker.ping()
        await until(lambda: worker.restarts == 1 and worker.epoch >= 0)  # it began between two PINGs
        assert worker.silent == 0
        with monkeypatch.context() as patch:
            patch.setattr(worker, "kill", lambda: killed.append(worker.pid))
            worker.ping()
        assert (worker.silent, killed) == (1, [])

    run(test)


def test_one_that_answers_is_left_alone(run, program, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "PING_S", 0.05)
    program("while True:\n    kind, payload = hear()\n    say({b'S': b'A', b'I': b'O', b'D': b'X'}.get(kind, b'L'), b'1')\n")

    async def test(pool: Workers) -> None:
        watching = asyncio.create_task(pool.watch())
        (worker,) = pool.workers
        pings = 0

        def count(send: Callable[..., None]) -> Callable[..., None]:
            def sent(kind: bytes, payload: bytes = b"") -> None:
                nonlocal pings
                pings += kind == control.PING
                send(kind, payload)

            return sent

        monkeypatch.setattr(worker, "send", count(worker.send))
        await until(lambda: pings > 3 * workers.SILENT_MAX)
        assert worker.restarts == 0
        watching.cancel()

    run(test)


def test_a_bug_of_ours_costs_a_message_and_no_worker(run, program, caplog: pytest.LogCaptureFixture):
    program("say(b'H', b'1')\nsay(b'H', b'2')\n" + OBEDIENT)
    heard = []

    def fail(worker: Worker, kind: bytes, payload: bytes) -> None:
        heard.append(payload)
        raise KeyError(payload)

    async def test(pool: Workers) -> None:
        pool.heard = fail
        await pool.ready()
        await until(lambda: len(heard) == 2)
        assert pool.workers[0].restarts == 0

    run(test)
    assert "internal error: worker 1 said b'H': KeyError" in caplog.text


def test_a_bug_of_ours_while_one_is_started_does_not_leave_it_dead(run, program, monkeypatch: pytest.MonkeyPatch):
    program(OBEDIENT)
    hand_over = Worker.hand_over
    calls = []

    def fail_once(worker: Worker) -> None:
        calls.append(worker)
        if len(calls) == 1:
            raise AssertionError
        hand_over(worker)

    monkeypatch.setattr(Worker, "hand_over", fail_once)

    async def test(pool: Workers) -> None:
        await pool.ready()
        assert pool.workers[0].restarts == 1

    run(test)
