from __future__ import annotations

from pathlib import Path

from cachelb.tools.bench import nodes
from cachelb.tools.bench.load import SCENARIOS


def test_every_scenario_has_a_file_of_its_size_and_a_place(tmp_path: Path):
    nodes.write_files(tmp_path)
    config = nodes.nginx_config(tmp_path)
    for name, scenario in SCENARIOS.items():
        assert (tmp_path / f"{name}.bin").stat().st_size == scenario.bytes
        assert f"location /{name}/ " in config


def test_the_nodes_listen_on_different_addresses_and_say_hit(tmp_path: Path):
    config = nodes.nginx_config(tmp_path)
    assert all(f"listen {host}:{port};" in config for host, port in nodes.NODES)
    assert len(set(nodes.NODES)) == 3
    assert 'X-Cache "HIT from node"' in config


def test_a_large_farm_has_as_many_addresses_on_one_port(tmp_path: Path):
    many = nodes.addresses(1000)
    assert len(set(many)) == 1000
    assert {port for _, port in many} == {nodes.MANY_PORT}
    assert f"listen 0.0.0.0:{nodes.MANY_PORT};" in nodes.nginx_config(tmp_path)
    assert nodes.addresses(3) == nodes.NODES


def test_only_chunked_answers_are_filtered(tmp_path: Path):
    filtered = [line.split()[1] for line in nodes.nginx_config(tmp_path).splitlines() if "sub_filter" in line]
    assert filtered == ["/chunked/"]


def test_only_root_names_a_user_and_only_others_need_temporary_places(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(nodes.os, "geteuid", lambda: 0)
    assert (nodes.nginx_user(), nodes.nginx_temporary(tmp_path)) == ("user root;", "")
    monkeypatch.setattr(nodes.os, "geteuid", lambda: 1000)
    assert nodes.nginx_user() == ""
    assert f"proxy_temp_path {tmp_path}/proxy;" in nodes.nginx_temporary(tmp_path)
