"""``Holdings``: what is held, what is not, and what happens when there is too much of it."""

from __future__ import annotations

import gc
import random
import sys
from hashlib import md5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachelb.cluster import holdings as module
from cachelb.cluster.holdings import BUCKETS, MARGIN_S, STALE_KEPT_S, Holding, Holdings, Source, mask_of
from cachelb.cluster.record import GONE, MARK_OLD, MARK_RECENT

NOW = 1_800_000_000
LATER = NOW + 3600
ALL = mask_of(range(4096))


def key(number: int) -> bytes:
    return md5(b"%d" % number, usedforsecurity=False).digest()


def crowd(number: int) -> bytes:
    """Keys of one bucket."""
    return bytes(4) + number.to_bytes(12, "big")


def sweep(holdings: Holdings, now: int) -> int:
    return holdings.expire(now, 1 << 40)


def test_a_key_is_held_by_the_node_that_has_it_and_by_no_other() -> None:
    holdings = Holdings()
    assert holdings.add(key(1), 3, LATER, Source.STORE_LOG)
    assert holdings.holds(key(1), NOW, mask_of([3]))
    assert holdings.holds(key(1), NOW, mask_of([0, 3]))
    assert not holdings.holds(key(1), NOW, mask_of([0, 2]))
    assert not holdings.holds(key(1), NOW, 0)
    assert not holdings.holds(key(2), NOW, ALL)


@pytest.mark.parametrize(("expires", "held"), [(NOW + 31, True), (NOW + 30, False), (NOW, False), (1, False), (0, True)])
def test_it_must_be_fresh_for_more_than_the_margin_and_unknown_counts_as_fresh(expires: int, held: bool) -> None:
    holdings = Holdings()
    holdings.add(key(1), 0, expires, Source.STORE_LOG)
    assert holdings.holds(key(1), NOW, ALL) is held
    assert MARGIN_S == 30


def test_the_margin_can_be_chosen() -> None:
    holdings = Holdings()
    holdings.add(key(1), 0, NOW + 20, Source.STORE_LOG)
    assert holdings.holds(key(1), NOW, ALL, margin_s=10)
    assert not holdings.holds(key(1), NOW, ALL, margin_s=20)


def test_one_fresh_copy_among_stale_ones_is_enough() -> None:
    holdings = Holdings()
    for node, expires in enumerate((NOW, NOW - 5, LATER, NOW + 1)):
        holdings.add(key(1), node, expires, Source.STORE_LOG)
    assert holdings.holds(key(1), NOW, ALL)
    assert not holdings.holds(key(1), NOW, mask_of([0, 1, 3]))


def test_adding_again_replaces_the_time_but_not_by_an_unknown_one() -> None:
    holdings = Holdings()
    assert holdings.add(key(1), 0, NOW, Source.SEEN)
    assert not holdings.add(key(1), 0, LATER, Source.STORE_LOG)
    assert not holdings.add(key(1), 0, 0, Source.DIGEST)
    assert holdings.holders(key(1)) == [Holding(0, LATER, Source.STORE_LOG)]
    assert holdings.count() == 1


def test_times_outside_32_bits_are_the_nearest_that_fit() -> None:
    holdings = Holdings()
    holdings.add(key(1), 0, 1 << 40, Source.SEEN)
    holdings.add(key(2), 0, -5, Source.SEEN)
    assert [held.expires for number in (1, 2) for held in holdings.holders(key(number))] == [0xFFFFFFFF, 0]


def test_removing_takes_one_nodes_copy() -> None:
    holdings = Holdings()
    for node in range(3):
        holdings.add(key(1), node, LATER, Source.SEEN)
    assert holdings.remove(key(1), 1)
    assert not holdings.remove(key(1), 1)
    assert not holdings.remove(key(1), 7)
    assert not holdings.remove(key(2), 0)
    assert [held.node for held in holdings.holders(key(1))] in ([0, 2], [2, 0])
    assert holdings.count() == 2


def test_a_copy_with_another_time_stays_when_a_time_is_given() -> None:
    holdings = Holdings()
    holdings.add(key(1), 0, LATER, Source.STORE_LOG)
    assert not holdings.remove(key(1), 0, NOW)
    assert holdings.remove(key(1), 0, LATER)


