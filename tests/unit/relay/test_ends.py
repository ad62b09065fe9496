from __future__ import annotations

import pytest

BIG = bytes(range(256)) * 4096  # 1 MiB


def read(end, count):
    data = b""
    while len(data) < count:
        data += end.peer.recv(count - len(data))
    return data


def test_what_fits_is_sent_at_once(make_end):
    end = make_end()
    assert end.send(b"hello")
    assert end.unsent is None
    assert read(end, 5) == b"hello"


def test_several_parts_are_sent_in_order(make_end):
    end = make_end()
    assert end.send_parts((b"a", memoryview(b"bc"), b"", b"d"))
    assert read(end, 4) == b"abcd"


@pytest.mark.parametrize("sizes", [(1 << 20,), (10, 1 << 20), (1 << 20, 10), (300_000, 300_000, 300_000)])
def test_what_does_not_fit_is_kept_and_sent_later(loop, make_end, sizes):
    end = make_end(small=True)
    parts = [BIG[:size] for size in sizes]
    done = []
    sent = end.send(parts[0]) if len(parts) == 1 else end.send_parts(parts)
    assert not sent
    assert end.unsent is not None
    end.drained = lambda: done.append(True)
    data = b""
    while not done:
        loop.turn()
        data += end.peer.recv(1 << 20)
    data += read(end, sum(sizes) - len(data))
    assert data == b"".join(parts)
    assert end.unsent is None
    assert loop.writers == {}


def test_what_is_sent_while_something_is_kept_comes_after_it(loop, make_end):
    end = make_end(small=True)
    end.send(BIG)
    assert not end.send(b"the end")
    data = b""
    while not data.endswith(b"the end"):
        loop.turn()
        data += end.peer.recv(1 << 20)
    assert data == BIG + b"the end"


def test_a_peer_that_has_gone_is_an_error_at_once(make_end):
    end = make_end()
    end.peer.close()
    with pytest.raises(OSError, match="Broken pipe"):
        end.send(b"hello")
    with pytest.raises(OSError, match="Broken pipe"):
        end.send_parts((b"hello", b"world"))


def test_a_peer_that_goes_while_something_is_kept_is_told_to_the_end(loop, make_end):
    end = make_end(small=True)
    end.send(BIG)
    end.drained = lambda: pytest.fail("it has not drained")
    end.peer.close()
    loop.turn()
    assert end.happened == ["broken"]
    assert end.unsent is None
    assert loop.writers == {}


def test_a_bug_in_drained_ends_only_this_end(loop, make_end):
    end = make_end(small=True)
    end.send(BIG[:300_000])

    def fail():
        raise ZeroDivisionError

    end.drained = fail
    while end.unsent is not None:
        end.peer.recv(1 << 20)
        loop.turn()
    assert [type(exc) for exc in end.crashes] == [ZeroDivisionError]


def test_a_paused_end_is_not_read(loop, make_end):
    end = make_end()
    end.resume()
    end.peer.send(b"x")
    assert loop.turn()
    end.pause()
    assert not loop.turn()
    end.resume()
    assert loop.turn()
    assert end.happened == ["readable", "readable"]


def test_finishing_leaves_the_other_direction_open(make_end):
    end = make_end()
    assert end.finish_writing()
    assert end.peer.recv(10) == b""
    end.peer.send(b"x")
    assert end.sock.recv(10) == b"x"


def test_a_shut_end_is_out_of_the_loop(loop, make_end):
    end = make_end(small=True)
    end.resume()
    end.send(BIG)
    end.shut()
    end.shut()
    assert loop.readers == loop.writers == {}
    assert end.closed
    end.resume()
    assert loop.readers == {}
    assert not end.finish_writing()
