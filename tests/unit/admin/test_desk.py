"""What the supervisor keeps for those who watch."""

from __future__ import annotations

from fakes_admin import with_supervisor

from cachelb import control
from cachelb.control import HIT, MARKED, Sample
from cachelb.counters import FARM_INDEX, NODE_INDEX, node_offset
from cachelb.routing.learned import Lesson
from cachelb.supervisor import Supervisor
from cachelb.workers import Workers


def kinds(supervisor: Supervisor) -> list[str]:
    return [event.kind for event in supervisor.desk.events.after(0)]


def test_rates_come_from_the_workers_counters():
    async def test(supervisor: Supervisor) -> None:
        supervisor.workers = Workers([[], []], b"")
        supervisor.desk.take(1.0)
        for block in supervisor.workers.blocks:
            block[FARM_INDEX["requests"]] = 50
            block[node_offset(supervisor.farm.slots["a"]) + NODE_INDEX["requests"]] = 20
        supervisor.desk.take(3.0)
        assert supervisor.desk.history.rates()["requests_per_s"] == 50
        assert supervisor.desk.history.rates("a")["requests_per_s"] == 20

    with_supervisor(test)


def test_refusals_and_failures_are_told_in_bulk():
    async def test(supervisor: Supervisor) -> None:
        supervisor.workers = Workers([[]], b"")
        block = supervisor.workers.blocks[0]
        supervisor.desk.take(100.0)
        block[FARM_INDEX["ended_access_denied"]] = 1000
        block[FARM_INDEX["ended_reset"]] = 2
        block[FARM_INDEX["ended_done"]] = 9
        supervisor.desk.take(101.0)
        assert kinds(supervisor) == []
        supervisor.desk.take(106.0)
        refusals, errors = supervisor.desk.events.after(0)
        assert (refusals.kind, refusals.data) == ("refusals", {"counts": {"access_denied": 1000}})
        assert (errors.kind, errors.level, errors.data) == ("errors", "warning", {"counts": {"reset": 2}})
        supervisor.desk.take(112.0)
        assert len(kinds(supervisor)) == 2

    with_supervisor(test)


def test_a_worker_that_was_replaced_is_an_event():
    async def test(supervisor: Supervisor) -> None:
        supervisor.workers = Workers([[]], b"")
        (worker,) = supervisor.workers.workers
        supervisor.desk.take(1.0)
        worker.restarts, worker.ended = 1, "killed by signal 9"
        supervisor.desk.take(2.0)
        supervisor.desk.take(3.0)
        (event,) = supervisor.desk.events.after(0)
        assert (event.kind, event.level, "killed by signal 9" in event.text) == ("worker", "error", True)

    with_supervisor(test)


def test_samples_of_the_workers_are_counted():
    async def test(supervisor: Supervisor) -> None:
        supervisor.desk.heard(control.HOT, control.pack_samples([Sample(0, HIT | MARKED, 5, 100, b"http://x/")]))
        found = supervisor.desk.hot.as_dict(5, 10, 0.0, {0: "a"}, lambda url: "")
        assert found["requests"] == 5

    with_supervisor(test)


def test_what_the_workers_learned_is_known():
    async def test(supervisor: Supervisor) -> None:
        lessons = [Lesson("segment", b"a/b/", "no-store", 60.0), Lesson("url", b"http://a/x", "private", 60.0)]
        supervisor.desk.heard(control.LESSONS, control.pack_lessons(lessons))
        for _ in range(200):  # also where a worker would test it
            assert supervisor.desk.taught(b"http://a/b/1", b"a/b/") == "learned segment no-store"
        assert supervisor.desk.taught(b"http://a/x", b"a/") == "learned url private"
        assert supervisor.desk.taught(b"http://a/y", b"a/") is None

    with_supervisor(test)


def test_what_was_in_flight_when_a_node_began_to_drain_is_remembered_until_it_is_up_again():
    async def test(supervisor: Supervisor) -> None:
        supervisor.workers = Workers([[]], b"")
        supervisor.workers.blocks[0][node_offset(supervisor.farm.slots["a"]) + NODE_INDEX["requests"]] = 4
        supervisor.steer("a", state="drain")
        supervisor.desk.note_drains(10.0)
        supervisor.desk.note_drains(20.0)
        assert supervisor.desk.drains["a"] == (10.0, 4)
        supervisor.steer("a", state="up")
        supervisor.desk.note_drains(30.0)
        assert "a" not in supervisor.desk.drains

    with_supervisor(test)
