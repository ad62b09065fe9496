from __future__ import annotations

import contextlib
import errno
import socket

import pytest

from cachelb.relay.race import ADDRESSES_MAX, STAGGER_S, Race
from cachelb.relay.upstream import Target


class Starter:
    """An exchange that writes down how the race went."""

    def __init__(self):
        self.link = None
        self.error = None

    def link_ready(self, link):
        self.link = link

    def link_failed(self, error):
        self.error = error

    def crashed(self, exc):
        raise exc


@pytest.fixture
def port():
    """A port on which 127.0.0.1 listens; 127.0.0.2 refuses, 127.0.0.3 is deaf."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        number = server.getsockname()[1]
        deaf = stack.enter_context(socket.create_server(("127.0.0.3", number), backlog=0))
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        yield number


@pytest.fixture
def race(loop, port):
    races = []

    def make(*addresses):
        starter = Starter()
        races.append((Race(starter, Target("n0", addresses, port, slot=0), loop), starter))
        return races[-1]

    yield make
    for each, starter in races:
        each.stop()
        if starter.link is not None:
            starter.link.shut()
    assert loop.readers == loop.writers == {}


def test_the_first_address_wins_if_it_answers(loop, race):
    each, starter = race("127.0.0.1", "127.0.0.3")
    each.start()
    loop.run_until(lambda: starter.link)
    assert starter.link.address == "127.0.0.1"
    assert starter.link.exchange is starter
    assert all(timer.cancelled for timer in loop.timers)


def test_a_refusal_begins_the_next_at_once(loop, race):
    each, starter = race("127.0.0.2", "127.0.0.2", "127.0.0.1")
    each.start()
    loop.run_until(lambda: starter.link)
    assert starter.link.address == "127.0.0.1"


def test_silence_begins_the_next_after_a_moment_and_the_losers_are_closed(loop, race):
    each, starter = race("127.0.0.3", "127.0.0.1")
    each.start()
    assert [timer.delay_s for timer in loop.timers] == [STAGGER_S]
    silent = each.running[0]
    loop.fire()
    loop.run_until(lambda: starter.link)
    assert starter.link.address == "127.0.0.1"
    assert silent.closed


def test_when_all_refuse_the_last_error_is_told_once(loop, race):
    each, starter = race("127.0.0.2", "127.0.0.2")
    each.start()
    loop.run_until(lambda: starter.error)
    assert starter.error.errno == errno.ECONNREFUSED
    assert each.running == []


def test_a_refusal_while_another_is_silent_is_not_the_end(loop, race):
    each, starter = race("127.0.0.3", "127.0.0.2")
    each.start()
    loop.fire()
    loop.run_until(lambda: len(each.running) == 1)
    assert starter.error is None
    assert each.running[0].address == "127.0.0.3"


def test_addresses_that_cannot_be_connected_to_at_all_are_passed_over(loop, race):
    each, starter = race("255.255.255.255", "127.0.0.1")
    each.start()
    loop.run_until(lambda: starter.link)


def test_nothing_but_such_addresses_is_an_error_at_once(race):
    each, _ = race("255.255.255.255")
    with pytest.raises(OSError, match=r"connect|unreachable|denied"):
        each.start()


def test_so_many_addresses_are_tried_and_no_more(race):
    each, _ = race(*["127.0.0.3"] * 20)
    assert len(each.waiting) == ADDRESSES_MAX


def test_a_stopped_race_leaves_nothing_open(loop, race):
    each, starter = race("127.0.0.3", "127.0.0.3", "127.0.0.1")
    each.start()
    loop.fire()
    links = list(each.running)
    assert len(links) == 2
    each.stop()
    assert all(link.closed for link in links)
    loop.fire()
    assert starter.link is starter.error is None
