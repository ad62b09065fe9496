from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
from cachelb.tools.bench import open_loop
from cachelb.tools.bench.open_loop import length_of, run

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"


def server(react: Callable[[socket.socket, int], None]) -> tuple[str, int]:
    """Reacts to each request on each connection; the number is that of the request, over all."""
    listener = socket.create_server(("127.0.0.1", 0))
    count = 0

    def serve(client: socket.socket) -> None:
        nonlocal count
        with client:
            while client.recv(65536):
                count += 1
                react(client, count)

    def accept() -> None:
        with listener:
            for _ in range(open_loop.CONNECTIONS):
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(open_loop, "CONNECTIONS", 2)
    monkeypatch.setattr(open_loop, "DRAIN_S", 0.2)


def test_the_length_of_an_answer_is_in_its_head():
    assert length_of(ANSWER) == len(ANSWER)
    assert length_of(ANSWER[:-2]) == len(ANSWER)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_what_is_no_proper_answer_is_refused(answer: bytes):
    with pytest.raises(ValueError, match="answered"):
        length_of(answer)


def test_requests_are_sent_at_their_rate():
    times, lates, per_s = run(server(lambda client, _: client.sendall(ANSWER)), 200.0, 0.2)
    assert len(times) == len(lates) == 36  # of 40, without the first tenth
    assert per_s <= 201


def test_answers_in_parts_are_put_together():
    def react(client: socket.socket, _: int) -> None:
        client.sendall(ANSWER[:40])
        client.sendall(ANSWER[40:])

    assert len(run(server(react), 200.0, 0.1)[0]) == 18


def test_one_stall_delays_all_that_were_due_meanwhile():
    stalled = threading.Event()

    def react(client: socket.socket, number: int) -> None:
        if number in (10, 11):
            stalled.wait(0.1)
        client.sendall(ANSWER)

    times, _, _ = run(server(react), 200.0, 0.2)
    assert sum(seconds > 0.03 for seconds in times) >= 8  # a closed loop would have seen two


def test_what_is_never_answered_counts_as_late():
    times, _, per_s = run(server(lambda client, number: None), 100.0, 0.1)
    assert len(times) == 9
    assert min(times) >= 0.2
    assert per_s == 0
