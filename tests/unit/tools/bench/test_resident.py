from __future__ import annotations

import os
import subprocess
import sys

from cachelb.tools.bench.resident import family, pss_kib, pss_of, run_s

ROLLUP = "5600-7ffd ---p 00000000 00:00 0  [rollup]\nRss:     1000 kB\nPss:      824 kB\nPss_Anon:  100 kB\n"


def test_the_proportional_share_is_read():
    assert pss_of(ROLLUP) == 824
    assert pss_of("") == 0


def test_children_belong_to_the_family():
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        assert {os.getpid(), child.pid} <= set(family(os.getpid()))
        assert pss_kib(os.getpid()) > pss_kib(child.pid) > 0
    finally:
        child.communicate()


def test_what_has_ended_takes_nothing():
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    assert (pss_kib(child.pid), run_s(child.pid)) == (0, {})


def test_time_that_a_thread_runs_is_counted():
    before = run_s(os.getpid())[os.getpid()]
    sum(range(1_000_000))
    assert run_s(os.getpid())[os.getpid()] > before