def test_renewing_prolongs_what_is_there_and_nothing_else() -> None:
    holdings = Holdings()
    holdings.add(key(1), 0, NOW, Source.STORE_LOG)
    holdings.add(key(2), 0, LATER, Source.STORE_LOG)
    holdings.add(key(3), 0, 0, Source.SEEN)
    assert holdings.renew(key(1), 0, LATER)
    assert holdings.renew(key(2), 0, NOW)
    assert holdings.renew(key(3), 0, NOW)
    assert not holdings.renew(key(1), 1, LATER)
    assert not holdings.renew(key(4), 0, LATER)
    assert [holdings.holders(key(number))[0].expires for number in (1, 2, 3)] == [LATER, LATER, 0]
    assert holdings.count() == 3


def test_a_forgotten_node_holds_nothing_at_once_and_its_memory_follows() -> None:
    holdings = Holdings()
    for number in range(100):
        holdings.add(key(number), number % 2, LATER, Source.STORE_LOG)
    holdings.forget_node(0)
    holdings.forget_node(9)
    assert not holdings.holds(key(0), NOW, ALL)
    assert holdings.holders(key(0)) == []
    assert (holdings.count(), holdings.count(0), holdings.count(1)) == (50, 0, 50)
    assert b"".join(holdings.keys(0, NOW)) == b""
    assert sweep(holdings, NOW) == 50
    assert holdings.holds(key(1), NOW, ALL)


def test_a_forgotten_node_that_comes_back_starts_with_nothing() -> None:
    holdings = Holdings()
    holdings.add(key(1), 0, LATER, Source.STORE_LOG)
    holdings.forget_node(0)
    holdings.add(key(2), 0, LATER, Source.STORE_LOG)
    assert not holdings.holds(key(1), NOW, ALL)
    assert holdings.holds(key(2), NOW, ALL)
    assert sweep(holdings, NOW) == 1
    assert holdings.count(0) == 1


def test_more_nodes_than_there_are_slots_may_come_and_go() -> None:
    holdings = Holdings()
    for number in range(4100):
        holdings.add(key(number), 0, LATER, Source.STORE_LOG)
        holdings.forget_node(0)
    holdings.add(key(1), 0, LATER, Source.STORE_LOG)
    assert holdings.count() == 1


@pytest.mark.parametrize("node", [-1, 4096])
def test_a_node_number_that_does_not_fit_is_a_mistake(node: int) -> None:
    with pytest.raises(ValueError, match="node number"):
        Holdings().add(key(1), node, LATER, Source.SEEN)


