from __future__ import annotations

from cachelb.tools.bench import syscalls


def test_what_is_sent_is_received_each_time():
    step = syscalls.send_and_receive(b"x" * 700)
    assert [step(), step()] == [700, 700]


def test_peeking_leaves_it_there():
    step = syscalls.peek(b"x" * 300)
    assert [step(), step()] == [300, 300]


def test_where_nothing_is_nothing_comes():
    assert syscalls.nothing_there()() is True


def test_all_that_are_ready_are_found():
    assert syscalls.poll(8)() == 16  # as many again keep the ends open
