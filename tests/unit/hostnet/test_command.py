from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from netbed import Space

from cachelb.cli import main
from cachelb.hostnet.claim import Claim
from cachelb.hostnet.command import shown
from cachelb.hostnet.steps import Foreign, Found
from cachelb.hostnet.wanted import AddressEntry, RuleEntry, Wanted

CONFIG = """
[hostnet]
addresses = ["10.0.0.100 dev veth0", "fd00::100 dev veth0"]
[intercept]
listen = ["127.0.0.1:3129", "[::1]:3129"]
[[node]]
name = "a"
host = "10.0.0.11"
"""


@pytest.fixture
def host(space: Space, tmp_path: Path):
    path = tmp_path / "cachelb.toml"
    path.write_text(CONFIG)

    def run(*words: str) -> int:
        return main(["host", *words, "-c", str(path)])

    return run


def test_it_is_shown_made_and_cleared(host, space: Space, capsys: pytest.CaptureFixture[str]):
    before = space.snapshot()
    assert host("show") == 1
    assert capsys.readouterr().out.splitlines()[0] == "missing  address 10.0.0.100/32 dev veth0"
    assert host("apply") == 0
    assert "ip addr add 10.0.0.100/32 dev veth0 metric 20312\n" in capsys.readouterr().out
    assert host("show") == 0
    out = capsys.readouterr().out
    assert "missing" not in out
    assert out.endswith("no director keeps it so\n")
    assert host("apply") == 0
    assert capsys.readouterr().out == ""
    assert host("clear") == 0
    assert space.snapshot() == before


def test_what_a_dry_run_prints_does_the_same_and_it_does_nothing(host, space: Space, capsys: pytest.CaptureFixture[str]):
    before = space.snapshot()
    assert host("apply", "--dry-run") == 0
    commands = capsys.readouterr().out
    assert space.snapshot() == before
    assert host("apply") == 0
    made = space.snapshot()
    capsys.readouterr()
    assert host("clear", "--dry-run") == 0
    assert space.snapshot() == made
    subprocess.run(["sh", "-e"], input=capsys.readouterr().out, text=True, check=True)
    assert space.snapshot() == before
    subprocess.run(["sh", "-e"], input=commands, text=True, check=True)
    assert space.snapshot() == made
    assert host("show") == 0


def test_what_stands_in_the_way_is_told_with_all_its_reasons(host, space: Space, capsys: pytest.CaptureFixture[str]):
    space.run("ip", "rule", "add", "priority", "3128", "fwmark", "7", "lookup", "9")
    space.add_address("veth1", "10.0.0.100", 24)
    for words in (("apply",), ("apply", "--dry-run")):
        assert host(*words) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert all(line.startswith("cachelb: ") for line in lines)
    assert host("show") == 1
    assert capsys.readouterr().out.count("problem  ") == 2


def test_what_a_running_director_keeps_is_not_cleared(host, space: Space, capsys: pytest.CaptureFixture[str]):
    claim = Claim()
    assert claim.take() == ""
    try:
        assert host("clear") == 1
        assert "would put it back" in capsys.readouterr().err
        host("show")
        assert f"the director with process number {os.getpid()} keeps it so" in capsys.readouterr().out
    finally:
        claim.release()


def test_what_is_left_over_is_shown():
    old, new = RuleEntry(4, 1, 2, 2, 3), AddressEntry("10.0.0.1", 32, "eth0")
    text, status = shown(Wanted((new,), 9, 9, 9), Found((old, new), (), frozenset(("eth0",))), "")
    assert (text.splitlines()[:2], status) == ([f"there    {new}", f"left     {old}"], 0)
    text, status = shown(Wanted((), 9, 9, 9), Found((), (Foreign(old, ""),), frozenset()), "")
    assert (text, status) == ("nothing is asked for, and nothing is there", 0)
