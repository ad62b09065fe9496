"""The director is told to reload, to rotate its log, to stop, and a worker is killed, all under load."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fakes import Peer, get, parse_answer_head
from load import Client, Load, Outcome, mixed_paths, owners, static_paths

from cachelb.demo.director import Director, director_config
from cachelb.demo.farm import Squid, SquidFarm, wait_until
from cachelb.demo.origin import OriginProcess, body

CLIENTS = 16
PATIENCE_S = 30.0
RELOADS = 20


def node_table(node: Squid, weight: float = 1, state: str = "up") -> str:
    where = f'host = "{node.host}"\nhttp_port = {node.http_port}'
    return f'[[node]]\nname = "{node.name}"\n{where}\nweight = {weight}\nstate = "{state}"\n'


def configure(director: Director, tables: Sequence[str], more: str = "") -> None:
    """Give the director a configuration with these nodes, and wait until every worker goes by it."""
    reloads = director.status()["reloads"]
    text = director_config("\n".join(tables), director.http, director.admin, more=f"[relay]\nworkers = 2\n{more}")
    director.write_config(text)
    director.reload()

    def is_done() -> bool:
        status = director.status()
        return status["reloads"] == reloads + 1 and {w["epoch"] for w in status["workers"]} == {status["epoch"]}

    assert wait_until(is_done, PATIENCE_S), director.log_tail()


def variants(farm: SquidFarm) -> list[tuple[list[str], str]]:
    """Farms that differ from each other in nodes, weights, states and order, and in a setting that clears every memo."""
    one, two, three, four = farm.nodes
    rule = "[limits]\nmemo_entries = 1000\n"
    return [
        ([node_table(n) for n in (one, two, three, four)], ""),
        ([node_table(n) for n in (one, three, four)], ""),
        ([node_table(one, 2.5), node_table(two, 0.5), node_table(three)], rule),
        ([node_table(n) for n in (four, three, two, one)], rule),
        ([node_table(two), node_table(four, 0), node_table(one)], ""),
        ([node_table(one, state="drain"), node_table(two, state="down"), node_table(three)], ""),
    ]


def since(outcomes: Sequence[Outcome], start: float, paths: Sequence[str]) -> list[Outcome]:
    wanted = set(paths)
    return [o for o in outcomes if o.sent_at >= start and o.path in wanted]


def test_twenty_reloads_under_load_cost_nothing(
    own_farm: Callable[..., SquidFarm], origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    farm = own_farm(4)
    director = start_director(farm, relay="workers = 2")
    static = static_paths(unique, 100)
    turns = itertools.cycle(variants(farm))
    with Load(director.http, origin, mixed_paths(unique, static), CLIENTS) as load:
        configure(director, *next(turns))
        began = time.monotonic()
        load.wait_for(2 * len(static))
        first = owners(since(load.outcomes, began, static))
        for _ in range(RELOADS - 1):
            configure(director, *next(turns))
            load.wait_for(4 * CLIENTS)
        configure(director, *variants(farm)[3])  # the first one in another order
        ended = time.monotonic()
        load.wait_for(2 * len(static) + CLIENTS)
    print(f"{len(load.outcomes)} requests during {RELOADS + 1} reloads, {len(load.problems)} failed")
    assert load.problems == []
    assert len({o.port for o in load.outcomes}) == CLIENTS  # not even a connection was closed
    assert {len(nodes) for nodes in first.values()} == {1}
    last = owners(since(load.outcomes, ended, static))
    assert {path: last[path] for path in first if path in last} == {path: first[path] for path in first if path in last}
    assert director.status()["reloads"] == RELOADS + 1


def test_a_bad_configuration_is_refused_and_the_old_one_stays(
    squid_farm: SquidFarm, origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    director = start_director(squid_farm)
    good = director.config_path.read_text()
    with Load(director.http, origin, itertools.cycle(static_paths(unique, 20)), 4) as load:
        for bad, words in (
            (good.replace("http_port", "htpp_port"), "http_port"),
            (good.replace('name = "cache2"', 'name = "cache1"'), "cache1"),
            ("[listen\n", "cachelb.toml:1"),
        ):
            refused = director.log().count("reload refused")
            director.write_config(bad)
            director.reload()
            assert wait_until(lambda before=refused: director.log().count("reload refused") > before, PATIENCE_S)
            assert words in director.log_tail(6)
            load.wait_for(20)
        epoch = director.status()["epoch"]
        director.write_config(good)
        director.reload()
        assert wait_until(lambda: director.status()["epoch"] > epoch, PATIENCE_S)
        assert director.status()["reloads"] == 1
        load.wait_for(20)
    assert load.problems == []


def connections(pids: Sequence[int], address: tuple[str, int]) -> dict[int, int]:
    """The clients' ports of established connections to `address`, and which of the processes has each."""
    ours = f"{int.from_bytes(socket.inet_aton(address[0]), 'little'):08X}:{address[1]:04X}"
    ports = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *rest = line.split()
        if local == ours and state == "01":
            ports[f"socket:[{rest[5]}]"] = int(remote.partition(":")[2], 16)
    found = {}
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                name = os.readlink(fd)
            except FileNotFoundError:
                continue
            if name in ports:
                found[ports[name]] = pid
    return found


