from __future__ import annotations

import os
import socket

import pytest

from cachelb.errors import Reason
from cachelb.http.framing import ChunkScanner
from cachelb.relay import pump as pumps
from cachelb.relay.pipes import Pipes
from cachelb.relay.pump import Pump

RANDOM = os.urandom(1 << 20)


class Owner:
    """Who is told."""

    def __init__(self):
        self.moved = 0
        self.ends = []

    def pump_moved(self, pump, count):
        self.moved += count

    def pump_done(self, pump):
        self.ends.append("done")

    def pump_failed(self, pump, reason, at_source):
        self.ends.append((reason, "source" if at_source else "sink"))


class Rig:
    """A source, a pump and a sink; ``feed`` is what the source sends, ``arrived`` what reaches the sink."""

    def __init__(self, loop, make_end, small=False, splice=None, start=True, **how):
        self.loop = loop
        self.owner = Owner()
        self.pipes = Pipes()
        self.source = make_end()
        self.sink = make_end(small)
        self.sink.peer.setblocking(False)
        self.source.peer.setblocking(False)
        self.pump = Pump(self.owner, self.source, self.sink, self.pipes, **how)
        self.source.feeds = self.pump.readable
        self.arrived = b""
        if start:
            self.pump.start(splice)

    def run(self, data=b"", end=False):
        """Send data, let everything happen, read everything."""
        at = 0
        ended = not end
        for _ in range(100_000):
            moved = False
            if at < len(data):
                try:
                    at += self.source.peer.send(data[at : at + 100_000])
                    moved = True
                except (BlockingIOError, BrokenPipeError):
                    pass
            elif not ended:
                self.source.peer.shutdown(socket.SHUT_WR)
                ended = moved = True
            moved = self.loop.turn() or moved
            moved = self.read() or moved
            if not moved or self.owner.ends:
                break
        while self.read():
            pass

    def read(self):
        try:
            data = self.sink.peer.recv(1 << 20)
        except BlockingIOError:
            return False
        self.arrived += data
        return bool(data)


@pytest.fixture
def rig(loop, make_end):
    rigs = []

    def make(**how):
        rigs.append(Rig(loop, make_end, **how))
        return rigs[-1]

    yield make
    for each in rigs:
        each.pump.stop()
        assert each.pipes.used == 0
        each.pipes.close()


SIZES = [1, 100, 32767, 32768, 65536, 65537, (1 << 20) + 1, 5_000_000]


