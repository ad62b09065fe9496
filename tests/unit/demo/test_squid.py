"""What can be told about one Squid without starting it; tests/squid has the rest."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from cachelb.demo import squid as squid_module
from cachelb.demo.leash import Leash
from cachelb.demo.squid import AccessEntry, Squid, SquidError, free_port, parse_access_line, wait_until

LINE = "1795231204.123     17 10.1.2.3 TCP_MEM_HIT/200 795 GET http://127.0.0.10:8000/a?size=5 - HIER_NONE/- text/html"


@pytest.fixture
def stopped(tmp_path: Path):
    with Leash() as leash:
        directory = tmp_path / "cache1"
        directory.mkdir()
        yield Squid(
            "cache1", "127.0.1.1", 1, free_port("127.0.1.1", socket.SOCK_DGRAM), directory, "# nothing\n", leash
        )


def test_a_native_line_is_read():
    assert parse_access_line(LINE) == AccessEntry(
        1795231204.123, 17, "10.1.2.3", "TCP_MEM_HIT", 200, 795, "GET", "http://127.0.0.10:8000/a?size=5",
        "HIER_NONE/-", "text/html",
    )  # fmt: skip


@pytest.mark.parametrize("cut", range(len(LINE) - len(" text/html")))
def test_a_cut_line_is_refused(cut: int):
    with pytest.raises(ValueError):  # noqa: PT011  (whatever the place, it is no line)
        parse_access_line(LINE[:cut])


@pytest.mark.parametrize(
    ("result", "is_hit"),
    [
        ("TCP_HIT", True),
        ("TCP_MEM_HIT", True),
        ("TCP_IMS_HIT", True),
        ("TCP_REFRESH_UNMODIFIED", True),
        ("TCP_MISS", False),
        ("TCP_REFRESH_MODIFIED", False),
        ("TCP_TUNNEL", False),
    ],
)
def test_hits_are_told_from_misses(result: str, is_hit: bool):
    assert parse_access_line(LINE.replace("TCP_MEM_HIT", result)).is_hit is is_hit


def test_an_unfinished_last_line_is_left_for_later(stopped: Squid):
    assert stopped.access_log() == []
    (stopped.directory / "access.log").write_text(f"{LINE}\n{LINE[:40]}")
    assert stopped.access_log() == [parse_access_line(LINE)]


def test_holds_asks_by_icp_and_reads_the_answer(stopped: Squid):
    seen: list[bytes] = []

    def node(sock: socket.socket) -> None:
        for opcode in (2, 3):
            query, client = sock.recvfrom(65536)
            seen.append(query)
            sock.sendto(bytes([opcode]) + query[1:], client)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((stopped.host, stopped.icp_port))
        thread = threading.Thread(target=node, args=(sock,))
        thread.start()
        assert stopped.holds("http://a.test/") is True
        assert stopped.holds("http://b.test/") is False
        thread.join()
    reqnum = seen[0][4:8].hex()
    assert seen[0] == bytes.fromhex(f"01020027{reqnum}" + "00" * 12 + "00000000") + b"http://a.test/\0"
    assert seen[1][4:8] != seen[0][4:8] != bytes(4)


def test_a_squid_that_was_not_started_says_so(stopped: Squid):
    assert not stopped.is_running
    assert "stopped" in repr(stopped)
    stopped.kill()
    with pytest.raises(SquidError, match="cache1 is not running"):
        stopped.pause()


def test_a_missing_squid_is_one_sentence(stopped: Squid, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(squid_module, "find_squid", lambda: None)
    with pytest.raises(SquidError, match="apt-get install squid"):
        stopped.launch()


def test_the_preferred_port_is_taken_only_when_it_is_free():
    port = free_port("127.0.1.1")
    assert free_port("127.0.1.1", preferred=port) == port
    with socket.create_server(("127.0.1.1", port)):
        assert free_port("127.0.1.1", preferred=port) not in (0, port)


def test_a_free_port_is_named_once():
    ports = [free_port("127.0.1.1") for _ in range(50)]
    assert len(set(ports)) == 50
    assert max(ports) < 30_000  # where the kernel's own begin unless somebody has changed that: nobody else gets it first


def test_wait_until_gives_up():
    answers = iter([False, True])
    assert wait_until(lambda: next(answers), 5, step_s=0.001)
    assert not wait_until(lambda: False, 0.01, step_s=0.001)