@pytest.mark.parametrize("size", [3, 15, 17])
def test_a_key_of_another_length_is_a_mistake(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes"):
        Holdings().add(bytes(size), 0, LATER, Source.SEEN)


def test_what_is_stale_is_collected_when_it_cannot_be_renewed_any_more() -> None:
    holdings = Holdings()
    holdings.add(key(1), 0, NOW, Source.STORE_LOG)
    holdings.add(key(2), 0, 0, Source.STORE_LOG)
    assert sweep(holdings, NOW + STALE_KEPT_S - 1) == 0
    assert sweep(holdings, NOW + STALE_KEPT_S) == 1
    assert holdings.holders(key(1)) == []
    assert holdings.count() == 1


def test_one_call_of_expire_does_a_part_of_the_work_and_the_next_goes_on() -> None:
    holdings = Holdings()
    for number in range(1000):
        holdings.add(key(number), 0, NOW, Source.STORE_LOG)
    calls = [holdings.expire(NOW + STALE_KEPT_S, BUCKETS // 8) for _ in range(9)]
    assert all(0 < count < 400 for count in calls[:8])
    assert sum(calls) == 1000


def test_the_table_never_has_more_records_than_its_limit_and_the_stalest_go() -> None:
    holdings = Holdings(keys_limit=1000)
    for number in range(3000):
        holdings.add(key(number), 0, LATER + number % 2 * 10**6, Source.STORE_LOG)
        assert holdings.count() <= 1000
    assert holdings.count() == 1000
    last = [number for number in range(3000) if holdings.holds(key(number), NOW, ALL)]
    assert len(last) == 1000
    assert 2999 in last


def test_room_is_made_with_forgotten_and_unknown_first() -> None:
    holdings = Holdings(keys_limit=4)
    for number, expires in enumerate((LATER, 0, NOW)):
        holdings.add(crowd(number), 0, expires, Source.SEEN)
    holdings.add(crowd(3), 1, LATER, Source.SEEN)
    holdings.forget_node(1)
    gone = []
    for number in range(10, 13):
        before = {n for n in range(4) if holdings.holders(crowd(n))}
        holdings.add(crowd(number), 0, LATER + 1, Source.SEEN)
        gone.append(before - {n for n in range(4) if holdings.holders(crowd(n))})
    assert gone == [set(), {1}, {2}]  # the first made room with the forgotten node's


def test_a_crowded_bucket_is_bounded_whatever_the_table_may_hold() -> None:
    holdings = Holdings(keys_limit=1_000_000)
    for number in range(1000):
        holdings.add(crowd(number), 0, LATER + number, Source.SEEN)
    assert holdings.count() == module._BUCKET_RECORDS_MIN
    assert holdings.holds(crowd(999), NOW, ALL)


def test_a_match_that_does_not_begin_at_a_record_is_no_match() -> None:
    holdings = Holdings()
    one = b"\0\0\1" + bytes(13)  # all that follows the 1 in its record is zeros, too: it contains the key of zeros
    other = bytes(16)
    holdings.add(one, 0, 0, Source.SEEN)
    assert not holdings.holds(other, NOW, ALL)
    assert not holdings.remove(other, 0)
    assert holdings.add(other, 0, 0, Source.SEEN)
    assert holdings.holds(other, NOW, ALL)
    assert holdings.remove(other, 0)
    assert not holdings.holds(other, NOW, ALL)
    assert holdings.holds(one, NOW, ALL)


def test_keys_for_a_digest_are_the_fresh_ones_each_once() -> None:
    holdings = Holdings()
    for number in range(500):
        holdings.add(key(number), number % 3, LATER if number % 5 else NOW, Source.STORE_LOG)
        holdings.add(key(number), 3, LATER if number % 5 else NOW, Source.SEEN)
    data = b"".join(holdings.keys(None, NOW))
    found = [data[at : at + 16] for at in range(0, len(data), 16)]
    assert sorted(found) == sorted(key(number) for number in range(500) if number % 5)
    data = b"".join(holdings.keys(1, NOW - 1))
    assert len(data) == 16 * 167
    assert b"".join(holdings.keys(8, NOW)) == b""


def test_a_bucket_that_was_emptied_takes_keys_again() -> None:
    holdings = Holdings()
    holdings.add(key(1), 0, NOW, Source.SEEN)
    sweep(holdings, NOW + STALE_KEPT_S)
    holdings.add(key(1), 0, LATER, Source.SEEN)
    assert holdings.holds(key(1), NOW, ALL)
    assert not holdings.holds(bytes(16), NOW, ALL)
    assert holdings.count() == 1


def test_a_table_without_room_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="0 keys"):
        Holdings(0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_it_agrees_with_a_dictionary(seed: int) -> None:
    chance = random.Random(seed)
    holdings = Holdings()
    model: dict[tuple[bytes, int], int] = {}
    keys = [key(number) for number in range(6)] + [crowd(number) for number in range(6)]
    for _ in range(40):
        one, node, expires = chance.choice(keys), chance.randrange(3), chance.choice((0, NOW, LATER, LATER + 1))
        match chance.randrange(7):
            case 0 | 1 | 2:
                assert holdings.add(one, node, expires, Source.SEEN) is ((one, node) not in model)
                model[one, node] = expires or model.get((one, node), 0)
            case 3:
                assert holdings.remove(one, node) is (model.pop((one, node), None) is not None)
            case 4:
                assert holdings.renew(one, node, expires) is ((one, node) in model)
                if model.get((one, node)):
                    model[one, node] = max(expires, model[one, node])
            case 5:
                holdings.forget_node(node)
                model = {pair: value for pair, value in model.items() if pair[1] != node}
            case _:
                holdings.expire(NOW, chance.choice((10, 5000)))
        live = chance.randrange(8)
        for one in chance.sample(keys, 4):
            held = any(live >> node & 1 and value not in (NOW,) for (other, node), value in model.items() if other == one)
            assert holdings.holds(one, NOW, live) is held
        assert holdings.holds_all(keys, NOW, live) == [holdings.holds(one, NOW, live) for one in keys]
    assert holdings.count() == len(model)
    assert sum(len(holdings.holders(one)) for one in keys) == len(model)


def test_a_restored_table_must_fit_together() -> None:
    empty = [0] * BUCKETS
    with pytest.raises(ValueError, match="1 records"):
        Holdings.restore(memoryview(b""), [1, *empty[1:]], {})
    with pytest.raises(ValueError, match="0 records in 1"):
        Holdings.restore(memoryview(b""), [0], {})
    with pytest.raises(ValueError, match="too large"):
        Holdings.restore(memoryview(b""), empty, {4096: 1})
    with pytest.raises(ValueError, match="two slots"):
        Holdings.restore(memoryview(b""), empty, {4: 1, 5: 1})


def test_the_garbage_collector_does_not_visit_the_buckets() -> None:
    holdings = Holdings()
    holdings.add(key(1), 0, LATER, Source.SEEN)
    gc.collect()
    assert not gc.is_tracked(holdings._buckets)


def test_memory_is_given_back() -> None:
    holdings = Holdings()
    for number in range(60):
        holdings.add(crowd(number), 0, NOW if number % 4 else LATER, Source.SEEN)
    sweep(holdings, NOW + STALE_KEPT_S)
    (bucket,) = filter(None, holdings._buckets)
    assert len(bucket) == 15 * 20
    assert sys.getsizeof(bucket) < 15 * 20 + 64


def seen_by(holdings: Holdings, node: int, *, work: int = 1_000) -> dict[bytes, tuple[int, int]]:
    """Time and mark of each key of a node, as a judge that changes nothing sees them."""
    found: dict[bytes, tuple[int, int]] = {}

    def judge(keys: bytes, times: list[int], marks: list[int]) -> list[int]:
        for number, (expires, mark) in enumerate(zip(times, marks, strict=True)):
            found[keys[number * 16 : number * 16 + 16]] = expires, mark
        return marks

    at = 0
    while at < BUCKETS:
        at = holdings.visit(at, {node: judge}, work=work)
    return found


@pytest.mark.parametrize("work", [50, 1_000, 1 << 40])
def test_a_judge_sees_all_records_of_its_node_and_no_others(work: int) -> None:
    holdings = Holdings()
    for number in range(300):
        holdings.add(key(number), (3, 259, 4)[number % 3], LATER + number, Source.DIGEST)  # 3 and 259 have one lower half
    found = seen_by(holdings, 3, work=work)
    assert found == {key(number): (LATER + number, MARK_RECENT | Source.DIGEST) for number in range(0, 300, 3)}
    assert seen_by(holdings, 99) == {}


def test_a_visit_is_bounded_by_its_last_bucket_and_by_its_work() -> None:
    holdings = Holdings()
    for number in range(2000):
        holdings.add(key(number), 0, LATER, Source.SEEN)
    told: list[int] = []
    judge = lambda keys, times, marks: told.append(len(marks)) or marks  # noqa: E731
    assert holdings.visit(0, {0: judge}, 7) == 7
    at = holdings.visit(7, {0: judge}, work=500)
    assert 7 < at < 520
    assert holdings.visit(at, {0: judge}, work=1 << 40) == BUCKETS
    assert sum(told) == 2000


def test_what_judges_decide_happens() -> None:
    holdings = Holdings()
    for number in range(40):
        holdings.add(crowd(number), number % 2, LATER, Source.SEEN)
    doomed = {crowd(number) for number in range(0, 40, 4)} | {crowd(number) for number in range(1, 40, 6)}

    def judge(keys: bytes, times: list[int], marks: list[int]) -> list[int]:
        names = [keys[at : at + 16] for at in range(0, len(keys), 16)]
        return [GONE if name in doomed else int(Source.DIGEST) for name in names]

    changes = holdings.changes
    assert holdings.visit(0, {0: judge, 1: judge}, work=1 << 40) == BUCKETS
    assert holdings.changes > changes
    left = {crowd(number): number % 2 for number in range(40) if crowd(number) not in doomed}
    assert holdings.count() == len(left)
    for number in range(40):
        held = [Holding(number % 2, LATER, Source.DIGEST)] if crowd(number) in left else []
        assert holdings.holders(crowd(number)) == held
    assert {mark for _, mark in seen_by(holdings, 0).values()} == {Source.DIGEST}
    holdings.add(crowd(2), 0, LATER, Source.SEEN)
    assert seen_by(holdings, 0)[crowd(2)] == (LATER, Source.DIGEST | MARK_RECENT)


def test_after_a_turn_what_was_recorded_before_is_old_until_it_is_recorded_again() -> None:
    holdings = Holdings()
    for number in range(3):
        holdings.add(key(number), 0, LATER, Source.SEEN)
    holdings.add(key(5), 1, LATER, Source.SEEN)
    holdings.turn(0)
    holdings.turn(9)
    holdings.add(key(1), 0, LATER, Source.SEEN)
    holdings.renew(key(2), 0, LATER + 1)
    holdings.add(key(3), 0, LATER, Source.SEEN)
    marks = {one: mark for one, (_, mark) in seen_by(holdings, 0).items()}
    old = MARK_OLD | MARK_RECENT
    assert marks == {key(0): old, key(1): MARK_RECENT, key(2): MARK_RECENT, key(3): MARK_RECENT}
    assert seen_by(holdings, 1) == {key(5): (LATER, MARK_RECENT)}


def test_what_is_doubted_is_only_seen() -> None:
    holdings = Holdings()
    holdings.add(key(1), 0, LATER, Source.STORE_LOG)
    assert holdings.doubt(key(1), 0)
    assert not holdings.doubt(key(1), 0)
    assert not holdings.doubt(key(1), 1)
    assert not holdings.doubt(key(2), 0)
    assert holdings.holders(key(1)) == [Holding(0, LATER, Source.SEEN)]


def test_every_change_is_counted() -> None:
    holdings = Holdings()
    numbers = [holdings.changes]
    for change in (
        lambda: holdings.add(key(1), 0, LATER, Source.STORE_LOG),
        lambda: holdings.add(key(1), 0, LATER + 1, Source.STORE_LOG),
        lambda: holdings.renew(key(1), 0, LATER + 2),
        lambda: holdings.doubt(key(1), 0),
        lambda: holdings.remove(key(1), 0),
        lambda: holdings.add(key(1), 0, NOW, Source.SEEN),
        lambda: sweep(holdings, NOW + STALE_KEPT_S),
        lambda: holdings.forget_node(0),
    ):
        change()
        numbers.append(holdings.changes)
    assert numbers == sorted(set(numbers))
    for nothing in (
        lambda: holdings.remove(key(1), 0),
        lambda: holdings.renew(key(1), 0, LATER),
        lambda: holdings.forget_node(0),
        lambda: holdings.expire(NOW),
        lambda: holdings.holds(key(1), NOW, ALL),
    ):
        nothing()
    assert holdings.changes == numbers[-1]


def test_a_restored_record_is_old_and_of_unknown_source() -> None:
    before = Holdings()
    before.add(key(1), 7, LATER, Source.STORE_LOG)
    (slot,) = before.slots()
    buckets = before.buckets(0, BUCKETS)
    after = Holdings.restore(memoryview(b"".join(buckets)), [len(bucket) // 20 for bucket in buckets], {slot: 3}, as_of=NOW)
    assert after.as_of == NOW
    assert seen_by(after, 3) == {key(1): (LATER, MARK_OLD)}
    after.add(key(2), 3, LATER, Source.SEEN)
    assert seen_by(after, 3)[key(2)] == (LATER, MARK_RECENT)
