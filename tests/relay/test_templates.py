"""What a worker does about templates by itself: whom it asks, what it remembers, what it does when nobody answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakes import get, post
from fakes_affinity import Office

from cachelb import control
from cachelb.control import NO_SLOT, Used
from cachelb.relay import templates as module
from cachelb.routing.template import packed

pytestmark = pytest.mark.sources  # the stage looks into the engine

Make = Callable[..., Any]

SHOP = {"affinity": [{"name": "shop", "timeout_s": 300.0}], "rule": [{"affinity": "shop"}]}


class Stage:
    """One relay, or several, with the same nodes and one register."""

    def __init__(self, *farms: Any) -> None:
        self.farms = farms
        self.office = Office(*farms)

    def ask(self, source: str, farm: int = 0, **more: Any) -> str:
        """The name of the node that a request went to."""
        client = self.farms[farm].connect(source)
        url, close = "http://www.test/", "Connection: close"
        client.send(post(url, b"body", close) if more else get(url, close))
        answer = client.read_answer()
        assert answer.status == 200, answer
        client.close()
        return answer.body.split()[0].decode()

    def settle(self) -> None:
        for farm in self.farms:
            engine = farm.engine
            farm.wait_until(lambda engine=engine: not engine.clients and not engine.steering.templates._used)


@pytest.fixture
def stage(make_farm: Make) -> Stage:
    farm = make_farm(3, **SHOP)
    for node in farm.nodes:
        node.serve()
    return Stage(farm)


@pytest.fixture
def pair(make_farm: Make) -> Stage:
    """Two relays in front of the nodes of the first."""
    first, second = make_farm(3, **SHOP), make_farm(3, **SHOP)
    for node in second.nodes:
        node.stop()
    second.nodes = first.nodes
    second.addresses = first.addresses
    for node in first.nodes:
        node.serve()
    return Stage(first, second)


def asked(stage: Stage, farm: int = 0) -> int:
    """How often the register has answered a worker."""
    return [kind for kind, _ in stage.office.workers.workers[farm].heard].count(control.FOUND)


def test_what_is_known_is_not_asked_again(stage: Stage):
    nodes = {stage.ask("127.0.1.1") for _ in range(5)}
    assert len(nodes) == 1
    assert asked(stage) == 1
    assert stage.farms[0].counter("steered") == 5
    assert stage.farms[0].counter("affinity_alone") == 0


def test_questions_of_one_turn_are_one_message(stage: Stage):
    farm = stage.farms[0]
    clients = [farm.connect(f"127.0.1.{number}") for number in range(1, 6)]
    farm.wait_until(lambda: len(farm.engine.clients) == 5)
    with farm.held():
        for client in clients:
            client.send(get("http://www.test/"))
    for client in clients:
        assert client.read_answer().status == 200
    assert asked(stage) == 1
    assert stage.office.register.created == 5


def test_two_workers_never_choose_differently(pair: Stage):
    for number in range(1, 13):
        assert pair.ask(f"127.0.1.{number}") == pair.ask(f"127.0.1.{number}", 1)
    assert pair.office.register.created == 12


def test_a_worker_learns_that_another_one_has_moved_a_client(pair: Stage):
    before = pair.ask("127.0.1.1")
    assert pair.ask("127.0.1.1", 1) == before
    assert pair.office.flush("127.0.1.1") == 1
    farm = pair.farms[0]
    farm.wait_until(lambda: farm.relay.call(lambda: known(farm, "127.0.1.1")) == NO_SLOT)
    pair.ask("127.0.1.2")  # so that the next client goes elsewhere
    after = pair.ask("127.0.1.1")
    assert pair.ask("127.0.1.1", 1) == after
    assert pair.office.register.created == 3


def known(farm: Any, ip: str) -> int:
    clients = farm.engine.steering.templates.groups["shop"]
    return int(clients.by_key[clients.group.key(packed(ip))].slot)


def test_forgetting_by_node_and_all(stage: Stage):
    farm = stage.farms[0]
    for number in range(1, 7):
        stage.ask(f"127.0.1.{number}")
    templates = farm.engine.steering.templates
    slots = [known(farm, f"127.0.1.{number}") for number in range(1, 7)]
    farm.relay.call(lambda: templates.forget([Used(1, "shop", b""), Used(1, "unknown", b"")]))
    left = [NO_SLOT if slot == 1 else slot for slot in slots]
    assert [known(farm, f"127.0.1.{number}") for number in range(1, 7)] == left
    farm.relay.call(lambda: templates.forget([Used(NO_SLOT, "shop", b"")]))
    assert {known(farm, f"127.0.1.{number}") for number in range(1, 7)} == {NO_SLOT}


def test_without_an_answer_the_worker_decides_and_the_supervisor_takes_it_over(stage: Stage):
    farm = stage.farms[0]
    stage.office.silent = True
    client = farm.connect("127.0.1.1")
    client.send(get("http://www.test/", "Connection: close"))
    farm.wait_until(lambda: farm.engine.steering.templates._asked)
    stage.office.clock.ahead += module.ANSWER_S
    node = client.read_answer().body.split()[0].decode()
    assert farm.counter("affinity_alone") == 1
    assert {stage.ask("127.0.1.1") for _ in range(3)} == {node}  # it need not wait again
    assert farm.counter("affinity_alone") == 1
    stage.office.silent = False
    stage.settle()
    stage.office.pass_time(module.ALONE_S + 1.0)
    assert stage.ask("127.0.1.1") == node
    hosts = [node.host for node in farm.nodes]
    assert stage.office.node_of("127.0.1.1") == f"n{hosts.index(node)}"


def test_a_supervisor_that_takes_no_questions_costs_no_wait(stage: Stage):
    farm = stage.farms[0]
    farm.engine.steering.templates.ask = lambda finds: False
    node = stage.ask("127.0.1.1")
    assert stage.ask("127.0.1.1") == node
    assert farm.counter("affinity_alone") == 1
    assert not farm.engine.steering.templates._asked


def test_without_a_supervisor_clients_stay_all_the_same(make_farm: Make):
    farm = make_farm(3, **SHOP)
    for node in farm.nodes:
        node.serve()
    stage = Stage.__new__(Stage)
    stage.farms = (farm,)
    first = {f"127.0.1.{number}": stage.ask(f"127.0.1.{number}") for number in range(1, 7)}
    assert {ip: stage.ask(ip) for ip in first} == first


def test_a_client_that_goes_while_it_waits_harms_nobody(stage: Stage):
    farm = stage.farms[0]
    stage.office.silent = True
    client = farm.connect("127.0.1.1")
    client.send(get("http://www.test/"))
    farm.wait_until(lambda: farm.engine.steering.templates._asked)
    client.reset()
    farm.wait_until(lambda: not farm.engine.clients)
    stage.office.clock.ahead += module.ANSWER_S
    farm.wait_until(lambda: not farm.engine.steering.templates._asked)
    stage.office.silent = False
    assert stage.ask("127.0.1.2") in [node.host for node in farm.nodes]
    assert farm.ended()["client_gone"] == 1


def test_a_body_waits_with_its_request(stage: Stage):
    farm = stage.farms[0]
    node = stage.ask("127.0.1.1", method="POST")
    index = [node.host for node in farm.nodes].index(node)
    assert farm.nodes[index].bodies == [b"body"]
    assert stage.ask("127.0.1.1") == node


@pytest.mark.parametrize("scheduler", ["url", "carp", "host", "client", "rr", "wrr", "lc"])
def test_every_scheduler_may_choose_the_first_node(make_farm: Make, scheduler: str):
    farm = make_farm(3, affinity=[{"name": "shop"}], rule=[{"affinity": "shop", "scheduler": scheduler}])
    for node in farm.nodes:
        node.serve()
    stage = Stage(farm)
    first = {f"127.0.1.{number}": stage.ask(f"127.0.1.{number}") for number in range(1, 13)}
    assert {ip: stage.ask(ip) for ip in first} == first
    hosts = [node.host for node in farm.nodes]
    if scheduler == "url":  # all have asked for one URL
        assert set(first.values()) == {hosts[farm.owners("http://www.test/")[0]]}
    elif scheduler in ("rr", "wrr", "lc"):
        assert sorted(list(first.values()).count(host) for host in hosts) == [4, 4, 4]
    else:
        assert set(first.values()) <= set(hosts)


def test_what_a_worker_remembers_is_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ENTRIES_MAX", 16)
    farm = stage.farms[0]
    kept = farm.connect("127.0.2.1")
    kept.send(get("http://www.test/"))
    node = kept.read_answer().body
    for number in range(1, 60):
        stage.ask(f"127.0.1.{number}")
    clients = farm.engine.steering.templates.groups["shop"]
    assert len(clients.by_key) <= 17
    assert len(clients.by_address) <= 17
    assert clients.group.key(packed("127.0.2.1")) in clients.by_key  # who is connected is remembered
    kept.send(get("http://www.test/"))
    assert kept.read_answer().body == node
    assert stage.office.register.created == 60


def test_who_is_connected_stays_so_when_other_clients_become_one(stage: Stage):
    farm, office = stage.farms[0], stage.office
    farm.apply(timeouts={"keep_alive_s": 100_000.0})
    kept = farm.connect("127.0.1.1")
    for netmask in (32, 24):
        farm.apply(affinity=[{"name": "shop", "timeout_s": 300.0, "netmask_v4": netmask}])
        kept.send(get("http://www.test/"))
        assert kept.read_answer().status == 200
    for _ in range(4):
        office.pass_time(200.0)
    assert office.node_of("127.0.1.77") is not None
    assert len(farm.engine.steering.templates._held) == 1
    kept.close()


def test_a_reload_in_the_middle_of_everything(stage: Stage):
    farm = stage.farms[0]
    kept = farm.connect("127.0.1.1")
    kept.send(get("http://www.test/"))
    node = kept.read_answer().body
    farm.apply(affinity=[{"name": "shop", "timeout_s": 77.0}])
    kept.send(get("http://www.test/"))
    assert kept.read_answer().body == node
    farm.apply(affinity=[{"name": "other"}], rule=[{"affinity": "other"}])
    kept.send(get("http://www.test/"))
    assert kept.read_answer().status == 200
    farm.apply(affinity=[], rule=[])
    kept.send(get("http://www.test/"))
    assert kept.read_answer().status == 200


def test_a_request_whose_group_is_gone_when_its_node_dies_ends_with_a_reason(make_farm: Make):
    farm = make_farm(2, **SHOP)
    Office(farm)
    client = farm.connect("127.0.1.1")
    client.send(get("http://www.test/"))
    farm.wait_until(lambda: any(farm.node_counters(node)["requests"] for node in (0, 1)))
    busy = next(node for node in (0, 1) if farm.node_counters(node)["requests"])
    farm.nodes[busy].accept().read_head()
    farm.apply(affinity=[], rule=[])
    farm.declare(busy, "dead")
    assert client.read_answer().status in (502, 503)


def test_a_tcp_service_is_given_the_same_nodes_and_holds_its_template(stage: Stage):
    """As whoever relays other protocols uses it: ``find``, ``hold``, ``release``."""
    farm = stage.farms[0]
    node = stage.ask("127.0.1.1")
    templates = farm.engine.steering.templates
    found: list[Any] = []

    def find(ip: str) -> Any:
        return templates.find("shop", ip, farm.engine.fleet.pools[""], "wlc", found.append)

    targets = farm.relay.call(lambda: find("127.0.1.1"))
    assert targets[0].addresses == (node,)
    assert len(targets) == 3
    assert farm.relay.call(lambda: find("127.0.1.9")) is None
    farm.wait_until(lambda: found)
    assert f"n{found[0][0].slot}" == stage.office.node_of("127.0.1.9")
    entry = farm.relay.call(lambda: templates.hold("shop", "127.0.1.9"))
    for _ in range(4):
        stage.office.pass_time(200.0)
    assert stage.office.node_of("127.0.1.9") is not None
    assert stage.office.node_of("127.0.1.1") is None
    farm.relay.call(lambda: templates.release(entry))
    stage.settle()
    stage.office.pass_time(301.0)
    assert stage.office.node_of("127.0.1.9") is None
