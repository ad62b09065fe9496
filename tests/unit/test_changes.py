"""``cachelb.changes``: what a new configuration changes, in words."""

from __future__ import annotations

import json

from cachelb.changes import difference, fixed_at_start
from cachelb.config import Config


def config(**sections: object) -> Config:
    return Config.model_validate_json(json.dumps(sections))


NODES = [{"name": name, "host": f"127.0.0.{i}"} for i, name in enumerate("abc", 1)]


def test_the_difference_between_two_configurations_is_said_in_words():
    old = config(node=NODES[:2])
    assert difference(old, old) == "nothing changed"
    assert difference(old, config(node=NODES[1:])) == "added c, removed a"
    assert difference(old, config(node=[NODES[0], NODES[1] | {"weight": 2}])) == "changed b (weight 1.0 -> 2.0)"
    assert difference(old, config(node=NODES[:2], timeouts={"drain_s": 1})) == "changed [timeouts]"
    assert difference(old, config(node=[NODES[0] | {"state": "drain"}], log={"level": "debug"})) == (
        "removed b, changed a (state up -> drain), changed [log]"
    )


def test_addresses_and_the_number_of_workers_are_fixed_at_the_start():
    old = config(listen={"http": "127.0.0.1:1"}, relay={"workers": 1}, node=NODES)
    assert fixed_at_start(old, config(listen={"http": "127.0.0.1:1"}, relay={"workers": 1})) == []
    new = config(listen={"http": "127.0.0.1:2"}, relay={"workers": 2}, node=NODES)
    assert fixed_at_start(old, new) == ["[listen]", "[relay] workers"]


def test_where_services_listen_is_fixed_and_who_is_trusted_is_not():
    service = {"name": "svc", "listen": "127.0.0.1:21"}
    old = config(tcp=[service])
    assert fixed_at_start(old, config(tcp=[service | {"port": 21}], listen={"proxy_protocol": ["10.0.0.1/32"]})) == []
    assert fixed_at_start(old, config(tcp=[service | {"listen": "127.0.0.1:22"}])) == ["[[tcp]] listen"]
    assert fixed_at_start(old, config()) == ["[[tcp]] listen"]
