"""What the operator sets over the file."""

from __future__ import annotations

from typing import Any

from fakes_admin import config_of

from cachelb.overrides import Overrides


def node(**values: Any) -> dict[str, Any]:
    return {"name": "a", "host": "127.0.0.1"} | values


def test_what_is_set_is_in_force_and_the_rest_is_the_files():
    config = config_of()
    overrides = Overrides()
    assert overrides.applied(config) is config
    overrides.set(config.node[0], state="drain")
    assert [(n.state, n.weight) for n in overrides.applied(config).node] == [("drain", 2.5), ("drain", 1), ("down", 1)]
    overrides.set(config.node[0], weight=7.0)
    assert overrides.of("a") == {"state": "drain", "weight": 7.0}
    assert overrides.reset("a")
    assert not overrides.reset("a")
    assert overrides.applied(config) is config


def test_what_the_file_says_anyway_is_not_remembered():
    config = config_of()
    overrides = Overrides()
    overrides.set(config.node[0], state="drain")
    overrides.set(config.node[0], state="up")
    assert overrides.of("a") == {}


def test_a_reload_that_leaves_the_value_alone_leaves_the_operators():
    overrides = Overrides()
    overrides.set(config_of(node=[node()]).node[0], state="drain", weight=3.0)
    assert overrides.reload(config_of(node=[node(host="127.0.0.9")]).node) == []
    assert overrides.of("a") == {"state": "drain", "weight": 3.0}


def test_the_file_wins_for_each_value_that_it_changes():
    overrides = Overrides()
    overrides.set(config_of(node=[node()]).node[0], state="drain", weight=3.0)
    ((name, text),) = overrides.reload(config_of(node=[node(weight=2)]).node)
    assert (name, "weight 3.0" in text) == ("a", True)
    assert overrides.of("a") == {"state": "drain"}


def test_a_node_that_is_gone_keeps_nothing():
    overrides = Overrides()
    overrides.set(config_of(node=[node()]).node[0], state="down")
    ((_, text),) = overrides.reload([])
    assert "no longer in the file" in text
    assert overrides.of("a") == {}
