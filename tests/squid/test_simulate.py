"""What ``simulate`` and ``plan`` say beforehand is what three real Squids, and then four, do.

The Squids are small, so that they have to push objects out.  A miss takes its time at the origin, for Squid's ufs removes
objects once a second and is overrun by what comes faster.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest
from load import Load, Outcome, owners

from cachelb.cli import main
from cachelb.config import load
from cachelb.demo.director import Director
from cachelb.demo.farm import SquidFarm, wait_until
from cachelb.demo.origin import OriginProcess
from cachelb.explain import explain

PATIENCE_S = 30.0
CACHE_MB = 4
REQUESTS = 3500  # before the change, and after it
URLS = 4500
POINT = 0.01


def zipf_paths(word: str) -> list[str]:
    """Few popular URLs and many that are asked for once, of 100 bytes to 200 KB."""
    chance = random.Random(5)
    sizes = [min(200_000, int(chance.lognormvariate(9.0, 1.0)) + 100) for _ in range(URLS)]
    weights = list(accumulate(1 / (n + 1) ** 0.8 for n in range(URLS)))
    numbers = chance.choices(range(URLS), cum_weights=weights, k=2 * REQUESTS)
    return [f"/slow/{word}-{n}?ms=30&size={sizes[n]}" for n in numbers]


def hit_ratio(outcomes: list[Outcome]) -> float:
    return sum(outcome.hit for outcome in outcomes) / len(outcomes)


def asked(director: Director, origin: OriginProcess, paths: list[str]) -> list[Outcome]:
    # Squid looks once a second for what is too much: what comes faster stays longer than the model has it (0.6 points with 4)
    with Load(director.http, origin, paths, clients=2) as load:
        load.join()
    assert load.problems == []
    return load.outcomes


def test_hit_ratios_and_moves_come_as_they_were_told(
    own_farm: Callable[..., SquidFarm],
    origin: OriginProcess,
    start_director: Callable[..., Director],
    tmp_path: Path,
    unique: str,
    capsys: pytest.CaptureFixture[str],
):
    farm = own_farm(3, cache_mb=CACHE_MB, extra=["cache_mem 0 MB"])
    log = tmp_path / "access.log"
    director = start_director(farm, f'[health]\nslow_start_s = 0.0\n[log]\naccess = "{log}"\n')
    old = tmp_path / "old.toml"
    old.write_text(director.config_path.read_text())
    paths = zipf_paths(unique)

    before = asked(director, origin, paths[:REQUESTS])
    farm.add_node()
    tables = "".join(table for table in farm.node_tables().split("[[node]]")[-1:])
    director.write_config(old.read_text() + "[[node]]" + tables)
    assert main(["plan", "-c", str(director.config_path), "--against", str(old), "--log", str(log), "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (
        main(
            [
                "plan",
                "-c",
                str(director.config_path),
                "--admin",
                f"http://{director.admin[0]}:{director.admin[1]}",
                "--algorithm",
                "ring",
                "--log",
                str(log),
            ]
        )
        == 0
    )
    assert "cache1 -> cache4" in capsys.readouterr().out
    reloads = director.status()["reloads"]
    director.reload()
    assert wait_until(lambda: director.status()["reloads"] > reloads, PATIENCE_S)
    assert wait_until(lambda: {n["name"]: n["state"] for n in director.status()["nodes"]}.get("cache4") == "up", PATIENCE_S)
    after = asked(director, origin, paths[REQUESTS:])
    assert wait_until(lambda: log.read_text().count("\n") >= 2 * REQUESTS, PATIENCE_S)

    options = ["-c", str(old), "--size", f"{CACHE_MB}MB", "--add", "cache4", "--add-at", "0.5", "--policy", "ring", "--json"]
    assert main(["simulate", "--log", str(log), *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["log"]["requests"] == 2 * REQUESTS
    ring = told["policies"][0]
    steady, changed = sum(ring["steady"][:50]) / 50, sum(ring["changed"][50:]) / 50
    assert ring["pushed_out"] > 500
    assert abs(steady - hit_ratio(before)) <= POINT
    assert abs(changed - hit_ratio(after)) <= POINT

    # who answered before and who answers after is who was planned to
    first, then = owners(before), owners(after)
    both = first.keys() & then.keys()
    assert all(len(nodes) == 1 for nodes in (*first.values(), *then.values()))
    moved = {path for path in both if first[path] != then[path]}
    assert {name for path in moved for name in then[path]} == {"cache4"}
    share = planned["moved"]["share_of_urls"]
    assert planned["total"]["urls"] == len(first)
    assert abs(len(moved) / len(both) - share) < 0.03  # of some of the URLs only
    old_config, config = load(old), load(director.config_path)
    for path in random.Random(1).sample(sorted(both), 200):
        url = origin.base + path
        assert ({explain(old_config, url).owner}, {explain(config, url).owner}) == (first[path], then[path])
