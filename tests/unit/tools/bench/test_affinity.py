"""The measuring of templates: it measures, and what it measures is plausible."""

from __future__ import annotations

import sys

import pytest
from cachelb.tools.bench import affinity


@pytest.mark.parametrize("family", [4, 6])
def test_every_figure_is_there_and_plausible(family: int):
    found = affinity.measure(5000, family)
    assert found["evicted"] >= 500  # a tenth was too many
    assert found["file, MB"] * 1e6 > 4000 * 24
    assert all(value >= 0 for name, value in found.items() if "MiB" not in name)  # so few weigh nothing
    assert 0 < found["question again, us"] < 1000


def test_a_worker_is_measured():
    found = affinity.measure_worker(500)
    assert 0 < found["known address, us"] < found["new address, us"]


def test_it_prints_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["affinity", "1"])
    affinity.main()
    text = capsys.readouterr().out
    assert text.startswith("| 1,000 templates | IPv4 | IPv6 |")
    assert "worker: known address, us" in text
