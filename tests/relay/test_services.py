"""Which node a connection of a TCP service goes to: pool, scheduler, TLS name, TLS session; and who may call."""

from __future__ import annotations

import json

import pytest
from fakes_tls import extension, hello, message, records, server_name, vector

from cachelb.control import NO_SLOT, Find, Found
from cachelb.relay.sessions import Session, key_of

rows = pytest.mark.parametrize
ID = b"i" * 32


def pools(stage, **nodes: list[int]):
    """Pools of a stage's nodes."""
    stage.farm.apply(pool=[{"name": name, "nodes": [f"n{i}" for i in of]} for name, of in nodes.items()])


def test_in_turn(make_service):
    stage = make_service(scheduler="rr")
    stage.serve()
    assert sorted(stage.who() for _ in range(6)) == [0, 0, 1, 1, 2, 2]


def test_a_client_stays_with_its_node(make_service):
    stage = make_service(scheduler="client")
    stage.serve()
    found = {source: {stage.who(source) for _ in range(3)} for source in (f"127.0.1.{i}" for i in range(1, 20))}
    assert all(len(nodes) == 1 for nodes in found.values())
    assert set().union(*found.values()) == {0, 1, 2}


def test_whoever_has_the_fewest_connections(make_service):
    stage = make_service(scheduler="lc")
    clients = [stage.call() for _ in range(6)]
    links = [node.accept() for node in stage.nodes for _ in range(2)]
    assert len(links) == len(clients)
    assert all(node.is_left_alone() for node in stage.nodes)


def test_of_its_pool(make_service):
    stage = make_service(scheduler="rr")
    stage.serve()
    pools(stage, some=[0, 2])
    stage.change(pool="some")
    assert sorted(stage.who() for _ in range(4)) == [0, 0, 2, 2]


def test_a_port_of_its_own_or_the_clients(make_service):
    """With port 0 the nodes are asked on the port that was called, where this one listens on an address of its own."""
    stage = make_service(1, port=0)
    client = stage.call()
    assert client.read_to_end() == b""  # the node does not listen there
    assert stage.farm.ended() == {"connect_refused": 1}


def test_on_a_port_of_a_range_one_node_is_asked(make_service):
    """What the others have there is another client's."""
    stage = make_service(2, scheduler="rr")
    host, port = stage.address
    stage.change(listen=[f"{host}:{port}-{port + 1}"])
    stage.nodes[0].refuse()
    stage.nodes[1].serve_calls(b"1")
    assert sorted(stage.call().read_to_end() for _ in range(4)) == [b"", b"", b"1", b"1"]
    assert stage.farm.ended()["connect_refused"] == 2


def test_who_may_not_is_closed(make_service, tmp_path):
    log = tmp_path / "access.log"
    sections = {"access": {"allow": ["127.0.0.1/32"]}, "log": {"access": str(log), "access_format": "json"}}
    stage = make_service(1, sections=sections)
    assert stage.call("127.0.0.2").read_to_end() == b""
    assert stage.farm.ended() == {"access_denied": 1}
    assert stage.nodes[0].is_left_alone()
    stage.nodes[0].serve_calls(b"0")
    assert stage.who() == 0
    stage.farm.wait_for_end("tcp_closed")
    stage.farm.wait_until(lambda: log.read_bytes().count(b"\n") == 2)
    denied, done = map(json.loads, log.read_text().splitlines())
    names = ("client", "outcome", "method", "url", "peer", "reason", "bytes_out")
    place = f"svc:{stage.address[1]}"
    assert [denied[name] for name in names] == ["127.0.0.2", "TCP_DENIED", "TCP", place, "-", "access_denied", 0]
    assert [done[name] for name in names] == ["127.0.0.1", "TCP_TUNNEL", "TCP", place, "n0", "tcp_closed", 1]


