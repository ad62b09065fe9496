"""The table of templates: order, expiry, bounds, counts; checked against a model that is a plain dictionary."""

from __future__ import annotations

import random

from cachelb.affinity.templates import LIMIT, NOBODY, SHARDS, Shelf, Template, Templates
from cachelb.routing.template import Group


def table(limit: int = LIMIT, *groups: Group) -> tuple[Templates, Shelf]:
    subject = Templates(limit)
    subject.configure(groups or [Group("g", timeout_s=100.0)])
    return subject, next(iter(subject.shelves.values()))


def expire(subject: Templates, now: float) -> int:
    return sum(subject.expire(shard, now) for shard in range(SHARDS))


def test_a_template_is_what_was_put():
    subject, shelf = table()
    assert shelf.get(6) is None
    subject.put(shelf, 6, 2047, NOBODY, 1000.0)
    assert shelf.get(6) == Template(2047, NOBODY, 1000.0)
    subject.put(shelf, 6, 3, 2047, 1001.5)
    assert shelf.get(6) == Template(3, 2047, 1001.5)
    assert (subject.size, shelf.counts) == (1, {3: 1})
    assert subject.drop(shelf, 6)
    assert not subject.drop(shelf, 6)
    assert (subject.size, shelf.counts) == (0, {})


def test_the_time_of_years_and_before_the_start_fits():
    subject, shelf = table()
    for key, now in enumerate((0.0, -5.0, 3e8)):
        subject.put(shelf, key, 5, NOBODY, now)
        assert shelf.get(key) == Template(5, NOBODY, now)


def test_what_is_not_used_for_the_timeout_expires_and_what_is_used_does_not():
    subject, shelf = table()
    for key in range(200):
        subject.put(shelf, key, 1, NOBODY, 0.0)
    for key in range(0, 200, 2):
        shelf.use(key, 50.0)
    assert expire(subject, 99.0) == 0
    assert expire(subject, 100.0) == 100
    assert all(shelf.get(key) for key in range(0, 200, 2))
    assert expire(subject, 151.0) == 100
    assert (subject.size, subject.expired, shelf.counts) == (0, 200, {})


def test_too_many_push_out_the_longest_unused_of_any_group():
    subject, _ = table(10_000, Group("a"), Group("b"))
    for key in range(10_000):
        subject.put(subject.shelves["ab"[key % 2]], key, 1, NOBODY, float(key))
    for key in range(1000):  # the oldest are used again
        subject.shelves["ab"[key % 2]].use(key, 20_000.0)
    for key in range(10_000, 12_000):
        subject.put(subject.shelves["ab"[key % 2]], key, 1, NOBODY, 20_000.0)
        assert subject.size <= 10_000
    assert subject.evicted >= 2000
    assert all(subject.shelves["ab"[key % 2]].get(key) for key in (*range(1000), *range(10_000, 12_000)))
    gone = [key for key in range(10_000) if not subject.shelves["ab"[key % 2]].get(key)]
    assert len(gone) == subject.evicted
    assert max(gone) < 1000 + 1.2 * len(gone)  # nearly the order of age


def test_a_reload_drops_groups_that_are_gone_and_those_of_other_clients():
    subject, _ = table(LIMIT, Group("stays"), Group("mask"), Group("gone"))
    for shelf in subject.shelves.values():
        subject.put(shelf, 1, 1, NOBODY, 0.0)
    emptied = subject.configure([Group("mask", netmask_v4=16), Group("stays", timeout_s=7.0), Group("new")])
    assert sorted(emptied) == ["gone", "mask"]
    assert subject.size == 1
    assert {name: shelf.size for name, shelf in subject.shelves.items()} == {"mask": 0, "stays": 1, "new": 0}
    assert subject.shelves["stays"].group.timeout_s == 7.0


def test_flushing_takes_those_of_a_node_or_all():
    subject, _ = table(LIMIT, Group("a"), Group("b"))
    for key in range(300):
        subject.put(subject.shelves["a"], key, key % 3, NOBODY, 0.0)
        subject.put(subject.shelves["b"], key, key % 3, NOBODY, 0.0)
    assert sum(subject.flush(["a"], 1)) == 100
    assert subject.shelves["a"].counts == {0: 100, 2: 100}
    assert sum(subject.flush(["a", "b"], 2)) == 200
    assert sum(subject.flush(["b", "unknown"], None)) == 200
    assert subject.size == 100


def test_whatever_happens_it_is_what_a_simple_model_says():
    chance = random.Random(7)
    subject, shelf = table()
    model: dict[int, tuple[int, int, float]] = {}
    for step in range(20_000):
        now, key = step / 40, chance.randrange(400)
        what = chance.random()
        if what < 0.4:
            slot, home = chance.randrange(5), chance.choice((NOBODY, 3))
            subject.put(shelf, key, slot, home, now)
            model[key] = slot, home, now
        elif what < 0.8:
            if key in model:
                shelf.use(key, now)
                model[key] = (*model[key][:2], now)
        elif what < 0.9:
            assert subject.drop(shelf, key) == (model.pop(key, None) is not None)
        else:
            shard = step % SHARDS
            subject.expire(shard, now)
            old = int((now - 100.0) * 16)
            for gone in [k for k, (_, _, used) in model.items() if k % SHARDS == shard and int(used * 16) <= old]:
                del model[gone]
    found = {key: template for shard in range(SHARDS) for key, template in shelf.items(shard)}
    assert {key: (t.slot, t.home, t.used) for key, t in found.items()} == {
        key: (slot, home, int(used * 16) / 16) for key, (slot, home, used) in model.items()
    }
    assert subject.size == shelf.size == len(model)
    slots = [slot for slot, _, _ in model.values()]
    assert shelf.counts == {slot: slots.count(slot) for slot in set(slots)}
