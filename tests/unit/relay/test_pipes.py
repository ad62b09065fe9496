from __future__ import annotations

import fcntl
import os

import pytest

from cachelb.relay.pipes import IDLE_MAX, Pipe, Pipes


def test_a_pipe_that_comes_back_empty_is_used_again():
    pipes = Pipes()
    pipe = pipes.take()
    assert pipe is not None
    pipes.give(pipe)
    assert pipes.take() is pipe
    pipes.give(pipe)
    pipes.close()


def test_a_pipe_that_comes_back_with_bytes_is_closed():
    pipes = Pipes()
    pipe = pipes.take()
    assert pipe is not None
    pipe.held = os.write(pipe.w, b"another's")
    pipes.give(pipe)
    assert pipes.idle == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pipe.r)


def test_there_are_no_more_than_allowed():
    pipes = Pipes(most=2)
    taken = [pipes.take(), pipes.take()]
    assert pipes.take() is None
    for pipe in taken:
        assert pipe is not None
        pipes.give(pipe)
    assert pipes.used == 0
    pipes.close()


def test_idle_pipes_are_bounded():
    pipes = Pipes(size=4096)
    taken = [pipes.take() for _ in range(IDLE_MAX + 5)]
    for pipe in taken:
        assert pipe is not None
        pipes.give(pipe)
    assert len(pipes.idle) == IDLE_MAX
    pipes.close()
    assert pipes.idle == []


@pytest.mark.parametrize("size", [65536, 1 << 20])
def test_a_pipe_of_two_pages_is_none(size, monkeypatch):
    """What the kernel gives to a user who has too many."""

    def cut(fd, command, *argument):
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError(1, "Operation not permitted")
        return 8192

    pipes = Pipes(size=size)
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr("cachelb.relay.pipes.fcntl.fcntl", cut)
    assert pipes.take() is None
    assert pipes.used == 0
    assert os.listdir("/proc/self/fd") == before


def test_without_descriptors_there_is_no_pipe(monkeypatch):
    def refuse(flags):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", refuse)
    pipes = Pipes()
    assert pipes.take() is None
    assert pipes.used == 0


def test_a_size_that_is_refused_falls_back_to_the_default(monkeypatch):
    real = fcntl.fcntl

    def refuse(fd, command, *size):
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError(1, "Operation not permitted")
        return real(fd, command, *size)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    pipe = Pipe(1 << 20)
    assert os.write(pipe.w, bytes(1 << 20)) == pipe.size == 65536
    pipe.close()


def test_size_is_what_the_pipe_holds():
    for size in (65536, 1 << 20):
        pipe = Pipe(size)
        assert os.write(pipe.w, bytes(2 << 20)) == pipe.size == size
        pipe.close()
