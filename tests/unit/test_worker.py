"""A worker process, with the test in the place of its supervisor: messages, signals, and the supervisor's death."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import PATIENCE_S, Answer, Peer, get
from live_director import SlowNode, wait_until

from cachelb import control, handover
from cachelb.config import Config
from cachelb.counters import BLOCK_BYTES, FARM_INDEX
from cachelb.snapshot import NodeView, Snapshot


def process_time(pid: int) -> float:
    """CPU seconds that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


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
        self.digests, taker = handover.pair()
        fds = [theirs.fileno(), block_fd, taker.fileno(), self.listener.fileno()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cachelb.worker", *map(str, fds)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        taker.close()
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

    def publish(self, mask: bytes) -> bytes:
        """Hand over something like a digest; all of it."""
        body = bytes(128) + mask
        fd = os.memfd_create("digest")
        os.write(fd, body)
        assert handover.send(self.digests, handover.Published(fd, len(body), 1_795_000_000, 1_795_000_300))
        os.close(fd)
        return body

    def fetch_digest(self) -> Answer:
        client = self.connect()
        client.send(b"GET /squid-internal-periodic/store_digest HTTP/1.0\r\n\r\n")
        return client.read_answer()

    def hear(self, sightings: bool = False) -> tuple[bytes, bytes]:
        """Its next message but samples; what it tells of the nodes' stores only if that is what the test is about."""
        while True:
            head = self._read(5)
            payload = self._read(int.from_bytes(head[:4], "big") - 1)
            if head[4:] != control.HOT and (sightings or head[4:] != control.SEEN):
                return head[4:], payload

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
    subject.digests.close()
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


def test_it_tells_what_answers_say_of_the_nodes_stores(worker: Subject):
    worker.begin()
    client = worker.connect()
    client.send(get("http://www.test/page"))
    assert client.read_answer().status == 200
    kind, payload = worker.hear(sightings=True)
    assert kind == control.SEEN
    (seen,) = control.unpack_seen(payload)
    assert (seen.slot, seen.url) == (0, b"http://www.test/page")


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


# -- the farm's digest and purges


def held(worker: Subject, name: str) -> list[Path]:
    """Its descriptors of files of this name."""
    return [fd for fd in Path(f"/proc/{worker.process.pid}/fd").iterdir() if name in os.readlink(fd)]


def test_a_digest_that_was_handed_over_before_it_began_is_served_from_the_first_request_on(worker: Subject):
    worker.publish(b"old")
    body = worker.publish(b"the newest of two")
    worker.begin()
    assert worker.fetch_digest().body == body


def test_the_newest_digest_is_served_and_no_descriptor_of_an_older_one_kept(worker: Subject):
    worker.begin(digest={"pause_s": 0})

    for number in range(20):
        body = worker.publish(b"mask %d" % number)
        wait_until(lambda body=body: worker.fetch_digest().body == body)
    assert len(held(worker, "memfd:digest")) == 1


@pytest.mark.parametrize("size", [0, 10**9])
def test_a_digest_that_cannot_be_mapped_is_an_event_and_the_old_one_stays(worker: Subject, size: int):
    worker.begin(digest={"pause_s": 0})
    body = worker.publish(b"good")
    wait_until(lambda: worker.fetch_digest().body == body)
    fd = os.memfd_create("short")
    os.write(fd, b"short")
    assert handover.send(worker.digests, handover.Published(fd, size, 1, 2))
    os.close(fd)
    wait_until(lambda: fcntl.ioctl(worker.digests, termios.TIOCOUTQ, bytes(4)) == bytes(4))  # it has been taken
    assert worker.fetch_digest().body == body
    worker.tell(control.DRAIN, b"600")
    assert "a digest of the farm cannot be served" in worker.end()[1]


def test_when_nobody_hands_over_any_more_it_goes_on_with_what_it_has(worker: Subject):
    worker.begin(digest={"pause_s": 0})
    body = worker.publish(b"last")
    wait_until(lambda: worker.fetch_digest().body == body)
    before = process_time(worker.process.pid)
    worker.digests.close()
    for _ in range(20):
        assert worker.fetch_digest().body == body
    assert process_time(worker.process.pid) - before < 1.0


def private_bytes(pid: int) -> int:
    """Memory that a process shares with nobody."""
    words = Path(f"/proc/{pid}/status").read_text().split("RssAnon:")[1].split()
    return int(words[0]) << 10


@pytest.mark.parametrize("pause_s", [0, 0.01])
def test_a_large_digest_on_its_way_to_50_clients_needs_no_memory(worker: Subject, pause_s: float):
    worker.begin(digest={"pause_s": pause_s})
    body = worker.publish(os.urandom(5 << 20))
    assert worker.fetch_digest().body == body
    before = private_bytes(worker.process.pid)
    clients = [worker.connect() for _ in range(50)]
    for client in clients:
        client.send(b"GET /squid-internal-periodic/store_digest HTTP/1.0\r\n\r\n")
    for client in clients:
        assert client.read_until(body[:128])  # on its way, and nobody reads on
    during = private_bytes(worker.process.pid)
    for client in clients:
        assert client.read_exactly(len(body) - 128) == body[128:]
    assert during - before < 2 << 20
    assert private_bytes(worker.process.pid) - before < 2 << 20


def test_a_purge_is_asked_of_the_supervisor_and_its_answer_told(worker: Subject):
    worker.begin(access={"purge": ["127.0.0.0/8"]})
    client = worker.connect()
    client.send(get("http://www.test/page", "Accept-Encoding: gzip", method="PURGE"))
    kind, payload = worker.hear()
    assert kind == control.PURGE
    purge = control.unpack_purge(payload)
    assert purge[1:] == (b"http://www.test/page", b"Accept-Encoding: gzip\r\n")
    worker.tell(control.PURGED, control.pack_purged(control.Purged(purge.number, 2, 2, 1)))
    assert client.read_answer().status == 200


@pytest.mark.parametrize("how", ["drain", "sigterm"])
def test_a_purge_that_is_on_its_way_is_finished_when_it_drains(worker: Subject, how: str):
    worker.begin(access={"purge": ["127.0.0.0/8"]}, timeouts={"drain_s": 600})
    client = worker.connect()
    client.send(get("http://www.test/page", method="PURGE"))
    purge = control.unpack_purge(worker.hear()[1])
    if how == "drain":
        worker.tell(control.DRAIN, b"600")
    else:
        worker.process.terminate()
    wait_until(worker.refuses)
    worker.tell(control.PURGED, control.pack_purged(control.Purged(purge.number, 2, 2, 0)))
    assert client.read_answer().status == 404
    assert worker.hear() == (control.DRAINED, b"0")
    assert worker.end() == (0, "")


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


def test_told_to_leave_it_waits_for_one_more_request_of_each_client_until_it_is_told_to_drain(worker: Subject):
    worker.begin()
    asking, silent = (Peer(socket.create_connection(worker.address)) for _ in range(2))
    for client in (asking, silent):
        client.send(get("http://www.test/"))
        client.read_answer()
    worker.tell(control.LEAVE, b"600")
    wait_until(worker.refuses)
    asking.send(get("http://www.test/"))
    assert asking.read_answer().fields[b"connection"] == b"close"
    assert silent.is_quiet()
    worker.tell(control.DRAIN, b"600")
    assert silent.read_to_end() == b""
    assert worker.hear() == (control.DRAINED, b"0")
    assert worker.end() == (0, "")


def test_told_both_at_once_it_drains(worker: Subject):
    worker.begin()
    client = Peer(socket.create_connection(worker.address))
    client.send(get("http://www.test/"))
    client.read_answer()
    worker.control.sendall(control.pack(control.LEAVE, b"600") + control.pack(control.DRAIN, b"600"))
    assert client.read_to_end() == b""
    assert worker.hear() == (control.DRAINED, b"0")
    assert worker.end() == (0, "")


def test_it_says_that_it_is_there(worker: Subject):
    worker.begin()
    worker.tell(control.PING)
    assert worker.hear() == (control.PONG, b"")


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
