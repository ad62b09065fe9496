from __future__ import annotations

from cachelb.tools.bench import compare
from cachelb.tools.bench.compare import Turns
from cachelb.tools.bench.tables import table_of


def test_other_work_on_the_cpu_is_said():
    assert compare.noise(0.01) == ""
    assert compare.noise(0.39).startswith("CPU 0 is 39% busy with something else")


def test_the_estimate_counts_every_turn_and_those_that_warm():
    small, nodes = table_of("small", ["haproxy", "cachelb"]), table_of("nodes", ["haproxy", "cachelb"])
    assert Turns(3, 2).estimate_s(small) == 2 * 3 * (2 + compare.RUN_OVERHEAD_S)
    assert Turns(3, 2).estimate_s(nodes) == 4 * 4 * (2 + compare.RUN_OVERHEAD_S) + 2 * compare.STAGGER_S
