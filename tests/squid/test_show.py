"""``cachelb demo --once`` from beginning to end, as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

COMMAND = [sys.executable, "-m", "cachelb", "demo"]


def test_demo_once_passes_all_of_its_checks():
    done = subprocess.run([*COMMAND, "--once"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert done.stdout.count("\nok ") == 8
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("cache")] == [
        "cache1",
        "cache2",
        "cache3",
    ]


def test_demo_runs_until_interrupted_and_then_ends_well():
    with subprocess.Popen(
        COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 0, "".join(lines) + rest
    assert any("curl -x http://127.0.0.1:" in line for line in lines)


def test_demo_says_when_squid_is_missing():
    # squid is looked for in PATH and in two usual places, which cannot be emptied: run it where nothing is found
    script = "import sys, cachelb.demo.show as s; s.find_squid = lambda: None; sys.exit(s.show(True, 3))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "apt-get install" in done.stderr
    assert "Traceback" not in done.stderr
