"""A worker process, with the test in the place of its supervisor: messages, signals, and the supervisor's death."""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from fakes import PATIENCE_S, Peer, get
from live_director import SlowNode, wait_until

from cachelb import control
from cachelb.config import Config
from cachelb.counters import BLOCK_BYTES, FARM_INDEX
from cachelb.snapshot import NodeView, Snapshot


class Subject:
    """One worker process and the other end of everything that it has."""

    def __init__(self, node: SlowNode) -> None:
        self.node = node
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        block_fd = os.memfd_create("block")
        os.ftruncate(block_fd, BLOCK_BYTES)
        self.block = memoryview(mmap.mmap(block_fd, BLOCK_BYTES)).cast("Q")
        self.control, theirs = socket.socketpair()
        self.control.settimeout(PATIENCE_S)
        fds = [theirs.fileno(), block_fd, self.listener.fileno()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cachelb.worker", *map(str, fds)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        os.close(block_fd)
        self.listener.close()

    def snapshot(self, epoch: int, **sections: object) -> bytes:
        settings = {"relay": {"via": "director.test:3128"}, "bypass": {"allow_private": True}, **sections}
        config = Config.model_validate_json(json.dumps(settings))
        nodes = (NodeView("n0", 0, (self.node.host,), self.node.port, 1.0, "up"),)
        return Snapshot(epoch, config.model_dump_json(), nodes).pack()

    def tell(self, kind: bytes, payload: bytes = b"") -> None:
        self.control.sendall(control.pack(kind, payload))

    def begin(self, **sections: object) -> None:
        """Let it serve."""
        self.tell(control.SNAPSHOT, self.snapshot(1, **sections))
        assert self.hear() == (control.APPLIED, b"1")

    def hear(self) -> tuple[bytes, bytes]:
        """Its next message."""
        head = self._read(5)
        return head[4:], self._read(int.from_bytes(head[:4], "big") - 1)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.control.recv(count - len(data))
            assert more, "it has closed its control socket"
            data += more
        return data

    def connect(self) -> Peer:
        return Peer(socket.create_connection(self.address, PATIENCE_S))

    def begin_slow(self) -> Peer:
        """A client whose request is at the node, which does not answer yet."""
        client = self.connect()
        client.send(get("http://www.test/slow"))
        assert self.node.waiting.acquire(timeout=PATIENCE_S)
        return client

    def refuses(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(self.address) != 0

    def end(self) -> tuple[int, str]:
        """Wait for its end: exit status, and what it said to people."""
        _, text = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, text


@pytest.fixture
def worker(node: SlowNode) -> Iterator[Subject]:
    subject = Subject(node)
    yield subject
    subject.control.close()
    if subject.process.poll() is None:
        subject.process.kill()
        subject.process.communicate()


def test_it_serves_when_it_has_a_snapshot_and_says_its_epoch(worker: Subject):
    worker.begin()
    client = worker.connect()
    client.send(get("http://www.test/page"))
    assert client.read_answer().body == b"127.0.0.61 http://www.test/page"
    wait_until(lambda: worker.block[FARM_INDEX["requests"]] == 1)
    worker.tell(control.SNAPSHOT, worker.snapshot(2, access={"allow": ["192.0.2.0/24"]}))
    assert worker.hear() == (control.APPLIED, b"2")
    stranger = worker.connect()
    stranger.send(get("http://www.test/page"))
    assert stranger.read_answer().status == 403


def test_a_bad_snapshot_is_an_event_and_the_old_one_stays(worker: Subject):
    worker.begin()
    worker.tell(control.SNAPSHOT, b"{}")
    worker.tell(control.SNAPSHOT, worker.snapshot(3))
    assert worker.hear() == (control.APPLIED, b"3")
    worker.tell(control.DRAIN, b"1")
    code, text = worker.end()
    assert code == 0
    assert "bad snapshot" in text
    assert "Traceback" not in text


def test_it_teaches_and_learns(worker: Subject):
    worker.begin()
    client = worker.connect()
    client.send(get("http://www.test/private"))
    assert client.read_answer().status == 200
    kind, payload = worker.hear()
    assert kind == control.LESSONS
    (lesson,) = control.unpack_lessons(payload)
    assert lesson.key == b"http://www.test/private"
    wait_until(lambda: worker.block[FARM_INDEX["learned_urls"]] == 1)
    worker.tell(control.LESSONS, control.pack_lessons([lesson._replace(key=b"http://www.test/others")]))
    wait_until(lambda: worker.block[FARM_INDEX["learned_urls"]] == 2)


# -- ending


def test_told_to_drain_it_finishes_says_what_was_cut_and_ends(worker: Subject):
    worker.begin()
    client = worker.begin_slow()
    worker.tell(control.DRAIN, b"600")
    wait_until(worker.refuses)
    worker.node.gate.set()
    assert client.read_answer().status == 200
    assert worker.hear() == (control.DRAINED, b"0")
    assert worker.end() == (0, "")
    assert worker.block[FARM_INDEX["clients_open"]] == 0


def test_what_takes_longer_than_the_deadline_is_cut_and_counted(worker: Subject):
    worker.begin()
    client = worker.begin_slow()
    worker.tell(control.DRAIN, b"0.05")
    assert client.read_answer().status == 503
    assert worker.hear() == (control.DRAINED, b"1")
    assert worker.end()[0] == 0
    assert worker.block[FARM_INDEX["clients_open"]] == 0


@pytest.mark.parametrize("then", ["snapshot", "drain", "reopen", "sigterm", "lessons"])
@pytest.mark.parametrize("first", ["sigterm", "drain"])
def test_once_it_drains_nothing_that_is_said_cuts_it_short(worker: Subject, first: str, then: str):
    worker.begin(timeouts={"drain_s": 600})
    client = worker.begin_slow()
    for word in (first, then):
        if word == "sigterm":
            worker.process.terminate()
        elif word == "drain":
            worker.tell(control.DRAIN, b"600")
        elif word == "reopen":
            worker.tell(control.REOPEN)
        elif word == "lessons":
            worker.tell(control.LESSONS, b"[]")
        wait_until(worker.refuses)
    worker.tell(control.SNAPSHOT, worker.snapshot(9))
    assert worker.hear() == (control.APPLIED, b"9")  # all of the above has been read
    assert worker.process.poll() is None
    worker.node.gate.set()
    assert client.read_answer().status == 200
    assert worker.hear() == (control.DRAINED, b"0")
    assert worker.end() == (0, "")


def test_a_node_that_dies_while_it_drains_is_left_at_once(worker: Subject):
    worker.begin()
    client = worker.begin_slow()
    worker.tell(control.DRAIN, b"600")
    wait_until(worker.refuses)
    dead = json.loads(worker.snapshot(2))
    dead["nodes"][0]["state"] = "dead"
    worker.tell(control.SNAPSHOT, json.dumps(dead).encode())
    assert client.read_answer().status >= 500
    assert worker.end()[0] == 0


def test_without_a_supervisor_it_finishes_and_ends(worker: Subject):
    worker.begin()
    client = worker.begin_slow()
    worker.control.close()
    wait_until(worker.refuses)
    worker.node.gate.set()
    assert client.read_answer().status == 200
    code, text = worker.end()
    assert code == 0
    assert "the supervisor has gone" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("how", ["close", "drain", "a message that cannot be"])
def test_it_ends_also_when_it_has_not_begun(worker: Subject, how: str):
    if how == "drain":
        worker.tell(control.DRAIN, b"600")
    elif how == "close":
        worker.control.close()
    else:
        worker.control.sendall(b"\xff" * 100)
    code, text = worker.end()
    assert code == 0
    assert "Traceback" not in text


def test_signals_that_a_terminal_sends_to_all_are_the_supervisors(worker: Subject):
    worker.begin()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        worker.process.send_signal(number)
    client = worker.connect()
    client.send(get("http://www.test/page"))
    assert client.read_answer().status == 200
