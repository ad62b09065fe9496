"""cachelb-stats against a director that runs: well, with a sick node, drained, hung, stopped."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import PATIENCE_S
from live_director import LiveDirector, SlowNode, wait_until
from processes import users_environment

from cachelb.demo.leash import Leash

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture
def director(tmp_path: Path) -> Iterator[LiveDirector]:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with contextlib.ExitStack() as stack:
        leash = stack.enter_context(Leash())
        nodes = {name: SlowNode(f"127.0.0.{2 + i}") for i, name in enumerate(("a", "b", "c"))}
        for fake in nodes.values():
            stack.callback(fake.stop)
        admin = f'[admin]\nsocket = "{tmp_path}/admin.sock"\ntoken_file = "{token}"\n'
        live = LiveDirector(tmp_path, leash, nodes, f"[health]\ninterval_s = 0.2\ntimeout_s = 0.15\n{admin}")
        stack.callback(live.close)
        live.launch()
        live.wait_for(" ready: ")
        yield live


def stats(director: LiveDirector, *argv: str, admin: str = "") -> subprocess.CompletedProcess[str]:
    where = admin or "{}:{}".format(*director.admin)
    return subprocess.run(
        [sys.executable, "-m", "cachelb.tools.stats", "--admin", where, *argv],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=users_environment() | {"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
    )


def test_from_well_to_sick_to_drained_to_down(director: LiveDirector):
    for i in range(30):
        director.ask(f"page{i}")
    wait_until(lambda: director.status()["farm"]["requests"] >= 30)
    wait_until(lambda: "nothing was measured so far" not in stats(director).stdout, "no second of it was seen")
    shown = stats(director)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("✔ all well")
    assert [name for name in "abc" if f"\n  {name}        up " in shown.stdout] == ["a", "b", "c"]
    assert max(map(len, shown.stdout.splitlines())) <= 80

    director.nodes["b"].stop()
    wait_until(lambda: director.status()["nodes"][1]["state"] == "dead", "b is not dead")
    shown = stats(director, admin=str(director.directory / "admin.sock"))
    assert shown.returncode == 1
    assert shown.stdout.splitlines()[0].startswith("✖ NOT WELL: 1 problem")
    assert shown.stdout.splitlines()[1].startswith("  ✖ b is dead for ")

    read = json.loads(stats(director, "--json").stdout)
    assert (read["well"], read["findings"][0]["node"]) == (False, "b")
    rows = stats(director, "--csv").stdout.splitlines()
    assert [row.split(",")[1:4] for row in rows[1:]] == [
        ["", "running", "0"],
        ["a", "up", "1"],
        ["b", "dead", "0"],
        ["c", "up", "1"],
    ]

    director.signal(signal.SIGSTOP)
    try:
        shown = stats(director, "--timeout", "0.3")
    finally:
        director.signal(signal.SIGCONT)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "accepts connections, but has not answered for 0.3 s" in shown.stderr

    director.signal(signal.SIGINT)
    director.ended()
    shown = stats(director)
    assert shown.returncode == 2
    assert "the director is down" in shown.stderr
    assert "admin.sock" in stats(director, admin=str(director.directory / "admin.sock")).stderr


def test_a_director_that_is_stopping_is_said_to_be(director: LiveDirector):
    client = threading.Thread(target=director.ask, args=("slow",))
    client.start()
    wait_until(lambda: any(fake.waiting.acquire(blocking=False) for fake in director.nodes.values()), "nobody was asked")
    director.signal(signal.SIGTERM)
    try:
        wait_until(lambda: director.status()["state"] == "draining", "it does not drain")
        shown = stats(director)
    finally:
        for fake in director.nodes.values():
            fake.gate.set()
        client.join(PATIENCE_S)
    assert shown.returncode == 1
    assert "the director is stopping" in shown.stdout
    assert " 1 in flight" in shown.stdout
