"""Two directors under keepalived: one has the virtual address, and the other one takes it over when that one dies."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_director import wait_until
from netbed import Lan, Space

from cachelb.demo.director import Director
from cachelb.demo.leash import Leash
from cachelb.demo.origin import OriginProcess

DOCS = Path(__file__).parents[2] / "docs" / "keepalived"
VIRTUAL = "10.78.0.100"
KEEPALIVED = shutil.which("keepalived", path="/usr/sbin:/sbin:/usr/bin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(KEEPALIVED is None, reason="keepalived is not installed (Debian: apt-get install keepalived)")


class Keepalived:
    """One, on one host, with the configuration of the documentation."""

    def __init__(self, space: Space, directory: Path, director: Director, priority: int, leash: Leash) -> None:
        self.space = space
        text = (DOCS / "keepalived.conf").read_text()
        # Not Python itself: keepalived follows symbolic links, and the one at their end knows nothing of our environment.
        check = f"{Path(sys.executable).with_name('cachelb')} check --live -c {director.config_path}"
        for mine, theirs in (
            ("/opt/cachelb/.venv/bin/cachelb check --live -c /etc/cachelb.toml", check),
            ("10.0.0.100/32", f"{VIRTUAL}/32"),
            ("priority 100", f"priority {priority}"),
            ("keepalived_script", "root"),
        ):
            assert mine in text
            text = text.replace(mine, theirs)
        path = directory / "keepalived.conf"
        path.write_text(text)
        self.log = directory / "keepalived.log"
        with space, self.log.open("w") as log:
            assert KEEPALIVED is not None
            pids = [f"--{name}={directory / name}" for name in ("pid", "vrrp_pid", "checkers_pid")]
            self.process = subprocess.Popen(
                [KEEPALIVED, "--dont-fork", "--log-console", "--vrrp", f"--use-file={path}", *pids],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        leash.watch(self.process.pid)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan("client", "origin", "node1", "node2", "director1", "director2") as lan:
        yield lan


def has_it(space: Space) -> bool:
    return f" {VIRTUAL}/32 " in space.run("ip", "-o", "addr", "show", "dev", "eth0")


class Load:
    """Requests through the virtual address, one after the other, each on a connection of its own."""

    def __init__(self, lan: Lan, url: str) -> None:
        self.done: list[tuple[float, bool]] = []  # when each began, and whether it succeeded
        self._over = threading.Event()
        with lan["client"]:
            self._thread = threading.Thread(target=self._run, args=(url,))
            self._thread.start()

    def _run(self, url: str) -> None:
        number = 0
        while not self._over.is_set():
            began, number = time.monotonic(), number + 1
            try:
                with socket.create_connection((VIRTUAL, 3128), 1.0) as sock:
                    sock.settimeout(2.0)
                    sock.sendall(f"GET {url}{number % 50} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
                    data = sock.recv(100)
                self.done.append((began, data.startswith(b"HTTP/1.1 200")))
            except OSError:
                self.done.append((began, False))

    def stop(self) -> None:
        self._over.set()
        self._thread.join(10)


@pytest.mark.alone
def test_the_standby_takes_over_within_3_s_and_owns_the_same(lan: Lan, tmp_path: Path, leash: Leash):
    with lan["origin"]:
        origin = OriginProcess(lan["origin"].v4, 80)
    nodes = []
    for name in ("node1", "node2"):
        with lan[name]:
            nodes.append(OriginProcess(lan[name].v4, 3128))  # answers whatever it is asked for, as a cache with a hit would
    directors, keepers = [], []
    tables = "".join(f'[[node]]\nname = "{name}"\nhost = "{lan[name].v4}"\nicp_port = 0\n' for name in ("node1", "node2"))
    try:
        for number, priority in ((1, 150), (2, 100)):
            directory = tmp_path / f"director{number}"
            directory.mkdir()
            config = (
                '[listen]\nhttp = "0.0.0.0:3128"\nadmin = "127.0.0.1:3180"\n[relay]\nworkers = 1\n'
                f"[bypass]\nallow_private = true\n{tables}"
            )
            director = Director(config, directory, leash, http=("0.0.0.0", 3128), admin=("127.0.0.1", 3180))
            with lan[f"director{number}"]:
                director.start()
            directors.append(director)
            keepers.append(Keepalived(lan[f"director{number}"], directory, director, priority, leash))
        one, two = lan["director1"], lan["director2"]
        wait_until(lambda: has_it(one) and not has_it(two), keepers[0].log.read_text())
        tables_of = []
        for number, director in enumerate(directors, 1):
            with lan[f"director{number}"]:
                tables_of.append(director.status()["hash"]["table"])
        assert tables_of[0] == tables_of[1]  # the same owners

        load = Load(lan, f"http://{lan['origin'].v4}/static/")
        try:
            wait_until(lambda: len([1 for _, ok in load.done if ok]) > 50)
            killed = time.monotonic()
            directors[0].kill()
            wait_until(lambda: has_it(two), "the standby has it")
            took = time.monotonic() - killed
            assert took < 3.0, keepers[1].log.read_text()
            count = len(load.done)
            wait_until(lambda: len(load.done) > count + 100)
        finally:
            load.stop()
        owned = killed + took
        assert all(ok for began, ok in load.done if began > owned + 0.5), [began - owned for began, ok in load.done if not ok]
        assert not has_it(one)
        with lan["director2"]:
            wait_until(lambda: directors[1].status()["farm"]["hashed"] >= 100)
        print(f"the standby had the address {took:.2f} s after the active one was killed")
    finally:
        for keeper in keepers:
            keeper.stop()
        for director in directors:
            director.kill()
        for server in (origin, *nodes):
            server.stop()
    assert not has_it(lan["director1"])
    assert not has_it(lan["director2"])


def test_a_mismatch_is_reported_by_both_within_5_s(lan: Lan, tmp_path: Path, leash: Leash):
    directors: list[Director] = []
    token = tmp_path / "token"
    token.write_text("a-token-that-all-of-them-have\n")
    token.chmod(0o600)
    urls = ", ".join(f'"http://{lan[name].v4}:3180"' for name in ("director1", "director2"))
    for number in (1, 2):
        directory = tmp_path / f"director{number}"
        directory.mkdir()
        config = (
            f'[listen]\nhttp = "0.0.0.0:3128"\nadmin = "0.0.0.0:3180"\n[admin]\ntoken_file = "{token}"\n[relay]\nworkers = 1\n'
            f"[peers]\ndirectors = [{urls}]\n"
            f'[[node]]\nname = "a"\nhost = "{lan["node1"].v4}"\n[[node]]\nname = "b"\nhost = "{lan["node2"].v4}"\n'
        )
        director = Director(config, directory, leash, http=("0.0.0.0", 3128), admin=("127.0.0.1", 3180))
        with lan[f"director{number}"]:
            director.start()
        directors.append(director)
    for director in directors:
        wait_until(lambda director=director: "routes as this one does" in director.log())
    text = directors[1].config_path.read_text()
    directors[1].write_config(text.replace('name = "b"', 'name = "b"\nweight = 2'))
    directors[1].signal(signal.SIGHUP)
    since = time.monotonic()
    for director in directors:
        wait_until(lambda director=director: "routes otherwise: it differs in [node]" in director.log())
    assert time.monotonic() - since < 5.0
    for number, director in enumerate(directors, 1):
        with lan[f"director{number}"]:
            [peer] = director.status()["peers"]
            assert (peer["agrees"], peer["differs"]) == (False, ["node"])
            assert 'cachelb_peer_agrees{peer="' in director.admin_get("/metrics")
    directors[1].write_config(text)
    directors[1].signal(signal.SIGHUP)
    for director in directors:
        wait_until(lambda director=director: "routes as this one does" in director.log().rpartition("otherwise")[2])
    for director in directors:
        assert director.stop() == 0


