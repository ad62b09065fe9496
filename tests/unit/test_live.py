from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from live_director import LiveDirector

from cachelb import live
from cachelb.cli import main
from cachelb.config import parse
from cachelb.demo.squid import free_port

NODE = '[[node]]\nname = "a"\nhost = "10.0.0.11"\n'


def status(**values: Any) -> dict[str, Any]:
    return {"state": "running", "workers": [{"pid": 7}], "nodes": [{"state": "up"}]} | values


def test_a_running_director_with_a_worker_and_a_node_is_one():
    assert live.judged(status(), True) == []
    assert live.judged(status(nodes=[{"state": "dead"}, {"state": "drain"}]), True) == []


def test_what_is_wrong_is_said():
    assert live.judged(status(state="draining"), True) == ["the director is draining"]
    assert live.judged(status(workers=[{"pid": 0}]), True) == ["no worker runs"]
    assert live.judged(status(nodes=[{"state": "dead"}]), True) == ["no node serves: all goes straight to the origins"]
    assert live.judged(status(nodes=[]), False) == ["no node serves"]


def config_of(http: int, admin: int) -> str:
    return f'[listen]\nhttp = "127.0.0.1:{http}"\nadmin = "127.0.0.1:{admin}"\n{NODE}'


def test_nobody_there_is_a_sentence_for_each_listener():
    http, admin = free_port("127.0.0.1"), free_port("127.0.0.1")
    found = live.problems(parse(config_of(http, admin), "test"))
    assert found == [
        f"the admin listener 127.0.0.1:{admin} does not say how it is: Connection refused",
        f"the HTTP listener 127.0.0.1:{http} does not answer: Connection refused",
    ]


def test_a_worker_that_hangs_and_an_admin_listener_that_talks_nonsense_are_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "ASK_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as hangs, socket.create_server(("127.0.0.1", 0)) as talks:

        def talk() -> None:
            peer, _ = talks.accept()
            peer.recv(1000)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
            peer.close()

        thread = threading.Thread(target=talk)
        thread.start()
        place = f"127.0.0.1:{talks.getsockname()[1]}"
        found = live.problems(parse(config_of(hangs.getsockname()[1], talks.getsockname()[1]), "test"))
        thread.join()
    assert found[0].startswith(f"the admin listener {place} does not say how it is: ")
    assert found[1].endswith("does not answer: timed out")


def test_an_address_that_another_director_has_just_now_is_not_asked():
    config = parse(f'[listen]\nhttp = "192.0.2.77:3128"\nadmin = ""\n{NODE}', "test")
    assert live.problems(config) == ["[listen] admin is empty: nothing can be asked"]


def test_the_command_says_it_of_a_real_director(director: Callable[..., LiveDirector], capsys: pytest.CaptureFixture[str]):
    subject = director()
    assert main(["check", "--live", "-c", str(subject.config)]) == 0
    assert capsys.readouterr() == ("", "")
    subject.signal(signal.SIGKILL)
    subject.process.wait()
    assert main(["check", "--live", "-c", str(subject.config)]) == 1
    assert "does not say how it is: Connection refused" in capsys.readouterr().err
