"""What LVS documents of persistent connections, one test a sentence, over real sockets; docs/affinity.md has the table.

Sources: ipvsadm(8) 1.31 (-p, -M, -f, -w), the kernel's ipvs-sysctl.rst (expire_nodest_conn, expire_quiescent_template), and the
LVS-HOWTO's chapter on persistent connections.  The clock is the tests' own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakes import Peer, get, post
from fakes_affinity import Office

pytestmark = pytest.mark.sources  # the stage looks into the engine

Make = Callable[..., Any]

PATIENT = {"keep_alive_s": 100_000.0, "node_keep_alive_s": 100_000.0}
RULE = [{"affinity": "shop"}]


class Stage:
    """Nodes that say who they are, a relay, and a register."""

    def __init__(self, make_farm: Make, nodes: int = 3, rule: Any = None, pool: Any = (), **affinity: Any) -> None:
        group = {"name": "shop", "timeout_s": 300.0, **affinity}
        sections = {"affinity": [group], "rule": rule or RULE, "pool": list(pool), "timeouts": PATIENT}
        self.farm = make_farm(nodes, **sections)
        self.office = Office(self.farm)
        for node in self.farm.nodes:
            node.serve()

    def ask(self, source: str, path: str = "page", client: Peer | None = None) -> str:
        """Which node a client's request went to."""
        peer = client or self.farm.connect(source)
        fields = [] if client else ["Connection: close"]
        peer.send(get(f"http://www.test/{path}", *fields))
        answer = peer.read_answer()
        if client is None:
            peer.close()
        assert answer.status == 200, answer
        return self.name(answer.body)

    def name(self, body: bytes) -> str:
        hosts = [node.host.encode() for node in self.farm.nodes]
        return f"n{hosts.index(body.split()[0])}"

    def settle(self) -> None:
        """Let connections that were closed be gone, also for the relay, and the register know."""
        engine = self.farm.engine
        self.farm.wait_until(lambda: not engine.clients and not engine.steering.templates._used)


@pytest.fixture
def stage(make_farm: Make) -> Callable[..., Stage]:
    return lambda *arguments, **affinity: Stage(make_farm, *arguments, **affinity)


def clients(count: int, network: str = "127.0.1") -> list[str]:
    return [f"{network}.{number}" for number in range(1, count + 1)]


# -- -p: "multiple requests from a client are redirected to the same real server selected for the first request"


def test_requests_of_a_client_go_to_the_node_of_its_first(stage: Make):
    subject = stage()
    first = {ip: subject.ask(ip) for ip in clients(6)}
    assert sorted(first.values()) == ["n0", "n0", "n1", "n1", "n2", "n2"]  # wlc has spread them
    for number in range(3):
        assert {ip: subject.ask(ip, f"other{number}") for ip in first} == first


def test_every_method_and_tunnels_go_there_too(stage: Make):
    subject = stage()
    for ip in clients(3):
        first = subject.ask(ip)
        client = subject.farm.connect(ip)
        client.send(post("http://www.test/order", b"one book"))
        assert subject.name(client.read_answer().body) == first
        tunnel = subject.farm.connect(ip)
        tunnel.send(get("www.test:443", method="CONNECT"))
        assert subject.name(tunnel.read_answer().body) == first  # the node says 200 and its name


def test_the_timeout_starts_again_with_each_connection(stage: Make):
    """HOWTO: each new connection request from the client resets the timeout."""
    subject = stage()
    first = subject.ask("127.0.1.1")
    for _ in range(4):
        subject.settle()
        subject.office.pass_time(200.0)
        assert subject.ask("127.0.1.1") == first


def test_after_the_timeout_a_client_is_scheduled_anew(stage: Make):
    subject = stage(2)
    first = subject.ask("127.0.1.1")
    assert subject.ask("127.0.1.2") != first
    subject.settle()
    subject.office.pass_time(301.0)
    assert subject.office.node_of("127.0.1.1") is None
    assert subject.office.register.counters()["affinity_expired"] == 2
    for ip in ("127.0.1.3", "127.0.1.1"):
        subject.ask(ip)
    assert subject.office.register.created == 4


# -- templates and their connections: ip_vs_conn_expire() keeps a template while connections are controlled by it


def test_a_template_does_not_expire_while_a_connection_of_the_client_lives(stage: Make):
    subject = stage()
    client = subject.farm.connect("127.0.1.1")
    first = subject.ask("127.0.1.1", client=client)
    for _ in range(20):  # an hour, without one request
        subject.office.pass_time(200.0)
    assert subject.office.node_of("127.0.1.1") == first
    assert subject.ask("127.0.1.1", client=client) == first
    assert subject.office.register.created == 1


