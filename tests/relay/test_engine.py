"""The relay as a whole: what a new Snapshot changes, who may come in, what is counted, how it stops."""

from __future__ import annotations

import asyncio
import json
import os
import threading

import pytest
from fakes import FakeSquid, answer_head, get, ok, parse_answer_head, post

from cachelb.config import Config
from cachelb.snapshot import BadSnapshot, NodeView, Snapshot

rows = pytest.mark.parametrize


def waiting(farm, node=0):
    """A request on its way: the client, and the node's end of it."""
    client = farm.connect()
    client.send(get(farm.url(node)))
    link = farm.nodes[node].accept()
    link.read_head()
    return client, link


# -- where requests go


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


def test_a_url_has_one_node_whoever_asks(farm):
    for node in farm.nodes:
        node.serve()
    urls = [farm.url() for _ in range(50)]
    for url in urls:
        bodies = {farm.ask(url).body, farm.ask(url, "User-Agent: other", method="GET").body}
        assert bodies == {f"{farm.nodes[farm.owners(url)[0]].host} {url}".encode()}


def test_clients_share_the_connections_to_a_node(farm):
    farm.nodes[0].serve()
    for _ in range(20):
        assert farm.ask(farm.url(0)).status == 200
    assert farm.nodes[0].connections == 1
    assert farm.counter("clients") == 20


def test_not_more_connections_are_kept_than_configured(make_farm):
    farm = make_farm(limits={"idle_per_node": 2})
    pairs = [waiting(farm) for _ in range(5)]
    for client, link in pairs:
        link.send(ok())
        assert client.read_answer().status == 200
    assert farm.node_counters(0)["idle"] == 2
    assert [link.is_closed() for _, link in pairs[2:]] == [True] * 3


def test_connections_kept_for_too_long_are_closed(make_farm):
    farm = make_farm(timeouts={"node_keep_alive_s": 0.1})
    client, link = waiting(farm)
    link.send(ok())
    assert client.read_answer().status == 200
    assert link.is_closed()
    farm.nodes[0].serve()
    client.send(get(farm.url(0)))
    assert client.read_answer().status == 200


# -- a new Snapshot


def test_apply_returns_the_epoch(farm):
    assert [farm.apply() for _ in range(3)] == [2, 3, 4]


def test_only_the_keys_of_a_dead_node_move_and_they_come_back(farm):
    for node in farm.nodes:
        node.serve()
    urls = [farm.url() for _ in range(60)]
    client = farm.connect()

    hosts = [node.host for node in farm.nodes]

    def places():
        for url in urls:
            client.send(get(url))
            yield hosts.index(client.read_answer().body.decode().split()[0])

    before = list(places())
    assert before == [farm.owners(url)[0] for url in urls]
    farm.declare(1, "dead")
    during = list(places())
    assert during == [next(n for n in farm.owners(url) if n != 1) for url in urls]
    farm.declare(1, "up")
    assert list(places()) == before


@rows("state", ["drain", "down", "dead"])
def test_a_node_that_is_not_up_takes_no_keys(farm, state):
    farm.nodes[1].serve()
    farm.nodes[2].serve()
    farm.declare(0, state)
    for _ in range(5):
        assert farm.ask(farm.url(0)).status == 200
    assert farm.nodes[0].is_left_alone()


def test_the_last_node_serves_even_while_it_drains(farm):
    farm.states = ["dead", "drain", "dead"]
    farm.apply()
    farm.nodes[1].serve()
    assert farm.ask(farm.url(0)).status == 200


def test_idle_connections_to_a_dead_node_are_closed(farm):
    client, link = waiting(farm)
    link.send(ok())
    assert client.read_answer().status == 200
    farm.declare(0, "dead")
    assert link.is_closed()


def test_a_node_that_moved_is_found_at_its_new_address(farm):
    client, link = waiting(farm)
    other_client, other = waiting(farm)
    link.send(ok())
    assert client.read_answer().status == 200
    moved = FakeSquid("127.0.0.30", farm.nodes[0].port)
    try:
        moved.serve()
        farm.addresses[0] = (moved.host,)
        farm.apply()
        assert link.is_closed()
        other.send(ok(b"finishes where it began"))
        assert other_client.read_answer().body == b"finishes where it began"
        for each in (client, other_client):
            each.send(get(farm.url(0)))
            assert each.read_answer().body.startswith(b"127.0.0.30 ")
        assert other.is_closed()
    finally:
        moved.stop()


def test_a_node_with_several_addresses_is_reached_by_any(farm):
    farm.nodes[0].serve()
    farm.addresses[0] = ("127.0.0.199", "127.0.0.198", farm.nodes[0].host)
    farm.apply()
    assert farm.ask(farm.url(0)).status == 200
    assert farm.node_counters(0)["connect_failures"] == 0


