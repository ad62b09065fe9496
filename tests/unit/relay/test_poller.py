from __future__ import annotations

import asyncio
import os
import socket

import pytest
import uvloop

from cachelb.relay.poller import Poller


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs ``scenario(poller, ours, theirs)`` on each kind of loop."""

    def run(scenario):
        async def main():
            poller = Poller(asyncio.get_running_loop())
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            try:
                async with asyncio.timeout(10):
                    await scenario(poller, ours, theirs)
            finally:
                poller.close()
                ours.close()
                theirs.close()

        (uvloop.run if request.param == "uvloop" else asyncio.run)(main())

    return run


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)
    await asyncio.sleep(0.001)


def test_what_has_arrived_is_told_until_it_is_read(run):
    async def scenario(poller, ours, theirs):
        calls = []
        told = asyncio.Event()

        def read():
            calls.append(ours.recv(1))
            if len(calls) == 3:
                told.set()

        poller.add_reader(ours.fileno(), read)
        theirs.send(b"abc")
        await told.wait()
        assert calls == [b"a", b"b", b"c"]

    run(scenario)


def test_an_end_is_told_to_the_reader(run):
    async def scenario(poller, ours, theirs):
        told = asyncio.Event()
        poller.add_reader(ours.fileno(), told.set)
        theirs.close()
        await told.wait()

    run(scenario)


def test_a_reader_and_a_writer_live_side_by_side(run):
    async def scenario(poller, ours, theirs):
        calls = []
        fd = ours.fileno()
        poller.add_reader(fd, lambda: calls.append(ours.recv(10)))
        poller.add_writer(fd, lambda: (calls.append("writable"), poller.remove_writer(fd)))
        await turns()
        assert calls == ["writable"]
        theirs.send(b"x")
        await turns()
        assert calls == ["writable", b"x"]
        assert not poller.remove_writer(fd)
        assert poller.remove_reader(fd)
        assert not poller.remove_reader(fd)
        theirs.send(b"y")
        await turns()
        assert calls == ["writable", b"x"]

    run(scenario)


def test_a_writer_stays_when_its_reader_goes(run):
    async def scenario(poller, ours, theirs):
        calls = []
        fd = ours.fileno()
        poller.add_writer(fd, lambda: (calls.append("writable"), poller.remove_writer(fd)))
        poller.add_reader(fd, lambda: calls.append("readable"))
        poller.remove_reader(fd)
        theirs.send(b"x")
        await turns()
        assert calls == ["writable"]

    run(scenario)


def test_a_hang_up_is_not_told_to_who_does_not_ask(run):
    async def scenario(poller, ours, theirs):
        calls = []
        poller.add_reader(ours.fileno(), lambda: calls.append(1))
        poller.remove_reader(ours.fileno())
        theirs.close()
        await turns()
        assert calls == []

    run(scenario)


def test_a_callback_is_replaced(run):
    async def scenario(poller, ours, theirs):
        told = asyncio.Event()
        poller.add_reader(ours.fileno(), lambda: pytest.fail("the old one"))
        poller.add_reader(ours.fileno(), told.set)
        theirs.send(b"x")
        await told.wait()

    run(scenario)


def test_a_callback_may_close_a_descriptor_that_is_ready_too(run):
    async def scenario(poller, ours, theirs):
        other, peer = socket.socketpair()
        calls = []

        def close(name, victim):
            calls.append(name)
            for sock in (ours, other):
                poller.remove_reader(sock.fileno())
            victim.close()

        poller.add_reader(ours.fileno(), lambda: close("ours", other))
        poller.add_reader(other.fileno(), lambda: close("other", ours))
        theirs.send(b"x")
        peer.send(b"x")
        await turns()
        assert len(calls) == 1
        other.close()
        peer.close()

    run(scenario)


def test_closing_lets_go_of_everything(run):
    before = len(os.listdir("/proc/self/fd"))

    async def scenario(poller, ours, theirs):
        poller.add_reader(ours.fileno(), lambda: pytest.fail("closed"))
        poller.add_writer(theirs.fileno(), lambda: pytest.fail("closed"))
        spare = Poller(asyncio.get_running_loop())
        spare.add_reader(ours.fileno(), lambda: pytest.fail("closed"))
        spare.close()
        poller.remove_writer(theirs.fileno())
        poller.remove_reader(ours.fileno())
        await turns()

    run(scenario)
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # libuv keeps a pipe for signals from its first loop on


def test_timers_are_the_loops(run):
    async def scenario(poller, ours, theirs):
        calls = []
        told = asyncio.Event()
        poller.call_later(0.0, lambda: calls.append("never")).cancel()
        poller.call_later(0.001, told.set)
        poller.call_soon(lambda: calls.append("soon"))
        await told.wait()
        assert calls == ["soon"]

    run(scenario)
