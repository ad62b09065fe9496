"""The commands as they are given, on files."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from loglines import START, native

from cachelb.cli import main

NODES = "".join(f'[[node]]\nname = "cache{n}"\nhost = "10.0.0.{n}"\n' for n in (1, 2, 3))
FOURTH = '[[node]]\nname = "cache4"\nhost = "10.0.0.4"\n'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """7,000 lines, ten of them a POST, one of them bad."""
    chance = random.Random(2)
    lines = [native(f"http://a.example/{int(chance.paretovariate(0.5))}", 2000, START + n) for n in range(6989)]
    lines += [native("http://a.example/form", 100, START + 7000, method="POST")] * 10
    lines.insert(3000, b"what is \x1b[31mthis")
    path = tmp_path / "access.log.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines) + b"\n"))
    return path


@pytest.fixture
def configs(tmp_path: Path) -> tuple[str, str]:
    """Three nodes; four."""
    (tmp_path / "old.toml").write_text(NODES)
    (tmp_path / "new.toml").write_text(NODES + FOURTH)
    return str(tmp_path / "old.toml"), str(tmp_path / "new.toml")


def simulated(*argv: str, capsys: pytest.CaptureFixture[str]) -> dict:  # type: ignore[type-arg]
    assert main(["simulate", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_a_log_becomes_a_table_for_all_policies(log: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["simulate", "--log", str(log), "--size", "1MB"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "7,000 lines" in out
    assert "6,989 requests" in out
    assert "left out: 10 go around the farm" in out
    assert "1 line could not be read:\n    what is ?[31mthis\n" in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith(("ring", "carp", "modulo", "round-robin"))] == [
        "ring", "carp", "modulo", "round-robin",
    ] * 2  # fmt: skip


def test_json_has_what_was_asked_for(log: Path, capsys: pytest.CaptureFixture[str]):
    found = simulated("--log", str(log), "--size", "1MB", "--nodes", "2", "--policy", "modulo", "--no-add", capsys=capsys)
    assert [policy["policy"] for policy in found["policies"]] == ["modulo"]
    assert [node["name"] for node in found["farm"]["nodes"]] == ["cache1", "cache2"]
    assert found["change"] is None
    bigger = simulated("--log", str(log), "--size", "1GB", "--jobs", "1", "--add", "x=2", "--add-at", "25%", capsys=capsys)
    assert bigger["change"]["added"] == {"name": "x", "weight": 2.0, "state": "up"}
    assert bigger["change"]["request"] == round(6989 / 4)
    assert bigger["policies"][2]["hits"] > found["policies"][0]["hits"]


def test_nodes_and_rules_come_from_a_configuration(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "c.toml").write_text('[bypass]\npaths = ["/1", "/2"]\n' + NODES)
    found = simulated("--log", str(log), "--size", "1MB", "-c", str(tmp_path / "c.toml"), "--policy", "ring", capsys=capsys)
    assert found["change"]["added"]["name"] == "cache4"
    assert found["log"]["left_out"]["go around the farm (method or rule)"] > 1000


def test_a_sample_comes_near(log: Path, capsys: pytest.CaptureFixture[str]):
    whole, part = (
        simulated("--log", str(log), "--size", "1GB", "--policy", "ring", "--sample", sample, capsys=capsys)
        for sample in ("1", "50%")
    )
    assert 0.3 * whole["log"]["urls"] < part["log"]["urls"] < 0.7 * whole["log"]["urls"]


def test_charts_are_written(log: Path, configs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib")
    chart = tmp_path / "a.svg"
    assert main(["simulate", "--log", str(log), "--size", "1MB", "--chart", str(chart)]) == 0
    assert b"<svg" in chart.read_bytes()
    assert main(["plan", "-c", configs[1], "--against", configs[0], "--chart", str(tmp_path / "b.png"), "--theme", "dark"]) == 0
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_a_plan_without_a_log_says_so(configs: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "-c", configs[1], "--against", configs[0]]) == 0
    out = capsys.readouterr().out
    assert "100,000 made up, for no log was given" in out
    assert out.count("-> cache4") == 3


def test_a_plan_with_a_log_counts_its_requests(log: Path, configs: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "-c", configs[1], "--against", configs[0], "--log", str(log), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total"]["requests"] == 6989
    assert found["total"]["sent"] == 6989 * 2000
    assert any("could not be read" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["simulate", "--log", "none", "--size", "1MB"], "none: No such file or directory"),
        (["simulate", "--log", "none", "--size", "1MB", "--chart", "a.pdf"], "a.pdf: a chart is an SVG or a PNG file"),
        (["simulate", "--log", "none", "--size", "1MB", "--add", "cache1"], "there is such a node already"),
        (["simulate", "--log", "none", "--size", "1MB", "--add", "x=heavy"], "the weight is a number above 0"),
        (["simulate", "--log", "none", "--size", "1MB", "--add", "=2"], "--add needs a name"),
        (["simulate", "--log", "/dev/null", "--size", "1MB"], "the log is empty"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(argv: list[str], why: str, capsys: pytest.CaptureFixture[str]):
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cachelb: ")
    assert why in err
    assert err.count("\n") == 1


def test_a_farm_that_takes_nothing_is_no_farm(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "c.toml").write_text('[[node]]\nname = "a"\nhost = "10.0.0.1"\nstate = "down"\n')
    assert main(["simulate", "--log", "/dev/null", "--size", "1MB", "-c", str(tmp_path / "c.toml")]) == 1
    assert "no node takes requests" in capsys.readouterr().err


def test_a_plan_against_nobody_is_a_sentence(configs: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "-c", configs[1], "--admin", "http://127.0.0.1:1"]) == 1
    assert "Connection refused" in capsys.readouterr().err


def test_ctrl_c_while_it_waits_for_a_pipe_leaves_nothing(tmp_path: Path):
    command = [sys.executable, "-m", "cachelb", "simulate", "--log", "-", "--size", "1MB"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdin is not None
    try:
        for n in range(20_000):  # more than a pipe holds: it reads by then
            process.stdin.write(native(f"http://a.example/{n}") + b"\n")
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out, err) == (130, b"", b"")
    assert list(tmp_path.iterdir()) == []