def test_when_the_last_connection_ends_the_timeout_begins(stage: Make):
    subject = stage()
    client = subject.farm.connect("127.0.1.1")
    first = subject.ask("127.0.1.1", client=client)
    for _ in range(3):
        subject.office.pass_time(200.0)
    client.close()
    subject.settle()
    subject.office.pass_time(290.0)
    assert subject.office.node_of("127.0.1.1") == first
    subject.office.pass_time(11.0)
    assert subject.office.node_of("127.0.1.1") is None


# -- -M: "the granularity with which clients are grouped"


def test_the_netmask_makes_clients_of_a_network_one(stage: Make):
    subject = stage(netmask_v4=24)
    first = {network: subject.ask(f"{network}.1") for network in ("127.0.1", "127.0.2", "127.0.3")}
    assert sorted(first.values()) == ["n0", "n1", "n2"]
    for network, node in first.items():
        assert {subject.ask(ip) for ip in clients(5, network)} == {node}
    assert subject.office.register.templates.size == 3


def test_without_one_each_address_is_a_client(stage: Make):
    subject = stage()
    for ip in clients(4):
        subject.ask(ip)
    assert subject.office.register.templates.size == 4


# -- -f and port 0: services that are grouped share the template


def test_rules_with_one_group_share_its_templates(stage: Make):
    rules = [
        {"client": ["127.0.1.1/32"], "affinity": "shop", "scheduler": "rr", "pool": "a"},
        {"affinity": "shop", "pool": "b"},
    ]
    pools = [{"name": "a", "nodes": ["n0", "n1", "n2"]}, {"name": "b", "nodes": ["n2", "n1", "n0"]}]
    subject = stage(3, rules, pools, netmask_v4=24)
    assert subject.ask("127.0.1.1") == subject.ask("127.0.1.2")


def test_other_groups_have_their_own(make_farm: Make):
    groups = [{"name": "shop"}, {"name": "mail"}]
    rules = [{"client": ["127.0.1.1/32"], "affinity": "shop"}, {"affinity": "mail"}]
    farm = make_farm(3, affinity=groups, rule=rules)
    office = Office(farm)
    for node in farm.nodes:
        node.serve()
    for ip in ("127.0.1.1", "127.0.1.2"):
        client = farm.connect(ip)
        client.send(get("http://www.test/"))
        assert client.read_answer().status == 200
    shelves = office.register.templates.shelves
    assert (shelves["shop"].size, shelves["mail"].size) == (1, 1)


# -- -w: "the valid values of weight ... servers are quiesced with a weight of zero: no new jobs, but still serve the existing"


def test_wlc_gives_clients_by_weight(stage: Make):
    pools = [{"name": "a", "nodes": ["n0", "n1"], "weights": {"n0": 3.0, "n1": 1.0}}]
    subject = stage(2, [{"affinity": "shop", "pool": "a"}], pools)
    found = [subject.ask(ip) for ip in clients(40)]
    assert found.count("n0") == 30


def quiesced(weight: float) -> dict[str, Any]:
    return {"pool": [{"name": "a", "nodes": ["n0", "n1"], "weights": {"n0": weight}}]}


def test_a_node_of_weight_0_keeps_its_clients_and_gets_no_others(stage: Make):
    subject = stage(2, [{"affinity": "shop", "pool": "a"}], quiesced(1.0)["pool"])
    first = {ip: subject.ask(ip) for ip in clients(4)}
    subject.farm.apply(**quiesced(0.0))
    assert {ip: subject.ask(ip) for ip in first} == first
    assert {subject.ask(ip) for ip in clients(4, "127.0.2")} == {"n1"}
    subject.settle()
    subject.office.pass_time(301.0)  # their templates have expired: they are new clients
    assert {subject.ask(ip) for ip in first} == {"n1"}


def test_expire_quiescent_template_moves_the_clients_of_a_node_of_weight_0(stage: Make):
    subject = stage(2, [{"affinity": "shop", "pool": "a"}], quiesced(1.0)["pool"], expire_on_drain=True)
    first = {ip: subject.ask(ip) for ip in clients(4)}
    assert set(first.values()) == {"n0", "n1"}
    subject.farm.apply(**quiesced(0.0))
    assert {subject.ask(ip) for ip in first} == {"n1"}
    assert subject.office.register.moved == list(first.values()).count("n0")
    subject.farm.apply(**quiesced(1.0))
    assert {subject.ask(ip) for ip in first} == {"n1"}  # nobody is moved back


