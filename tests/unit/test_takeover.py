"""The conversation between one director and the next, with small programs in the place of the next."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cachelb import control, takeover
from cachelb.takeover import Offer, Predecessor, Successor, TakeoverError, command_line

# The new one's part; what it does between its words is the test's.
NEW = """
import asyncio, json, os, signal, sys
from cachelb.takeover import Predecessor
before = Predecessor.find(os.environ)
assert "CACHELB_TAKEOVER" not in os.environ
{}
"""
ALL = NEW.format('directory = before.ask()\nasyncio.run(before.ready())\nprint(directory, before.offer.dead, flush=True)')


def with_successor(code: str, test: Callable[[Successor], Awaitable[None]], offer: Offer | None = None) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            successor = await Successor.start(offer or Offer(), [sys.executable, "-c", code])
            try:
                await test(successor)
            finally:
                await successor.end(0.0)

    asyncio.run(main())


async def save_nothing() -> Path | None:
    return None


def test_the_words_of_a_takeover(capfd: pytest.CaptureFixture[str]):
    async def test(successor: Successor) -> None:
        saved: list[bool] = []

        async def save() -> Path:
            saved.append(True)
            return Path("/some/where")

        await successor.until_ready(save)
        assert saved == [True]
        assert capfd.readouterr().out == ""  # it waits for the last word
        await successor.go()
        await asyncio.to_thread(successor._process.wait, 10)
        assert capfd.readouterr().out == "/some/where {'n': 'refused'}\n"

    with_successor(ALL, test, Offer(dead={"n": "refused"}))


def test_descriptors_are_inherited_and_go_no_further():
    code = NEW.format(
        "sock, = before.sockets()\n"
        "assert not sock.get_inheritable() and not os.get_inheritable(before.offer.lock)\n"
        "print(sock.getsockname()[1], os.read(before.offer.lock, 9), before.offer.published(), before.offer.pid_file,"
        " file=open(sys.argv[1], 'w'))\n"
        "before.ask()\nasyncio.run(before.ready())"
    )
    reading, writing = os.pipe()
    os.write(writing, b"the lock")
    path = Path(f"/tmp/cachelb-test-{os.getpid()}")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        offer = Offer([sock.fileno()], -1, reading, None)

        async def main() -> None:
            successor = await Successor.start(offer, [sys.executable, "-c", code, str(path)])
            await successor.until_ready(save_nothing)
            await successor.end(0.0)

        try:
            asyncio.run(main())
            assert path.read_text() == f"{sock.getsockname()[1]} b'the lock' None -1\n"
        finally:
            path.unlink(missing_ok=True)
            os.close(reading)
            os.close(writing)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("sys.exit(3)", "exit status 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
        ("before.ask(); sys.exit(4)", "exit status 4"),
    ],
)
def test_one_that_ends_before_it_is_ready_is_no_director(what: str, why: str):
    async def test(successor: Successor) -> None:
        with pytest.raises(TakeoverError, match=f"ended before it was ready \\({why}\\)"):
            await successor.until_ready(save_nothing)

    with_successor(NEW.format(what), test)


def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(takeover, "KILLED_AFTER_S", 0.1)

    async def test(successor: Successor) -> None:
        await successor.until_ready(save_nothing)
        await successor.end(0.0)
        assert successor._process.returncode == -signal.SIGKILL

    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nbefore.ask()\nasyncio.run(before.ready())\nsignal.pause()"
    with_successor(NEW.format(deaf), test)


def test_what_cannot_be_started_is_said():
    async def main() -> None:
        with pytest.raises(TakeoverError, match="/none cannot be started: No such file or directory"):
            await Successor.start(Offer(), ["/none"])

    asyncio.run(main())


def test_nobody_has_started_us_in_its_place():
    assert Predecessor.find({}) is None


@pytest.mark.parametrize("said", [b"", control.pack(b"X", b"{}"), control.pack(b"O", b"no JSON"), control.pack(b"O", b"[1]")])
def test_an_offer_that_is_none_is_refused(said: bytes):
    ours, theirs = socket.socketpair()
    ours.sendall(said)
    ours.shutdown(socket.SHUT_WR)
    with ours, pytest.raises(TakeoverError, match="there is no director to take over from"):
        Predecessor.find({takeover.VARIABLE: str(theirs.detach())})
    with pytest.raises(TakeoverError, match="CACHELB_TAKEOVER=word"):
        Predecessor.find({takeover.VARIABLE: "word"})


def test_an_offer_of_another_version_is_understood_as_far_as_it_goes():
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(control.pack(takeover.OFFER, json.dumps({"dead": {"a": "b"}, "colour": "red"}).encode()))
        found = Predecessor.find({takeover.VARIABLE: str(theirs.detach())})
        assert found is not None
        assert found.offer == Offer(dead={"a": "b"})


def test_when_the_old_one_has_gone_there_is_nothing_to_ask_it_and_nothing_to_wait_for():
    ours, theirs = socket.socketpair()
    ours.sendall(control.pack(takeover.OFFER, b"{}"))
    subject = Predecessor.find({takeover.VARIABLE: str(theirs.detach())})
    assert subject is not None
    ours.close()
    assert subject.ask() is None
    asyncio.run(subject.ready())


def test_a_script_is_started_itself_and_a_module_by_its_python(tmp_path: Path):
    script = tmp_path / "cachelb"
    script.touch(0o755)
    assert command_line(["/old/python", str(script), "run", "-c", "f"], "/new/python") == [str(script), "run", "-c", "f"]
    script.chmod(0o644)
    assert command_line(["/old/python", str(script), "run"], "/new/python") == ["/new/python", str(script), "run"]
    assert command_line(["python", "-m", "cachelb", "run"], "/new/python") == ["/new/python", "-m", "cachelb", "run"]
