"""What a relay does as a whole: where requests go, what a new Snapshot changes, limits, counters, drain."""

from __future__ import annotations

from fakes import get, ok


def test_one_connection_visits_several_nodes(farm):
    for node in farm.nodes:
        node.serve()
    client = farm.connect()
    for turn in range(4):
        for owner in (2, 0, 1):
            client.send(get(farm.url(owner)))
            assert client.read_answer().body.startswith(farm.nodes[owner].host.encode()), turn
    assert [len(node.heads) for node in farm.nodes] == [4, 4, 4]
    assert [node.connections for node in farm.nodes] == [1, 1, 1]
    assert farm.ended() == {"done": 12}
    assert farm.counter("hashed") == 12
