"""What workers are answered, and what they are told without asking."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from cachelb import control
from cachelb.affinity.register import Register
from cachelb.affinity.templates import NOBODY
from cachelb.config import Config
from cachelb.control import NO_SLOT, Find, Found, Used
from cachelb.counters import BLOCK_BYTES, NODE_INDEX, node_offset
from cachelb.routing.template import packed
from cachelb.snapshot import NodeView

A, B = packed("10.0.0.1"), packed("10.0.0.2")


class FakeWorker:
    def __init__(self) -> None:
        self.block = memoryview(bytearray(BLOCK_BYTES)).cast("Q")
        self.told: list[tuple[bytes, bytes]] = []

    def send(self, kind: bytes, payload: bytes) -> None:
        self.told.append((kind, payload))

    def forgotten(self) -> list[Used]:
        return [used for kind, payload in self.told if kind == control.FORGET for used in control.unpack_used(payload)]


class FakeWorkers:
    def __init__(self, count: int) -> None:
        self.workers = [FakeWorker() for _ in range(count)]

    @property
    def blocks(self) -> list[memoryview]:
        return [worker.block for worker in self.workers]

    def tell(self, kind: bytes, payload: bytes) -> None:
        for worker in self.workers:
            worker.send(kind, payload)


class Subject:
    def __init__(self, **group: Any) -> None:
        self.now = 1000.0
        sections = {"affinity": [{"name": "shop", "timeout_s": 300.0, **group}, {"name": "mail"}]}
        self.config = Config.model_validate_json(json.dumps(sections))
        self.register = Register(self.config, lambda: self.now)
        self.workers = FakeWorkers(2)
        self.register.workers = self.workers  # type: ignore[assignment]
        self.place("up", "up", "up")

    def place(self, *states: Any) -> None:
        self.register.place([NodeView(f"n{i}", i, ("127.0.0.1",), 3128, 1.0, state) for i, state in enumerate(states)])

    def ask(self, *finds: Find, worker: int = 0) -> list[Found]:
        asker = self.workers.workers[worker]
        self.register.heard(asker, control.FIND, control.pack_finds(list(finds)))  # type: ignore[arg-type]
        payload = next(payload for kind, payload in reversed(asker.told) if kind == control.FOUND)
        return control.unpack_found(payload)

    def find(self, address: bytes = A, worker: int = 0, group: str = "shop", proposed: int = NO_SLOT) -> tuple[int, int]:
        (found,) = self.ask(Find(7, proposed, group, "", "url" if proposed != NO_SLOT else "wlc", address), worker=worker)
        assert found.number == 7
        return found.slot, found.home

    def report(self, *used: Used, worker: int = 0) -> None:
        self.register.heard(self.workers.workers[worker], control.USED, control.pack_used(used))  # type: ignore[arg-type]


def test_both_workers_are_told_one_node_and_many_questions_are_one_answer():
    subject = Subject()
    finds = [Find(number, NO_SLOT, "shop", "", "wlc", packed(f"10.0.1.{number}")) for number in range(30)]
    first, second = subject.ask(*finds), subject.ask(*finds, worker=1)
    assert first == second
    assert [found.number for found in first] == list(range(30))
    assert sorted(found.slot for found in first) == [0] * 10 + [1] * 10 + [2] * 10


def test_what_the_workers_have_under_way_decides():
    subject = Subject()
    for number, slot in enumerate((0, 2)):
        block = subject.workers.workers[number].block
        block[node_offset(slot) + NODE_INDEX["requests"]] = 9
        block[node_offset(slot) + NODE_INDEX["ended"]] = 2
    assert {subject.find(packed(f"10.0.1.{number}"))[0] for number in range(6)} == {1}


def test_a_dead_nodes_client_is_moved_once_and_the_others_are_told():
    subject = Subject(after_death="return")
    slot, _ = subject.find()
    states = ["up"] * 3
    states[slot] = "dead"
    subject.place(*states)
    moved, home = subject.find(worker=1)
    assert moved != slot
    assert home == slot
    assert subject.workers.workers[0].forgotten() == [Used(NO_SLOT, "shop", A)]
    assert subject.workers.workers[1].forgotten() == []
    assert subject.find() == (moved, slot)
    subject.place("up", "up", "up")
    assert subject.find() == (slot, NO_SLOT)
    assert subject.workers.workers[1].forgotten() == [Used(NO_SLOT, "shop", A)]
    counters = subject.register.counters()
    assert (counters["affinity_created"], counters["affinity_moved"], counters["affinity_returned"]) == (1, 1, 1)


def test_who_was_moved_twice_returns_to_the_first_that_died():
    subject = Subject(after_death="return")
    first, _ = subject.find()
    states = ["up"] * 3
    states[first] = "dead"
    subject.place(*states)
    second, _ = subject.find()
    states[second] = "dead"
    subject.place(*states)
    third, home = subject.find()
    assert len({first, second, third}) == 3
    assert home == first


def test_a_node_that_the_operator_took_down_is_not_returned_to():
    subject = Subject(after_death="return")
    slot, _ = subject.find()
    states = ["up"] * 3
    states[slot] = "down"
    subject.place(*states)
    assert subject.find()[1] == NO_SLOT


def test_a_node_that_left_the_configuration_loses_its_clients():
    subject = Subject(after_death="return")
    slots = {number: subject.find(packed(f"10.0.1.{number}"))[0] for number in range(9)}
    subject.place("up", "up")
    after = {number: subject.find(packed(f"10.0.1.{number}")) for number in slots}
    assert {slot for slot, _ in after.values()} == {0, 1}
    assert {home for _, home in after.values()} == {NO_SLOT}
    assert all(after[number][0] == slot for number, slot in slots.items() if slot < 2)


def test_use_keeps_a_template_and_what_is_too_old_is_none_even_before_it_is_swept():
    subject = Subject()
    slot, _ = subject.find()
    for _ in range(4):
        subject.now += 200.0
        subject.report(Used(slot, "shop", A))
    assert subject.workers.workers[0].forgotten() == []
    assert subject.register.created == 1
    subject.now += 300.0
    subject.find()
    assert subject.register.created == 2
    assert subject.register.counters()["affinity_expired"] == 1


def test_a_worker_that_reports_what_is_not_so_is_told():
    subject = Subject()
    slot, _ = subject.find()
    wrong = [Used((slot + 1) % 3, "shop", A), Used(slot, "shop", B), Used(slot, "unknown", A)]
    subject.report(Used(slot, "shop", A), *wrong)
    assert subject.workers.workers[0].forgotten() == wrong


def test_a_proposal_counts_for_a_client_that_has_none():
    subject = Subject()
    assert subject.find(proposed=2) == (2, NO_SLOT)
    assert subject.find(proposed=1) == (2, NO_SLOT)
    assert subject.find(B, proposed=77)[0] in (0, 1, 2)


def test_nobody_in_service_unknown_groups_and_pools_get_no_node():
    subject = Subject()
    assert subject.find(group="unknown") == (NO_SLOT, NO_SLOT)
    (found,) = subject.ask(Find(1, NO_SLOT, "shop", "unknown", "wlc", A))
    assert found.slot == NO_SLOT
    slot, _ = subject.find()
    subject.place("dead", "down", "dead")
    assert subject.find() == (NO_SLOT, NO_SLOT)
    subject.place("up", "up", "up")
    assert subject.find() == (slot, NO_SLOT)


def test_flushes_are_counted_and_told():
    subject = Subject()
    slots = {address: subject.find(address)[0] for address in (packed(f"10.0.1.{number}") for number in range(6))}
    first = next(address for address, slot in slots.items() if slot != 1)
    assert subject.register.flush_client(["shop", "mail"], first) == 1
    assert subject.workers.workers[1].forgotten() == [Used(NO_SLOT, "shop", first)]
    assert asyncio.run(subject.register.flush(["shop"], 1)) == 2
    assert subject.workers.workers[1].forgotten()[1:] == [Used(1, "shop", b"")] * 2
    assert asyncio.run(subject.register.flush(["shop", "mail"])) == 3
    counters = subject.register.counters()
    assert (counters["affinity_flushed"], counters["affinity_templates"]) == (6, 0)


def test_a_reload_without_the_group_drops_its_templates():
    subject = Subject()
    subject.find()
    before = subject.register.changes
    subject.register.configure(Config())
    assert subject.register.counters()["affinity_templates"] == 0
    assert subject.register.changes > before
    assert subject.find() == (NO_SLOT, NO_SLOT)


# -- two directors


def told_of(subject: Subject) -> list[list[str]]:
    records: list[list[str]] = []
    subject.register.journal = records.append
    return records


def test_what_one_director_decides_another_takes_over_by_the_nodes_names():
    old, new = Subject(after_death="return"), Subject()
    records = told_of(old)
    slot, _ = old.find()
    states = ["up"] * 3
    states[slot] = "dead"
    old.place(*states)
    moved, _ = old.find()
    old.report(Used(moved, "shop", A))
    new.register.place([NodeView(f"n{i}", 5 + i, ("127.0.0.1",), 3128, 1.0, "up") for i in (2, 1, 0)])
    new.register.adopt(json.dumps(records).encode(), overrule=True)
    shelf = new.register.templates.shelves["shop"]
    found = shelf.get(shelf.group.key(A))
    assert found is not None
    assert found[:2] == (5 + moved, 5 + slot)
    assert new.register.created == 0


def test_who_is_the_director_overrules_and_tells_its_workers():
    subject = Subject()
    slot, _ = subject.find()
    other = f"n{(slot + 1) % 3}"
    record = json.dumps([["shop", A.hex(), other, ""], ["shop", B.hex(), other, ""]]).encode()
    subject.register.adopt(record, overrule=False)
    assert subject.find() == (slot, NO_SLOT)
    assert subject.find(B) == ((slot + 1) % 3, NO_SLOT)
    assert subject.workers.workers[1].forgotten() == []
    subject.register.adopt(record, overrule=True)
    assert subject.workers.workers[1].forgotten() == [Used(NO_SLOT, "shop", A)]
    assert subject.find() == ((slot + 1) % 3, NO_SLOT)


def test_flushes_are_taken_over():
    old, new = Subject(), Subject()
    records = told_of(old)
    slots = {address: old.find(address)[0] for address in (packed(f"10.0.1.{number}") for number in range(9))}
    new.register.adopt(json.dumps(records).encode(), overrule=True)
    assert new.register.counters()["affinity_templates"] == 9
    records.clear()
    old.register.flush_client(["shop"], next(address for address, slot in slots.items() if slot != 1))
    asyncio.run(old.register.flush(["shop"], 1))
    new.register.adopt(json.dumps(records).encode(), overrule=True)
    assert new.register.templates.size == old.register.templates.size == 5
    assert new.register.templates.shelves["shop"].counts == old.register.templates.shelves["shop"].counts
    records.clear()
    asyncio.run(old.register.flush(["shop"]))
    new.register.adopt(json.dumps(records).encode(), overrule=True)
    assert new.register.templates.size == 0


def test_no_home_is_nobody():
    subject = Subject()
    subject.register.adopt(json.dumps([["shop", A.hex(), "n1", "unknown"]]).encode(), overrule=True)
    shelf = subject.register.templates.shelves["shop"]
    found = shelf.get(shelf.group.key(A))
    assert found is not None
    assert found.home == NOBODY