def test_limits_are_those_of_http(make_service):
    stage = make_service(1, sections={"limits": {"connections_per_client": 2, "connections": 3}})
    stays = [stage.call() for _ in range(2)]
    assert stage.call().is_closed()
    stage.farm.wait_for_end("too_many_connections")
    stays.append(stage.call("127.0.0.2"))
    stage.farm.wait_until(lambda: stage.farm.counter("tcp_open") == 3)
    assert stage.call("127.0.0.3").is_closed()
    stage.farm.wait_for_end("overloaded")
    assert stage.farm.connect("127.0.0.3").read_answer().status == 503


def test_a_service_that_is_not_configured_any_more_goes_on_as_it_was(make_service):
    stage = make_service(1)
    stage.serve()
    stage.farm.apply(tcp=[])
    assert stage.call().is_closed()
    assert stage.farm.ended() == {"no_node": 1}
    stage.farm.apply(tcp=[stage.settings])
    assert stage.who() == 0


# -- affinity


GROUP = {"affinity": [{"name": "g"}]}


def test_a_client_goes_where_its_template_says(make_service):
    stage = make_service(sections=GROUP, affinity="g", scheduler="rr")
    stage.serve()
    found = {source: {stage.who(source) for _ in range(4)} for source in ("127.0.1.1", "127.0.1.2", "127.0.1.3")}
    assert sorted(found.values()) == [{0}, {1}, {2}]


def test_what_the_supervisor_says_is_waited_for_and_a_connection_holds_it(make_service):
    stage = make_service(sections=GROUP, affinity="g", scheduler="rr")
    templates = stage.farm.engine.steering.templates
    finds: list[Find] = []
    templates.ask = lambda questions: finds.extend(questions) or True
    client = stage.call()
    stage.farm.wait_until(lambda: len(finds) == 1)
    assert client.is_quiet()
    stage.farm.relay.call(lambda: templates.found([Found(finds[0].number, 2, NO_SLOT)]))
    link = stage.nodes[2].accept()
    client.send(b"x")
    assert link.read_exactly(1) == b"x"
    (entry,) = templates.groups["g"].by_key.values()
    assert entry.holds == 1
    client.close()
    link.close()
    stage.farm.wait_until(lambda: entry.holds == 0)
    assert stage.farm.ended() == {"tcp_closed": 1}


def test_who_has_gone_before_the_answer_is_not_connected(make_service):
    stage = make_service(sections=GROUP, affinity="g")
    templates = stage.farm.engine.steering.templates
    finds: list[Find] = []
    templates.ask = lambda questions: finds.extend(questions) or True
    stage.call()
    stage.farm.wait_until(lambda: len(finds) == 1)
    assert stage.farm.drain(0.05) == 1
    assert stage.farm.ended() == {"shutdown": 1}
    stage.farm.relay.call(lambda: templates.found([Found(finds[0].number, 2, NO_SLOT)]))
    assert stage.nodes[2].is_left_alone()


# -- TLS


def asked(stage, data):
    """Which node a TLS client is connected to."""
    client = stage.call()
    client.send(data)
    said = client.read_to_end()
    client.close()
    return int(said)


def test_names_lead_to_pools(make_service):
    stage = make_service(tls="sni", scheduler="rr")
    stage.serve()
    pools(stage, a=[0], b=[1], rest=[2])
    stage.change(pools={"shop.example": "a", ".b.example": "b", "x.b.example": "a"}, pool="rest")
    names = {
        b"shop.example": 0, b"SHOP.example": 0, b"www.shop.example": 2, b"b.example": 1, b"a.y.b.example": 1, b"x.b.example": 0,
        b"xb.example": 2, b"other": 2,
    }  # fmt: skip
    assert {name: asked(stage, hello(server_name(name))) for name in names} == names
    assert asked(stage, hello()) == 2


def test_names_are_hashed(make_service):
    stage = make_service(tls="sni", scheduler="host")
    stage.serve()
    names = [b"www%d.example" % i for i in range(20)]
    found = {name: {asked(stage, hello(server_name(name))) for _ in range(2)} for name in names}
    assert all(len(nodes) == 1 for nodes in found.values())
    assert set().union(*found.values()) == {0, 1, 2}


