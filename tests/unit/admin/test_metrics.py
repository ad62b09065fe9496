"""Prometheus' text, read by its own parser and judged by its own tool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from fakes_admin import with_supervisor
from prometheus_client.parser import text_string_to_metric_families

from cachelb.admin.metrics import CONTENT_TYPE, render
from cachelb.admin.peers import Peer
from cachelb.admin.status import Reader
from cachelb.counters import AFFINITY, FARM_INDEX, FIRST_BYTE_TIME, NODE, NODE_INDEX, PEERS, TOTAL_TIME, node_offset, note_time
from cachelb.errors import Reason
from cachelb.supervisor import Supervisor
from cachelb.workers import Workers

DOCS = Path(__file__).parents[3] / "docs"


def rendered() -> str:
    found: list[str] = []

    async def test(supervisor: Supervisor) -> None:
        supervisor.workers = Workers([[], []], b"")
        supervisor.peers.known["http://10.0.0.2:3180"] = Peer()
        for number, block in enumerate(supervisor.workers.blocks, 1):
            block[FARM_INDEX["requests"]] = number
            block[FARM_INDEX["bytes_out"]] = 2**40 + number
            block[FARM_INDEX["loop_lag_total_us"]] = 500_000 * number
            block[FARM_INDEX["ended_reset"]] = 4
            block[FARM_INDEX["bypassed_learned"]] = 6
            start = node_offset(supervisor.farm.slots["a"])
            block[start + NODE_INDEX["hits"]] = 5
            counts = [0] * (TOTAL_TIME + 40)
            for took in (0.00001, 0.001, 0.1, 1000.0):
                note_time(counts, TOTAL_TIME, took)
            for at, count in enumerate(counts):
                if count:
                    block[start + at] += count
        found.append((await render(Reader(supervisor))).decode())

    with_supervisor(test)
    return found[0]


def values() -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(rendered())
    return {
        (sample.name, ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_every_counter_is_there():
    found = values()
    names = {name for name, _ in found}
    for counter in (*PEERS, *AFFINITY, *NODE):
        prefix = "cachelb_node_" if counter in NODE else "cachelb_"
        assert prefix + counter.name + ("_total" if counter.kind == "counter" else "") in names
    assert found["cachelb_requests_total", ""] == 3
    assert found["cachelb_bytes_out_total", ""] == 2**41 + 3
    assert found["cachelb_node_hits_total", "node=a"] == 10


def test_every_reason_can_be_watched():
    found = values()
    ends = {labels for name, labels in found if name == "cachelb_exchanges_ended_total"}
    assert ends == {f"error={str(reason.value.is_error).lower()},reason={reason.label}" for reason in Reason}
    assert found["cachelb_exchanges_ended_total", "error=true,reason=reset"] == 8
    assert found["cachelb_bypassed_requests_total", "why=learned"] == 12


def test_histograms_are_cumulative_and_in_seconds():
    found = values()
    buckets = {labels: value for (name, labels), value in found.items() if name == "cachelb_node_duration_seconds_bucket"}
    bounds = {float(at.split(",")[0].removeprefix("le=")): value for at, value in buckets.items() if "node=a" in at}
    assert list(bounds.values()) == sorted(bounds.values())
    assert (bounds[6.4e-05], bounds[0.001024], bounds[0.131072], bounds[67.108864], bounds[float("inf")]) == (2, 4, 6, 6, 8)
    assert found["cachelb_node_duration_seconds_count", "node=a"] == 8
    assert found["cachelb_node_duration_seconds_sum", "node=a"] == pytest.approx(2 * 1000.10101)
    assert found["cachelb_node_first_byte_seconds_count", "node=a"] == 0
    assert FIRST_BYTE_TIME < TOTAL_TIME


def test_states_workers_and_what_it_is_made_of():
    found = values()
    assert [found["cachelb_node_up", f"node={name}"] for name in "abc"] == [1, 0, 0]
    assert found["cachelb_node_state", "node=b,state=drain"] == 1
    assert found["cachelb_node_state", "node=b,state=up"] == 0
    assert found["cachelb_worker_loop_late_seconds_total", "worker=2"] == 1.0
    assert any(name == "cachelb_build_info" and "version=" in labels for name, labels in found)
    assert any(name == "cachelb_config_info" and "digest=" in labels for name, labels in found)


def test_the_content_type_names_the_format():
    assert CONTENT_TYPE.startswith("text/plain; version=")


def promtool(*arguments: str, text: str = "") -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    done = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False)
    return f"{done.returncode} {done.stderr}{done.stdout if done.returncode else ''}"


def test_promtool_has_nothing_to_say_about_the_metrics():
    assert promtool("check", "metrics", text=rendered()).strip() == "0"


def test_promtool_takes_the_alert_rules():
    assert promtool("check", "rules", str(DOCS / "alerts/cachelb.rules.yml")).startswith("0")


@pytest.mark.parametrize("name", ["alerts/cachelb.rules.yml", "grafana/cachelb.json"])
def test_alerts_and_dashboard_ask_for_metrics_that_there_are(name: str):
    import json
    import re

    names = {sample.name for family in text_string_to_metric_families(rendered()) for sample in family.samples}
    text = (DOCS / name).read_text("utf-8")
    assert json.loads(text)["panels"] if name.endswith("json") else yaml.safe_load(text)["groups"]
    asked = set(re.findall(r"\bcachelb_[a-z_]+\b", text))
    assert len(asked) > 5
    assert asked - names == set()
