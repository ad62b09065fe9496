"""Squids die, hang and come back under load: who may notice, and which URLs move.

Every client compares every body; an exchange may fail only if its answer had begun when the Squid died.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime

from load import Client, Load, Outcome, mixed_paths, owners, static_paths

from cachelb.demo.director import Director
from cachelb.demo.farm import Squid, SquidFarm, wait_until
from cachelb.demo.origin import OriginProcess

CLIENTS = 12
PATIENCE_S = 30.0
INTERVAL_S = 2.0  # of probes: the default
AT_ONCE = "[health]\nslow_start_s = 0\n"  # a node that is back has all its keys again at once


def wait_for_state(director: Director, node: Squid, state: str) -> None:
    """Return when `node` is in that state, with all or none of its keys, and every worker goes by it."""
    wanted = (state, 1.0 if state == "up" else 0.0)

    def is_so() -> bool:
        status = director.status()
        (now,) = ((n["state"], n["share"]) for n in status["nodes"] if n["name"] == node.name)
        return now == wanted and {worker["epoch"] for worker in status["workers"]} == {status["epoch"]}

    assert wait_until(is_so, PATIENCE_S), director.log_tail()


def asked_between(outcomes: Iterable[Outcome], start: float, end: float, paths: Iterable[str]) -> list[Outcome]:
    """Requests for `paths` that were sent and answered between these times (monotonic seconds)."""
    wanted = set(paths)
    return [o for o in outcomes if o.path in wanted and start <= o.sent_at and o.ended_at <= end]


def pass_over(load: Load, static: list[str]) -> None:
    """Let every static path be asked for at least once more from now on."""
    load.wait_for(len(static) * 2 + 2 * CLIENTS)


def assert_others_stayed(before: dict[str, set[str]], during: dict[str, set[str]], gone: Squid) -> None:
    """While `gone` was away, its own URLs were served by others, and everybody else's by their owners."""
    assert set(during) == set(before)
    for path, (owner,) in before.items():
        if owner == gone.name:
            assert gone.name not in during[path], path
            assert len(during[path]) == 1, path  # and all of them agreed on whose it is now
        else:
            assert during[path] == {owner}, path


def death_in_log(director: Director, node: Squid) -> float:
    """When the director wrote that `node` is dead, seconds since the epoch."""
    line = re.search(rf"^(\S+) .*node {node.name} is dead", director.log(), re.MULTILINE)
    assert line is not None, director.log_tail()
    return datetime.fromisoformat(line[1]).timestamp()