def begun(stage, said, answer):
    """A client says, a node answers; which node."""
    client = stage.call()
    client.send(said)
    stage.farm.wait_until(lambda: stage.farm.counter("tcp_open") == 1)
    counts = [stage.farm.node_counters(number) for number in range(len(stage.nodes))]
    busy = next(number for number, count in enumerate(counts) if count["requests"] > count["ended"])
    link = stage.nodes[busy].accept()
    assert link.read_exactly(len(said)) == said
    link.send(answer)
    assert client.read_exactly(len(answer)) == answer
    link.send(b"rest")
    assert client.read_exactly(4) == b"rest"
    client.send(b"more")
    assert link.read_exactly(4) == b"more"
    client.close()
    link.close()
    stage.farm.wait_until(lambda: stage.farm.counter("tcp_open") == 0)
    return busy


def server_hello(session=b"", ticket=b""):
    data = message(2, b"\3\3" + bytes(32) + vector(1, session) + b"\xc0\x2f\0")
    if ticket:
        data += message(11, b"c" * 70000) if ticket == b"late" else message(4, bytes(4) + vector(2, ticket))
    return records(data) + b"\x14\3\3\0\1\1"


@rows(
    ("answer", "again"),
    [
        (server_hello(ID), hello(session=ID)),
        (server_hello(ticket=b"t" * 150), hello(extension(35, b"t" * 150), session=b"x" * 32)),
        (server_hello(ID, b"t" * 150), hello(extension(35, b"t" * 150))),
    ],
    ids=["id", "ticket", "both"],
)
def test_a_session_is_gone_on_with_on_its_node(make_service, answer, again):
    stage = make_service(tls="session", scheduler="rr")
    told = []
    stage.farm.engine.door.services.tell_sessions = told.extend
    node = begun(stage, hello(), answer)
    assert {begun(stage, again, server_hello()) for _ in range(5)} == {node}
    assert {session.slot for session in told} == {node}
    assert stage.farm.counter("tls_resumed") == 5


def test_without_it_sessions_are_not_looked_at(make_service):
    stage = make_service(tls="sni", scheduler="rr")
    begun(stage, hello(), server_hello(ID))
    assert {begun(stage, hello(session=ID), server_hello()) for _ in range(3)} == {0, 1, 2}


def test_a_session_that_another_worker_has_learned(make_service):
    stage = make_service(tls="session", scheduler="rr")
    stage.serve()
    services = stage.farm.engine.door.services
    stage.farm.relay.call(lambda: services.take([Session(key_of("", "id", ID), 2)]))
    assert {asked(stage, hello(session=ID)) for _ in range(4)} == {2}


def test_a_session_of_a_node_that_is_gone_begins_anew(make_service):
    stage = make_service(tls="session", scheduler="rr")
    node = begun(stage, hello(), server_hello(ID))
    stage.farm.declare(node, "dead")
    assert begun(stage, hello(session=ID), server_hello()) != node
    stage.farm.declare(node, "up")
    stage.nodes[node].refuse()
    assert begun_elsewhere(stage, node)


def begun_elsewhere(stage, node):
    for number, other in enumerate(stage.nodes):
        if number != node:
            other.serve_calls(b"%d" % number)
    return asked(stage, hello(session=ID)) != node


@rows("answer", [b"220 no TLS\r\n", server_hello(ticket=b"late"), b"\x16\3\3\xff\xff"])
def test_what_teaches_nothing_passes_all_the_same(make_service, answer):
    stage = make_service(1, tls="session")
    begun(stage, hello(), answer)
    assert len(stage.farm.engine.door.services.sessions) == 0


def test_a_node_that_ends_at_once_is_an_end(make_service):
    stage = make_service(1, tls="session")
    client = stage.call()
    client.send(hello())
    link = stage.nodes[0].accept()
    link.send(b"\x16\3")
    link.half_close()
    assert client.read_to_end() == b"\x16\3"
    client.send(b"bye")
    client.half_close()
    assert link.read_to_end().endswith(b"bye")
    stage.farm.wait_for_end("tcp_closed")
