from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelb.snapshot import BadSnapshot, NodeView, Snapshot

SNAPSHOT = Snapshot(
    7,
    '{"a": 1}',
    (NodeView("n0", 0, ("127.0.0.1", "::1"), 3128, 1.5, "up"), NodeView("n1", 3, (), 3129, 0.0, "dead", 0.25)),
)
PACKED = SNAPSHOT.pack()

views = st.builds(
    NodeView,
    st.text(max_size=20),
    st.integers(0, 2047),
    st.lists(st.text(max_size=10), max_size=3).map(tuple),
    st.integers(1, 65535),
    st.floats(0, 256),
    st.sampled_from(["up", "drain", "down", "dead"]),
    st.floats(0, 1),
)


def test_what_is_packed_is_unpacked():
    assert Snapshot.unpack(PACKED) == SNAPSHOT


@given(st.builds(Snapshot, st.integers(0), st.text(), st.lists(views, max_size=5).map(tuple)))
def test_every_snapshot_survives(snapshot):
    assert Snapshot.unpack(snapshot.pack()) == snapshot


@pytest.mark.parametrize("cut", range(len(PACKED)))
def test_every_truncation_is_refused(cut):
    with pytest.raises(BadSnapshot):
        Snapshot.unpack(PACKED[:cut])


@pytest.mark.parametrize("key", ["epoch", "settings", "nodes"])
def test_nothing_may_be_missing(key):
    value = json.loads(PACKED)
    del value[key]
    with pytest.raises(BadSnapshot):
        Snapshot.unpack(json.dumps(value).encode())


@pytest.mark.parametrize("node", [None, 1, [], {}, {"name": "x"}, {"addresses": 5}, {**json.loads(PACKED)["nodes"][0], "x": 1}])
def test_a_node_of_another_shape_is_refused(node):
    value = json.loads(PACKED)
    value["nodes"] = [node]
    with pytest.raises(BadSnapshot):
        Snapshot.unpack(json.dumps(value).encode())


@given(st.binary())
def test_garbage_is_refused_and_nothing_else_happens(data):
    with pytest.raises(BadSnapshot):
        Snapshot.unpack(data)


@pytest.mark.parametrize("data", [b"null", b"[]", b"5", b'"x"', b'{"epoch": "x", "settings": "", "nodes": []}', b"[" * 100_000])
def test_json_of_another_shape_is_refused(data):
    with pytest.raises(BadSnapshot):
        Snapshot.unpack(data)
