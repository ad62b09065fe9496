from __future__ import annotations

from cachelb.config import Config
from cachelb.counters import NODE_SLOTS
from cachelb.farm import Farm
from cachelb.nodes.health import NodeHealth
from cachelb.nodes.probes import Place


def config(*names, **changes):
    nodes = [{"name": name, "host": f"127.0.0.{i + 1}", **changes.get(name, {})} for i, name in enumerate(names)]
    return Config.model_validate({"node": tuple(nodes)})


def farm_of(*names, **changes):
    farm = Farm()
    farm.configure(config(*names, **changes))
    return farm


def test_views_follow_the_configuration():
    farm = farm_of("b", "a", a={"weight": 2.5, "http_port": 8080})
    first, second = farm.views({})
    assert (first.name, second.name) == ("b", "a")
    assert (second.addresses, second.port, second.weight) == (("127.0.0.2",), 8080, 2.5)
    assert [view.state for view in (first, second)] == ["up", "up"]
    assert first.slot != second.slot


def test_a_node_that_stays_keeps_its_slot():
    farm = farm_of("a", "b", "c")
    before = dict(farm.slots)
    farm.configure(config("c", "d", "a"))
    assert farm.slots["a"] == before["a"]
    assert farm.slots["c"] == before["c"]
    assert farm.slots["d"] not in before.values()  # that of b is kept for its return
    farm.configure(config("a", "b"))
    assert farm.slots["b"] == before["b"]


def test_when_no_slot_is_free_the_longest_unused_is_given_away():
    farm = farm_of("a", "b")
    a, b = farm.slots["a"], farm.slots["b"]
    farm.configure(config("b"))
    farm.configure(config())
    farm.slots = {f"x{i}": i for i in range(NODE_SLOTS) if i not in (a, b)}
    assert farm._free_slot("new") == a
    assert farm._free_slot("b") == b


def test_the_dead_are_dead_and_the_returning_take_a_share():
    farm = farm_of("a", "b")
    health = {
        "a": NodeHealth("dead", 0.0, 0.0, "no answer"),
        "b": NodeHealth("up", 0.25, 0.0, "back"),
    }
    a, b = farm.views(health)
    assert (a.state, a.share) == ("dead", 0.0)
    assert (b.state, b.share) == ("up", 0.25)


def test_what_the_operator_took_down_is_down_and_not_watched():
    farm = farm_of("a", "b", a={"state": "down"}, b={"state": "drain"})
    a, b = farm.views({"a": NodeHealth("dead", 0.0, 0.0, "")})
    assert (a.state, b.state) == ("down", "drain")
    assert farm.watched() == ["b"]
    assert farm.probe_targets() == {"b": Place(("127.0.0.2",), 3128)}


def test_a_node_that_speaks_no_http_is_probed_elsewhere_and_is_no_cache():
    farm = farm_of("ftp", ftp={"probe": "connect", "probe_port": 21})
    assert farm.probe_targets() == {"ftp": Place(("127.0.0.1",), 21, connect=True)}
    assert farm.views({})[0].icp_port == 0


def test_a_node_that_expects_proxy_headers_gets_them_from_probes_to_its_http_port():
    farm = farm_of("a", "b", "c", a={"send_proxy": "v1"}, b={"send_proxy": "v2", "probe_port": 3140})
    assert [place.first for place in farm.probe_targets().values()] == [b"PROXY UNKNOWN\r\n", b"", b""]
    assert [view.send_proxy for view in farm.views({})] == ["v1", "v2", ""]


def test_a_node_without_an_address_is_dead_until_it_has_one():
    farm = farm_of("a", a={"host": "cache1.test"})
    assert farm.names_to_resolve() == {"a": "cache1.test"}
    assert farm.views({})[0].state == "dead"
    farm.addresses["a"] = ("127.0.0.9",)
    assert farm.views({})[0].state == "up"
    farm.configure(config("a", a={"host": "cache1.test", "weight": 2.0}))
    assert farm.views({})[0].addresses == ("127.0.0.9",)
    farm.configure(config("a", a={"host": "cache2.test"}))
    assert farm.views({})[0].addresses == ()


def test_addresses_need_no_resolving():
    farm = farm_of("a", a={"host": "::1"})
    assert farm.names_to_resolve() == {}
    assert farm.views({})[0].addresses == ("::1",)


def test_addresses_of_another_director_are_for_nodes_that_have_none():
    farm = farm_of("a", "b", b={"host": "b.test"})
    farm.adopt({"a": ["127.0.0.99"], "b": ["127.0.0.98"], "gone": ["127.0.0.97"]})
    assert [view.addresses for view in farm.views({})] == [("127.0.0.1",), ("127.0.0.98",)]