@pytest.mark.parametrize("expires", [False, True])
def test_a_node_that_drains_is_one_of_weight_0(stage: Make, expires: bool):
    subject = stage(2, expire_on_drain=expires)
    first = {ip: subject.ask(ip) for ip in clients(4)}
    subject.farm.declare(0, "drain")
    assert {ip: subject.ask(ip) for ip in first} == (dict.fromkeys(first, "n1") if expires else first)
    assert {subject.ask(ip) for ip in clients(4, "127.0.2")} == {"n1"}


def test_the_last_node_keeps_its_clients_though_it_drains(stage: Make):
    subject = stage(2, expire_on_drain=True)
    first = {ip: subject.ask(ip) for ip in clients(4)}
    subject.farm.declare(0, "down")
    subject.farm.declare(1, "drain")
    assert {subject.ask(ip) for ip in first} == {"n1"}
    moved = subject.office.register.moved
    assert {subject.ask(ip) for ip in first} == {"n1"}
    assert subject.office.register.moved == moved == 2


# -- a node that dies, with what expire_nodest_conn does: nobody waits for a destination that is not there


def test_a_death_moves_its_own_clients_at_their_next_request_and_no_others(stage: Make):
    subject = stage()
    first = {ip: subject.ask(ip) for ip in clients(9)}
    subject.farm.declare(1, "dead")
    assert {subject.office.node_of(ip) for ip in first} == {"n0", "n1", "n2"}  # not before they come
    after = {ip: subject.ask(ip) for ip in first}
    assert "n1" not in after.values()
    assert {ip: node for ip, node in first.items() if node != "n1"}.items() <= after.items()
    assert sorted(after.values()).count("n0") in (4, 5)
    assert subject.office.register.moved == 3
    subject.farm.declare(1, "up")
    assert {ip: subject.ask(ip) for ip in first} == after  # LVS: where a client has gone, it stays


def test_clients_return_to_a_node_that_lives_again_where_that_is_configured(stage: Make):
    subject = stage(after_death="return")
    first = {ip: subject.ask(ip) for ip in clients(9)}
    subject.farm.declare(1, "dead")
    assert "n1" not in [subject.ask(ip) for ip in first]
    assert {subject.office.home_of(ip) for ip, node in first.items() if node == "n1"} == {"n1"}
    subject.farm.declare(1, "up")
    assert {ip: subject.ask(ip) for ip in first} == first
    assert subject.office.register.returned == 3


def test_who_does_not_ask_while_its_node_is_dead_notices_nothing(stage: Make):
    subject = stage()
    first = {ip: subject.ask(ip) for ip in clients(3)}
    subject.farm.declare(0, "dead")
    subject.farm.declare(0, "up")
    assert {ip: subject.ask(ip) for ip in first} == first


def test_a_request_that_waits_for_a_node_that_dies_is_moved_with_its_client(stage: Make, make_farm: Make):
    farm = make_farm(2, affinity=[{"name": "shop"}], rule=RULE)
    office = Office(farm)
    client = farm.connect("127.0.1.1")
    client.send(get("http://www.test/"))
    farm.wait_until(lambda: office.node_of("127.0.1.1") is not None)
    dying = int(str(office.node_of("127.0.1.1"))[1:])
    farm.nodes[dying].accept().read_head()
    farm.nodes[1 - dying].serve()
    farm.declare(dying, "dead")
    assert client.read_answer().body.split()[0] == farm.nodes[1 - dying].host.encode()
    assert office.node_of("127.0.1.1") == f"n{1 - dying}"
    assert farm.counter("moved") == 1


def test_a_node_that_died_just_now_costs_no_request(stage: Make):
    """It is not known to be dead yet: another one is asked, and the template stays until that is known."""
    subject = stage(2)
    first = subject.ask("127.0.1.1")
    subject.farm.nodes[int(first[1])].stop()
    assert subject.ask("127.0.1.1") != first
    assert subject.office.node_of("127.0.1.1") == first


def test_without_a_node_the_client_is_told_so_and_keeps_its_template(stage: Make):
    subject = stage(2)
    first = subject.ask("127.0.1.1")
    for node in (0, 1):
        subject.farm.declare(node, "dead")
    client = subject.farm.connect("127.0.1.1")
    client.send(get("http://www.test/"))
    assert client.read_answer().status == 503
    assert subject.office.node_of("127.0.1.1") == first
    for node in (0, 1):
        subject.farm.declare(node, "up")
    assert subject.ask("127.0.1.1") == first
