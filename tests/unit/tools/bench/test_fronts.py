from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from cachelb.tools.bench.fronts import FRONTS, USUAL, Front, Place, Setting, command_of, with_others
from cachelb.tools.bench.nodes import NODES, addresses

from cachelb import config

OTHER = Setting(nodes=1000, workers=2, log=True, clients=6000)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, 18001, 18002)


@pytest.mark.parametrize("setting", [USUAL, OTHER], ids=["usual", "other"])
@pytest.mark.parametrize("front", FRONTS.values(), ids=list(FRONTS))
def test_every_front_end_listens_on_its_port_and_knows_all_nodes(front: Front, setting: Setting, place: Place):
    text = front.config(place, setting)
    assert "18001" in text
    for host, port in addresses(setting.nodes):
        assert host in text
        assert str(port) in text


@pytest.mark.parametrize(("name", "metrics"), [("haproxy", "prometheus"), ("nginx", "stub_status"), ("cachelb", "access = ")])
def test_logs_and_metrics_are_there_when_asked_for(name: str, metrics: str, place: Place):
    assert metrics in FRONTS[name].config(place, OTHER)
    assert metrics not in FRONTS[name].config(place, USUAL)


def test_our_configurations_are_ones_that_we_accept(place: Place):
    usual, other = (FRONTS["cachelb"].config(place, setting) for setting in (USUAL, OTHER))
    assert tomllib.loads(usual).keys() == {"listen", "relay", "node"}  # otherwise as we come
    assert len(config.parse(usual, "bench.toml").node) == len(NODES)
    parsed = config.parse(other, "bench.toml")
    assert (len(parsed.node), parsed.relay.workers, parsed.limits.connections_per_client) == (1000, 2, 6000)
    assert 1000 / parsed.health.interval_s == pytest.approx(3 / config.Config().health.interval_s, rel=0.01)


def test_ours_without_what_was_compiled_differs_in_its_environment_only():
    ours, pure = FRONTS["cachelb"], FRONTS["cachelb-pure"]
    assert pure == ours._replace(name="cachelb-pure", environment={"CACHELB_COMPILED": "0"})


def test_our_command_can_be_given_and_others_cannot():
    path, commands = Path("/x/y.conf"), {"cachelb": "'/a b/python' -m cachelb", "old": "/old/cachelb"}
    run = ["run", "-c", "/x/y.conf"]
    assert command_of(FRONTS["cachelb"], path, commands) == ["/a b/python", "-m", "cachelb", *run]
    assert command_of(FRONTS["cachelb-pure"], path, commands) == ["/a b/python", "-m", "cachelb", *run]
    assert command_of(FRONTS["cachelb"]._replace(name="old"), path, commands) == ["/old/cachelb", *run]
    assert command_of(FRONTS["haproxy"], path, commands)[0] == "haproxy"


def test_other_versions_of_ours_have_names():
    fronts, commands = with_others(["old=/old/cachelb", "env X=1 /new/cachelb"], "usual")
    assert fronts["old"].ours
    assert commands == {"cachelb": "env X=1 /new/cachelb", "old": "/old/cachelb"}
    assert set(fronts) == {*FRONTS, "old"}
