"""Server-sent events over HTTP."""

from __future__ import annotations

import json

import pytest
from fakes_admin import Asker, with_client

from cachelb.admin import stream
from cachelb.admin.events import Event
from cachelb.supervisor import Supervisor

ACCEPT = {"Accept": "text/event-stream"}


def test_an_event_is_three_lines_and_an_empty_one():
    event = Event(7, 1.5, "node", "info", "a\nb", "a", {"x": 1})
    first, second, third, *rest = stream.pack([event]).decode().split("\n")
    assert (first, second, rest) == ("id: 7", "event: node", ["", ""])
    assert json.loads(third.removeprefix("data: ")) == event.as_dict()


async def read_events(content: object, count: int) -> list[dict]:
    found = []
    while len(found) < count:
        line = (await content.readline()).decode()  # type: ignore[attr-defined]
        assert line, "the stream has ended"
        if line.startswith("data: "):
            found.append(json.loads(line.removeprefix("data: ")))
    return found


def test_a_listener_gets_what_was_and_what_comes():
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        events = supervisor.desk.events
        events.add("farm", "one")
        events.add("farm", "two")
        async with ask.session.get("/api/v1/events", headers=ACCEPT) as answer:
            assert answer.content_type == "text/event-stream"
            assert [event["id"] for event in await read_events(answer.content, 2)] == [1, 2]
            events.add("node", "three", "warning", "a")
            (event,) = await read_events(answer.content, 1)
            assert (event["id"], event["kind"], event["node"]) == (3, "node", "a")
        async with ask.session.get("/api/v1/events", headers=ACCEPT | {"Last-Event-ID": "2"}) as answer:
            assert [event["id"] for event in await read_events(answer.content, 1)] == [3]
        async with ask.session.get("/api/v1/events?after=1", headers=ACCEPT) as answer:
            assert [event["id"] for event in await read_events(answer.content, 2)] == [2, 3]

    with_client(test)


def test_too_many_listeners_are_refused_and_those_that_go_make_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream, "LISTENERS_MAX", 1)
    monkeypatch.setattr(stream, "ALIVE_S", 0.02)

    async def test(supervisor: Supervisor, ask: Asker) -> None:
        listeners = supervisor.desk.events.listeners
        async with ask.session.get("/api/v1/events", headers=ACCEPT) as answer:
            assert answer.status == 200
            await answer.content.readline()
            assert (await ask("/api/v1/events", fields=ACCEPT))[0] == 503
            assert len(listeners) == 1
            answer.close()
        while listeners:
            await ask("/api/v1/events")
        async with ask.session.get("/api/v1/events", headers=ACCEPT) as answer:
            assert answer.status == 200
            answer.close()

    with_client(test)


def test_a_listener_does_not_keep_the_director_from_ending():
    async def test(supervisor: Supervisor, ask: Asker) -> None:
        answer = await ask.session.get("/api/v1/events", headers=ACCEPT)
        await answer.content.readline()

    with_client(test)  # it would take longer than with_supervisor allows
