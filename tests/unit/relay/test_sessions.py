from __future__ import annotations

from cachelb.relay.sessions import LIFE_S, SESSIONS_MAX, Session, Sessions, key_of, pack, unpack


def test_what_was_learned_is_found_while_it_is_used():
    sessions = Sessions()
    sessions.learn(Session(b"k", 3), 100.0)
    assert sessions.find(b"other", 100.0) == -1
    assert sessions.find(b"k", 100.0 + LIFE_S - 1) == 3
    assert sessions.find(b"k", 100.0 + 2 * LIFE_S - 2) == 3
    assert sessions.find(b"k", 100.0 + 4 * LIFE_S) == -1
    assert len(sessions) == 0


def test_who_was_used_longest_ago_is_forgotten_first():
    sessions = Sessions(2)
    for key in (b"a", b"b"):
        sessions.learn(Session(key, 1), 0.0)
    sessions.find(b"a", 1.0)
    sessions.learn(Session(b"c", 1), 2.0)
    assert [sessions.find(key, 3.0) for key in (b"a", b"b", b"c")] == [1, -1, 1]
    assert Sessions()._most == SESSIONS_MAX


def test_a_key_is_of_a_pool_and_a_kind():
    keys = {key_of(pool, kind, value) for pool in ("", "p") for kind in ("id", "ticket") for value in (b"a", b"b")}
    assert len(keys) == 8
    assert {len(key) for key in keys} == {16}


def test_they_travel():
    learned = [Session(key_of("", "id", b"x"), 7), Session(key_of("", "ticket", b"y"), 2047)]
    assert list(unpack(pack(learned))) == learned
    assert list(unpack(b"")) == []