def test_a_killed_worker_costs_only_its_own_connections(
    squid_farm: SquidFarm, origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    director = start_director(squid_farm, relay="workers = 2")
    static = static_paths(unique, 100)
    with Load(director.http, origin, mixed_paths(unique, static), CLIENTS) as load:
        load.wait_for(len(static))
        victim, survivor = (worker["pid"] for worker in director.status()["workers"])
        where = connections([victim, survivor], director.http)
        os.kill(victim, signal.SIGKILL)
        killed_at = time.monotonic()
        assert wait_until(lambda: director.status()["workers"][0]["restarts"] == 1, PATIENCE_S)
        assert wait_until(lambda: director.status()["workers"][0]["pid"] not in (0, victim), PATIENCE_S)
        load.wait_for(2 * len(static))
        restarted = director.status()["workers"][0]["pid"]
        assert wait_until(lambda: director.status()["workers"][0]["epoch"] == director.status()["epoch"], PATIENCE_S)
        clients = [Client(director.http, origin) for _ in range(2 * CLIENTS)]
        assert [o.problem for o in (client.get(static[0]) for client in clients) if o.problem] == []
        served = connections([restarted, survivor], director.http)
        assert {served[client.port] for client in clients} == {restarted, survivor}
    for client in clients:
        client.close()
    lost = {port for port, pid in where.items() if pid == victim}
    undisturbed = {port for port, pid in where.items() if pid == survivor}
    assert len(where) == CLIENTS
    assert lost
    assert undisturbed
    failed = [o for o in load.outcomes if o.problem]
    print(f"{len(load.outcomes)} requests, {len(lost)} connections lost, {len(failed)} requests failed")
    assert [o for o in failed if o.port not in lost] == []
    assert [o for o in failed if o.sent_at > killed_at + 1] == []
    assert undisturbed & {o.port for o in load.outcomes if o.sent_at > killed_at}
    assert [o for o in load.outcomes if o.port in undisturbed and o.problem] == []
    assert director.status()["workers"][1]["restarts"] == 0
    assert "worker 1 ended (killed by signal 9)" in director.log()


def test_stopping_finishes_what_has_begun(
    squid_farm: SquidFarm, origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    director = start_director(squid_farm, relay="workers = 2")
    waiting = [f"/slow/{unique}-wait-{n}?ms=1500&size=5000" for n in range(8)]
    size = 30_000_000
    reader = Peer(socket.create_connection(director.http))
    reader.send(get(f"{origin.base}/large/{unique}?size={size}"))
    assert parse_answer_head(reader.read_head()).status == 200
    half_sent = Peer(socket.create_connection(director.http))
    half_sent.send(get(f"{origin.base}/upload/{unique}", "Content-Length: 8", method="POST"), b"half")
    with (
        ThreadPoolExecutor(len(waiting)) as pool,
        Load(director.http, origin, mixed_paths(unique, static_paths(unique, 50)), CLIENTS) as load,
    ):
        answers = [pool.submit(Client(director.http, origin).get, path) for path in waiting]
        assert wait_until(lambda: all(origin.counts()[f"GET {path}"] for path in waiting), PATIENCE_S)
        assert wait_until(lambda: bool(origin.counts()[f"POST /upload/{unique}"]), PATIENCE_S)
        load.wait_for(50)
        director.signal(signal.SIGTERM)
        assert wait_until(lambda: not accepts(director.http), PATIENCE_S)
        load.stop()
        half_sent.send(b"full")
        assert b'"length": 8' in half_sent.read_answer().body
        content = reader.read_exactly(size)
        assert [answer.result().problem for answer in answers if answer.result().problem] == []
    assert content == body(f"/large/{unique}", size)
    assert director.wait() == 0, director.log_tail()
    assert "every exchange was finished" in director.log_tail(3)
    # whoever was not answered had not been heard: refused, or its request crossed the end of an idle connection
    assert [o for o in load.outcomes if o.problem and o.begun] == []


def test_a_new_version_takes_over_and_no_request_fails(
    squid_farm: SquidFarm, origin: OriginProcess, start_director: Callable[..., Director], unique: str
):
    """Answers that are waited for, and long ones, begin at the old version and end at it."""
    director = start_director(squid_farm, relay="workers = 2")
    old = director.pid
    size = 30_000_000
    reader = Peer(socket.create_connection(director.http))
    reader.send(get(f"{origin.base}/large/{unique}?size={size}"))
    assert parse_answer_head(reader.read_head()).status == 200

    def current() -> int:
        try:
            return int(director.status()["pid"])
        except OSError:
            return old

    with Load(director.http, origin, mixed_paths(unique, static_paths(unique, 50)), CLIENTS) as load:
        load.wait_for(100)
        director.signal(signal.SIGUSR2)
        assert wait_until(lambda: current() != old, PATIENCE_S), director.log_tail()
        load.wait_for(300)
    new = current()
    try:
        assert load.problems == []
        assert director.is_running  # a client still reads
        assert reader.read_exactly(size) == body(f"/large/{unique}", size)
        reader.close()
        assert director.wait() == 0
        assert "every exchange was finished" in director.log_tail(3)
    finally:
        os.kill(new, signal.SIGTERM)
        assert wait_until(lambda: not Path(f"/proc/{new}").exists() or is_zombie(new), PATIENCE_S)


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def accepts(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_rotated_log_is_complete(
    squid_farm: SquidFarm, origin: OriginProcess, start_director: Callable[..., Director], unique: str, tmp_path: Path
):
    log = tmp_path / "access.log"
    director = start_director(squid_farm, f'[log]\naccess = "{log}"\n', relay="workers = 2")
    with Load(director.http, origin, mixed_paths(unique, static_paths(unique, 50)), CLIENTS) as load:
        for number in range(3):
            load.wait_for(50)
            log.rename(tmp_path / f"access.log.{number}")
            director.signal(signal.SIGUSR1)
            assert wait_until(lambda: log.exists() and log.stat().st_size > 0, PATIENCE_S)
    assert load.problems == []
    assert director.stop() == 0
    lines = [line for file in tmp_path.glob("access.log*") for line in file.read_text().splitlines()]
    assert sorted(line.split()[6] for line in lines) == sorted(origin.base + o.path for o in load.outcomes)
    assert len(list(tmp_path.glob("access.log*"))) == 4
