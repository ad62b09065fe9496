from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from cachelb.tools.bench.fronts import FRONTS, command_of
from cachelb.tools.bench.nodes import NODES


@pytest.mark.parametrize("front", FRONTS.values(), ids=list(FRONTS))
def test_every_front_end_listens_on_its_port_and_knows_all_nodes(front, tmp_path: Path):
    config = front.config(tmp_path)
    assert str(front.port) in config
    for host, port in NODES:
        assert host in config
        assert str(port) in config


def test_ports_differ():
    assert len({front.port for front in FRONTS.values()}) == len(FRONTS)


def test_our_configuration_is_one_that_we_accept(tmp_path: Path):
    from cachelb import config

    text = FRONTS["cachelb"].config(tmp_path)
    assert tomllib.loads(text)["relay"] == {"workers": 1}
    assert len(config.parse(text, "bench.toml").node) == len(NODES)


def test_our_command_can_be_given_and_others_cannot():
    path = Path("/x/y.conf")
    assert command_of(FRONTS["cachelb"], path, "'/a b/python' -m cachelb") == [
        *("/a b/python", "-m", "cachelb"),
        *("run", "-c", "/x/y.conf"),
    ]
    assert command_of(FRONTS["haproxy"], path, "ours")[0] == "haproxy"
