"""What a relay tells people: the access log's file is cared for, a bounded number of events."""

from __future__ import annotations

import logging

from fakes import get

from cachelb.counters import FARM_INDEX


def test_lines_that_are_lost_are_counted_through_restarts_reloads_and_the_end(make_farm, tmp_path, relay_errors):
    nowhere = tmp_path / "missing" / "access.log"
    farm = make_farm(log={"access": str(nowhere)})
    farm.engine.farm[FARM_INDEX["log_dropped"]] = 10  # as a restarted worker finds it in its block
    farm.relay.call(lambda: setattr(farm.engine.reports.access.file, "_limit", 0))
    farm.nodes[0].serve()
    farm.ask(farm.url(0))
    farm.wait_until(lambda: farm.counter("log_dropped") == 11)
    farm.apply(log={"access": str(tmp_path / "elsewhere" / "access.log")})
    assert farm.counter("log_dropped") == 11
    farm.ask(farm.url(0))  # kept, in the hope that the file can be written some day
    farm.wait_until(lambda: farm.ended() == {"done": 2})
    farm.drain(1.0)
    assert farm.engine.block[FARM_INDEX["log_dropped"]] == 12
    assert len(relay_errors) == 2
    relay_errors.clear()


def test_a_flood_of_failures_is_not_a_flood_of_events(make_farm, caplog):
    farm = make_farm(bypass={"mode": "nodes"})
    farm.states = ["dead"] * 3
    farm.apply()
    client = farm.connect()
    with caplog.at_level(logging.INFO, "cachelb.relay"):
        for _ in range(100):
            client.send(get(farm.url(0)))
            assert client.read_answer().status == 503
    events = [record for record in caplog.records if record.getMessage().startswith("no_node")]
    assert 1 <= len(events) <= 20


def test_what_a_client_sends_cannot_forge_a_line(farm, caplog):
    with caplog.at_level(logging.INFO, "cachelb.relay"):
        answer = farm.ask("http://a.test/\u00ff\u00fe", f"Via: 1.1 {farm.via}")
    assert answer.status == 508
    event = next(record.getMessage() for record in caplog.records if record.getMessage().startswith("loop"))
    assert event.isascii()
    assert event.isprintable()