def test_a_node_whose_name_has_no_address_is_passed_over(farm):
    farm.nodes[1].serve()
    farm.addresses[0] = ()
    farm.apply()
    assert farm.ask(farm.url(0, 1)).status == 200
    assert farm.node_counters(0)["connect_failures"] == 1


def test_requests_under_way_finish_under_the_old_settings(farm):
    client, link = waiting(farm)
    farm.apply(relay={"via": "other:1"})
    link.send(ok(b"done"))
    assert client.read_answer().body == b"done"
    client.send(get(farm.url(0)))
    assert b"\r\nVia: 1.1 other:1 (cachelb)\r\n" in link.read_head()
    link.send(ok())
    assert client.read_answer().status == 200


def test_reloading_under_load_fails_nothing(farm):
    for node in farm.nodes:
        node.serve()
    failed = []

    def load():
        client = farm.connect()
        for _ in range(200):
            client.send(get(farm.url()))
            answer = client.read_answer()
            if answer.status != 200:
                failed.append(answer.head)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(20):
        farm.apply(timeouts={"head_s": 10.0 + turn}, bypass={"learn": bool(turn % 2)})
    for thread in threads:
        thread.join()
    assert failed == []
    assert farm.ended() == {"done": 600}


@rows(
    "blob",
    [
        b"",
        b"nonsense",
        b"{}",
        Snapshot(9, "nonsense", ()).pack(),
        Snapshot(9, json.dumps({"timeouts": {"head_s": -1}}), ()).pack(),
        Snapshot(9, Config().model_dump_json(), (NodeView("a", 0, (), 1, 1.0, "up"),) * 2).pack(),
        Snapshot(9, Config().model_dump_json(), (NodeView("a", 0, (), 1, -1.0, "up"),)).pack(),
    ],
    ids=["empty", "garbage", "nothing", "no settings", "bad settings", "one name twice", "bad weight"],
)
def test_a_bad_snapshot_changes_nothing(farm, blob):
    farm.nodes[0].serve()
    with pytest.raises(BadSnapshot):
        farm.relay.call(lambda: farm.engine.apply(blob))
    answer = farm.ask(farm.url(0))
    assert answer.status == 200
    assert farm.via.encode() in answer.fields[b"via"]
    assert farm.apply() == 2


def test_garbage_never_gets_into_force(farm):
    blob = Snapshot(9, Config().model_dump_json(), ()).pack()
    for cut in range(0, len(blob), 7):
        with pytest.raises(BadSnapshot):
            farm.relay.call(lambda cut=cut: farm.engine.apply(blob[:cut]))


# -- who may come in


def test_strangers_are_told_that_they_may_not(make_farm):
    farm = make_farm(access={"allow": ["127.0.0.1/32"]})
    farm.nodes[0].serve()
    client = farm.connect("127.0.0.77")
    client.send(get(farm.url(0)))
    answer = client.read_answer()
    assert answer.status == 403
    assert b"access_denied" in answer.body
    assert client.is_closed()
    assert farm.ask(farm.url(0)).status == 200
    assert len(farm.nodes[0].heads) == 1


def test_a_new_list_of_networks_is_for_new_connections(make_farm):
    farm = make_farm(access={"allow": ["127.0.0.1/32"]})
    farm.nodes[0].serve()
    farm.apply(access={"allow": ["127.0.0.0/8"]})
    client = farm.connect("127.0.0.77")
    client.send(get(farm.url(0)))
    assert client.read_answer().status == 200


def test_one_client_gets_so_many_connections_and_no_more(make_farm):
    farm = make_farm(limits={"connections_per_client": 2})
    farm.nodes[0].serve()
    first, second, third = (farm.connect() for _ in range(3))
    assert third.read_answer().status == 429
    assert third.is_closed()
    other = farm.connect("127.0.0.77")
    for client in (first, second, other):
        client.send(get(farm.url(0)))
        assert client.read_answer().status == 200
    first.close()
    farm.wait_until(lambda: farm.counter("clients_open") == 2)
    assert farm.ask(farm.url(0)).status == 200
    assert farm.ended()["too_many_connections"] == 1


def test_all_clients_together_get_so_many_connections_and_no_more(make_farm):
    farm = make_farm(limits={"connections": 2})
    clients = [farm.connect(f"127.0.0.{70 + i}") for i in range(3)]
    answer = clients[2].read_answer()
    assert answer.status == 503
    assert b"retry-after" in answer.fields
    assert farm.ended() == {"overloaded": 1}
    clients[0].close()
    farm.wait_until(lambda: farm.counter("clients_open") == 1)
    farm.nodes[0].serve()
    assert farm.ask(farm.url(0)).status == 200


# -- what is counted