def test_a_killed_squid_costs_only_answers_that_had_begun(
    own_farm: Callable[..., SquidFarm], origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    farm = own_farm(3)
    director = start_director(farm, AT_ONCE, relay="workers = 2")
    static = static_paths(unique, 150)
    node = farm.nodes[1]
    with Load(director.http, origin, mixed_paths(unique, static), CLIENTS) as load:
        pass_over(load, static)
        killed_at = time.monotonic()
        node.kill()
        wait_for_state(director, node, "dead")
        pass_over(load, static)
        restarted_at = time.monotonic()
        node.start()
        wait_for_state(director, node, "up")
        back_at = time.monotonic()
        pass_over(load, static)
    failed = [o for o in load.outcomes if o.problem]
    in_flight = [o for o in load.outcomes if o.sent_at <= killed_at <= o.ended_at]
    print(f"{len(load.outcomes)} requests, {len(in_flight)} in flight at the kill, failed: {failed}")
    assert [o for o in failed if not (o.begun and o.status == 0 and o.sent_at <= killed_at)] == []
    before = owners(asked_between(load.outcomes, 0, killed_at, static))
    assert {owner for nodes in before.values() for owner in nodes} == {"cache1", "cache2", "cache3"}
    assert_others_stayed(before, owners(asked_between(load.outcomes, killed_at, restarted_at, static)), node)
    assert owners(asked_between(load.outcomes, back_at, time.monotonic(), static)) == before


def test_a_hung_squid_is_declared_dead_and_who_waits_for_it_is_moved_on(
    own_farm: Callable[..., SquidFarm], origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    farm = own_farm(3)
    director = start_director(farm, AT_ONCE, relay="workers = 2")
    static = static_paths(unique, 150)
    node = farm.nodes[2]
    with Load(director.http, origin, mixed_paths(unique, static), CLIENTS) as load:
        pass_over(load, static)
        paused_at, paused_at_s = time.monotonic(), time.time()
        node.pause()
        wait_for_state(director, node, "dead")
        died_at = paused_at + death_in_log(director, node) - paused_at_s
        load.wait_for(len(static))
        pass_over(load, static)
        resumed_at = time.monotonic()
        node.resume()
        wait_for_state(director, node, "up")
        back_at = time.monotonic()
        pass_over(load, static)
    assert [o for o in load.outcomes if o.problem and not o.begun] == []
    waited = [o for o in load.outcomes if paused_at <= o.sent_at <= died_at <= o.ended_at <= resumed_at]
    slowest = max((o.ended_at for o in waited), default=died_at) - died_at
    print(f"dead after {died_at - paused_at:.2f} s, {len(waited)} moved on within {slowest:.2f} s")
    assert died_at - paused_at <= 3 * INTERVAL_S
    before = owners(asked_between(load.outcomes, 0, paused_at, static))
    theirs = [o for o in waited if before.get(o.path) == {node.name}]
    assert theirs  # somebody did wait for the hung node
    assert {o.problem for o in theirs} == {""}
    assert node.name not in {o.node for o in waited}
    assert director.status()["farm"]["moved"] >= len(theirs)
    assert_others_stayed(before, owners(asked_between(load.outcomes, paused_at, resumed_at, static)), node)
    assert owners(asked_between(load.outcomes, back_at, time.monotonic(), static)) == before


def kill_all(farm: SquidFarm, director: Director) -> float:
    """Kill every Squid and wait until the director knows."""
    for node in farm.nodes:
        node.kill()
    killed_at = time.monotonic()
    for node in farm.nodes:
        wait_for_state(director, node, "dead")
    return killed_at


def test_without_a_living_squid_requests_go_direct(
    own_farm: Callable[..., SquidFarm], origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    farm = own_farm(3)
    director = start_director(farm, AT_ONCE, relay="workers = 2")
    static = static_paths(unique, 50)
    with Load(director.http, origin, itertools.cycle(static), CLIENTS) as load:
        load.wait_for(len(static))
        killed_at = kill_all(farm, director)
        load.wait_for(2 * len(static))
        for node in farm.nodes:
            node.launch()
        for node in farm.nodes:
            node.wait_ready()
            wait_for_state(director, node, "up")
        back_at = time.monotonic()
        load.wait_for(3 * len(static))
    # those that were at a Squid may fail, for that there was no other; but none that came later, known or not
    assert [o for o in load.outcomes if o.problem and o.sent_at > killed_at] == []
    direct = [o for o in load.outcomes if not o.node]
    assert len(direct) >= len(static)
    assert [o for o in load.outcomes if o.sent_at >= back_at and not o.node] == []


def test_without_a_living_squid_and_without_bypass_there_is_an_error_page(
    own_farm: Callable[..., SquidFarm], origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    farm = own_farm(2)
    director = start_director(farm)
    config = director.config_path.read_text().replace("[bypass]\n", '[bypass]\nmode = "off"\n')
    director.write_config(config)
    director.reload()
    assert wait_until(lambda: director.status()["reloads"] == 1, PATIENCE_S)
    client = Client(director.http, origin)
    assert client.get(f"/static/{unique}").problem == ""
    kill_all(farm, director)
    outcome = client.get(f"/static/{unique}")
    assert outcome.status == 503
    assert wait_until(lambda: director.status()["farm"]["ended_no_node"] == 1, PATIENCE_S)
    assert int(client.fields[b"retry-after"]) > 0
    farm.nodes[0].start()
    wait_for_state(director, farm.nodes[0], "up")
    assert client.get(f"/static/{unique}").problem == ""
    client.close()
