"""Each in a process of its own: a process that has given up a capability does not get it back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cachelb import capabilities
from cachelb.capabilities import NET_ADMIN, NET_RAW

as_root = pytest.mark.skipif(
    os.geteuid() != 0 or not {NET_ADMIN, NET_RAW} <= capabilities.permitted(), reason="only root with them can give them up"
)
CHILD = """
import subprocess
child = lambda: int(subprocess.check_output(['sed', '-n', 's/^CapEff:.//p', '/proc/self/status']), 16)
"""


def run(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", "import os\nfrom cachelb import capabilities as c\n" + CHILD + script],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(capabilities, "effective", lambda: frozenset((NET_RAW,)))
    assert capabilities.missing(NET_RAW) == ""
    assert capabilities.missing(NET_ADMIN, NET_RAW) == "CAP_NET_ADMIN"
    monkeypatch.setattr(capabilities, "effective", frozenset)
    assert capabilities.missing(NET_ADMIN, NET_RAW) == "CAP_NET_ADMIN and CAP_NET_RAW"


def test_what_this_process_has_is_what_the_system_says():
    lines = Path("/proc/self/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    assert capabilities.effective() == {number for number in range(64) if mask >> number & 1}
    assert capabilities.effective() <= capabilities.permitted()


@as_root
def test_who_stops_being_root_keeps_what_was_said_and_no_more():
    assert run(
        "c.keep_over_change_of_user()\nos.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "c.limit(frozenset((c.NET_ADMIN, c.NET_RAW)))\n"
        "print(sorted(c.effective()), sorted(c.permitted()), child())\n"
        "with c.given_to_children(c.NET_ADMIN): print(child() == 1 << c.NET_ADMIN)\n"
        "print(child())\n"
        "c.give_to_children(c.NET_RAW); print(child() == 1 << c.NET_RAW)\n"
        "with c.given_to_children(c.NET_ADMIN, c.NET_RAW): print(child() == 1 << c.NET_RAW | 1 << c.NET_ADMIN)\n"
        "print(child() == 1 << c.NET_RAW)\n"
        "c.withhold_from_children(c.NET_RAW); print(child())\n"
        "with c.given_to_children(c.NET_BIND_SERVICE): print(child())\n"  # it has none to give
    ) == ["[12, 13] [12, 13] 0", "True", "0", "True", "True", "True", "0", "0"]


@as_root
def test_the_children_of_root_have_all_of_it_anyway():
    assert run("with c.given_to_children(c.NET_ADMIN): print(child() == sum(1 << n for n in c.effective()))") == ["True"]