def test_counters_tell_what_happened(farm):
    client, link = waiting(farm)
    link.send(ok(b"x" * 1000, "X-Cache: HIT from n0"))
    assert client.read_answer().status == 200
    farm.origin.serve()
    client.send(post(farm.origin_url(), b"hello"))
    assert client.read_answer().status == 200
    client.send(get("*", "Host: a.test", method="OPTIONS"))
    assert client.read_answer().status == 200
    client.send(get(farm.url(0), f"Via: 1.1 {farm.via}"))
    assert client.read_answer().status == 508
    counters = farm.counters()
    expected = {
        "clients": 1, "clients_open": 1, "requests": 4, "hashed": 1, "bypassed": 1, "local": 1, "refused": 1, "hits": 1,
        "bytes_in": 5, "direct_connects": 1, "ended_done": 3, "ended_loop": 1, "retries": 0, "failovers": 0,
    }  # fmt: skip
    assert {name: counters[name] for name in expected} == expected
    node = farm.node_counters(0)
    expected = {"requests": 1, "responses": 1, "ended": 1, "hits": 1, "connects": 1, "connect_failures": 0, "idle": 1}
    assert {name: node[name] for name in expected} == expected
    assert node["bytes"] > 1000


def test_what_is_under_way_is_requests_less_ended(farm):
    client, link = waiting(farm)
    counters = farm.node_counters(0)
    assert (counters["requests"], counters["ended"]) == (1, 0)
    link.send(ok())
    assert client.read_answer().status == 200
    counters = farm.node_counters(0)
    assert (counters["requests"], counters["ended"]) == (1, 1)


def test_large_bodies_are_spliced(farm):
    client, link = waiting(farm)
    sender = threading.Thread(target=lambda: link.send(ok(bytes(1 << 20))))
    sender.start()
    assert len(client.read_answer().body) == 1 << 20
    sender.join()
    assert farm.counter("bytes_spliced") > 1 << 19


# -- stopping


def drain_in_background(farm, deadline_s, **options):
    farm.drained = True
    done = {}

    def drain():
        done["cut"] = farm.drain(deadline_s, **options)

    thread = threading.Thread(target=drain)
    thread.start()
    return thread, done


def refuses(farm):
    try:
        farm.connect().close()
    except ConnectionError:  # reset: the very moment of closing
        return True
    return False


def test_drain_finishes_exchanges_and_takes_no_new_connections(farm):
    idle = farm.connect()
    client, link = waiting(farm)
    body_client, body_link = waiting(farm, 1)
    body_link.send(answer_head("Content-Length: 10") + b"hello")
    body_client.read_head()
    thread, done = drain_in_background(farm, 10.0)
    assert idle.is_closed()
    farm.wait_until(lambda: refuses(farm))
    link.send(ok(b"finished"))
    assert client.read_answer().body == b"finished"
    assert client.is_closed()
    body_link.send(b"world")
    assert body_client.read_exactly(10) == b"helloworld"
    assert body_client.is_closed()
    thread.join()
    assert done == {"cut": 0}


def test_an_answer_that_has_not_begun_when_the_drain_does_says_that_it_is_the_last(farm):
    client, link = waiting(farm)
    thread, _ = drain_in_background(farm, 10.0)
    farm.wait_until(lambda: refuses(farm))
    link.send(ok(b"finished"))
    assert client.read_answer().fields[b"connection"] == b"close"
    assert client.read_to_end() == b""
    thread.join()


def test_a_patient_drain_closes_no_connection_between_requests(farm):
    farm.nodes[0].serve()
    kept, fresh, quiet = (farm.connect() for _ in range(3))
    for client in (kept, quiet):
        client.send(get(farm.url(0)))
        assert b"connection" not in client.read_answer().fields
    body_client, body_link = waiting(farm, 1)  # whose head has promised more, as it is out already
    body_link.send(answer_head("Content-Length: 10") + b"hello")
    assert b"connection" not in parse_answer_head(body_client.read_head()).fields
    thread, done = drain_in_background(farm, 10.0, patient=True)
    farm.wait_until(lambda: refuses(farm))
    assert kept.is_quiet()
    body_link.send(b"world")
    assert body_client.read_exactly(10) == b"helloworld"
    assert body_client.is_quiet()
    for client in (kept, fresh, body_client):
        client.send(get(farm.url(0)))
        answer = client.read_answer()
        assert (answer.status, answer.fields[b"connection"]) == (200, b"close")
        assert client.read_to_end() == b""
    assert quiet.is_quiet()
    farm.relay.call(lambda: farm.engine.hasten(10.0))
    assert quiet.read_to_end() == b""
    thread.join()
    assert done == {"cut": 0}


