"""A digest that is handed over: whole, to whoever reads, and without waiting for anybody."""

from __future__ import annotations

import os
import resource
import select
import socket
from collections.abc import Iterator

import pytest

from cachelb.handover import Published, pair, receive, send

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def way() -> Iterator[Pair]:
    ours, theirs = pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def published() -> Iterator[Published]:
    fd = os.memfd_create("digest")
    os.write(fd, b"the farm's digest")
    yield Published(fd, 17, 1_795_000_000, 1_795_000_300)
    os.close(fd)


def test_what_is_handed_over_is_the_same_file_under_a_descriptor_of_ones_own(way: Pair, published: Published):
    assert receive(way[1]) is None
    assert send(way[0], published)
    got = receive(way[1])
    assert got is not None
    assert got.fd != published.fd
    assert got[1:] == published[1:]
    assert os.pread(got.fd, 100, 0) == b"the farm's digest"
    assert not os.get_inheritable(got.fd)
    os.close(got.fd)
    assert receive(way[1]) is None
    assert os.pread(published.fd, 4, 0) == b"the "


def test_one_that_does_not_read_holds_nobody_up_and_keeps_few_digests_alive(way: Pair, published: Published):
    taken = 0
    while send(way[0], published._replace(expires_at=taken)):
        taken += 1
    assert 1 <= taken <= 8
    assert not send(way[0], published)
    poll = select.poll()
    poll.register(way[0], select.POLLOUT)
    assert not poll.poll(0)
    for turn in range(taken):
        got = receive(way[1])
        assert got is not None
        assert got.expires_at == turn
        os.close(got.fd)
    assert poll.poll(0)
    assert send(way[0], published)


def test_both_sides_learn_that_the_other_has_gone(way: Pair, published: Published):
    way[1].close()
    with pytest.raises(OSError):  # noqa: PT011  a broken pipe or a reset, as it happens
        send(way[0], published)
    ours, theirs = pair()
    with theirs:
        assert send(ours, published)
        ours.close()
        got = receive(theirs)  # what was handed over before is there nevertheless
        assert got is not None
        os.close(got.fd)
        for _ in range(2):
            with pytest.raises(EOFError):
                receive(theirs)


def test_without_a_descriptor_left_it_is_an_error_and_later_ones_come_through(way: Pair, published: Published):
    assert send(way[0], published)
    assert send(way[0], published._replace(expires_at=7))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(int(name) for name in os.listdir("/proc/self/fd"))
    kept = [os.dup(published.fd) for _ in range(most)]  # no gap is left below
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(kept) + 1, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            receive(way[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in kept:
            os.close(fd)
    got = receive(way[1])
    assert got is not None
    assert got.expires_at == 7
    os.close(got.fd)
