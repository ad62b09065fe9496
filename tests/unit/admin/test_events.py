"""The ring of events."""

from __future__ import annotations

import asyncio

from cachelb.admin.events import KEPT, Events


def events(count: int) -> Events:
    found = Events(lambda: 1000.5)
    for number in range(count):
        found.add("node", f"the {number}th", "warning", "a", number=number)
    return found


def test_ids_grow_and_each_has_what_it_was_given():
    (first, second) = events(2).after(0)
    assert (first.id, second.id, second.at, second.node, second.data) == (1, 2, 1000.5, "a", {"number": 1})
    assert second.as_dict()["text"] == "the 1th"


def test_who_comes_back_gets_what_was_missed():
    found = events(10)
    assert [event.id for event in found.after(7)] == [8, 9, 10]
    assert found.after(10) == []


def test_what_is_no_longer_kept_is_said():
    found = events(KEPT + 5)
    assert len(found.after(0)) == KEPT  # who begins has missed nothing
    gap, *rest = found.after(2)
    assert (gap.kind, gap.data, rest[0].id, len(rest)) == ("gap", {"missed": 3}, 6, KEPT)
    assert [event.kind for event in found.after(5)] == ["node"] * KEPT


def test_an_id_of_a_director_before_this_one_means_everything():
    assert [event.id for event in events(3).after(900)] == [1, 2, 3]


def test_listeners_are_woken():
    async def main() -> None:
        found = Events(lambda: 0.0)
        listener = asyncio.Event()
        found.listeners.add(listener)
        found.add("farm", "x")
        assert listener.is_set()

    asyncio.run(main())