def test_the_end_of_a_patient_drain_closes_what_is_idle_in_good_order(farm):
    idle = farm.connect()
    client, _ = waiting(farm)
    assert farm.drain(0.05, patient=True) == 1
    assert idle.read_to_end() == b""
    assert client.read_answer().status == 503


def test_a_patient_drain_can_be_cut_short(farm):
    client, _ = waiting(farm)
    thread, done = drain_in_background(farm, 600.0, patient=True)
    farm.wait_until(lambda: refuses(farm))
    farm.relay.call(lambda: farm.engine.hasten(0.05))
    assert client.read_answer().status == 503
    thread.join()
    assert done == {"cut": 1}


def test_drain_does_not_wait_longer_than_its_deadline(farm):
    client, link = waiting(farm)
    body_client, body_link = waiting(farm, 1)
    body_link.send(answer_head("Content-Length: 100000") + b"hello")
    body_client.read_head()
    assert body_client.read_exactly(5) == b"hello"
    assert farm.drain(0.05) == 2
    assert client.read_answer().status == 503
    assert body_client.is_cut()
    assert link.is_closed()
    assert body_link.is_closed()
    assert farm.ended() == {"shutdown": 2}


def test_drain_answers_requests_that_are_already_here(farm):
    """A connection in the backlog was promised an answer, and a client that is kept may have asked just now."""
    farm.nodes[0].serve()
    kept = farm.connect()
    kept.send(get(farm.url(0)))
    assert kept.read_answer().status == 200
    is_held, release = threading.Event(), threading.Event()

    async def drain():
        is_held.set()
        release.wait()  # holds the loop: nothing is accepted or read before the drain
        return await farm.engine.drain(5.0)

    drained = asyncio.run_coroutine_threadsafe(drain(), farm.relay.loop)
    is_held.wait()
    clients = [kept, *(farm.connect() for _ in range(150))]  # more than are accepted at one go
    for client in clients:
        client.send(get(farm.url(0)))
    silent = farm.connect()
    farm.drained = True
    release.set()
    for client in clients:
        answer = client.read_answer()
        assert answer.status == 200
        assert answer.fields[b"connection"] == b"close"
    assert silent.is_closed()
    assert drained.result(5.0) == 0


def test_drain_answers_what_is_pipelined(farm):
    client = farm.connect()
    client.send(get(farm.url(0)) * 2)
    link = farm.nodes[0].accept()
    link.read_head()
    thread, done = drain_in_background(farm, 10.0)
    farm.wait_until(lambda: refuses(farm))
    link.send(ok(b"one"))
    assert client.read_answer().body == b"one"
    link.read_head()
    link.send(ok(b"two"))
    answer = client.read_answer()
    assert answer.body == b"two"
    assert answer.fields[b"connection"] == b"close"
    thread.join()
    assert done == {"cut": 0}


def test_the_access_log_has_a_line_for_each_exchange(make_farm, tmp_path):
    path = tmp_path / "access.log"
    farm = make_farm(log={"access": str(path), "access_format": "json"})
    farm.nodes[0].serve()
    url = farm.url(0)
    assert farm.ask(url).status == 200
    assert farm.ask(farm.url(0), f"Via: 1.1 {farm.via}").status == 508
    farm.wait_until(lambda: path.exists() and path.read_text().count("\n") == 2)
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert url in first.values()
    assert 508 in second.values()


def test_many_connections_leave_nothing_behind(farm):
    for node in farm.nodes:
        node.serve()
    clients = [farm.connect(f"127.0.0.{1 + i % 4}") for i in range(200)]
    for client in clients:
        client.send(get(farm.url()))
    for client in clients:
        assert client.read_answer().status == 200
    for i, client in enumerate(clients):
        client.reset() if i % 2 else client.close()
    farm.wait_until(lambda: farm.counter("clients_open") == 0)
    assert len(os.listdir("/proc/self/fd")) < 500


def test_a_request_at_a_node_that_is_removed_finishes_and_its_connection_goes(farm):
    client, link = waiting(farm, 2)
    kept = farm.nodes.pop()
    farm.apply()
    link.send(ok(b"finished"))
    assert client.read_answer().body == b"finished"
    assert link.is_closed()
    farm.nodes[0].serve()
    farm.nodes[1].serve()
    client.send(get(farm.url(0)))
    assert client.read_answer().status == 200
    kept.stop()


def test_drain_cuts_tunnels_at_its_deadline(make_farm):
    farm = make_farm(access={"connect_ports": ["1-65535"]})
    client = farm.connect()
    client.send(get(farm.origin.address, method="CONNECT"))
    assert client.read_head()
    link = farm.origin.accept()
    client.send(b"ping")
    assert link.read_exactly(4) == b"ping"
    assert farm.drain(0.05) == 1
    assert client.is_closed()
    assert link.is_closed()
    assert farm.ended() == {"shutdown": 1}