@pytest.mark.parametrize("small", [False, True], ids=["wide", "narrow"])
@pytest.mark.parametrize("splice", [False, True], ids=["copied", "spliced"])
@pytest.mark.parametrize("size", SIZES)
def test_a_body_of_known_length_is_moved_and_no_more(rig, small, splice, size):
    body = (RANDOM * (size // len(RANDOM) + 1))[:size]
    each = rig(small=small, splice=splice, left=size)
    each.run(body + b"surplus")
    assert each.arrived == body
    assert each.owner.ends == ["done"]
    assert each.owner.moved == size
    assert each.pipes.used == 0


@pytest.mark.parametrize("splice", [False, True], ids=["copied", "spliced"])
@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_a_body_until_close_is_moved_until_close(rig, splice, size):
    body = (RANDOM * 3)[:size]
    each = rig(small=True, splice=splice)
    each.run(body, end=True)
    assert each.arrived == body
    assert each.owner.ends == ["done"]


def test_long_bodies_are_spliced_and_short_ones_copied(rig):
    assert rig(left=pumps.SPLICE_BYTES - 1).pump.pipe is None
    assert rig(left=pumps.SPLICE_BYTES).pump.pipe is not None
    assert rig(scanner=ChunkScanner()).pump.pipe is None
    assert rig().pump.pipe is None


def test_without_a_pipe_a_long_body_is_copied(loop, make_end):
    each = Rig(loop, make_end, start=False, left=len(RANDOM))
    each.pipes.most = 0
    each.pump.start()
    each.run(RANDOM)
    assert each.arrived == RANDOM
    assert each.owner.ends == ["done"]


@pytest.mark.parametrize("splice", [False, True], ids=["copied", "spliced"])
def test_a_source_that_ends_early_is_a_truncation(rig, splice):
    each = rig(splice=splice, left=100_000)
    each.run(RANDOM[:50_000], end=True)
    assert each.owner.ends == [(Reason.TRUNCATED, "source")]
    assert each.arrived == RANDOM[:50_000]


@pytest.mark.parametrize("splice", [False, True], ids=["copied", "spliced"])
def test_a_sink_that_goes_is_its_fault(rig, splice):
    each = rig(splice=splice, left=5_000_000)
    each.sink.peer.shutdown(socket.SHUT_RDWR)
    each.sink.peer.close()
    each.source.peer.send(RANDOM[:100_000])
    each.loop.turn()
    assert each.owner.ends == [(Reason.RESET, "sink")]


@pytest.mark.parametrize("splice", [False, True], ids=["copied", "spliced"])
def test_while_the_sink_is_full_the_source_is_not_read(rig, splice):
    each = rig(small=True, splice=splice, left=64 << 20)
    for _ in range(1000):
        try:
            each.source.peer.send(RANDOM)
        except BlockingIOError:
            if not each.loop.turn():
                break
    assert not each.source.reading
    assert each.owner.moved < 4 << 20
    each.run(b"")
    assert each.source.reading  # what was held up has gone on


def test_a_count_that_does_not_add_up_is_an_audit_failure(rig):
    each = rig(splice=True, left=100_000)
    each.pump.moved = 1  # as if a byte had been counted that was none
    each.run(RANDOM[:100_000])
    assert each.owner.ends == [(Reason.AUDIT_FAILED, "source")]


def test_what_somebody_else_sent_counts(rig):
    each = rig(start=False, left=500_000)
    each.pump.skip(100_000)
    each.pump.start()
    assert each.pump.pipe is not None
    each.run(RANDOM[:400_000])
    assert each.owner.ends == ["done"]
    assert each.arrived == RANDOM[:400_000]


CHUNKED = b"5;a=b\r\nhello\r\n7\r\n, world\r\n0\r\nX: y\r\n\r\n"


def test_a_chunked_body_is_moved_as_it_is(rig):
    each = rig(scanner=ChunkScanner())
    each.run(CHUNKED + b"next")
    assert each.arrived == CHUNKED
    assert each.owner.ends == ["done"]
    assert each.pump.surplus == b"next"


def test_many_small_chunks_are_unpacked_into_one_piece(rig, monkeypatch):
    sent = []
    small = rig(scanner=ChunkScanner(), dechunk=True)
    monkeypatch.setattr(type(small.sink), "send", lambda end, data: sent.append(bytes(data)) or True)
    small.pump.feed(b"1\r\na\r\n" * 10_000 + b"0\r\n\r\nrest")
    assert sent == [b"a" * 10_000]
    assert small.pump.surplus == b"rest"


def test_a_chunked_body_is_unpacked_for_an_old_client(rig):
    each = rig(scanner=ChunkScanner(), dechunk=True)
    each.run(CHUNKED + b"next")
    assert each.arrived == b"hello, world"
    assert each.pump.surplus == b"next"


@pytest.mark.parametrize("dechunk", [False, True])
def test_a_chunked_body_comes_byte_by_byte(rig, dechunk):
    each = rig(scanner=ChunkScanner(), dechunk=dechunk)
    for i in range(len(CHUNKED)):
        each.run(CHUNKED[i : i + 1])
    assert each.arrived == (b"hello, world" if dechunk else CHUNKED)
    assert each.owner.ends == ["done"]


@pytest.mark.parametrize("cut", range(len(CHUNKED)))
def test_every_truncation_of_a_chunked_body_is_noticed(rig, cut):
    each = rig(scanner=ChunkScanner())
    each.run(CHUNKED[:cut], end=True)
    assert each.owner.ends == [(Reason.TRUNCATED, "source")]


def test_a_malformed_chunked_body_is_the_sources_fault(rig):
    each = rig(scanner=ChunkScanner())
    each.run(b"5\r\nhello\r\nxyz\r\n")
    assert each.owner.ends == [(Reason.BAD_CHUNK, "source")]


def test_bytes_received_before_are_fed(rig):
    each = rig(start=False, left=10)
    each.pump.feed(b"hello")
    each.pump.start()
    each.run(b"world")
    assert each.arrived == b"helloworld"
    assert each.owner.ends == ["done"]


def test_more_than_the_body_is_kept_apart(rig):
    each = rig(start=False, left=5)
    each.pump.feed(b"helloGET ")
    each.read()
    assert each.arrived == b"hello"
    assert each.pump.surplus == b"GET "
    assert each.owner.ends == ["done"]


def test_a_sink_with_something_unsent_is_waited_for(rig):
    each = rig(small=True, start=False, left=5)
    each.sink.send(RANDOM)
    each.pump.start()
    assert not each.source.reading
    each.run(b"hello")
    assert each.arrived == RANDOM + b"hello"
    assert each.owner.ends == ["done"]


def test_a_stopped_pump_is_silent(rig):
    each = rig(splice=True, left=100_000)
    each.pump.stop()
    each.pump.stop()
    each.pump.go_on()
    assert each.owner.ends == []
    assert each.pipes.used == 0


def test_a_pipe_that_still_holds_bytes_is_never_used_again(rig):
    each = rig(small=True, splice=True, left=10 << 20)
    each.source.peer.send(RANDOM[:100_000])
    each.loop.turn()
    pipe = each.pump.pipe
    assert pipe is not None
    assert pipe.held
    each.pump.stop()
    assert each.pipes.idle == []
